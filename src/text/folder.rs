//! A tokenizer as a Hugging Face folder has it: several files, of which one is always there.

use serde_json::Value;

use super::spec::{CONTROL, TokenizerSpec, USER_DEFINED};
use super::{tokenizer_json, unusable};
use crate::error::{Result, reason};
use crate::format::Checkpoint;

/// The files of a folder that a tokenizer is made from, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct FolderFiles<'f> {
    /// `tokenizer.json`.
    pub tokenizer: Option<&'f [u8]>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'f [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'f [u8]>,
    /// `generation_config.json`.
    pub generation_config: Option<&'f [u8]>,
    /// `config.json`, for the ids that it may name.
    pub config: Option<&'f [u8]>,
    /// `chat_template.jinja`.
    pub chat_template: Option<&'f [u8]>,
    /// `chat_template.json`, where vision models have it.
    pub chat_template_json: Option<&'f [u8]>,
}

impl TokenizerSpec {
    /// The tokenizer of a folder that is open.
    pub(super) fn of_folder(checkpoint: &Checkpoint) -> Result<Self> {
        let file = |name: &str| match checkpoint.file(name) {
            Some(source) => source.bytes(0..source.len()).map(Some),
            None => Ok(None),
        };
        Self::from_folder(&FolderFiles {
            tokenizer: file("tokenizer.json")?.as_deref(),
            tokenizer_config: file("tokenizer_config.json")?.as_deref(),
            special_tokens_map: file("special_tokens_map.json")?.as_deref(),
            generation_config: file("generation_config.json")?.as_deref(),
            config: file("config.json")?.as_deref(),
            chat_template: file("chat_template.jinja")?.as_deref(),
            chat_template_json: file("chat_template.json")?.as_deref(),
        })
    }

    /// The tokenizer of a Hugging Face folder.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where `tokenizer.json` is missing, or a file is not what its
    /// name says.
    pub fn from_folder(files: &FolderFiles<'_>) -> Result<Self> {
        let tokenizer = files.tokenizer.ok_or_else(|| {
            unusable("its folder has no tokenizer.json; save it with transformers' fast tokenizer")
        })?;
        let mut spec = tokenizer_json::read(tokenizer)?;
        let object = |json: Option<&[u8]>, name: &str| match json {
            None => Ok(Value::Null),
            Some(json) => serde_json::from_slice(json).map_err(|e| {
                let reason = reason(e);
                unusable(format!("its {name} cannot be read: {reason}"))
            }),
        };
        let config = object(files.tokenizer_config, "tokenizer_config.json")?;
        let map = object(files.special_tokens_map, "special_tokens_map.json")?;
        let generation = object(files.generation_config, "generation_config.json")?;
        let model = object(files.config, "config.json")?;
        let template = object(files.chat_template_json, "chat_template.json")?;

        let named = |name: &str| {
            let written = [&config, &map]
                .into_iter()
                .find_map(|file| content(&file[name]))?;
            let at = spec.tokens.iter().position(|token| token == written)?;
            u32::try_from(at).ok()
        };
        // Configurations give ids that their authors never looked at, such as Llama's for a vocabulary
        // where they are letters: only a marker is believed.
        let marker = |id: &u32| {
            let (text, ty) = match (spec.tokens.get(*id as usize), spec.types.get(*id as usize)) {
                (Some(text), Some(ty)) => (text, *ty),
                _ => return false,
            };
            ty == CONTROL || ty == USER_DEFINED || (text.starts_with('<') && text.ends_with('>'))
        };
        let numbered = |name: &str| {
            let mut files = [&generation, &model].into_iter();
            let ids = files.find_map(|file| {
                let ids = numbers(&file[name]);
                (!ids.is_empty()).then_some(ids)
            });
            let ids = ids.unwrap_or_default().into_iter();
            ids.filter(marker).collect::<Vec<u32>>()
        };
        let single = |name: &str| {
            let number = || numbered(&format!("{name}_id")).first().copied();
            named(name).or_else(number)
        };
        let (bos, eos) = (single("bos_token"), single("eos_token"));
        let pad = single("pad_token");
        // BERT's names for the first and last token.
        let (cls, sep) = (named("cls_token"), named("sep_token"));
        let ends = numbered("eos_token_id");
        let (bos, eos) = (bos.or(cls).filter(marker), eos.or(sep).filter(marker));
        for id in bos.into_iter().chain(eos) {
            spec.types[id as usize] = CONTROL;
        }
        (spec.bos, spec.eos, spec.pad, spec.ends) = (bos, eos, pad, ends);
        add(&config["add_bos_token"], spec.bos, &mut spec.begin);
        add(&config["add_eos_token"], spec.eos, &mut spec.end);

        let (own, tools) = templates(&config["chat_template"]);
        let (json, json_tools) = templates(&template["chat_template"]);
        let jinja = files.chat_template.map(|text| {
            String::from_utf8(text.to_vec())
                .map_err(|_| unusable("its chat_template.jinja is not UTF-8"))
        });
        spec.chat_template = jinja.transpose()?.or(json).or(own);
        spec.tool_template = json_tools.or(tools);
        Ok(spec)
    }
}

/// A token's text: as it is, or in an object with its flags.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// An id, or a list of them.
fn numbers(value: &Value) -> Vec<u32> {
    let values = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    let ids = values.iter().filter_map(Value::as_u64);
    ids.filter_map(|id| u32::try_from(id).ok()).collect()
}

/// Adds or takes away a token that every text has, where the configuration says so. What the
/// post-processor puts there that is another token stays.
fn add(wanted: &Value, token: Option<u32>, ids: &mut Vec<u32>) {
    match (wanted.as_bool(), token) {
        (Some(true), Some(token)) if !ids.contains(&token) => ids.push(token),
        (Some(false), Some(token)) if *ids == [token] => ids.clear(),
        _ => {}
    }
}

/// A chat template and the one for tools: a text, or a list of named ones.
fn templates(value: &Value) -> (Option<String>, Option<String>) {
    let Some(list) = value.as_array() else {
        return (value.as_str().map(Into::into), None);
    };
    let template = |named: &Value| named["template"].as_str().map(String::from);
    let find = |name: &str| {
        list.iter()
            .find(|named| named["name"] == name)
            .and_then(template)
    };
    let first = || list.first().and_then(template);
    (find("default").or_else(first), find("tool_use"))
}
