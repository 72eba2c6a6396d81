//! Tokenizers, chat templates, roles and streaming decode.

mod bpe;
mod chat;
mod cipher;
mod encodings;
mod json;
mod matcher;
mod pretokenize;
mod spm;
mod stream;

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use matcher::Matcher;

pub use chat::{ChatTemplate, Message, Role, ToolCall};
pub use encodings::ENCODINGS;
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

/// Types of tokens, as a GGUF file numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

#[derive(Debug)]
enum Kind {
    Bpe(Box<bpe::Bpe>),
    Spm(spm::Spm),
}

/// Bytes that each token stands for, end to end.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    /// Empty for an id outside the vocabulary.
    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = id
            .checked_sub(1)
            .and_then(|id| self.ends.get(id))
            .unwrap_or(&0);
        let end = self.ends.get(id).unwrap_or(start);
        self.bytes.get(*start..*end).unwrap_or_default()
    }
}

/// Text to tokens and back.
///
/// Two kinds of token stand for fixed texts and are found before anything else: *control* tokens,
/// only where [`Specials::Parse`] or a chat template asks for them, and the vocabulary's
/// user-defined ones (runs of spaces, tags), in any text.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    spec: TokenizerSpec,
    pieces: Pieces,
    /// Whether each token is a marker.
    control: Vec<bool>,
    /// Control tokens by their text.
    markers: Matcher,
    /// User-defined tokens by their text.
    defined: Matcher,
    ends: Vec<u32>,
}

impl Tokenizer {
    /// A tokenizer from a vocabulary.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a kind or a pattern that is not known, or a vocabulary with holes.
    pub fn new(mut spec: TokenizerSpec) -> Result<Self> {
        if spec.tokens.is_empty() {
            return Err(unusable("it has no tokens"));
        }
        let known = spec.tokens.len();
        spec.types.resize(known, NORMAL);
        let special = [spec.bos, spec.eos, spec.eot];
        if let Some(id) = special
            .into_iter()
            .flatten()
            .find(|id| *id as usize >= known)
        {
            return Err(unusable(format!(
                "its special token {id} is outside its {known} tokens"
            )));
        }
        let control = controls(&spec);
        let (kind, pieces) = match spec.model.as_str() {
            "gpt2" => {
                let pieces = bpe::pieces(&spec);
                let bpe = bpe::Bpe::new(&spec, &pieces, &control)?;
                (Kind::Bpe(bpe.into()), pieces)
            }
            "llama" => {
                let pieces = spm::pieces(&spec)?;
                (Kind::Spm(spm::Spm::new(&spec, &control)?), pieces)
            }
            other => {
                return Err(unusable(format!(
                    "its kind is `{other}`, and `gpt2` and `llama` are known"
                )));
            }
        };
        Self::of(kind, spec, pieces, control)
    }

    fn of(kind: Kind, spec: TokenizerSpec, pieces: Pieces, control: Vec<bool>) -> Result<Self> {
        let mut ends: Vec<u32> = [spec.eos, spec.eot].into_iter().flatten().collect();
        let tokens = || spec.tokens.iter().zip(0u32..).zip(&control);
        ends.extend(
            tokens()
                .filter(|((text, _), control)| **control && ENDS.contains(&text.as_str()))
                .map(|((_, id), _)| id),
        );
        ends.sort_unstable();
        ends.dedup();
        let markers = tokens()
            .filter(|(_, control)| **control)
            .map(|((text, id), _)| (text.as_bytes(), id));
        let defined = tokens()
            .zip(&spec.types)
            .filter(|((_, control), ty)| !**control && **ty == USER_DEFINED)
            .map(|(((_, id), _), _)| (pieces.get(id), id));
        let (markers, defined) = (Matcher::new(markers)?, Matcher::new(defined)?);
        Ok(Self {
            kind,
            spec,
            pieces,
            control,
            markers,
            defined,
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
        self.pieces.get(id)
    }

    /// Whether a token is a marker rather than text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize) == Some(&true)
    }

    /// The texts of all control tokens.
    fn controls(&self) -> impl Iterator<Item = &str> {
        let tokens = self.spec.tokens.iter().zip(&self.control);
        tokens
            .filter(|(_, control)| **control)
            .map(|(text, _)| text.as_str())
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
            Specials::Parse => self.encode_marked(text, Cow::from, &mut ids),
        }
        ids
    }

    /// Tokens of a text with the beginning-of-text token where the model wants one.
    pub fn encode_text(&self, text: &str, specials: Specials) -> Vec<u32> {
        self.begin(self.encode(text, specials))
    }

    /// Puts the beginning-of-text token first, where the model wants it and it is not there.
    fn begin(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// Text with control tokens in it; `plain` turns what lies between them into what it means.
    fn encode_marked<'t>(
        &self,
        text: &'t str,
        plain: impl Fn(&'t str) -> Cow<'t, str>,
        ids: &mut Vec<u32>,
    ) {
        let mut done = 0;
        while let Some(found) = self.markers.find(text, done) {
            self.encode_plain(&plain(&text[done..found.at]), done == 0, ids);
            ids.push(found.id);
            done = found.at + found.len;
        }
        self.encode_plain(&plain(&text[done..]), done == 0, ids);
    }

    /// Text without any control token; `first` where nothing comes before it.
    fn encode_plain(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let prefixed = (first && self.spec.add_space_prefix).then(|| format!(" {text}"));
        let text = prefixed.as_deref().unwrap_or(text);
        let encode = |text: &str, ids: &mut Vec<u32>| match &self.kind {
            Kind::Bpe(bpe) => bpe.encode(text, ids),
            Kind::Spm(spm) => spm.encode(text, ids),
        };
        let mut done = 0;
        while let Some(found) = self.defined.find(text, done) {
            encode(&text[done..found.at], ids);
            ids.push(found.id);
            done = found.at + found.len;
        }
        encode(&text[done..], ids);
    }

    /// Bytes of a text from its start; control tokens give nothing.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let text = ids.iter().filter(|id| !self.is_control(**id));
        let mut bytes: Vec<u8> = text.flat_map(|id| self.token_bytes(*id)).copied().collect();
        if self.spec.add_space_prefix && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        bytes
    }
}

/// Which tokens are markers: what the file calls control, and, since files are wrong about it, what
/// is written like a marker. Other user-defined tokens (runs of spaces, tags) are text.
fn controls(spec: &TokenizerSpec) -> Vec<bool> {
    let special = [spec.bos, spec.eos, spec.eot];
    // Phi-3 calls its `</s>` user-defined; Gemma's is a tag of HTML.
    let bos = spec.bos.and_then(|id| spec.tokens.get(id as usize));
    let end = bos.filter(|bos| *bos == "<s>").map(|_| "</s>");
    let tokens = spec.tokens.iter().zip(&spec.types).zip(0..);
    tokens
        .map(|((text, ty), id)| match *ty {
            CONTROL => !text.is_empty(),
            NORMAL | USER_DEFINED => {
                let inside = |open, close| {
                    let inner = text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
                    inner.is_some_and(|inner: &str| !inner.is_empty())
                };
                inside("<|", "|>")
                    || Some(text.as_str()) == end
                    || inside("<", "_of_turn>")
                    || (inside("<", ">") && special.contains(&Some(id)))
            }
            _ => false,
        })
        .collect()
}

fn unusable(reason: impl Into<String>) -> Error {
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
        let pre = text(&key("pre"))?.unwrap_or("default").to_string();
        Ok(Self {
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
            add_bos: match meta.find::<bool>(&key("add_bos_token"))? {
                Some(add) => add,
                // A name that is not known is an error later.
                None => model == "llama" || pretokenize::find(&pre).is_ok_and(|pre| pre.bos),
            },
            add_space_prefix: meta
                .find::<bool>(&key("add_space_prefix"))?
                .unwrap_or(model == "llama"),
            chat_template: text("tokenizer.chat_template")?.map(Into::into),
            model,
            pre,
        })
    }
}
