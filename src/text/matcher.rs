//! Finds the longest of many fixed texts at a place of another text: a trie over bytes.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::spec::Flags;
use super::unusable;
use crate::error::Result;

/// Bytes a token that is looked for in a text may have. Searching costs at most this much a byte of
/// text, so a hostile vocabulary cannot make it slow.
const LONGEST: usize = 512;

/// A set of texts, each with a token id.
#[derive(Debug)]
pub(super) struct Matcher {
    /// The node reached from a node by a byte.
    steps: FxHashMap<(u32, u8), u32>,
    /// The id of the text that ends at a node.
    ends: Vec<Option<u32>>,
    /// Bytes that some text begins with.
    first: [bool; 256],
}

/// Where a text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Byte offset.
    pub(super) at: usize,
    /// Bytes.
    pub(super) len: usize,
    /// The token's id.
    pub(super) id: u32,
}

impl Matcher {
    /// Of texts that are the same the first counts; an empty one is ignored.
    pub(super) fn new<'a>(texts: impl Iterator<Item = (&'a [u8], u32)>) -> Result<Self> {
        let mut matcher = Self {
            steps: FxHashMap::default(),
            ends: vec![None],
            first: [false; 256],
        };
        for (text, id) in texts {
            let Some(&first) = text.first() else {
                continue;
            };
            if text.len() > LONGEST {
                return Err(unusable(format!(
                    "its token {id} has {} bytes, and at most {LONGEST} make sense",
                    text.len()
                )));
            }
            matcher.first[usize::from(first)] = true;
            let mut node = 0;
            for &byte in text {
                let fresh = matcher.ends.len() as u32;
                node = *matcher.steps.entry((node, byte)).or_insert(fresh);
                if node == fresh {
                    matcher.ends.push(None);
                }
            }
            matcher.ends[node as usize].get_or_insert(id);
        }
        Ok(matcher)
    }

    /// Whether there is no text to find.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.len() == 1
    }

    /// The first place at or after `from` where one of the texts stands, and the longest there.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<Match> {
        if self.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        (from..bytes.len())
            .filter(|at| self.first[usize::from(bytes[*at])])
            .find_map(|at| {
                self.longest(&bytes[at..])
                    .map(|(len, id)| Match { at, len, id })
            })
    }

    /// The longest of the texts that `bytes` begin with: its length and id.
    fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(bytes).last()
    }

    /// The texts that `bytes` begin with, the shortest first: their lengths and ids.
    pub(super) fn prefixes(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = 0;
        let nodes = bytes.iter().map_while(move |&byte| {
            node = *self.steps.get(&(node, byte))?;
            Some(node)
        });
        nodes
            .zip(1..)
            .filter_map(|(node, len)| Some((len, self.ends[node as usize]?)))
    }
}

/// Tokens that stand for fixed texts, and how each is found.
#[derive(Debug)]
pub(super) struct Finder {
    matcher: Matcher,
    flags: FxHashMap<u32, Flags>,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'t> {
    Token(u32),
    /// What lies between tokens, and whether nothing comes before it.
    Text(&'t str, bool),
}

impl Finder {
    /// Tokens by their texts.
    ///
    /// # Errors
    /// See [`Matcher::new`].
    pub(super) fn new<'a>(
        texts: impl Iterator<Item = (Cow<'a, str>, u32)>,
        flags: &FxHashMap<u32, Flags>,
    ) -> Result<Self> {
        let texts: Vec<(Cow<'a, str>, u32)> = texts.collect();
        let flagged = texts
            .iter()
            .filter_map(|(_, id)| Some((*id, *flags.get(id)?)));
        Ok(Self {
            flags: flagged.collect(),
            matcher: Matcher::new(texts.iter().map(|(text, id)| (text.as_bytes(), *id)))?,
        })
    }

    /// Calls `each` with tokens and what lies between them, in order.
    pub(super) fn each<'t>(&self, text: &'t str, each: &mut dyn FnMut(Found<'t>)) {
        let (mut done, mut from) = (0, 0);
        let between = |from: usize, to: usize, each: &mut dyn FnMut(Found<'t>)| {
            if from < to {
                each(Found::Text(&text[from..to], from == 0));
            }
        };
        while let Some(found) = self.matcher.find(text, from) {
            let (mut start, mut end) = (found.at, found.at + found.len);
            from = end;
            let flags = self.flags.get(&found.id).copied().unwrap_or_default();
            let (before, after) = (&text[done..start], &text[end..]);
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let inside = word(text[..start].chars().next_back()) || word(after.chars().next());
            if flags.single_word && inside {
                continue;
            }
            if flags.lstrip {
                start = done + before.trim_end().len();
            }
            if flags.rstrip {
                end = text.len() - after.trim_start().len();
            }
            between(done, start, each);
            each(Found::Token(found.id));
            done = end;
            from = end;
        }
        between(done, text.len(), each);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_longest_is_found() {
        let texts = [("<a>", 1), ("<a><b>", 2), ("é", 3), ("", 4), ("é", 5)];
        let m = Matcher::new(texts.iter().map(|(t, id)| (t.as_bytes(), *id))).unwrap();
        let found = |text: &str, from| m.find(text, from).map(|f| (f.at, f.len, f.id));
        assert_eq!(found("x<a><c>", 0), Some((1, 3, 1)));
        assert_eq!(found("x<a><b>", 0), Some((1, 6, 2)));
        assert_eq!(found("<a<a>", 0), Some((2, 3, 1)));
        assert_eq!(found("<a>é", 1), Some((3, 2, 3)));
        assert_eq!(found("<é", 2), None);
        assert_eq!(found("", 0), None);
        assert_eq!(Matcher::new(std::iter::empty()).unwrap().find("a", 0), None);
    }

    #[test]
    fn a_huge_marker_is_refused() {
        let huge = "x".repeat(LONGEST + 1);
        assert!(Matcher::new([(huge.as_bytes(), 7)].into_iter()).is_err());
    }
}
