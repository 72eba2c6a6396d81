//! Byte-level BPE: text is split by the model's patterns and each piece merged by tiktoken.
//!
//! tiktoken merges two neighbours whenever their bytes together are a token; a vocabulary trained
//! elsewhere merges only the pairs it lists. A token's own bytes show whether this can matter:
//! merges never cross the ends of a final token, so where tiktoken builds every token by listed
//! pairs, it builds every text by them. Tokens that it builds otherwise are the suspects; a piece
//! with a suspect in its result is merged again by the listed pairs.
//!
//! Splitting is ours as well: tiktoken's own looks ahead, and fails on a megabyte of spaces.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::{FxHashMap, FxHashSet};
use tiktoken_rs::CoreBPE;

use super::pretokenize::{self, Splitter};
use super::{NORMAL, Pieces, TokenizerSpec, unusable};
use crate::error::Result;

/// A token's number here: bytes first, then tokens in the order of the merges that make them.
type Rank = u32;

/// Stands for the id of a byte that is no token.
const ABSENT: u32 = u32::MAX;

/// A byte-level BPE tokenizer, without its control tokens.
pub(super) struct Bpe {
    splitter: Splitter,
    core: CoreBPE,
    /// Ids by rank: tiktoken knows ranks only.
    ids: Vec<u32>,
    /// Tokens that no merge makes and that are taken where a piece is one of them.
    whole: FxHashMap<Vec<u8>, u32>,
    /// The listed pairs, where tiktoken alone would not do.
    listed: Option<Listed>,
}

/// What makes tiktoken's merges exact.
struct Listed {
    pairs: Pairs,
    /// Tokens that tiktoken builds by a pair that is not listed.
    suspects: FxHashSet<Rank>,
    /// A piece that is a token is never a suspect.
    whole: bool,
}

/// What a listed pair merges to, and its place in the list: the first goes first.
type Pairs = FxHashMap<(Rank, Rank), Made>;

/// A merge that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    order: u32,
    rank: Rank,
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suspects = self.listed.as_ref().map_or(0, |l| l.suspects.len());
        write!(f, "Bpe({} ranks, {suspects} suspects)", self.ids.len())
    }
}

/// GPT-2's alphabet: the character that stands for each byte in a written token.
pub(super) fn alphabet() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut next = 256;
    for (byte, c) in (0u8..=255).zip(&mut chars) {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        *c = if printable {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or('\0')
        };
    }
    chars
}

/// Bytes that a vocabulary's tokens stand for: only normal ones are written in the alphabet.
pub(super) fn pieces(spec: &TokenizerSpec) -> Pieces {
    let byte_of: FxHashMap<char, u8> = alphabet().into_iter().zip(0..=255).collect();
    let mut pieces = Pieces::default();
    for (token, ty) in spec.tokens.iter().zip(&spec.types) {
        let mapped: Option<Vec<u8>> = token.chars().map(|c| byte_of.get(&c).copied()).collect();
        match mapped.filter(|_| *ty == NORMAL) {
            Some(bytes) => pieces.push(&bytes),
            None => pieces.push(token.as_bytes()),
        }
    }
    pieces
}

impl Bpe {
    /// The tokenizer of a file's vocabulary, whose tokens' bytes are `pieces`. Control tokens are
    /// never made, whatever the merges say.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for an unknown pre-tokenizer, or merges that give no token.
    pub(super) fn new(spec: &TokenizerSpec, pieces: &Pieces, control: &[bool]) -> Result<Self> {
        let pre = pretokenize::find(&spec.pre)?;
        // Of tokens that are written the same, the first is made.
        let mut id_of: FxHashMap<&str, u32> = FxHashMap::default();
        let mut controls: FxHashSet<&str> = FxHashSet::default();
        for ((token, id), control) in spec.tokens.iter().zip(0..).zip(control) {
            if *control {
                controls.insert(token);
            } else {
                id_of.entry(token).or_insert(id);
            }
        }
        // A vocabulary may lack bytes that no valid text has, or that its makers never saw: such a
        // byte is dropped, as the makers' own code does.
        let mut ids: Vec<u32> = alphabet()
            .iter()
            .map(|c| id_of.get(c.to_string().as_str()).copied().unwrap_or(ABSENT))
            .collect();
        let mut ranks: FxHashMap<Vec<u8>, Rank> =
            (0u8..=255).map(|b| (vec![b], u32::from(b))).collect();
        // Two merges may give the same token: the first ranks it.
        let mut first = vec![0; 256];
        for (merge, order) in spec.merges.iter().zip(0u32..) {
            let merged = merge.replacen(' ', "", 1);
            let Some(&id) = id_of.get(merged.as_str()) else {
                if controls.contains(merged.as_str()) {
                    continue;
                }
                return Err(unusable(format!("it merges `{merge}`, which is no token")));
            };
            ranks.entry(pieces.get(id).to_vec()).or_insert_with(|| {
                ids.push(id);
                first.push(order);
                ids.len() as Rank - 1
            });
        }
        let mut pairs = Pairs::default();
        for (merge, order) in spec.merges.iter().zip(0u32..) {
            let rank_of = |token: &str| ranks.get(pieces.get(*id_of.get(token)?)).copied();
            let Some((left, right)) = merge.split_once(' ') else {
                continue;
            };
            let sides = (
                rank_of(left),
                rank_of(right),
                rank_of(&format!("{left}{right}")),
            );
            if let (Some(left), Some(right), Some(rank)) = sides {
                pairs.entry((left, right)).or_insert(Made { order, rank });
            }
        }
        let mut whole = FxHashMap::default();
        if pre.whole {
            for ((ty, id), control) in spec.types.iter().zip(0..).zip(control) {
                if *ty == NORMAL && !control && !ranks.contains_key(pieces.get(id)) {
                    whole.insert(pieces.get(id).to_vec(), id);
                }
            }
        }
        let suspects = suspects(&ranks, &pairs, &first);
        Ok(Self {
            splitter: Splitter::new(pre)?,
            core: core(ranks)?,
            ids,
            whole,
            listed: (!suspects.is_empty()).then_some(Listed {
                pairs,
                suspects,
                whole: pre.whole,
            }),
        })
    }

    /// The tokenizer of one of tiktoken's own encodings, whose ranks are its ids.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for a name without a row among the pre-tokenizers.
    pub(super) fn ranked(name: &str, ranks: FxHashMap<Vec<u8>, Rank>) -> Result<Self> {
        let count = ranks.values().max().map_or(0, |most| most + 1);
        Ok(Self {
            splitter: Splitter::new(pretokenize::find(name)?)?,
            core: core(ranks)?,
            ids: (0..count).collect(),
            whole: FxHashMap::default(),
            listed: None,
        })
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        self.splitter.split(text, &mut |piece| {
            if let Some(id) = self.whole.get(piece.as_bytes()) {
                ids.push(*id);
                return;
            }
            let mut ranks = self.core.encode_ordinary(piece);
            if let Some(listed) = &self.listed
                && !(listed.whole && ranks.len() == 1)
                && ranks.iter().any(|r| listed.suspects.contains(r))
            {
                let rule = |l: Part, r: Part| listed.pairs.get(&(l.rank, r.rank)).copied();
                ranks = merge(piece.as_bytes(), rule, |_, _, _| ());
            }
            let known = ranks.into_iter().filter_map(|r| self.ids.get(r as usize));
            ids.extend(known.filter(|id| **id != ABSENT));
        });
    }
}

/// tiktoken's merges over whole pieces: splitting is done before.
fn core(ranks: FxHashMap<Vec<u8>, Rank>) -> Result<CoreBPE> {
    CoreBPE::new(ranks, std::iter::empty().collect(), "(?s:.+)")
        .map_err(|e| unusable(e.to_string()))
}

/// The tokens that merging by rank alone builds by a pair that is not listed, or listed too late,
/// or does not build at all. `first` is the order of each rank's first merge.
fn suspects(ranks: &FxHashMap<Vec<u8>, Rank>, pairs: &Pairs, first: &[u32]) -> FxHashSet<Rank> {
    let suspect = |bytes: &[u8], rank: Rank| {
        let mut strayed = false;
        let by_rank = |l: Part, r: Part| {
            let rank = *ranks.get(bytes.get(l.start..r.end)?)?;
            Some(Made { order: rank, rank })
        };
        let made = merge(bytes, by_rank, |l, r, made| {
            let listed = pairs.get(&(l.rank, r.rank));
            strayed |= listed.is_none_or(|p| Some(&p.order) != first.get(made.rank as usize));
        });
        strayed || made != [rank]
    };
    let long = ranks.iter().filter(|(bytes, _)| bytes.len() > 1);
    long.filter(|(bytes, rank)| suspect(bytes, **rank))
        .map(|(_, rank)| *rank)
        .collect()
}

/// A token of a piece while it is merged.
#[derive(Clone, Copy)]
struct Part {
    /// Byte range.
    start: usize,
    end: usize,
    rank: Rank,
    /// The part before this one, by its start.
    previous: usize,
}

/// Merges bytes, the lowest order first, of equals the leftmost, in n log n steps; `done` sees
/// each merge.
fn merge(
    bytes: &[u8],
    rule: impl Fn(Part, Part) -> Option<Made>,
    mut done: impl FnMut(Part, Part, Made),
) -> Vec<Rank> {
    // By the first byte; the entries inside a part are left over from its making.
    let mut parts: Vec<Part> = bytes
        .iter()
        .enumerate()
        .map(|(start, byte)| Part {
            start,
            end: start + 1,
            rank: u32::from(*byte),
            previous: start.wrapping_sub(1),
        })
        .collect();
    let mut queue = BinaryHeap::new();
    let candidate = |parts: &[Part], left: usize| {
        let l = *parts.get(left)?;
        let r = *parts.get(l.end)?;
        let made = rule(l, r)?;
        // The ranks of both sides: a candidate is stale when they changed.
        Some(Reverse((
            made.order, left, made.rank, l.rank, r.rank, r.end,
        )))
    };
    for left in 0..parts.len() {
        queue.extend(candidate(&parts, left));
    }
    while let Some(Reverse((order, left, rank, l_rank, r_rank, end))) = queue.pop() {
        let l = parts[left];
        let Some(&r) = parts.get(l.end) else {
            continue;
        };
        if (l.rank, r.rank, r.end) != (l_rank, r_rank, end) {
            continue;
        }
        done(l, r, Made { order, rank });
        // A candidate that begins inside the merged part can never be good again.
        parts[r.start].rank = ABSENT;
        parts[left] = Part { end, rank, ..l };
        if let Some(next) = parts.get_mut(end) {
            next.previous = left;
        }
        queue.extend(candidate(&parts, l.previous));
        queue.extend(candidate(&parts, left));
    }
    let mut ranks = Vec::new();
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        ranks.push(part.rank);
        at = part.end;
    }
    ranks
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::{CONTROL, Specials, Tokenizer};
    use super::*;

    /// All bytes, and merges of any two tokens so far in any order.
    fn vocabulary(
        merges: &[(prop::sample::Index, prop::sample::Index)],
        pre: &str,
    ) -> TokenizerSpec {
        let mut tokens: Vec<String> = alphabet().iter().map(char::to_string).collect();
        let mut made: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let mut pairs = Vec::new();
        for (left, right) in merges {
            let (left, right) = (left.get(&made).clone(), right.get(&made).clone());
            let (merge, merged) = (format!("{left} {right}"), format!("{left}{right}"));
            if merged.len() > 12 || pairs.contains(&merge) {
                continue;
            }
            pairs.push(merge);
            if !made.contains(&merged) {
                made.push(merged.clone());
                tokens.push(merged);
            }
        }
        // Out of the order of their making.
        pairs.reverse();
        TokenizerSpec {
            model: "gpt2".into(),
            pre: pre.into(),
            types: vec![NORMAL; tokens.len()],
            tokens,
            merges: pairs,
            ..TokenizerSpec::default()
        }
    }

    /// Merging by the listed pairs as its definition says, step by step.
    fn plainly(spec: &TokenizerSpec, text: &str) -> Vec<u32> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        let order = |l: &str, r: &str| spec.merges.iter().position(|m| *m == format!("{l} {r}"));
        while let Some((_, at)) = (1..parts.len())
            .filter_map(|i| Some((order(&parts[i - 1], &parts[i])?, i)))
            .min()
        {
            let right = parts.remove(at);
            parts[at - 1].push_str(&right);
        }
        let id = |part: &String| spec.tokens.iter().position(|t| t == part).unwrap() as u32;
        parts.iter().map(id).collect()
    }

    fn any_merges() -> impl Strategy<Value = Vec<(prop::sample::Index, prop::sample::Index)>> {
        prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..12)
    }

    proptest! {
        #[test]
        fn ids_are_those_of_the_listed_pairs(merges in any_merges(), text in "[abc]{0,40}") {
            let spec = vocabulary(&merges, "gpt-2");
            let tokenizer = Tokenizer::new(spec.clone()).unwrap();
            prop_assert_eq!(tokenizer.encode(&text, Specials::AsText), plainly(&spec, &text));
        }

        #[test]
        fn a_piece_that_is_a_token_may_be_taken_whole(merges in any_merges(), text in "[abc]{1,8}") {
            let mut spec = vocabulary(&merges, "llama-bpe");
            spec.tokens.push("abc".into());
            let id = spec.tokens.iter().position(|t| *t == text).map(|id| vec![id as u32]);
            let want = id.unwrap_or_else(|| plainly(&spec, &text));
            let tokenizer = Tokenizer::new(spec).unwrap();
            prop_assert_eq!(tokenizer.encode(&text, Specials::AsText), want);
        }

        #[test]
        fn no_merge_makes_a_control_token(
            merges in any_merges(),
            marks in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
            text in "[abc]{0,20}",
            pre in prop::sample::select(vec!["gpt-2", "llama-bpe"]),
        ) {
            let mut spec = vocabulary(&merges, pre);
            for mark in marks {
                let made = spec.tokens.len() - 256;
                let at = [97 - 33, 98 - 33, 99 - 33].into_iter().chain(256..256 + made);
                let at = mark.get(&at.collect::<Vec<_>>()).to_owned();
                spec.types[at] = CONTROL;
            }
            let tokenizer = Tokenizer::new(spec).unwrap();
            for id in tokenizer.encode(&text, Specials::AsText) {
                prop_assert!(!tokenizer.is_control(id));
            }
        }
    }

    #[test]
    fn a_merge_of_no_token_is_refused() {
        let mut spec = vocabulary(&[], "gpt-2");
        spec.merges.push("q z".into());
        let error = Tokenizer::new(spec).unwrap_err().to_string();
        assert!(error.contains("`q z`"), "{error}");
    }
}
