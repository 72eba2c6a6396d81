//! BPE over characters, SentencePiece's: merged by listed pairs or, where there is no list, by the
//! scores of what two neighbours make; what is then no token falls back to bytes.

use rustc_hash::{FxHashMap, FxHashSet};

use super::merge::{Made, NONE, Part, merge};
use super::spec::{BYTE, NORMAL, SPACE, USER_DEFINED};
use super::{Pieces, TokenizerSpec, unusable};
use crate::error::{Result, shown};

/// A BPE tokenizer over characters, without its control tokens.
#[derive(Debug)]
pub(super) struct Spm {
    /// What merges make, and characters, by their text.
    tokens: FxHashMap<String, u32>,
    rule: Rule,
    fallback: Fallback,
    /// A piece that is a token is taken as it is.
    whole: bool,
}

/// Which neighbours merge.
#[derive(Debug)]
enum Rule {
    /// Those that are listed.
    Pairs(FxHashMap<(u32, u32), Made>),
    /// Those that make a token; tokens in the order of their scores, the best first.
    Scores(Vec<u32>),
}

/// What stands for text that is no token.
#[derive(Debug)]
pub(super) struct Fallback {
    /// Ids of the 256 bytes.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    fuse: bool,
}

/// The byte that a byte token is written for.
fn byte(token: &str) -> Result<u8> {
    token
        .strip_prefix("<0x")
        .and_then(|t| t.strip_suffix('>'))
        .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        .ok_or_else(|| unusable(format!("its byte token `{}` names no byte", shown(token))))
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

impl Fallback {
    /// A vocabulary's byte tokens and its token for the unknown.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for a byte token that names no byte.
    pub(super) fn new(spec: &TokenizerSpec) -> Result<Self> {
        let mut bytes = vec![None; 256];
        for ((token, ty), id) in spec.tokens.iter().zip(&spec.types).zip(0u32..) {
            if *ty == BYTE {
                bytes[usize::from(byte(token)?)] = Some(id);
            }
        }
        Ok(Self {
            bytes,
            unknown: spec.unknown(),
            fuse: spec.fuse_unknown,
        })
    }

    /// The token for what no other stands for.
    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Appends what stands for `text`; `fused` says, and is told, whether the token before it was
    /// for the unknown.
    pub(super) fn encode(&self, text: &str, fused: &mut bool, ids: &mut Vec<u32>) {
        let bytes = text.bytes().map(|b| self.bytes[usize::from(b)]);
        if bytes.clone().all(|id| id.is_some()) {
            ids.extend(bytes.flatten());
            *fused = false;
        } else if let Some(unknown) = self.unknown {
            if !(*fused && self.fuse) {
                ids.push(unknown);
            }
            *fused = true;
        }
    }
}

impl Spm {
    /// The tokenizer of a vocabulary. Control tokens are never made.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for missing scores, merges that give no token, or a byte token
    /// that names no byte.
    pub(super) fn new(spec: &TokenizerSpec, control: &[bool]) -> Result<Self> {
        let mut tokens: FxHashMap<String, u32> = FxHashMap::default();
        for (((token, ty), id), control) in
            spec.tokens.iter().zip(&spec.types).zip(0u32..).zip(control)
        {
            if !control && matches!(*ty, NORMAL | USER_DEFINED) {
                // Of tokens that are written the same, the first is made.
                tokens.entry(token.clone()).or_insert(id);
            }
        }
        let rule = if !spec.merges.is_empty() {
            Rule::Pairs(pairs(spec, &tokens, control)?)
        } else if spec.scores.len() == spec.tokens.len() {
            Rule::Scores(order(&spec.scores))
        } else {
            return Err(unusable("it has not one score for each token"));
        };
        Ok(Self {
            tokens,
            rule,
            fallback: Fallback::new(spec)?,
            whole: spec.whole,
        })
    }

    /// Appends the ids of a piece.
    pub(super) fn encode(&self, piece: &str, ids: &mut Vec<u32>) {
        if self.whole
            && let Some(id) = self.tokens.get(piece)
        {
            ids.push(*id);
            return;
        }
        let token = |text: &str| self.tokens.get(text).copied();
        let chars = piece.char_indices().map(|(at, c)| {
            let len = c.len_utf8();
            (len, token(&piece[at..at + len]).unwrap_or(NONE))
        });
        let rule = |l: Part, r: Part| match &self.rule {
            Rule::Pairs(pairs) => pairs.get(&(l.token, r.token)).copied(),
            Rule::Scores(order) => {
                let token = token(&piece[l.start..r.end])?;
                let order = *order.get(token as usize)?;
                Some(Made { order, token })
            }
        };
        let mut fused = false;
        for part in merge(chars, rule, |_, _, _| ()) {
            if part.token == NONE {
                self.fallback
                    .encode(&piece[part.start..part.end], &mut fused, ids);
            } else {
                ids.push(part.token);
                fused = false;
            }
        }
    }
}

/// What each listed pair makes.
fn pairs(
    spec: &TokenizerSpec,
    tokens: &FxHashMap<String, u32>,
    control: &[bool],
) -> Result<FxHashMap<(u32, u32), Made>> {
    let written = |id: u32| spec.tokens.get(id as usize).map_or("", String::as_str);
    let marked = spec.tokens.iter().zip(control);
    let controls: FxHashSet<&str> = marked
        .filter(|(_, control)| **control)
        .map(|(text, _)| text.as_str())
        .collect();
    let mut pairs = FxHashMap::default();
    for (&(left, right), order) in spec.merges.iter().zip(0u32..) {
        let (left, right) = (written(left), written(right));
        let made = [left, right].concat();
        let of = |text: &str| tokens.get(text).copied();
        if let (Some(left), Some(right), Some(token)) = (of(left), of(right), of(&made)) {
            pairs.entry((left, right)).or_insert(Made { order, token });
        } else if ![left, right, &made]
            .iter()
            .any(|text| controls.contains(text))
        {
            let (left, right) = (shown(left), shown(right));
            return Err(unusable(format!(
                "it merges `{left} {right}`, which is no token"
            )));
        }
    }
    Ok(pairs)
}

/// The place of each score among all, the best first; equal ones share it.
fn order(scores: &[f32]) -> Vec<u32> {
    let mut sorted: Vec<f32> = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted.dedup_by(|a, b| a.total_cmp(b).is_eq());
    let place = |score: &f32| sorted.partition_point(|other| other.total_cmp(score).is_gt());
    scores.iter().map(|score| place(score) as u32).collect()
}
