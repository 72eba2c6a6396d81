//! The way from a text to the pieces that become tokens: [`Step`]s, compiled.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

use super::charsmap::Charsmap;
use super::pattern::Pattern;
use super::spec::{Keep, Step};
use super::{bpe, unusable};
use crate::error::Result;

/// Steps at most: a way has a handful.
const MOST: usize = 64;

/// How many times as long a text may become; SentencePiece's steps come to a few hundred.
const GROWTH: usize = 4096;

/// Compiled steps, in their order.
#[derive(Debug)]
pub(super) struct Steps(Vec<Compiled>);

#[derive(Debug)]
enum Compiled {
    Plain(Step),
    Replace(Pattern, String),
    Apart(Pattern),
    Charsmap(Charsmap),
    Split(Pattern, Keep, bool),
}

impl Steps {
    /// Compiles steps.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for a pattern that does not compile, or steps that would make of
    /// a text more than there is room for.
    pub(super) fn new(steps: &[Step]) -> Result<Self> {
        if steps.len() > MOST {
            return Err(unusable(format!(
                "it takes {} steps to cut a text, and at most {MOST} make sense",
                steps.len()
            )));
        }
        let mut growth = 1usize;
        let mut compiled = Vec::with_capacity(steps.len());
        for step in steps {
            let step = Compiled::new(step)?;
            growth = growth.saturating_mul(step.growth());
            compiled.push(step);
        }
        if growth > GROWTH {
            return Err(unusable(format!(
                "its normaliser could make a text {growth} times as long"
            )));
        }
        Ok(Self(compiled))
    }

    /// Calls `each` with every piece, in order; `first` where nothing comes before the text.
    pub(super) fn each(&self, text: &str, first: bool, each: &mut dyn FnMut(&str)) {
        run(&self.0, text, first, each);
    }

    /// The text after all steps.
    pub(super) fn apply<'t>(&self, text: &'t str, first: bool) -> Cow<'t, str> {
        if self.0.is_empty() {
            return text.into();
        }
        let mut out = String::new();
        self.each(text, first, &mut |piece| out.push_str(piece));
        out.into()
    }
}

fn run(steps: &[Compiled], text: &str, first: bool, each: &mut dyn FnMut(&str)) {
    if text.is_empty() {
        return;
    }
    match steps.split_first() {
        None => each(text),
        Some((Compiled::Split(pattern, keep, invert), later)) => {
            let mut piece = |at: Range<usize>| {
                if !at.is_empty() {
                    let first = first && at.start == 0;
                    run(later, &text[at], first, each);
                }
            };
            let mut cut = Cut::new(*keep, &mut piece);
            spans(pattern, text, &mut |at, found| {
                cut.push(at, found != *invert);
            });
            cut.finish();
        }
        Some((step, later)) => run(later, &step.apply(text, first), first, each),
    }
}

/// Calls `each` with what matches and what lies between, in order.
fn spans(pattern: &Pattern, text: &str, each: &mut dyn FnMut(Range<usize>, bool)) {
    let (mut done, mut from) = (0, 0);
    while let Some(found) = pattern.find(text, from) {
        if done < found.start {
            each(done..found.start, false);
        }
        each(found.clone(), true);
        done = found.end;
        from = found.end;
        if found.is_empty() {
            // A match of nothing cuts here; the next is looked for behind the next character.
            match text[from..].chars().next() {
                Some(c) => from += c.len_utf8(),
                None => break,
            }
        }
    }
    if done < text.len() {
        each(done..text.len(), false);
    }
}

/// Joins spans to pieces.
struct Cut<'p> {
    keep: Keep,
    piece: &'p mut dyn FnMut(Range<usize>),
    /// A piece that may grow, and whether what came last is a match.
    open: Range<usize>,
    found: bool,
}

impl<'p> Cut<'p> {
    fn new(keep: Keep, piece: &'p mut dyn FnMut(Range<usize>)) -> Self {
        Self {
            keep,
            piece,
            open: 0..0,
            found: false,
        }
    }

    fn push(&mut self, at: Range<usize>, found: bool) {
        let joins = match self.keep {
            Keep::Removed | Keep::Isolated => false,
            Keep::WithPrevious => found && !self.found,
            Keep::WithNext => !found && self.found,
            Keep::Contiguous => found == self.found,
        };
        if joins {
            self.open.end = at.end;
        } else {
            (self.piece)(std::mem::replace(&mut self.open, at.clone()));
        }
        self.found = found;
        if found && self.keep == Keep::Removed {
            self.open = at.end..at.end;
        }
    }

    fn finish(self) {
        (self.piece)(self.open);
    }
}

impl Compiled {
    fn new(step: &Step) -> Result<Self> {
        Ok(match step {
            Step::Replace { pattern, with } => Self::Replace(Pattern::new(pattern)?, with.clone()),
            Step::Apart(pattern) => Self::Apart(Pattern::new(pattern)?),
            Step::Charsmap { table, graphemes } => {
                Self::Charsmap(Charsmap::new(table, *graphemes)?)
            }
            Step::Split {
                pattern,
                keep,
                invert,
            } => Self::Split(Pattern::new(pattern)?, *keep, *invert),
            other => Self::Plain(other.clone()),
        })
    }

    /// How many times as long it makes a text at most, but for what every text may become.
    fn growth(&self) -> usize {
        match self {
            Self::Apart(_) => 3,
            Self::Charsmap(map) => map.longest().max(1),
            Self::Replace(_, with) | Self::Plain(Step::Prepend(with) | Step::Lead { with, .. }) => {
                with.len().max(1)
            }
            Self::Split(..) | Self::Plain(_) => 1,
        }
    }

    /// What the step makes of a text.
    fn apply<'t>(&self, text: &'t str, first: bool) -> Cow<'t, str> {
        match self {
            Self::Replace(pattern, with) => {
                replace(pattern, text, |_, out| out.push_str(with)).into()
            }
            Self::Apart(pattern) => replace(pattern, text, |found, out| {
                out.extend([" ", found, " "]);
            })
            .into(),
            Self::Charsmap(map) => map.apply(text).into(),
            Self::Split(..) => text.into(),
            Self::Plain(step) => plain(step, text, first),
        }
    }
}

fn plain<'t>(step: &Step, text: &'t str, first: bool) -> Cow<'t, str> {
    match step {
        Step::Nfc => text.nfc().collect::<String>().into(),
        Step::Nfd => text.nfd().collect::<String>().into(),
        Step::Nfkc => text.nfkc().collect::<String>().into(),
        Step::Nfkd => text.nfkd().collect::<String>().into(),
        Step::Lowercase => {
            let lower = text.chars().flat_map(char::to_lowercase);
            lower.collect::<String>().into()
        }
        Step::Strip { left, right } => {
            let text = if *left { text.trim_start() } else { text };
            if *right { text.trim_end() } else { text }.into()
        }
        Step::Prepend(with) => [with.as_str(), text].concat().into(),
        Step::Lead { with, first: only } => {
            if text.starts_with(with.as_str()) || (*only && !first) {
                return text.into();
            }
            [with.as_str(), text].concat().into()
        }
        Step::Bytes => {
            let alphabet = bpe::alphabet();
            let written = text.bytes().map(|byte| alphabet[usize::from(byte)]);
            written.collect::<String>().into()
        }
        // These are compiled.
        Step::Replace { .. } | Step::Apart(_) | Step::Charsmap { .. } | Step::Split { .. } => {
            text.into()
        }
    }
}

fn replace(pattern: &Pattern, text: &str, with: impl Fn(&str, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    spans(pattern, text, &mut |at, found| {
        if found {
            with(&text[at], &mut out);
        } else {
            out.push_str(&text[at]);
        }
    });
    out
}
