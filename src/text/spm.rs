//! SentencePiece's BPE: the pair whose piece scores best is merged first, until none is left;
//! what is then no piece falls back to bytes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::{BYTE, NORMAL, Pieces, TokenizerSpec, UNKNOWN, unusable};
use crate::error::Result;

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';

#[derive(Debug)]
pub(super) struct Spm {
    /// Normal pieces and their ids.
    pieces: FxHashMap<String, u32>,
    scores: Vec<f32>,
    /// Ids of the 256 bytes.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
}

/// A pair that can be merged: of two with the same score the left one goes first.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A run of bytes of the text, in a list; an empty one was merged into its left neighbour.
struct Symbol {
    start: usize,
    len: usize,
    previous: usize,
    next: usize,
}

const END: usize = usize::MAX;

/// The byte that a byte token is written for.
fn byte(token: &str) -> Result<u8> {
    token
        .strip_prefix("<0x")
        .and_then(|t| t.strip_suffix('>'))
        .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        .ok_or_else(|| unusable(format!("its byte token `{token}` names no byte")))
}

/// Bytes that a vocabulary's tokens stand for.
///
/// # Errors
/// [`crate::Error::Tokenizer`] for a byte token that names no byte.
pub(super) fn pieces(spec: &TokenizerSpec) -> Result<Pieces> {
    let mut pieces = Pieces::default();
    for (token, ty) in spec.tokens.iter().zip(&spec.types) {
        match *ty {
            BYTE => pieces.push(&[byte(token)?]),
            _ => pieces.push(token.replace(SPACE, " ").as_bytes()),
        }
    }
    Ok(pieces)
}

impl Spm {
    /// The tokenizer of a file's vocabulary. Control tokens are never made.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for missing scores, or a byte token that names no byte.
    pub(super) fn new(spec: &TokenizerSpec, control: &[bool]) -> Result<Self> {
        if spec.scores.len() != spec.tokens.len() {
            return Err(unusable("it has not one score for each token"));
        }
        let mut spm = Self {
            pieces: FxHashMap::default(),
            scores: spec.scores.clone(),
            bytes: vec![None; 256],
            unknown: None,
        };
        let tokens = spec.tokens.iter().zip(&spec.types).zip(0u32..).zip(control);
        for (((token, ty), id), _) in tokens.filter(|(_, control)| !**control) {
            match *ty {
                UNKNOWN => spm.unknown = Some(id),
                BYTE => spm.bytes[usize::from(byte(token)?)] = Some(id),
                // Of pieces that are written the same, the first is made.
                NORMAL => {
                    spm.pieces.entry(token.clone()).or_insert(id);
                }
                _ => {}
            }
        }
        Ok(spm)
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        self.merge(&text.replace(' ', "\u{2581}"), ids);
    }

    fn merge(&self, text: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                previous: i.wrapping_sub(1),
                next: i + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = END;
        }
        let mut queue = BinaryHeap::new();
        let pair = |symbols: &[Symbol], left: usize, right: usize| {
            let (l, r) = (symbols.get(left)?, symbols.get(right)?);
            let len = l.len + r.len;
            let id = self.pieces.get(&text[l.start..l.start + len])?;
            let score = self.scores[*id as usize];
            Some(Pair {
                score,
                left,
                right,
                len,
            })
        };
        for i in 1..symbols.len() {
            queue.extend(pair(&symbols, i - 1, i));
        }
        while let Some(Pair {
            left, right, len, ..
        }) = queue.pop()
        {
            // Either side may have been merged since this pair was queued.
            if symbols[left].len == 0
                || symbols[right].len == 0
                || symbols[left].len + symbols[right].len != len
            {
                continue;
            }
            let next = symbols[right].next;
            symbols[left].len = len;
            symbols[left].next = next;
            symbols[right].len = 0;
            if let Some(next) = symbols.get_mut(next) {
                next.previous = left;
            }
            let previous = symbols[left].previous;
            queue.extend(pair(&symbols, previous, left));
            queue.extend(pair(&symbols, left, next));
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.len];
            if let Some(id) = self.pieces.get(piece) {
                ids.push(*id);
                continue;
            }
            for byte in piece.bytes() {
                ids.extend(self.bytes[usize::from(byte)].or(self.unknown));
            }
        }
    }
}
