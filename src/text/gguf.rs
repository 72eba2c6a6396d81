//! A tokenizer as a GGUF file has it, read and written.

use rustc_hash::FxHashMap;

use super::pretokenizers;
use super::spec::{
    CONTROL, Flags, LONGEST_WORD, Model, NORMAL, SPACE, Step, TokenizerSpec, UNKNOWN, USER_DEFINED,
};
use super::{bert, unusable};
use crate::error::{Result, shown};
use crate::format::{Array, Checkpoint, Metadata, Value};

/// The key of a value under `tokenizer.ggml`.
pub(super) fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

impl TokenizerSpec {
    /// The tokenizer of a GGUF file or of a Hugging Face folder.
    ///
    /// # Errors
    /// See [`TokenizerSpec::from_folder`]. In a GGUF file, where a key is missing or of another type,
    /// and [`crate::Error::Tokenizer`] for a kind or a pre-tokenizer that is not known, or merges of
    /// what is no token.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        if checkpoint.is_folder() {
            return Self::of_folder(checkpoint);
        }
        let meta = &checkpoint.meta;
        let kind = meta.str(&key("model"))?;
        let mut spec = Self {
            tokens: strings(meta, "tokens")?,
            scores: match meta.value(&key("scores")) {
                Some(_) => meta.f32s(&key("scores"))?.into_owned(),
                None => Vec::new(),
            },
            types: match meta.value(&key("token_type")) {
                Some(_) => meta.i32s(&key("token_type"))?.into_owned(),
                None => Vec::new(),
            },
            eos: id(meta, "eos_token_id")?,
            eot: id(meta, "eot_token_id")?,
            pad: id(meta, "padding_token_id")?,
            bos: id(meta, "bos_token_id")?,
            longest_word: LONGEST_WORD,
            chat_template: text(meta, "tokenizer.chat_template")?,
            tool_template: text(meta, "tokenizer.chat_template.tool_use")?,
            ..Self::default()
        };
        spec.types.resize(spec.tokens.len(), NORMAL);
        spec.merges = merges(&spec.tokens, &spec.types, &strings(meta, "merges")?)?;
        let (bos, eos) = match kind {
            "gpt2" => spec.byte_bpe(meta)?,
            "llama" | "gemma4" => spec.bpe(meta, kind)?,
            "t5" => spec.unigram(meta)?,
            "bert" => spec.word_piece(meta)?,
            other => {
                return Err(unusable(format!(
                    "its kind is `{}`, and `gpt2`, `llama`, `gemma4`, `t5` and `bert` are known",
                    shown(other)
                )));
            }
        };
        let flag = |name| meta.find::<bool>(&key(name));
        if flag("add_bos_token")?.unwrap_or(bos) {
            spec.begin.extend(spec.bos);
        }
        if flag("add_eos_token")?.unwrap_or(eos) {
            spec.end.extend(spec.eos);
        }
        Ok(spec)
    }

    /// The rest of each kind, and whether its texts begin and end with `bos` and `eos` where the
    /// file does not say.
    fn byte_bpe(&mut self, meta: &Metadata) -> Result<(bool, bool)> {
        let name = meta.find::<&str>(&key("pre"))?.unwrap_or("default");
        let pre = pretokenizers::find(name)?;
        self.model = Model::ByteBpe;
        self.splits = pre.steps();
        self.whole = pre.whole;
        if pre.composed {
            self.normalizer.push(Step::Nfc);
        }
        Ok((pre.bos, false))
    }

    fn bpe(&mut self, meta: &Metadata, kind: &str) -> Result<(bool, bool)> {
        self.model = Model::Bpe;
        self.fuse_unknown = true;
        let spaces = meta.find::<bool>(&key("add_space_prefix"))?;
        if spaces.unwrap_or(kind == "llama") {
            self.normalizer.push(Step::Prepend(SPACE.into()));
        }
        self.normalizer.push(Step::written_spaces());
        // A GGUF file has no place for this: Phi-3's markers take the white space after them.
        let name = meta.find::<&str>("general.name")?.unwrap_or_default();
        let name = name.to_lowercase();
        if ["phi-3", "phi3"].iter().any(|phi| name.contains(phi)) {
            let rstrip = Flags {
                rstrip: true,
                ..Flags::default()
            };
            let tokens = self.tokens.iter().zip(&self.types).zip(0..);
            let marks = tokens.filter(|((text, ty), _)| {
                matches!(**ty, CONTROL | USER_DEFINED)
                    && !["<s>", "<unk>", "<|endoftext|>"].contains(&text.as_str())
            });
            self.flags = marks.map(|(_, id)| (id, rstrip)).collect();
        }
        Ok((true, false))
    }

    fn unigram(&mut self, meta: &Metadata) -> Result<(bool, bool)> {
        self.model = Model::Unigram;
        self.fuse_unknown = true;
        if let Some(table) = meta.value(&key("precompiled_charsmap")) {
            self.normalizer.push(Step::Charsmap {
                table: bytes(table)?,
                graphemes: false,
            });
        }
        let flag = |name| meta.find::<bool>(&key(name));
        if flag("remove_extra_whitespaces")?.unwrap_or(false) {
            self.normalizer.push(Step::Strip {
                left: true,
                right: true,
            });
            self.normalizer.push(Step::Replace {
                pattern: " {2,}".into(),
                with: " ".into(),
            });
        }
        if flag("add_space_prefix")?.unwrap_or(true) {
            self.normalizer.push(Step::Prepend(SPACE.into()));
        }
        self.normalizer.push(Step::written_spaces());
        Ok((false, true))
    }

    fn word_piece(&mut self, meta: &Metadata) -> Result<(bool, bool)> {
        self.model = Model::WordPiece;
        let flag = |name| meta.find::<bool>(&key(name));
        let lowercase = flag("normalizer.lowercase")?.unwrap_or(true);
        self.normalizer = bert::normalizer(bert::Cleaning {
            clean: true,
            ideographs: true,
            accents: flag("normalizer.strip_accents")?.unwrap_or(lowercase),
            lowercase,
        });
        self.splits = bert::splits();
        self.bos = self.bos.or(id(meta, "cls_token_id")?);
        // The key is written so.
        self.eos = id(meta, "seperator_token_id")?.or(self.eos);
        let unknown = id(meta, "unknown_token_id")?;
        for ((token, ty), id) in self.tokens.iter_mut().zip(&mut self.types).zip(0..) {
            if Some(id) == unknown {
                *ty = UNKNOWN;
            }
            if *ty == NORMAL || *ty == UNKNOWN {
                *token = bert::read(token);
            }
        }
        Ok((true, true))
    }
}

impl Step {
    /// Spaces as SentencePiece writes them.
    pub(super) fn written_spaces() -> Self {
        Self::Replace {
            pattern: " ".into(),
            with: SPACE.into(),
        }
    }
}

fn id(meta: &Metadata, name: &str) -> Result<Option<u32>> {
    meta.find(&key(name))
}

fn text(meta: &Metadata, key: &str) -> Result<Option<String>> {
    Ok(meta.find::<&str>(key)?.map(Into::into))
}

/// The bytes of an array of numbers of 8 bits, of either sign.
fn bytes(value: &Value) -> Result<Vec<u8>> {
    match value {
        Value::Array(Array::U8(bytes)) => Ok(bytes.clone()),
        Value::Array(Array::I8(bytes)) => {
            Ok(bytes.iter().map(|byte| byte.cast_unsigned()).collect())
        }
        _ => Err(unusable(
            "its table of replacements (charsmap) is not of bytes",
        )),
    }
}

fn strings(meta: &Metadata, name: &str) -> Result<Vec<String>> {
    match meta.value(&key(name)) {
        Some(_) => Ok(meta
            .strings(&key(name))?
            .iter()
            .map(str::to_string)
            .collect()),
        None => Ok(Vec::new()),
    }
}

/// Merges as ids: "left right", best first, of whose tokens none has a space.
pub(super) fn merges(
    tokens: &[String],
    types: &[i32],
    merges: &[String],
) -> Result<Vec<(u32, u32)>> {
    let ids = ids(tokens, types);
    let of = |token: &str, merge: &str| {
        ids.get(token).copied().ok_or_else(|| {
            let (merge, token) = (shown(merge), shown(token));
            unusable(format!("it merges `{merge}`, and `{token}` is no token"))
        })
    };
    let pair = |merge: &String| {
        let (left, right) = merge.split_once(' ').ok_or_else(|| {
            unusable(format!("its merge `{}` is no pair of tokens", shown(merge)))
        })?;
        Ok((of(left, merge)?, of(right, merge)?))
    };
    merges.iter().map(pair).collect()
}

/// Tokens by their text; of those that are written the same the first that is no marker.
pub(super) fn ids<'t>(tokens: &'t [String], types: &[i32]) -> FxHashMap<&'t str, u32> {
    let mut ids = FxHashMap::default();
    let all = || tokens.iter().zip(types).zip(0..);
    let text = all().filter(|((_, ty), _)| **ty != CONTROL);
    let marks = all().filter(|((_, ty), _)| **ty == CONTROL);
    for ((token, _), id) in text.chain(marks) {
        ids.entry(token.as_str()).or_insert(id);
    }
    ids
}
