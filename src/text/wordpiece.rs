//! BERT's WordPiece: of each word the longest token first; a word of which some part is no token is
//! unknown as a whole.

use super::matcher::Matcher;
use super::spec::{NORMAL, USER_DEFINED};
use super::{Pieces, TokenizerSpec, unusable};
use crate::error::Result;

/// How a token inside a word begins.
pub(super) const INSIDE: &str = "##";

/// Tokens before which no space is written.
const CLOSING: &[&str] = &[
    ".", ",", "!", "?", ":", ";", ")", "]", "}", "%", "'", "’", "”",
];

/// A WordPiece tokenizer, without its control tokens.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Tokens that begin words, and those inside them without their `##`.
    words: Matcher,
    inside: Matcher,
    unknown: u32,
    longest: usize,
}

/// Bytes that a vocabulary's tokens stand for: a word has a space before it.
pub(super) fn pieces(spec: &TokenizerSpec, control: &[bool]) -> Pieces {
    let mut pieces = Pieces::default();
    for ((token, ty), control) in spec.tokens.iter().zip(&spec.types).zip(control) {
        match token.strip_prefix(INSIDE) {
            _ if *control || *ty != NORMAL => pieces.push(token.as_bytes()),
            Some(inside) if !inside.is_empty() => pieces.push(inside.as_bytes()),
            _ if CLOSING.contains(&token.as_str()) => pieces.push(token.as_bytes()),
            _ => pieces.push(format!(" {token}").as_bytes()),
        }
    }
    pieces
}

impl WordPiece {
    /// The tokenizer of a vocabulary. Control tokens are never made.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where there is no token for the unknown.
    pub(super) fn new(spec: &TokenizerSpec, control: &[bool]) -> Result<Self> {
        let unknown = spec
            .unknown()
            .ok_or_else(|| unusable("it has no token for what is unknown"))?;
        let tokens = || {
            let tokens = spec.tokens.iter().zip(&spec.types).zip(0u32..).zip(control);
            tokens
                .filter(|(((_, ty), _), control)| {
                    !**control && matches!(**ty, NORMAL | USER_DEFINED)
                })
                .map(|(((token, _), id), _)| (token.as_str(), id))
        };
        let inside = tokens().filter_map(|(token, id)| Some((token.strip_prefix(INSIDE)?, id)));
        Ok(Self {
            words: Matcher::new(tokens().map(|(token, id)| (token.as_bytes(), id)))?,
            inside: Matcher::new(inside.map(|(token, id)| (token.as_bytes(), id)))?,
            unknown,
            longest: spec.longest_word,
        })
    }

    /// Appends the ids of a word.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let start = ids.len();
        let mut rest = word.as_bytes();
        let mut tokens = &self.words;
        if word.chars().count() > self.longest {
            ids.push(self.unknown);
            return;
        }
        while !rest.is_empty() {
            let Some((len, id)) = tokens.prefixes(rest).last() else {
                ids.truncate(start);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[len..];
            tokens = &self.inside;
        }
    }
}
