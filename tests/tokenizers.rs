//! Tokenizers from `tokenizer.json` files and GGUF files: the ids of the makers' own libraries.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use omnimini::format::{Array, Checkpoint, Value as Meta};
use omnimini::hub;
use omnimini::text::{Flags, Model, Specials, Tokenizer, TokenizerSpec};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

mod common;

use common::vocabularies::{SMALL, from_json};

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
        let tokenizer = from_json(json).unwrap();
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

/// The folder that `tools/vocabularies` fills with real tokenizers.
fn vocabularies() -> Option<PathBuf> {
    let folder = hub::Home::from_env().ok()?.root().join("vocabularies");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there are no real vocabularies; `tools/vocabularies` fetches them");
    None
}

/// Files of the folder with an ending, by their names without it.
fn named(folder: &Path, ending: &str) -> Vec<(String, PathBuf)> {
    let files = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter_map(|file| {
            let name = file
                .file_name()?
                .to_str()?
                .strip_suffix(ending)?
                .to_string();
            Some((name, file))
        })
        .collect();
    files.sort();
    files
}

fn from_gguf(file: &Path) -> Tokenizer {
    let spec = TokenizerSpec::of(&Checkpoint::open(file).unwrap()).unwrap();
    Tokenizer::new(spec).unwrap()
}

/// Vocabularies whose texts were tokenised by the models' makers' own code: llama.cpp has them.
#[test]
fn gguf_vocabularies_give_their_makers_ids() {
    let Some(folder) = vocabularies() else {
        return;
    };
    for (name, texts) in named(&folder, ".gguf.inp") {
        let tokenizer = from_gguf(&folder.join(format!("{name}.gguf")));
        let texts = std::fs::read_to_string(texts).unwrap();
        let wanted = std::fs::read_to_string(folder.join(format!("{name}.gguf.out"))).unwrap();
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        // Behind the last text comes nothing.
        let texts = texts[..texts.len() - 1].iter();
        let lines: Vec<&str> = wanted.lines().collect();
        assert!(lines.len() >= texts.len());
        for (text, line) in texts.zip(lines) {
            let want: Vec<u32> = line
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let got = tokenizer.encode(text, Specials::AsText);
            // This file is Qwen2's vocabulary, and its ids are not of Qwen 3.5's makers, who compose.
            let composed = name != "qwen35" || text.nfc().eq(text.chars());
            assert!(
                got == want || !composed,
                "{name}: {text:?}\n{got:?}\n{want:?}"
            );
        }
    }
}

/// Real vocabularies on the corpus, from both containers: the ids of Hugging Face's library.
#[test]
fn real_vocabularies_give_their_makers_ids() {
    let Some(folder) = vocabularies() else {
        return;
    };
    for (name, file) in named(&folder, ".ids") {
        let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let texts = file["texts"].as_array().unwrap();
        let json = folder.join(format!("{name}.json"));
        let gguf = folder.join(format!("{name}.gguf"));
        let json = json
            .exists()
            .then(|| from_json(&std::fs::read_to_string(json).unwrap()).unwrap());
        let gguf = gguf.exists().then(|| from_gguf(&gguf));
        for (form, tokenizer) in [("json", json), ("gguf", gguf)] {
            let Some(tokenizer) = tokenizer else {
                continue;
            };
            let ids = file.get(form).unwrap_or(&file["ids"]).as_array().unwrap();
            for (text, want) in texts.iter().zip(ids) {
                let text = text.as_str().unwrap();
                if forges(tokenizer.spec(), text) {
                    continue;
                }
                let mut got = tokenizer.encode(text, Specials::AsText);
                let mut want: Vec<u32> = serde_json::from_value(want.clone()).unwrap();
                if form == "gguf" && tokenizer.spec().model == Model::Unigram {
                    // SentencePiece adds scores in single precision: of ways that are equal but for
                    // their order it takes another.
                    got.sort_unstable();
                    want.sort_unstable();
                }
                assert_eq!(got, want, "{name}.{form}: {text:?}");
            }
        }
    }
}

/// A tokenizer written as a GGUF file, and read again.
fn rewritten(spec: &TokenizerSpec) -> Result<Tokenizer, String> {
    let mut file = common::tiny::Gguf::default();
    for (key, value) in spec.metadata().map_err(|e| e.to_string())? {
        match value {
            Meta::U32(value) => file.u32(&key, value),
            Meta::Bool(value) => file.bool(&key, value),
            Meta::String(value) => file.str(&key, &value),
            Meta::Array(Array::U8(values)) => file.u8s(&key, &values),
            Meta::Array(Array::I32(values)) => file.i32s(&key, &values),
            Meta::Array(Array::F32(values)) => file.f32s(&key, &values),
            Meta::Array(Array::Strings(values)) => {
                let values: Vec<String> = values.iter().map(String::from).collect();
                file.strings(&key, &values);
            }
            other => panic!("{key}: {other}"),
        }
    }
    let checkpoint = Checkpoint::from_bytes(file.finish()).unwrap();
    let spec = TokenizerSpec::of(&checkpoint).unwrap();
    Ok(Tokenizer::new(spec).unwrap())
}

/// What a GGUF file cannot say, or says otherwise: texts with tokens that are found in a special
/// way, and what SentencePiece composes otherwise than Hugging Face's library.
fn lost(spec: &TokenizerSpec, text: &str) -> bool {
    let flagged = |(id, flags): &(u32, Flags)| {
        let token = spec.tokens[*id as usize].to_lowercase();
        *flags != Flags::default() && text.to_lowercase().contains(&token)
    };
    let plain = text.is_ascii() && !text.contains(|c: char| c != ' ' && c.is_whitespace());
    let unigram = spec.model == Model::Unigram && (!plain || text.trim() != text);
    unigram || spec.flags.iter().any(flagged)
}

#[test]
fn tokenizers_are_written_as_gguf_metadata() {
    let ids: Value = serde_json::from_str(include_str!("fixtures/tokenizers/ids.json")).unwrap();
    for (name, json) in SMALL {
        let tokenizer = from_json(json).unwrap();
        let refused = match *name {
            "look_ahead" => "it cuts text in a way that GGUF files have no name for",
            "nmt" => "it normalises text in a way that GGUF files have no name for",
            "metaspace" => "it has no byte tokens",
            _ => "",
        };
        let again = match rewritten(tokenizer.spec()) {
            Ok(again) => again,
            Err(error) => {
                assert!(
                    !refused.is_empty() && error.contains(refused),
                    "{name}: {error}"
                );
                continue;
            }
        };
        assert!(refused.is_empty(), "{name}");
        let mut compared = 0;
        for text in ids["texts"].as_array().unwrap() {
            let text = text.as_str().unwrap();
            if !lost(tokenizer.spec(), text) {
                let want = tokenizer.encode_text(text, Specials::AsText);
                let got = again.encode_text(text, Specials::AsText);
                assert_eq!(got, want, "{name}: {text:?}");
                compared += 1;
            }
        }
        assert!(compared > 10, "{name}");
    }
}
