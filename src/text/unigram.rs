//! SentencePiece's unigram model: of all ways to cut a piece into tokens the one whose scores have
//! the largest sum, found from left to right.

use super::matcher::Matcher;
use super::spec::{NORMAL, USER_DEFINED};
use super::spm::Fallback;
use super::{TokenizerSpec, unusable};
use crate::error::Result;

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A unigram tokenizer, without its control tokens.
#[derive(Debug)]
pub(super) struct Unigram {
    tokens: Matcher,
    scores: Vec<f32>,
    unknown: f64,
    fallback: Fallback,
}

/// The best way to some place of a piece.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last token begins, and which it is; none for a character that is no token.
    from: usize,
    token: Option<u32>,
}

impl Unigram {
    /// The tokenizer of a vocabulary. Control tokens are never made.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for missing scores, or no token for the unknown.
    pub(super) fn new(spec: &TokenizerSpec, control: &[bool]) -> Result<Self> {
        if spec.scores.len() != spec.tokens.len() {
            return Err(unusable("it has not one score for each token"));
        }
        let fallback = Fallback::new(spec)?;
        if fallback.unknown().is_none() {
            return Err(unusable("it has no token for what is unknown"));
        }
        let tokens = spec.tokens.iter().zip(&spec.types).zip(0u32..).zip(control);
        let made = tokens
            .filter(|(((_, ty), _), control)| !**control && matches!(**ty, NORMAL | USER_DEFINED));
        let worst = spec.scores.iter().copied().fold(f32::INFINITY, f32::min);
        Ok(Self {
            tokens: Matcher::new(made.map(|(((text, _), id), _)| (text.as_bytes(), id)))?,
            scores: spec.scores.clone(),
            unknown: f64::from(worst) - UNKNOWN_PENALTY,
            fallback,
        })
    }

    /// Appends the ids of a piece.
    pub(super) fn encode(&self, piece: &str, ids: &mut Vec<u32>) {
        // By the byte a token ends before.
        let mut best: Vec<Option<Best>> = vec![None; piece.len() + 1];
        for (from, c) in piece.char_indices() {
            let so_far = best[from].map_or(0.0, |best| best.score);
            let mut offer = |len: usize, score: f64, token: Option<u32>| {
                let score = so_far + score;
                let there = &mut best[from + len];
                if there.is_none_or(|best| score > best.score) {
                    *there = Some(Best { score, from, token });
                }
            };
            let mut single = false;
            for (len, id) in self.tokens.prefixes(&piece.as_bytes()[from..]) {
                single |= len == c.len_utf8();
                offer(len, f64::from(self.scores[id as usize]), Some(id));
            }
            if !single {
                offer(c.len_utf8(), self.unknown, None);
            }
        }
        let mut way = Vec::new();
        let mut at = piece.len();
        while let Some(last) = best[at] {
            way.push((last.from..at, last.token));
            at = last.from;
        }
        let mut fused = false;
        for (range, token) in way.into_iter().rev() {
            match token {
                Some(id) => {
                    ids.push(id);
                    fused = false;
                }
                None => self.fallback.encode(&piece[range], &mut fused, ids),
            }
        }
    }
}
