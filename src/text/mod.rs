//! Tokenizers, chat templates, roles and streaming decode.

mod bert;
mod bpe;
mod channels;
mod charsmap;
mod chat;
mod cipher;
mod encodings;
mod folder;
mod gguf;
mod json;
mod matcher;
mod merge;
mod pattern;
mod pretokenizers;
mod spec;
mod spm;
mod steps;
mod stream;
mod tokenizer_json;
mod unigram;
mod wordpiece;
mod written;

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use matcher::{Finder, Found};
use spec::{SPACE, USER_DEFINED};
use steps::Steps;

pub use channels::{Part, Turn};
pub use chat::{ChatTemplate, Effort, Message, Request, Role, ToolCall};
pub use encodings::ENCODINGS;
pub use folder::FolderFiles;
pub use spec::{Flags, Keep, Model, Step, TokenizerSpec};
pub use stream::{Detokenizer, StopFilter};

/// What control tokens in a text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Text like any other: the only choice for what a user typed.
    AsText,
    /// Themselves.
    Parse,
}

/// Markers that end an answer, whatever the file says, and [`MESSAGE_END`] with them where turns are one
/// message.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    MESSAGE_END,
    "<|return|>",
    "<|call|>",
    "<|eom_id|>",
    "<|end_of_role|>",
    "</s>",
    "<eos>",
];

/// Phi's end of a turn, and of one of a turn's messages in harmony, which has channels.
const MESSAGE_END: &str = "<|end|>";
const CHANNEL: &str = "<|channel|>";

#[derive(Debug)]
enum Kind {
    Bytes(Box<bpe::Bpe>),
    Pieces(spm::Spm),
    Unigram(Box<unigram::Unigram>),
    Words(Box<wordpiece::WordPiece>),
}

/// Bytes that each token stands for, end to end.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    /// Empty for an id outside the vocabulary.
    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = id
            .checked_sub(1)
            .and_then(|id| self.ends.get(id))
            .unwrap_or(&0);
        let end = self.ends.get(id).unwrap_or(start);
        self.bytes.get(*start..*end).unwrap_or_default()
    }
}

/// Text to tokens and back.
///
/// Two kinds of token stand for fixed texts and are found before anything else: *control* tokens,
/// only where [`Specials::Parse`] or a chat template asks for them, and the vocabulary's
/// user-defined ones (runs of spaces, tags), in any text.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    spec: TokenizerSpec,
    pieces: Pieces,
    /// Whether each token is a marker.
    control: Vec<bool>,
    /// Control tokens by their text.
    markers: Finder,
    /// User-defined tokens by their text, and those that are looked for after normalising.
    defined: Finder,
    normalized: Finder,
    normalizer: Steps,
    splits: Steps,
    /// A space that is put before texts is taken away again: once, or behind defined tokens too.
    lead: Lead,
    ends: Vec<u32>,
}

/// Where a space is put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    Never,
    First,
    Each,
}

impl Tokenizer {
    /// A tokenizer from a vocabulary.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a kind or a pattern that is not known, or a vocabulary with holes.
    pub fn new(mut spec: TokenizerSpec) -> Result<Self> {
        spec.check()?;
        let control = spec.controls();
        let (kind, pieces) = match spec.model {
            Model::ByteBpe => {
                let pieces = bpe::pieces(&spec);
                let bpe = bpe::Bpe::new(&spec, &pieces, &control)?;
                (Kind::Bytes(bpe.into()), pieces)
            }
            Model::Bpe => {
                let pieces = spm::pieces(&spec)?;
                (Kind::Pieces(spm::Spm::new(&spec, &control)?), pieces)
            }
            Model::Unigram => {
                let pieces = spm::pieces(&spec)?;
                let unigram = unigram::Unigram::new(&spec, &control)?;
                (Kind::Unigram(unigram.into()), pieces)
            }
            Model::WordPiece => {
                let words = wordpiece::WordPiece::new(&spec, &control)?;
                (
                    Kind::Words(words.into()),
                    wordpiece::pieces(&spec, &control),
                )
            }
        };
        Self::of(kind, spec, pieces, control)
    }

    fn of(kind: Kind, spec: TokenizerSpec, pieces: Pieces, control: Vec<bool>) -> Result<Self> {
        let mut ends: Vec<u32> = [spec.eos, spec.eot].into_iter().flatten().collect();
        ends.extend(&spec.ends);
        let tokens = || spec.tokens.iter().zip(0u32..).zip(&control);
        let markers = || tokens().filter(|(_, control)| **control).map(|(t, _)| t);
        ends.extend(
            markers()
                .filter(|(t, _)| ENDS.contains(&t.as_str()))
                .map(|(_, id)| id),
        );
        if markers().any(|(text, _)| text == CHANNEL) {
            ends.retain(|id| {
                spec.tokens
                    .get(*id as usize)
                    .is_none_or(|t| t != MESSAGE_END)
            });
        }
        ends.sort_unstable();
        ends.dedup();
        let flags: FxHashMap<u32, Flags> = spec.flags.iter().copied().collect();
        let normalizer = Steps::new(&spec.normalizer)?;
        let markers = markers().map(|(text, id)| (text.as_str().into(), id));
        let markers = Finder::new(markers, &flags)?;
        let defined = |after: bool| {
            let normalized = |id: u32| flags.get(&id).is_some_and(|flags| flags.normalized);
            let defined = tokens().zip(&spec.types);
            defined
                .filter(|((_, control), ty)| !**control && **ty == USER_DEFINED)
                .map(|(((text, id), _), _)| (text.as_str(), id))
                .filter(move |(_, id)| normalized(*id) == after)
        };
        let normal = defined(true).map(|(text, id)| (normalizer.apply(text, true), id));
        Ok(Self {
            markers,
            normalized: Finder::new(normal, &flags)?,
            defined: Finder::new(defined(false).map(|(text, id)| (text.into(), id)), &flags)?,
            splits: Steps::new(&spec.splits)?,
            lead: lead(&spec),
            normalizer,
            kind,
            spec,
            pieces,
            control,
            ends,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.spec.tokens.len()
    }

    /// What it was made from.
    pub fn spec(&self) -> &TokenizerSpec {
        &self.spec
    }

    /// Bytes a token stands for; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// Whether a token is a marker rather than text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize) == Some(&true)
    }

    /// The token that stands for a text by itself, as markers and tags do.
    fn marker(&self, text: &str) -> Option<u32> {
        let mut id = None;
        for finder in [&self.markers, &self.defined, &self.normalized] {
            finder.each(text, &mut |found| {
                if let Found::Token(token) = found {
                    id = id.or(Some(token));
                }
            });
        }
        id.filter(|id| {
            self.spec
                .tokens
                .get(*id as usize)
                .is_some_and(|t| t == text)
        })
    }

    /// The texts of all control tokens.
    fn controls(&self) -> impl Iterator<Item = &str> {
        let tokens = self.spec.tokens.iter().zip(&self.control);
        tokens
            .filter(|(_, control)| **control)
            .map(|(text, _)| text.as_str())
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token a text begins with, where the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.spec.begin.first().copied()
    }

    /// Tokens of a text, without those that every text begins and ends with.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = Vec::new();
        match specials {
            Specials::AsText => self.encode_plain(text, true, &mut ids),
            Specials::Parse => self.encode_marked(text, Cow::from, &mut ids),
        }
        ids
    }

    /// Tokens of a text, with those that the model wants it to begin and end with.
    pub fn encode_text(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = self.begin(self.encode(text, specials));
        if !ids.ends_with(&self.spec.end) {
            ids.extend(&self.spec.end);
        }
        ids
    }

    /// The first tokens of a text, `most` in all: those that every text ends with stay.
    pub fn truncate(&self, mut ids: Vec<u32>, most: usize) -> Vec<u32> {
        if ids.len() > most {
            let end = &self.spec.end;
            ids.truncate(most.saturating_sub(end.len()));
            ids.extend(end);
            ids.truncate(most);
        }
        ids
    }

    /// Puts first what the model wants there, where it is not.
    fn begin(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if !ids.starts_with(&self.spec.begin) {
            ids.splice(0..0, self.spec.begin.iter().copied());
        }
        ids
    }

    /// Text with control tokens in it; `plain` turns what lies between them into what it means.
    fn encode_marked<'t>(
        &self,
        text: &'t str,
        plain: impl Fn(&'t str) -> Cow<'t, str>,
        ids: &mut Vec<u32>,
    ) {
        self.markers.each(text, &mut |found| match found {
            Found::Token(id) => ids.push(id),
            Found::Text(text, first) => self.encode_plain(&plain(text), first, ids),
        });
    }

    /// Text without any control token; `first` where nothing comes before it.
    fn encode_plain(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        self.defined.each(text, &mut |found| match found {
            Found::Token(id) => ids.push(id),
            Found::Text(text, begins) => {
                let first = first && begins;
                let text = self.normalizer.apply(text, first);
                self.normalized.each(&text, &mut |found| match found {
                    Found::Token(id) => ids.push(id),
                    Found::Text(text, begins) => self.encode_pieces(text, first && begins, ids),
                });
            }
        });
    }

    fn encode_pieces(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        self.splits
            .each(text, first, &mut |piece| match &self.kind {
                Kind::Bytes(bpe) => bpe.encode(piece, ids),
                Kind::Pieces(spm) => spm.encode(piece, ids),
                Kind::Unigram(unigram) => unigram.encode(piece, ids),
                Kind::Words(words) => words.encode(piece, ids),
            });
    }

    /// Bytes of a text from its start; control tokens give nothing.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut drops = self.lead != Lead::Never;
        for id in ids.iter().filter(|id| !self.is_control(**id)) {
            let piece = self.token_bytes(*id);
            let spaced = drops.then(|| piece.strip_prefix(b" ")).flatten();
            bytes.extend_from_slice(spaced.unwrap_or(piece));
            let defined = self.spec.types.get(*id as usize) == Some(&USER_DEFINED);
            drops = (defined && self.lead == Lead::Each) || (drops && piece.is_empty());
        }
        bytes
    }
}

/// Where a space is put before a text.
fn lead(spec: &TokenizerSpec) -> Lead {
    let space = |with: &str| [" ", SPACE].contains(&with);
    let mut steps = spec.normalizer.iter().chain(&spec.splits);
    let found = steps.find_map(|step| match step {
        Step::Prepend(with) if space(with) => Some(Lead::Each),
        Step::Lead { with, first } if space(with) => {
            Some(if *first { Lead::First } else { Lead::Each })
        }
        _ => None,
    });
    match (found, spec.model) {
        // Each word is written with a space before it.
        (None, Model::WordPiece) => Lead::First,
        (found, _) => found.unwrap_or(Lead::Never),
    }
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Tokenizer {
        reason: reason.into(),
    }
}
