//! Tokenizers, chat templates, roles and streaming decode.

mod bpe;
mod chat;
mod spm;
mod stream;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::format::Checkpoint;

pub use chat::{ChatTemplate, Message, Role};
pub use stream::{Detokenizer, StopFilter};

/// What control tokens in a text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Text like any other: the only choice for what a user typed.
    AsText,
    /// Themselves.
    Parse,
}

/// A vocabulary as a GGUF file describes it.
#[derive(Clone, Debug, Default)]
pub struct TokenizerSpec {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: which pattern splits text before merging.
    pub pre: String,
    /// Tokens in their written form.
    pub tokens: Vec<String>,
    /// Scores, for SentencePiece.
    pub scores: Vec<f32>,
    /// Types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: Vec<i32>,
    /// Merges, for BPE: "left right", best first.
    pub merges: Vec<String>,
    /// Beginning of a text.
    pub bos: Option<u32>,
    /// End of a text.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// A text begins with `bos`.
    pub add_bos: bool,
    /// A text begins with a space (Llama 2's SentencePiece).
    pub add_space_prefix: bool,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
}

/// Markers that end an answer, whatever the file says.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|eom_id|>",
    "<|end_of_role|>",
    "</s>",
    "<eos>",
];

#[derive(Debug)]
enum Kind {
    Bpe(bpe::Bpe),
    Spm(spm::Spm),
}

/// Text to tokens and back.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    spec: TokenizerSpec,
    /// Bytes each token stands for.
    bytes: Vec<Vec<u8>>,
    /// Control tokens by their text, sorted by it.
    controls: Vec<(String, u32)>,
    ends: Vec<u32>,
}

impl Tokenizer {
    /// A tokenizer from a vocabulary.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a kind or a pattern that is not known, or a vocabulary with holes.
    pub fn new(mut spec: TokenizerSpec) -> Result<Self> {
        if spec.tokens.is_empty() {
            return Err(tokenizer("it has no tokens"));
        }
        spec.types.resize(spec.tokens.len(), 1);
        let (kind, bytes) = match spec.model.as_str() {
            "gpt2" => {
                let (bpe, bytes) = bpe::Bpe::new(&spec)?;
                (Kind::Bpe(bpe), bytes)
            }
            "llama" => {
                let (spm, bytes) = spm::Spm::new(&spec)?;
                (Kind::Spm(spm), bytes)
            }
            other => {
                return Err(tokenizer(format!(
                    "its kind is `{other}`, and `gpt2` and `llama` are known"
                )));
            }
        };
        let id_of: HashMap<&str, u32> = spec.tokens.iter().map(String::as_str).zip(0..).collect();
        let mut ends: Vec<u32> = [spec.eos, spec.eot].into_iter().flatten().collect();
        ends.extend(
            ENDS.iter()
                .filter_map(|e| id_of.get(e))
                .filter(|id| spec.types[**id as usize] != 1),
        );
        ends.sort_unstable();
        ends.dedup();
        let mut controls: Vec<(String, u32)> = spec
            .tokens
            .iter()
            .zip(0..)
            .filter(|(_, id)| is_control(&spec, &ends, *id))
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, id)| (text.clone(), id))
            .collect();
        controls.sort();
        Ok(Self {
            kind,
            spec,
            bytes,
            controls,
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
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a token is a marker rather than text.
    pub fn is_control(&self, id: u32) -> bool {
        is_control(&self.spec, &self.ends, id)
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token a text begins with, where the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.spec.bos.filter(|_| self.spec.add_bos)
    }

    /// Tokens of a text, without the beginning-of-text token.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut ids = Vec::new();
        match specials {
            Specials::AsText => self.encode_plain(text, true, &mut ids),
            Specials::Parse => {
                let mut rest = text;
                let mut first = true;
                while let Some((at, len, id)) = self.find_control(rest) {
                    self.encode_plain(&rest[..at], first, &mut ids);
                    ids.push(id);
                    rest = &rest[at + len..];
                    first = false;
                }
                self.encode_plain(rest, first, &mut ids);
            }
        }
        ids
    }

    /// Text without any control token; `first` where nothing comes before it.
    fn encode_plain(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        match &self.kind {
            Kind::Bpe(bpe) => bpe.encode(text, ids),
            Kind::Spm(spm) => spm.encode(text, first, ids),
        }
    }

    /// The first control token written in a text, the longest where several begin there:
    /// (byte offset, length, id).
    fn find_control(&self, text: &str) -> Option<(usize, usize, u32)> {
        text.char_indices().find_map(|(at, _)| {
            let here = &text[at..];
            // Those that could match sort right before the text that begins here.
            let first = here.chars().next()?;
            let from = self
                .controls
                .partition_point(|(c, _)| c.chars().next() < Some(first));
            self.controls[from..]
                .iter()
                .take_while(|(c, _)| c.starts_with(first))
                .filter(|(c, _)| here.starts_with(c.as_str()))
                .max_by_key(|(c, _)| c.len())
                .map(|(c, id)| (at, c.len(), *id))
        })
    }

    /// Bytes of a sequence of tokens; control tokens give nothing.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let text = ids.iter().filter(|id| !self.is_control(**id));
        text.flat_map(|id| self.token_bytes(*id)).copied().collect()
    }
}

/// Markers are what the file calls control, and what ends an answer. A user-defined token is a
/// marker where it is written like one; other user-defined tokens (runs of spaces, tags) are text.
fn is_control(spec: &TokenizerSpec, ends: &[u32], id: u32) -> bool {
    match spec.types.get(id as usize) {
        Some(3) => true,
        Some(4) => {
            let text = &spec.tokens[id as usize];
            ends.contains(&id)
                || (text.starts_with("<|") && text.ends_with("|>"))
                || text.ends_with("_of_turn>")
        }
        _ => false,
    }
}

fn tokenizer(reason: impl Into<String>) -> Error {
    Error::Tokenizer {
        reason: reason.into(),
    }
}

impl TokenizerSpec {
    /// The vocabulary of a GGUF file.
    ///
    /// # Errors
    /// Where a key is missing or of another type.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let meta = &checkpoint.meta;
        let key = |k: &str| format!("tokenizer.ggml.{k}");
        let id = |k: &str| meta.find::<u32>(&key(k));
        let text = |k: &str| meta.find::<&str>(k);
        let model = meta.str(&key("model"))?.to_string();
        let strings = |k: &str| -> Result<Vec<String>> {
            match meta.value(&key(k)) {
                Some(_) => Ok(meta.strings(&key(k))?.iter().map(str::to_string).collect()),
                None => Ok(Vec::new()),
            }
        };
        let spec = Self {
            pre: text(&key("pre"))?.unwrap_or("default").into(),
            tokens: strings("tokens")?,
            scores: match meta.value(&key("scores")) {
                Some(_) => meta.f32s(&key("scores"))?.into_owned(),
                None => Vec::new(),
            },
            types: match meta.value(&key("token_type")) {
                Some(_) => meta.i32s(&key("token_type"))?.into_owned(),
                None => Vec::new(),
            },
            merges: strings("merges")?,
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            add_bos: meta
                .find::<bool>(&key("add_bos_token"))?
                .unwrap_or(model == "llama"),
            add_space_prefix: meta
                .find::<bool>(&key("add_space_prefix"))?
                .unwrap_or(model == "llama"),
            chat_template: text("tokenizer.chat_template")?.map(Into::into),
            model,
        };
        let known = spec.tokens.len() as u64;
        for (k, id) in [
            ("bos_token_id", spec.bos),
            ("eos_token_id", spec.eos),
            ("eot_token_id", spec.eot),
        ] {
            if id.is_some_and(|id| u64::from(id) >= known) {
                return Err(tokenizer(format!(
                    "`{}` is outside its {known} tokens",
                    key(k)
                )));
            }
        }
        Ok(spec)
    }
}
