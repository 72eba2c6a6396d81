//! Tokenizers from `tokenizer.json` files and GGUF files: the ids of the makers' own libraries.

#![expect(clippy::unwrap_used, reason = "tests")]

use omnimini::text::{FolderFiles, Model, Specials, Tokenizer, TokenizerSpec};
use serde_json::Value;

/// The small tokenizers of `tests/fixtures/tokenizers/`, by name.
macro_rules! small {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("fixtures/tokenizers/", $name, ".json")))),*]
    };
}
const SMALL: &[(&str, &str)] = small![
    "llama3",
    "qwen2",
    "o200k",
    "tekken",
    "smollm",
    "falcon",
    "deepseek",
    "look_ahead",
    "mistral",
    "phi3",
    "gemma",
    "metaspace",
    "bert",
    "bert_cased",
    "xlmr",
    "t5",
    "nmt"
];

fn from_json(json: &str) -> Tokenizer {
    let files = FolderFiles {
        tokenizer: Some(json.as_bytes()),
        ..FolderFiles::default()
    };
    Tokenizer::new(TokenizerSpec::from_folder(&files).unwrap()).unwrap()
}

/// Whether Hugging Face's library makes special tokens of this text though they are not parsed, as
/// it does where pieces of the unigram model are written like it. We never do, nor does
/// SentencePiece.
fn forges(spec: &TokenizerSpec, text: &str) -> bool {
    let mut marks = spec.tokens.iter().zip(&spec.types);
    spec.model == Model::Unigram && marks.any(|(mark, ty)| *ty != 1 && text.contains(mark))
}

#[test]
fn small_tokenizers_give_their_makers_ids() {
    let ids: Value = serde_json::from_str(include_str!("fixtures/tokenizers/ids.json")).unwrap();
    let list = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    for (name, json) in SMALL {
        let tokenizer = from_json(json);
        let wanted = &ids[name];
        let (begin, end) = (list(&wanted["begin"]), list(&wanted["end"]));
        for (i, text) in ids["texts"].as_array().unwrap().iter().enumerate() {
            let text = text.as_str().unwrap();
            if forges(tokenizer.spec(), text) {
                continue;
            }
            let plain = list(&wanted["plain"][i]);
            let got = tokenizer.encode(text, Specials::AsText);
            assert_eq!(got, plain, "{name}: {text:?}");
            let mut parsed = match &wanted["parsed"][i.to_string()] {
                Value::Null => [&begin[..], &plain, &end].concat(),
                parsed => list(parsed),
            };
            // What a text begins with is not put before it a second time.
            if !begin.is_empty() && parsed[begin.len()..].starts_with(&begin) {
                parsed.drain(..begin.len());
            }
            let got = tokenizer.encode_text(text, Specials::Parse);
            assert_eq!(got, parsed, "{name}: {text:?}");
        }
    }
}
