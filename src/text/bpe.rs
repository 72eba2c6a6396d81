//! Byte-level BPE: each piece of a text is merged by tiktoken.
//!
//! tiktoken merges two neighbours whenever their bytes together are a token; a vocabulary trained
//! elsewhere merges only the pairs it lists. A token's own bytes show whether this can matter:
//! merges never cross the ends of a final token, so where tiktoken builds every token by listed
//! pairs, it builds every text by them. Tokens that it builds otherwise are the suspects; a piece
//! with a suspect in its result is merged again by the listed pairs.

use rustc_hash::{FxHashMap, FxHashSet};
use tiktoken_rs::CoreBPE;

use super::merge::{Made, NONE, Part, merge};
use super::spec::{NORMAL, Step};
use super::{Pieces, TokenizerSpec, unusable};
use crate::error::{Result, shown};

/// A token's number here: bytes first, then tokens in the order of the merges that make them.
type Rank = u32;

/// A byte-level BPE tokenizer, without its control tokens.
pub(super) struct Bpe {
    core: CoreBPE,
    /// Ids by rank: tiktoken knows ranks only. [`NONE`] for a byte that is no token.
    ids: Vec<u32>,
    /// Tokens that no merge makes and that are taken where a piece is one of them.
    whole: FxHashMap<Vec<u8>, u32>,
    /// The listed pairs: what each merges to, and its place in the list.
    pairs: Pairs,
    /// Tokens that tiktoken builds by a pair that is not listed.
    suspects: FxHashSet<Rank>,
    /// A piece that is a token is never a suspect.
    takes_whole: bool,
    /// Bytes by their characters, where pieces come in the alphabet.
    written: Option<FxHashMap<char, u8>>,
}

type Pairs = FxHashMap<(Rank, Rank), Made>;

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suspects = self.suspects.len();
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

/// Bytes by the characters that stand for them.
fn bytes_of() -> FxHashMap<char, u8> {
    alphabet().into_iter().zip(0..=255).collect()
}

/// Bytes that a vocabulary's tokens stand for: only normal ones are written in the alphabet.
pub(super) fn pieces(spec: &TokenizerSpec) -> Pieces {
    let byte_of = bytes_of();
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
    /// The tokenizer of a vocabulary whose tokens' bytes are `pieces`. Control tokens are never
    /// made, whatever the merges say.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for merges that give no token.
    pub(super) fn new(spec: &TokenizerSpec, pieces: &Pieces, control: &[bool]) -> Result<Self> {
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
            .map(|c| id_of.get(c.to_string().as_str()).copied().unwrap_or(NONE))
            .collect();
        let mut ranks: FxHashMap<Vec<u8>, Rank> =
            (0u8..=255).map(|b| (vec![b], u32::from(b))).collect();
        // Two merges may give the same token: the first ranks it.
        let mut first = vec![0; 256];
        let written = |id: u32| spec.tokens.get(id as usize).map_or("", String::as_str);
        for (&(left, right), order) in spec.merges.iter().zip(0u32..) {
            let merged = [written(left), written(right)].concat();
            let Some(&id) = id_of.get(merged.as_str()) else {
                if controls.contains(merged.as_str()) {
                    continue;
                }
                let (left, right) = (shown(written(left)), shown(written(right)));
                return Err(unusable(format!(
                    "it merges `{left} {right}`, which is no token"
                )));
            };
            ranks.entry(pieces.get(id).to_vec()).or_insert_with(|| {
                ids.push(id);
                first.push(order);
                ids.len() as Rank - 1
            });
        }
        let mut pairs = Pairs::default();
        for (&(left, right), order) in spec.merges.iter().zip(0u32..) {
            let rank_of = |token: &str| ranks.get(pieces.get(*id_of.get(token)?)).copied();
            let (left, right) = (written(left), written(right));
            let sides = (
                rank_of(left),
                rank_of(right),
                rank_of(&[left, right].concat()),
            );
            if let (Some(left), Some(right), Some(token)) = sides {
                pairs.entry((left, right)).or_insert(Made { order, token });
            }
        }
        let mut whole = FxHashMap::default();
        if spec.whole {
            for ((ty, id), control) in spec.types.iter().zip(0..).zip(control) {
                if *ty == NORMAL && !control && !ranks.contains_key(pieces.get(id)) {
                    whole.insert(pieces.get(id).to_vec(), id);
                }
            }
        }
        Ok(Self {
            suspects: suspects(&ranks, &pairs, &first),
            core: core(ranks)?,
            ids,
            whole,
            pairs,
            takes_whole: spec.whole,
            written: spec.splits.contains(&Step::Bytes).then(bytes_of),
        })
    }

    /// The tokenizer of one of tiktoken's own encodings, whose ranks are its ids.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] in tiktoken's words.
    pub(super) fn ranked(ranks: FxHashMap<Vec<u8>, Rank>) -> Result<Self> {
        let count = ranks.values().max().map_or(0, |most| most + 1);
        Ok(Self {
            core: core(ranks)?,
            ids: (0..count).collect(),
            whole: FxHashMap::default(),
            pairs: Pairs::default(),
            suspects: FxHashSet::default(),
            takes_whole: false,
            written: None,
        })
    }

    /// Appends the ids of a piece.
    pub(super) fn encode(&self, piece: &str, ids: &mut Vec<u32>) {
        match &self.written {
            Some(bytes) => {
                let piece: Vec<u8> = piece
                    .chars()
                    .filter_map(|c| bytes.get(&c).copied())
                    .collect();
                self.encode_bytes(&piece, ids);
            }
            None => self.encode_bytes(piece.as_bytes(), ids),
        }
    }

    fn encode_bytes(&self, piece: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.whole.get(piece) {
            ids.push(*id);
            return;
        }
        // tiktoken wants text; a few vocabularies cut inside characters.
        let ranks = match std::str::from_utf8(piece) {
            Ok(text) => self.core.encode_ordinary(text),
            Err(_) => self.by_pairs(piece),
        };
        let strayed = !(self.takes_whole && ranks.len() == 1)
            && ranks.iter().any(|r| self.suspects.contains(r));
        let ranks = if strayed { self.by_pairs(piece) } else { ranks };
        let known = ranks.into_iter().filter_map(|r| self.ids.get(r as usize));
        ids.extend(known.filter(|id| **id != NONE));
    }

    fn by_pairs(&self, piece: &[u8]) -> Vec<Rank> {
        let rule = |l: Part, r: Part| self.pairs.get(&(l.token, r.token)).copied();
        let parts = merge(bytes(piece), rule, |_, _, _| ());
        parts.into_iter().map(|part| part.token).collect()
    }
}

/// Each byte, by its rank.
fn bytes(piece: &[u8]) -> impl Iterator<Item = (usize, Rank)> {
    piece.iter().map(|byte| (1, u32::from(*byte)))
}

/// tiktoken's merges over whole pieces: splitting is done before.
fn core(ranks: FxHashMap<Vec<u8>, Rank>) -> Result<CoreBPE> {
    CoreBPE::new(ranks, std::iter::empty().collect(), "(?s:.+)")
        .map_err(|e| unusable(e.to_string()))
}

/// The tokens that merging by rank alone builds by a pair that is not listed, or listed too late,
/// or does not build at all. `first` is the order of each rank's first merge.
fn suspects(ranks: &FxHashMap<Vec<u8>, Rank>, pairs: &Pairs, first: &[u32]) -> FxHashSet<Rank> {
    let suspect = |piece: &[u8], rank: Rank| {
        let mut strayed = false;
        let by_rank = |l: Part, r: Part| {
            let rank = *ranks.get(piece.get(l.start..r.end)?)?;
            Some(Made {
                order: rank,
                token: rank,
            })
        };
        let made = merge(bytes(piece), by_rank, |l, r, made| {
            let listed = pairs.get(&(l.token, r.token));
            strayed |= listed.is_none_or(|p| Some(&p.order) != first.get(made.token as usize));
        });
        strayed || made.len() != 1 || made[0].token != rank
    };
    let long = ranks.iter().filter(|(bytes, _)| bytes.len() > 1);
    long.filter(|(bytes, rank)| suspect(bytes, **rank))
        .map(|(_, rank)| *rank)
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::spec::CONTROL;
    use super::super::{Specials, Tokenizer, gguf, pretokenizers};
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
        let types = vec![NORMAL; tokens.len()];
        let pre = pretokenizers::find(pre).unwrap();
        TokenizerSpec {
            merges: gguf::merges(&tokens, &types, &pairs).unwrap(),
            splits: pre.steps(),
            whole: pre.whole,
            types,
            tokens,
            ..TokenizerSpec::default()
        }
    }

    /// Merging by the listed pairs as its definition says, step by step.
    fn plainly(spec: &TokenizerSpec, text: &str) -> Vec<u32> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        let merge = |(l, r): &(u32, u32)| (&spec.tokens[*l as usize], &spec.tokens[*r as usize]);
        let listed: Vec<_> = spec.merges.iter().map(merge).collect();
        let order = |l: &String, r: &String| listed.iter().position(|m| *m == (l, r));
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
        let error = gguf::merges(&spec.tokens, &spec.types, &["q zz".into()]).unwrap_err();
        assert!(error.to_string().contains("`q zz`"), "{error}");
        spec.merges.push((0, 1));
        let error = Tokenizer::new(spec).unwrap_err().to_string();
        assert!(error.contains("which is no token"), "{error}");
    }
}
