//! Tokenizers from `tokenizer.json` files and GGUF files: the ids of the makers' own libraries.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use omnimini::format::{Array, Checkpoint, Value as Meta};
use omnimini::text::{
    ChatTemplate, Flags, FolderFiles, Message, Model, Request, Role, Specials, Tokenizer,
    TokenizerSpec,
};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

mod common;

use common::vocabularies::{SMALL, folder, from_json};

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
    let Some(folder) = folder() else {
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
    let Some(folder) = folder() else {
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

/// What the files beside `tokenizer.json` say.
#[test]
fn a_folders_files_say_what_begins_and_ends() {
    let json = SMALL.iter().find(|(name, _)| *name == "qwen2").unwrap().1;
    let files = FolderFiles {
        tokenizer: Some(json.as_bytes()),
        ..FolderFiles::default()
    };
    let of = |files: &FolderFiles<'_>| {
        let tokenizer = Tokenizer::new(TokenizerSpec::from_folder(files).unwrap()).unwrap();
        let text = |ids: &[u32]| -> Vec<String> {
            let text = |id: &u32| tokenizer.spec().tokens[*id as usize].clone();
            ids.iter().map(text).collect()
        };
        let spec = tokenizer.spec();
        let template = spec.chat_template.clone().unwrap_or_default();
        (
            text(&spec.begin),
            text(&spec.end),
            text(tokenizer.ends()),
            template,
        )
    };
    let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    // The file's own template puts the last; every marker that ends answers does.
    let (begin, end, ends, template) = of(&files);
    assert_eq!((begin, end), (list(&[]), list(&["<|endoftext|>"])));
    assert_eq!(ends, list(&["<|endoftext|>", "<|im_end|>"]));
    assert_eq!(template, "");

    let config = br#"{ "add_bos_token": true, "add_eos_token": false, "bos_token": { "content": "<|im_start|>", "lstrip": false },
        "eos_token": "<|endoftext|>", "chat_template": [{ "name": "tool_use", "template": "T" }, { "name": "default", "template": "D" }] }"#;
    let files = FolderFiles {
        tokenizer_config: Some(config),
        generation_config: Some(br#"{ "eos_token_id": [601, 605], "bos_token_id": 3 }"#),
        ..files
    };
    let (begin, end, ends, template) = of(&files);
    assert_eq!((begin, end), (list(&["<|im_start|>"]), list(&[])));
    assert_eq!(ends.len(), 4);
    assert_eq!(template, "D");
    let spec = TokenizerSpec::from_folder(&files).unwrap();
    assert_eq!(spec.tool_template.as_deref(), Some("T"));

    let files = FolderFiles {
        chat_template: Some(b"J"),
        chat_template_json: Some(br#"{ "chat_template": "P" }"#),
        ..files
    };
    assert_eq!(of(&files).3, "J");
    let files = FolderFiles {
        chat_template: None,
        ..files
    };
    assert_eq!(of(&files).3, "P");

    // Names in special_tokens_map.json, ids in config.json.
    let files = FolderFiles {
        tokenizer: files.tokenizer,
        special_tokens_map: Some(br#"{ "eos_token": "<|im_end|>" }"#),
        config: Some(br#"{ "bos_token_id": 600, "eos_token_id": 601, "pad_token_id": 99999 }"#),
        ..FolderFiles::default()
    };
    let spec = TokenizerSpec::from_folder(&files).unwrap();
    let ids = |texts: &[&str]| -> Vec<u32> {
        let id = |text: &&str| spec.tokens.iter().position(|t| t == text).unwrap() as u32;
        texts.iter().map(id).collect()
    };
    assert_eq!(spec.bos, Some(600));
    assert_eq!(
        spec.eos.into_iter().collect::<Vec<_>>(),
        ids(&["<|im_end|>"])
    );
    assert_eq!((spec.pad, &spec.ends[..]), (None, &[601][..]));
    // Ids of letters are no markers, whatever a configuration says.
    let files = FolderFiles {
        tokenizer: files.tokenizer,
        config: Some(br#"{ "bos_token_id": 1, "eos_token_id": [2, 601] }"#),
        ..FolderFiles::default()
    };
    let spec = TokenizerSpec::from_folder(&files).unwrap();
    assert_eq!(
        (spec.bos, spec.eos, spec.ends),
        (None, Some(601), vec![601])
    );
}

/// A template of its own for conversations with tools.
#[test]
fn tools_have_their_template() {
    let json = SMALL.iter().find(|(name, _)| *name == "qwen2").unwrap().1;
    let config = br#"{ "chat_template": [{ "name": "default", "template": "<|im_start|>{{ messages[0].content }}" },
        { "name": "tool_use", "template": "<|im_end|>{{ tools[0].function.name }}" }] }"#;
    let files = FolderFiles {
        tokenizer: Some(json.as_bytes()),
        tokenizer_config: Some(config),
        ..FolderFiles::default()
    };
    let tokenizer = Tokenizer::new(TokenizerSpec::from_folder(&files).unwrap()).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let messages = [Message::new(Role::User, "a<|im_end|>")];
    let tool = serde_json::json!({ "type": "function", "function": { "name": "<|im_start|>f" } });
    let text = |tools: &[Value]| {
        let ids = template
            .encode_with(
                &tokenizer,
                &messages,
                Request {
                    tools,
                    effort: None,
                },
            )
            .unwrap();
        let marks = ids.iter().filter(|id| tokenizer.is_control(**id)).count();
        (String::from_utf8(tokenizer.decode(&ids)).unwrap(), marks)
    };
    assert_eq!(text(&[]), ("a<|im_end|>".into(), 1));
    assert_eq!(text(&[tool]), ("<|im_start|>f".into(), 1));
}

#[test]
fn words_are_read_as_they_are_written() {
    let (_, json) = SMALL
        .iter()
        .find(|(name, _)| *name == "bert_cased")
        .unwrap();
    let tokenizer = from_json(json).unwrap();
    for text in [
        "Alice was not there, was she? No (not at all); never.",
        "one, two: three!",
    ] {
        let ids = tokenizer.encode_text(text, Specials::AsText);
        let back = String::from_utf8(tokenizer.decode(&ids)).unwrap();
        // An opening bracket keeps the space before it and gets one behind it.
        assert_eq!(back.replace("( ", "("), text);
    }
    for name in ["xlmr", "t5", "mistral", "phi3"] {
        let (_, json) = SMALL.iter().find(|(small, _)| *small == name).unwrap();
        let tokenizer = from_json(json).unwrap();
        let text = "Alice was not there, was she?";
        let ids = tokenizer.encode(text, Specials::AsText);
        assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "{name}");
    }
}

/// The tiny models of every family, from both containers: the ids of Hugging Face's library.
#[test]
fn families_give_their_makers_ids() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut seen = 0;
    for folder in families.read_dir().unwrap() {
        let folder = folder.unwrap().path();
        let Ok(reference) = std::fs::read(folder.join("reference.json")) else {
            continue;
        };
        let reference: Value = serde_json::from_slice(&reference).unwrap();
        let Some(texts) = reference["texts"].as_array() else {
            continue;
        };
        let read = |name: &str| std::fs::read(folder.join(name)).ok();
        let (json, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
        let files = FolderFiles {
            tokenizer: json.as_deref(),
            tokenizer_config: config.as_deref(),
            ..FolderFiles::default()
        };
        let spec = TokenizerSpec::from_folder(&files).unwrap();
        let written = rewritten(&spec).unwrap();
        let gguf = folder.join("model.gguf");
        let gguf = gguf.exists().then(|| from_gguf(&gguf));
        let folder = folder.file_name().unwrap().to_string_lossy();
        let forms = [
            ("folder", Some(Tokenizer::new(spec).unwrap())),
            ("written", Some(written)),
            ("gguf", gguf),
        ];
        for (form, tokenizer) in forms {
            let Some(tokenizer) = tokenizer else {
                continue;
            };
            for row in texts {
                let text = row["text"].as_str().unwrap();
                let got = tokenizer.encode_text(text, Specials::AsText);
                let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
                assert_eq!(got, want, "{folder}, {form}: {text:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 200);
}
