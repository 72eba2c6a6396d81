//! SentencePiece's BPE: the pair whose piece scores best is merged first, until none is left;
//! what is then no piece falls back to bytes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::{TokenizerSpec, tokenizer};
use crate::error::Result;

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';

#[derive(Debug)]
pub(super) struct Spm {
    /// Normal pieces and their ids.
    pieces: FxHashMap<String, u32>,
    scores: Vec<f32>,
    /// User-defined pieces: matched before anything else, longest first by their first character.
    defined: FxHashMap<char, Vec<(String, u32)>>,
    /// Ids of the 256 bytes.
    bytes: Vec<Option<u32>>,
    unknown: u32,
    space_prefix: bool,
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

impl Spm {
    pub(super) fn new(spec: &TokenizerSpec) -> Result<(Self, Vec<Vec<u8>>)> {
        if spec.scores.len() != spec.tokens.len() {
            return Err(tokenizer("it has not one score for each token"));
        }
        let mut pieces = FxHashMap::default();
        let mut defined: FxHashMap<char, Vec<(String, u32)>> = FxHashMap::default();
        let mut bytes = vec![None; 256];
        let mut texts = Vec::with_capacity(spec.tokens.len());
        let mut unknown = 0;
        for ((token, ty), id) in spec.tokens.iter().zip(&spec.types).zip(0u32..) {
            let mut text = token.replace(SPACE, " ").into_bytes();
            match ty {
                2 => unknown = id,
                4 => {
                    if let Some(first) = token
                        .chars()
                        .next()
                        .filter(|_| !super::is_control(spec, &[], id))
                    {
                        defined.entry(first).or_default().push((token.clone(), id));
                    }
                }
                6 => {
                    let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                    let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
                    let byte = byte.ok_or_else(|| {
                        tokenizer(format!("its byte token `{token}` names no byte"))
                    })?;
                    bytes[usize::from(byte)] = Some(id);
                    text = vec![byte];
                }
                1 => {
                    pieces.insert(token.clone(), id);
                }
                _ => {}
            }
            texts.push(text);
        }
        for list in defined.values_mut() {
            list.sort_by_key(|(t, _)| std::cmp::Reverse(t.len()));
        }
        let spm = Self {
            pieces,
            scores: spec.scores.clone(),
            defined,
            bytes,
            unknown,
            space_prefix: spec.add_space_prefix,
        };
        Ok((spm, texts))
    }

    pub(super) fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        let mut text = text.replace(' ', "\u{2581}");
        if first && self.space_prefix {
            text.insert(0, SPACE);
        }
        // User-defined pieces cut the text before merging.
        let mut plain = 0;
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let here = &text[at..];
            let found = self
                .defined
                .get(&c)
                .and_then(|l| l.iter().find(|(t, _)| here.starts_with(t.as_str())));
            if let Some((piece, id)) = found {
                self.merge(&text[plain..at], ids);
                ids.push(*id);
                at += piece.len();
                plain = at;
            } else {
                at += c.len_utf8();
            }
        }
        self.merge(&text[plain..], ids);
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
                ids.push(self.bytes[usize::from(byte)].unwrap_or(self.unknown));
            }
        }
    }
}
