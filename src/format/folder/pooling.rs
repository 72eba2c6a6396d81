//! How a text's vector is made, as the folders of embedding models say it: `modules.json` lists what
//! comes after the model, and `sentence_bert_config.json` says how long a text may be.

use serde_json::Value as Json;

use super::{Files, json};
use crate::error::{Error, Result, shown};

/// Flags of a pooling's `config.json`, its newer name for the same, and GGUF's number.
const KINDS: [(&str, &str, u32); 3] = [
    ("pooling_mode_mean_tokens", "mean", 1),
    ("pooling_mode_cls_token", "cls", 2),
    ("pooling_mode_lasttoken", "lasttoken", 3),
];

/// GGUF's `pooling_type`, where the folder says how its vectors are made.
///
/// # Errors
/// [`Error::Config`] where it takes more than we do, and so would give other vectors.
pub(super) fn read(files: &Files) -> Result<Option<u32>> {
    let Some(modules) = files.get("modules.json") else {
        return Ok(None);
    };
    let modules = json(modules)?;
    let other = |key: &str, value: &Json| Error::Config {
        key: key.into(),
        value: value.to_string(),
        want: "a model, mean, cls or last token pooling, and a vector of length one",
    };
    let mut number = None;
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => {
                let path = module["path"].as_str().unwrap_or_default();
                let Some(file) = files.get(&format!("{path}/config.json")) else {
                    continue;
                };
                let config = json(file)?;
                let named = config["pooling_mode"].as_str();
                let mut set = KINDS
                    .iter()
                    .filter(|(flag, name, _)| config[*flag] == true || named == Some(name));
                let others = config.as_object().into_iter().flatten();
                let strange = others
                    .filter(|(key, on)| key.starts_with("pooling_mode_") && **on == true)
                    .any(|(key, _)| KINDS.iter().all(|(flag, ..)| flag != key));
                match (set.next(), set.next(), strange) {
                    (Some((.., n)), None, false) => number = Some(*n),
                    _ => return Err(other("modules.json", &config)),
                }
            }
            _ => return Err(other("modules.json", &module["type"])),
        }
    }
    Ok(number)
}

/// Tokens of the longest text that the model is given by its makers' code, where the folder says so. Of
/// all-MiniLM-L6-v2 these are 256, where it has positions for 512.
///
/// # Errors
/// [`Error::Config`] where that is no number.
pub(super) fn longest(files: &Files) -> Result<Option<u32>> {
    let Some(file) = files.get("sentence_bert_config.json") else {
        return Ok(None);
    };
    let found = json(file)?;
    let value = found.get("max_seq_length").filter(|v| !v.is_null());
    let Some(value) = value else { return Ok(None) };
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number
        .filter(|n| *n > 0)
        .map(Some)
        .ok_or_else(|| Error::Config {
            key: "max_seq_length".into(),
            value: shown(value.to_string()),
            want: "a number of tokens",
        })
}
