//! `tokenizer.json`, Hugging Face's description of a tokenizer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::bert::{self, Cleaning};
use super::pretokenizers::{GPT2, NUMBER, PUNCTUATION};
use super::spec::{
    BYTE, CONTROL, Flags, Keep, LONGEST_WORD, Model, NORMAL, Step, TokenizerSpec, UNKNOWN, UNUSED,
    USER_DEFINED,
};
use super::unusable;
use super::wordpiece::INSIDE;
use crate::error::{Result, reason, shown};

/// Ids beyond the model's own vocabulary that may stand for nothing: makers leave some free.
const FREE: usize = 1 << 16;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: ModelFile,
}

/// A token that stands for a fixed text.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the file")]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelFile {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Vocabulary,
    #[serde(default)]
    merges: Option<Vec<Merge>>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    byte_fallback: Option<bool>,
    fuse_unk: Option<bool>,
    ignore_merges: Option<bool>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
}

/// Tokens with their ids, or in the order of their ids with their scores.
enum Vocabulary {
    Ids(Vec<(String, u32)>),
    Scores(Vec<(String, f64)>),
}

/// Two tokens: as an array, or as one text with a space between.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tokens and their ids, or pairs of tokens and scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = map.next_entry()? {
                    tokens.push(token);
                }
                Ok(Vocabulary::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = seq.next_element()? {
                    tokens.push(token);
                }
                Ok(Vocabulary::Scores(tokens))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a pair of tokens")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                let (left, right) = text
                    .split_once(' ')
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Merge(left.into(), right.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let short = |len| serde::de::Error::invalid_length(len, &"a pair of tokens");
                let left = seq.next_element()?.ok_or_else(|| short(0))?;
                let right = seq.next_element()?.ok_or_else(|| short(1))?;
                Ok(Merge(left, right))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// The tokenizer that a `tokenizer.json` describes.
///
/// # Errors
/// [`crate::Error::Tokenizer`] for a file that is not one, of a kind that is not known, or whose
/// tokens, merges and patterns do not fit together.
pub(super) fn read(json: &[u8]) -> Result<TokenizerSpec> {
    let file: File = serde_json::from_slice(json)
        .map_err(|e| unusable(format!("its tokenizer.json cannot be read: {}", reason(e))))?;
    let (begin, end) = template(&file.post_processor)?;
    let mut spec = TokenizerSpec {
        begin,
        end,
        ..TokenizerSpec::default()
    };
    normalizer(&file.normalizer, &mut spec.normalizer)?;
    pre_tokenizer(&file.pre_tokenizer, &mut spec.splits)?;
    let written = spec.splits.contains(&Step::Bytes) || has_type(&file.decoder, "ByteLevel");
    // A byte-level model writes bytes by itself, last.
    spec.splits.pop_if(|step| *step == Step::Bytes);
    if !written && spec.splits.contains(&Step::Bytes) {
        return Err(unusable(
            "it writes bytes as characters, and is not byte-level",
        ));
    }
    model(file.model, &file.added_tokens, written, &mut spec)?;
    Ok(spec)
}

fn model(file: ModelFile, added: &[Added], written: bool, spec: &mut TokenizerSpec) -> Result<()> {
    let kind = match (file.kind.as_deref(), &file.vocab) {
        (Some(kind), _) => kind,
        // Older files say it by what they hold.
        (None, Vocabulary::Scores(_)) => "Unigram",
        (None, _) if file.merges.is_some() => "BPE",
        (None, _) if file.max_input_chars_per_word.is_some() => "WordPiece",
        (None, _) => "WordLevel",
    };
    spec.model = match kind {
        "BPE" if written => Model::ByteBpe,
        "BPE" => Model::Bpe,
        "Unigram" => Model::Unigram,
        "WordPiece" => Model::WordPiece,
        other => {
            return Err(unusable(format!(
                "its model is of type `{}`, and BPE, Unigram and WordPiece are known",
                shown(other)
            )));
        }
    };
    let affix = |affix: &Option<String>| affix.as_ref().is_some_and(|affix| !affix.is_empty());
    let foreign = match spec.model {
        Model::WordPiece => file.continuing_subword_prefix.as_deref().unwrap_or(INSIDE) != INSIDE,
        _ => affix(&file.continuing_subword_prefix) || affix(&file.end_of_word_suffix),
    };
    if foreign {
        return Err(unusable(
            "it marks the insides or ends of words in a way that is not known",
        ));
    }
    spec.whole = file.ignore_merges.unwrap_or(false);
    spec.fuse_unknown = file.fuse_unk.unwrap_or(spec.model == Model::Unigram);
    spec.longest_word = file.max_input_chars_per_word.unwrap_or(LONGEST_WORD);
    let scored = matches!(file.vocab, Vocabulary::Scores(_));
    if scored != (spec.model == Model::Unigram) {
        return Err(unusable("its vocabulary is not of the kind of its model"));
    }
    let tokens = match file.vocab {
        Vocabulary::Ids(tokens) => tokens,
        Vocabulary::Scores(tokens) => {
            spec.scores = tokens.iter().map(|(_, score)| *score as f32).collect();
            let tokens = tokens.into_iter().zip(0..);
            tokens.map(|((token, _), id)| (token, id)).collect()
        }
    };
    place(tokens, added, spec)?;
    if scored {
        spec.scores.resize(spec.tokens.len(), 0.0);
    }
    let unknown = match file.unk_token {
        Some(token) if spec.model != Model::ByteBpe => {
            let id = spec.tokens.iter().position(|known| *known == token);
            if id.is_none() && spec.model == Model::WordPiece {
                return Err(unusable(format!(
                    "its token for what is unknown, `{}`, is none of its tokens",
                    shown(&token)
                )));
            }
            id
        }
        _ => file.unk_id.map(|id| id as usize),
    };
    if let Some(id) = unknown {
        match spec.types.get_mut(id) {
            Some(ty) => *ty = UNKNOWN,
            None => {
                return Err(unusable(format!(
                    "it has no token {id}, which its unk_id names"
                )));
            }
        }
    }
    if file.byte_fallback.unwrap_or(false) {
        for (token, ty) in spec.tokens.iter().zip(&mut spec.types) {
            if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
                *ty = BYTE;
            }
        }
    }
    let merges = file.merges.unwrap_or_default();
    if spec.model == Model::Bpe && merges.is_empty() {
        return Err(unusable("it has no merges"));
    }
    let ids: FxHashMap<&str, u32> = super::gguf::ids(&spec.tokens, &spec.types);
    let mut pairs = Vec::with_capacity(merges.len());
    for Merge(left, right) in &merges {
        let of = |token: &str| {
            ids.get(token).copied().ok_or_else(|| {
                let (left, right, token) = (shown(left), shown(right), shown(token));
                unusable(format!(
                    "it merges `{left} {right}`, and `{token}` is no token"
                ))
            })
        };
        pairs.push((of(left)?, of(right)?));
    }
    spec.merges = pairs;
    Ok(())
}

/// Puts tokens in the places of their ids.
fn place(tokens: Vec<(String, u32)>, added: &[Added], spec: &mut TokenizerSpec) -> Result<()> {
    // What the model can make: between these no id may be missing.
    let fixed: FxHashMap<&str, u32> = added.iter().map(|a| (a.content.as_str(), a.id)).collect();
    let made = tokens
        .iter()
        .filter(|(token, id)| fixed.get(token.as_str()) != Some(id));
    let made = made.map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
    let ids = tokens
        .iter()
        .map(|(_, id)| *id)
        .chain(added.iter().map(|a| a.id));
    let count = ids.max().map_or(0, |most| most as usize + 1);
    let room = tokens.len() + added.len();
    if made > room || count > room + FREE {
        return Err(unusable(format!(
            "it has {room} tokens, and ids up to {}",
            count.saturating_sub(1)
        )));
    }
    let mut placed: Vec<Option<String>> = vec![None; count];
    let mut seen = FxHashMap::default();
    let twice = |token: &str, other: &str, id: u32| {
        let (token, other) = (shown(token), shown(other));
        unusable(format!(
            "its tokens `{other}` and `{token}` both have the id {id}"
        ))
    };
    for (token, id) in tokens {
        if let Some(other) = seen.insert(token.clone(), id) {
            let token = shown(&token);
            return Err(unusable(format!(
                "its token `{token}` has the ids {other} and {id}"
            )));
        }
        let place = &mut placed[id as usize];
        if let Some(other) = place {
            return Err(twice(&token, other, id));
        }
        *place = Some(token);
    }
    spec.types = vec![NORMAL; count];
    for token in added {
        let content = &token.content;
        match &mut placed[token.id as usize] {
            Some(other) if other != content => return Err(twice(content, other, token.id)),
            place => *place = Some(content.clone()),
        }
        spec.types[token.id as usize] = if token.special { CONTROL } else { USER_DEFINED };
        let flags = Flags {
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            single_word: token.single_word,
            normalized: token.normalized,
        };
        if flags != Flags::default() {
            spec.flags.push((token.id, flags));
        }
    }
    if let Some(hole) = placed.iter().take(made).position(Option::is_none) {
        return Err(unusable(format!(
            "no token has the id {hole}, and its vocabulary goes up to {}",
            made - 1
        )));
    }
    let typed = placed.into_iter().zip(&mut spec.types);
    spec.tokens = typed
        .map(|(token, ty)| {
            if token.is_none() {
                *ty = UNUSED;
            }
            token.unwrap_or_default()
        })
        .collect();
    Ok(())
}

/// Whether a component is of a type, or has one inside.
fn has_type(value: &Value, kind: &str) -> bool {
    let inside = ["decoders", "pretokenizers", "normalizers"];
    let inside = inside.iter().filter_map(|key| value.get(key)?.as_array());
    value["type"] == kind || inside.flatten().any(|value| has_type(value, kind))
}

/// A component's type.
fn kind_of<'v>(value: &'v Value, what: &str) -> Result<&'v str> {
    value["type"]
        .as_str()
        .ok_or_else(|| unusable(format!("its {what} has no type")))
}

fn unknown_kind(what: &str, kind: &str) -> crate::Error {
    unusable(format!("its {what} `{}` is not known", shown(kind)))
}

/// A text that a component must have.
fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    text.map(Into::into)
        .ok_or_else(|| unusable(format!("a part of its tokenizer.json has no `{key}`")))
}

fn flag(value: &Value, key: &str, default: bool) -> bool {
    value[key].as_bool().unwrap_or(default)
}

/// The parts of a sequence.
fn parts<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

/// A pattern: a text that is meant as it is, or a regular expression.
fn pattern(value: &Value) -> Result<String> {
    let pattern = &value["pattern"];
    match pattern["Regex"].as_str() {
        Some(regex) => Ok(regex.into()),
        None => Ok(escaped(&text(pattern, "String")?)),
    }
}

/// A text as a pattern that matches it alone.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn normalizer(value: &Value, steps: &mut Vec<Step>) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    let replace = |pattern: &str, with: &str| Step::Replace {
        pattern: pattern.into(),
        with: with.into(),
    };
    match kind_of(value, "normaliser")? {
        "Sequence" => {
            for part in parts(value, "normalizers") {
                normalizer(part, steps)?;
            }
        }
        "NFC" => steps.push(Step::Nfc),
        "NFD" => steps.push(Step::Nfd),
        "NFKC" => steps.push(Step::Nfkc),
        "NFKD" => steps.push(Step::Nfkd),
        "Lowercase" => steps.push(Step::Lowercase),
        "StripAccents" => steps.push(replace(r"\p{M}", "")),
        "Strip" => steps.push(Step::Strip {
            left: flag(value, "strip_left", true),
            right: flag(value, "strip_right", true),
        }),
        "Prepend" => steps.push(Step::Prepend(text(value, "prepend")?)),
        "Replace" => steps.push(replace(&pattern(value)?, &text(value, "content")?)),
        "Nmt" => steps.extend([
            replace(r"[\x01-\x08\x0B\x0E-\x1F\x7F\u{8F}\u{9F}]", ""),
            replace(
                r"[\t\n\x0C\r\u{1680}\u{200B}-\u{200F}\u{2028}\u{2029}\u{2581}\u{FEFF}\u{FFFD}]",
                " ",
            ),
        ]),
        "BertNormalizer" => {
            let lowercase = flag(value, "lowercase", true);
            steps.extend(bert::normalizer(Cleaning {
                clean: flag(value, "clean_text", true),
                ideographs: flag(value, "handle_chinese_chars", true),
                accents: flag(value, "strip_accents", lowercase),
                lowercase,
            }));
        }
        "Precompiled" => {
            let table = BASE64_STANDARD
                .decode(text(value, "precompiled_charsmap")?)
                .map_err(|e| unusable(format!("its table of replacements is no base64: {e}")))?;
            if !table.is_empty() {
                steps.push(Step::Charsmap {
                    table,
                    graphemes: true,
                });
            }
        }
        other => return Err(unknown_kind("normaliser", other)),
    }
    Ok(())
}

fn pre_tokenizer(value: &Value, steps: &mut Vec<Step>) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    let split = |pattern: &str, keep: Keep| Step::Split {
        pattern: pattern.into(),
        keep,
        invert: false,
    };
    match kind_of(value, "pre-tokenizer")? {
        "Sequence" => {
            for part in parts(value, "pretokenizers") {
                pre_tokenizer(part, steps)?;
            }
        }
        "ByteLevel" => {
            if flag(value, "add_prefix_space", true) {
                steps.push(Step::Lead {
                    with: " ".into(),
                    first: false,
                });
            }
            if flag(value, "use_regex", true) {
                steps.push(split(GPT2, Keep::Isolated));
            }
            steps.push(Step::Bytes);
        }
        "Split" => steps.push(Step::Split {
            pattern: pattern(value)?,
            keep: keep(value)?,
            invert: flag(value, "invert", false),
        }),
        "Punctuation" => steps.push(split(
            PUNCTUATION,
            match value.get("behavior") {
                Some(_) => keep(value)?,
                None => Keep::Isolated,
            },
        )),
        "Digits" => {
            let each = flag(value, "individual_digits", false);
            let keep = if each {
                Keep::Isolated
            } else {
                Keep::Contiguous
            };
            steps.push(split(NUMBER, keep));
        }
        "Whitespace" => steps.push(Step::Split {
            pattern: r"\w+|[^\w\s]+".into(),
            keep: Keep::Removed,
            invert: true,
        }),
        "WhitespaceSplit" => steps.push(split(r"\s+", Keep::Removed)),
        "CharDelimiterSplit" => {
            steps.push(split(&escaped(&text(value, "delimiter")?), Keep::Removed));
        }
        "BertPreTokenizer" => steps.extend(bert::splits()),
        "Metaspace" => metaspace(value, steps)?,
        other => return Err(unknown_kind("pre-tokenizer", other)),
    }
    Ok(())
}

/// SentencePiece's spaces: written, put before, and cut at.
fn metaspace(value: &Value, steps: &mut Vec<Step>) -> Result<()> {
    let space = text(value, "replacement")?;
    steps.push(Step::Replace {
        pattern: " ".into(),
        with: space.clone(),
    });
    let older = if flag(value, "add_prefix_space", true) {
        "always"
    } else {
        "never"
    };
    let scheme = value["prepend_scheme"].as_str().unwrap_or(older);
    if scheme != "never" {
        steps.push(Step::Lead {
            with: space.clone(),
            first: scheme == "first",
        });
    }
    if flag(value, "split", true) {
        steps.push(Step::Split {
            pattern: escaped(&space),
            keep: Keep::WithNext,
            invert: false,
        });
    }
    Ok(())
}

fn keep(value: &Value) -> Result<Keep> {
    let behaviour = text(value, "behavior")?;
    Ok(match behaviour.as_str() {
        "Removed" => Keep::Removed,
        "Isolated" => Keep::Isolated,
        "MergedWithPrevious" => Keep::WithPrevious,
        "MergedWithNext" => Keep::WithNext,
        "Contiguous" => Keep::Contiguous,
        other => return Err(unknown_kind("way to split", other)),
    })
}

/// The tokens that every text begins and ends with.
fn template(value: &Value) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    if value.is_null() {
        return Ok((begin, end));
    }
    match kind_of(value, "post-processor")? {
        "Sequence" => {
            for part in parts(value, "processors") {
                let (before, after) = template(part)?;
                begin.splice(0..0, before);
                end.extend(after);
            }
        }
        "ByteLevel" => {}
        kind @ ("BertProcessing" | "RobertaProcessing") => {
            for (key, ids) in [("cls", &mut begin), ("sep", &mut end)] {
                let id = value[key][1].as_u64().and_then(|id| u32::try_from(id).ok());
                ids.push(id.ok_or_else(|| unusable(format!("its {kind} has no `{key}`")))?);
            }
        }
        "TemplateProcessing" => {
            let mut seen = false;
            for part in parts(value, "single") {
                let Some(id) = part["SpecialToken"]["id"].as_str() else {
                    seen = true;
                    continue;
                };
                let ids = parts(&value["special_tokens"][id], "ids");
                let ids: Option<Vec<u32>> =
                    ids.map(|id| u32::try_from(id.as_u64()?).ok()).collect();
                let ids = ids.filter(|ids| !ids.is_empty()).ok_or_else(|| {
                    let id = shown(id);
                    unusable(format!("its template's token `{id}` has no id"))
                })?;
                if seen { &mut end } else { &mut begin }.extend(ids);
            }
        }
        other => return Err(unknown_kind("post-processor", other)),
    }
    Ok((begin, end))
}
