//! A tokenizer as the metadata of a GGUF file, for the programs that read those.

use rustc_hash::{FxHashMap, FxHashSet};

use super::gguf::key;
use super::spec::{BYTE, Flags, Model, NORMAL, SPACE, Step, TokenizerSpec, UNKNOWN, USER_DEFINED};
use super::{Lead, bert, lead, pretokenizers, unusable};
use crate::error::Result;
use crate::format::{Array, Strings, Value};

impl TokenizerSpec {
    /// The keys and values of a GGUF file that say the same, as llama.cpp reads them.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for what such a file has no place or no name for.
    pub fn metadata(&self) -> Result<Vec<(String, Value)>> {
        let mut spec = self.clone();
        spec.check()?;
        if spec.flags.iter().any(|(_, flags)| {
            let rest = Flags {
                normalized: false,
                ..*flags
            };
            rest != Flags::default()
        }) {
            log::warn!(
                "some of its tokens take in the spaces beside them or stand for whole words alone, which a GGUF file cannot say"
            );
        }
        let mut out = Vec::new();
        let mut put = |name: &str, value: Value| out.push((key(name), value));
        let model = match spec.model {
            Model::ByteBpe => "gpt2",
            Model::Bpe if spec.scores.is_empty() && !sums_up(&spec) => "gemma4",
            Model::Bpe => "llama",
            Model::Unigram => "t5",
            Model::WordPiece => "bert",
        };
        put("model", Value::String(model.into()));
        put("pre", Value::String(pre(&spec, model)?.into()));
        let tokens = (0..spec.tokens.len()).map(|id| written(&spec, id));
        put("tokens", strings(tokens));
        put("token_type", Value::Array(Array::I32(spec.types.clone())));
        if matches!(model, "llama" | "t5") {
            put("scores", Value::Array(Array::F32(scores(&spec))));
        }
        if matches!(model, "gpt2" | "gemma4") {
            put("merges", strings(merges(&spec)?.into_iter()));
        }
        let at = |ids: &[u32], what: &str| match ids {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            ids => Err(unusable(format!(
                "its texts {what} with {} tokens, and a GGUF file has room for one",
                ids.len()
            ))),
        };
        let (begin, end) = (at(&spec.begin, "begin")?, at(&spec.end, "end")?);
        // A text's own last token has the key; that of answers goes where a turn's end stands.
        let eot = spec
            .eot
            .or(spec.eos.filter(|eos| end.is_some_and(|end| end != *eos)));
        let ids = [
            ("bos_token_id", begin.or(spec.bos)),
            ("eos_token_id", end.or(spec.eos)),
            ("eot_token_id", eot),
            ("padding_token_id", spec.pad),
            ("unknown_token_id", spec.unknown()),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                put(name, Value::U32(id));
            }
        }
        put("add_bos_token", Value::Bool(begin.is_some()));
        put("add_eos_token", Value::Bool(end.is_some()));
        match spec.model {
            Model::Bpe | Model::Unigram => {
                put("add_space_prefix", Value::Bool(lead(&spec) != Lead::Never));
            }
            Model::WordPiece => {
                for (name, id) in [("cls", begin), ("seperator", end)] {
                    if let Some(id) = id {
                        put(&format!("{name}_token_id"), Value::U32(id));
                    }
                }
                let lower = spec.normalizer.contains(&Step::Lowercase);
                put("normalizer.lowercase", Value::Bool(lower));
                let accents = spec.normalizer.contains(&Step::Nfd);
                put("normalizer.strip_accents", Value::Bool(accents));
            }
            Model::ByteBpe => {}
        }
        if spec.model == Model::Unigram {
            put("remove_extra_whitespaces", Value::Bool(joins_spaces(&spec)));
            if let Some(table) = spec.normalizer.iter().find_map(|step| match step {
                Step::Charsmap { table, .. } => Some(table),
                _ => None,
            }) {
                put(
                    "precompiled_charsmap",
                    Value::Array(Array::U8(table.clone())),
                );
            }
        }
        let template = "tokenizer.chat_template";
        if let Some(source) = &spec.chat_template {
            out.push((template.into(), Value::String(source.clone())));
        }
        if let Some(source) = &spec.tool_template {
            out.push((
                "tokenizer.chat_templates".into(),
                strings(std::iter::once("tool_use".into())),
            ));
            out.push((
                format!("{template}.tool_use"),
                Value::String(source.clone()),
            ));
        }
        Ok(out)
    }
}

fn strings(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(Array::Strings(texts.collect::<Strings>()))
}

/// A token as a GGUF file has it.
fn written(spec: &TokenizerSpec, id: usize) -> String {
    let (token, ty) = (&spec.tokens[id], spec.types[id]);
    match spec.model {
        // No name is given twice.
        _ if token.is_empty() => format!("[PAD{id}]"),
        Model::WordPiece if ty == NORMAL => bert::written(token),
        _ => token.clone(),
    }
}

/// The name of the way a text is normalised and cut.
fn pre(spec: &TokenizerSpec, model: &str) -> Result<&'static str> {
    let nameless = |what: &str| {
        unusable(format!(
            "it {what} in a way that GGUF files have no name for"
        ))
    };
    let spaces = |step: &Step| match step {
        Step::Replace { pattern, with } => {
            [" ", r"\ "].contains(&pattern.as_str()) && with == SPACE
        }
        Step::Prepend(with) | Step::Lead { with, .. } => with == SPACE,
        // Cuts at spaces, where no token but of spaces has one inside.
        Step::Split { pattern, .. } => [SPACE, " ", r"\ "].contains(&pattern.as_str()),
        _ => false,
    };
    let mut steps = spec.normalizer.iter().chain(&spec.splits);
    match spec.model {
        Model::ByteBpe => {
            let composed = match spec.normalizer[..] {
                [] => false,
                [Step::Nfc] => true,
                _ => return Err(nameless("normalises text")),
            };
            pretokenizers::name(&spec.splits, spec.whole, composed)
                .ok_or_else(|| nameless("cuts text"))
        }
        Model::Bpe => {
            if !spec.types.contains(&BYTE) {
                return Err(unusable(
                    "it has no byte tokens to fall back to, which GGUF files of its kind must have",
                ));
            }
            let lead = lead(spec) != Lead::Never;
            if !steps.all(spaces) || (model == "gemma4" && lead) {
                return Err(nameless("normalises or merges text"));
            }
            Ok(if model == "gemma4" {
                "gemma4"
            } else {
                "default"
            })
        }
        Model::Unigram => {
            let known = |step: &Step| {
                spaces(step)
                    || matches!(step, Step::Charsmap { .. } | Step::Strip { .. })
                    || is_joining(step)
            };
            if !steps.all(known) {
                return Err(nameless("normalises text"));
            }
            Ok("default")
        }
        Model::WordPiece => {
            let lower = spec.normalizer.contains(&Step::Lowercase);
            let accents = spec.normalizer.contains(&Step::Nfd);
            let cleaning = bert::Cleaning {
                clean: true,
                ideographs: true,
                accents,
                lowercase: lower,
            };
            if spec.normalizer != bert::normalizer(cleaning) || spec.splits != bert::splits() {
                return Err(nameless("normalises or cuts text"));
            }
            Ok("default")
        }
    }
}

/// Whether a step makes one space of many.
fn is_joining(step: &Step) -> bool {
    match step {
        Step::Replace { pattern, .. } => pattern == " {2,}",
        Step::Split { pattern, .. } => pattern == r"\s+",
        _ => false,
    }
}

fn joins_spaces(spec: &TokenizerSpec) -> bool {
    let mut steps = spec.normalizer.iter().chain(&spec.splits);
    steps.any(|step| is_joining(step) || matches!(step, Step::Strip { .. }))
}

/// Merges as "left right".
fn merges(spec: &TokenizerSpec) -> Result<Vec<String>> {
    let merge = |(left, right): &(u32, u32)| {
        let (left, right) = (&spec.tokens[*left as usize], &spec.tokens[*right as usize]);
        if left.contains(' ') || right.contains(' ') {
            return Err(unusable(
                "its merges are of tokens with spaces, which GGUF files cannot write",
            ));
        }
        Ok([left, " ", right].concat())
    };
    spec.merges.iter().map(merge).collect()
}

/// Whether merging by scores is merging by the listed pairs: every pair of tokens that makes a
/// normal token is listed, and the pairs that make the same one follow each other.
fn sums_up(spec: &TokenizerSpec) -> bool {
    let mut id_of: FxHashMap<&str, u32> = FxHashMap::default();
    for ((token, ty), id) in spec.tokens.iter().zip(&spec.types).zip(0..) {
        if matches!(*ty, NORMAL | USER_DEFINED) {
            id_of.entry(token).or_insert(id);
        }
    }
    let token = |id: u32| spec.tokens[id as usize].as_str();
    let listed: FxHashSet<(&str, &str)> = spec
        .merges
        .iter()
        .map(|(l, r)| (token(*l), token(*r)))
        .collect();
    let mut made = FxHashSet::default();
    let mut last = None;
    for (left, right) in &spec.merges {
        let now = [token(*left), token(*right)].concat();
        if last.as_ref() != Some(&now) && !made.insert(now.clone()) {
            return false;
        }
        last = Some(now);
    }
    // No token of a real vocabulary is as long.
    let short = |whole: &&&str| whole.len() <= 512;
    id_of.keys().filter(short).all(|whole| {
        whole.char_indices().skip(1).all(|(at, _)| {
            let (left, right) = whole.split_at(at);
            let both = id_of.contains_key(left) && id_of.contains_key(right);
            !both || listed.contains(&(left, right))
        })
    })
}

/// A score for each token: the file's own or, of merges, how late the token is made.
fn scores(spec: &TokenizerSpec) -> Vec<f32> {
    if !spec.scores.is_empty() {
        return spec.scores.clone();
    }
    let mut order: FxHashMap<String, f32> = FxHashMap::default();
    for (left, right) in &spec.merges {
        let (left, right) = (&spec.tokens[*left as usize], &spec.tokens[*right as usize]);
        let next = -(order.len() as f32);
        order.entry([left.as_str(), right].concat()).or_insert(next);
    }
    // Characters are never made, and bytes and markers have no score.
    let last = -(order.len() as f32);
    let tokens = spec.tokens.iter().zip(&spec.types);
    tokens
        .map(|(token, ty)| match *ty {
            NORMAL => order.get(token).copied().unwrap_or(last),
            BYTE | UNKNOWN => 0.0,
            _ => order.get(token).copied().unwrap_or(0.0),
        })
        .collect()
}
