//! Byte-level BPE: text is split by the model's pattern and each piece merged by rank (tiktoken).

use rustc_hash::FxHashMap;
use tiktoken_rs::CoreBPE;

use super::{TokenizerSpec, tokenizer};
use crate::error::Result;

/// Patterns by `tokenizer.ggml.pre`. A tokenizer that splits in several steps is written as one
/// pattern that splits alike: single digits cut every run they stand in, and spaces before a digit
/// stay together, since the digit is no part of what they are split with.
const PATTERNS: &[(&[&str], &str)] = &[
    (
        &["gpt-2", "gpt2", "mpt", "olmo", "jais", "phi-2", "default"],
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ),
    (
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
        ],
        r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
    ),
    (
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "smaug-bpe",
            "dbrx",
            "falcon3",
            "pixtral",
        ],
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        &["qwen2", "deepseek-r1-qwen", "stablelm2"],
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        &["gpt-4o", "o200k", "llama4"],
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// GPT-2's alphabet: the character that stands for each byte in a written token.
fn alphabet() -> [char; 256] {
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

/// Stands for the id of a byte that is no token.
const ABSENT: u32 = u32::MAX;

pub(super) struct Bpe {
    core: CoreBPE,
    /// Ids by rank: tiktoken knows ranks only.
    ids: Vec<u32>,
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bpe({} ranks)", self.ids.len())
    }
}

impl Bpe {
    /// The tokenizer, and the bytes each token stands for.
    pub(super) fn new(spec: &TokenizerSpec) -> Result<(Self, Vec<Vec<u8>>)> {
        let pattern = PATTERNS
            .iter()
            .find(|(names, _)| names.contains(&spec.pre.as_str()))
            .ok_or_else(|| {
                let known: Vec<_> = PATTERNS.iter().flat_map(|(n, _)| *n).copied().collect();
                tokenizer(format!(
                    "its pre-tokenizer `{}` is unknown; known are {}",
                    spec.pre,
                    known.join(", ")
                ))
            })?
            .1;
        let byte_of: FxHashMap<char, u8> = alphabet().into_iter().zip(0..=255).collect();
        let bytes: Vec<Vec<u8>> = spec
            .tokens
            .iter()
            .zip(&spec.types)
            .map(|(token, ty)| {
                let mapped: Option<Vec<u8>> =
                    token.chars().map(|c| byte_of.get(&c).copied()).collect();
                mapped
                    .filter(|_| *ty == 1)
                    .unwrap_or_else(|| token.clone().into_bytes())
            })
            .collect();
        // Ranks follow the merges, not the ids: single bytes first, then each merge's result.
        let id_of: FxHashMap<&str, u32> = spec.tokens.iter().map(String::as_str).zip(0..).collect();
        let mut ids = Vec::with_capacity(spec.merges.len() + 256);
        let mut ranks: FxHashMap<Vec<u8>, u32> = FxHashMap::default();
        for (c, byte) in alphabet().into_iter().zip(0u8..=255) {
            // A vocabulary may lack bytes that no valid text has, or its makers never saw: such a
            // byte is dropped, as the makers' own code does.
            let id = id_of.get(c.to_string().as_str());
            ids.push(id.copied().unwrap_or(ABSENT));
            ranks.insert(vec![byte], u32::from(byte));
        }
        for merge in &spec.merges {
            let merged: String = merge.splitn(2, ' ').collect();
            let id = id_of.get(merged.as_str());
            ids.push(
                *id.ok_or_else(|| tokenizer(format!("it merges `{merge}`, which is no token")))?,
            );
        }
        for (id, rank) in ids.iter().zip(0..).skip(256) {
            // Two merges may give the same token: the better rank counts.
            ranks.entry(bytes[*id as usize].clone()).or_insert(rank);
        }
        let core = CoreBPE::new(ranks, std::iter::empty().collect(), pattern)
            .map_err(|e| tokenizer(e.to_string()))?;
        Ok((Self { core, ids }, bytes))
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let ranks = self.core.encode_ordinary(text);
        let known = ranks.into_iter().map(|r| self.ids[r as usize]);
        ids.extend(known.filter(|id| *id != ABSENT));
    }
}
