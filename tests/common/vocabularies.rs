//! The small tokenizers of `tests/fixtures/tokenizers/`, which `tools/fixtures/tokenizer_files.py`
//! makes.

use omnimini::text::{FolderFiles, Tokenizer, TokenizerSpec};

macro_rules! small {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../fixtures/tokenizers/", $name, ".json")))),*]
    };
}

/// Names and `tokenizer.json`s.
pub const SMALL: &[(&str, &str)] = small![
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

/// A tokenizer from its `tokenizer.json` alone.
pub fn from_json(json: &str) -> omnimini::Result<Tokenizer> {
    let files = FolderFiles {
        tokenizer: Some(json.as_bytes()),
        ..FolderFiles::default()
    };
    Tokenizer::new(TokenizerSpec::from_folder(&files)?)
}

/// The folder that `tools/vocabularies` fills with real tokenizers.
pub fn folder() -> Option<std::path::PathBuf> {
    let folder = omnimini::hub::Home::from_env()
        .ok()?
        .root()
        .join("vocabularies");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there are no real vocabularies; `tools/vocabularies` fetches them");
    None
}
