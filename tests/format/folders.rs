//! Folders whose parts do not belong together: what a user reads.

use super::assert_sentence;
use omnimini::format::{Checkpoint, Files, Source};
use std::path::Path;

/// The files of a family's folder, changed.
fn folder(name: &str, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Files {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(families.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        files.push((name, std::fs::read(&path).unwrap()));
    }
    change(&mut files);
    let source = |(name, bytes): (String, Vec<u8>)| {
        (name.clone(), Source::memory(format!("it/{name}"), bytes))
    };
    files.into_iter().map(source).collect()
}

/// The sentence about a folder with a text of its `config.json` replaced.
fn described(name: &str, from: &str, to: &str) -> String {
    sentence(folder(name, |files| {
        let (_, bytes) = files.iter_mut().find(|(n, _)| n == "config.json").unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replace(from, to).into_bytes();
    }))
}

fn sentence(files: Files) -> String {
    let error = Checkpoint::from_folder("it", files).unwrap_err();
    assert_sentence(&error);
    error.to_string()
}

#[test]
fn a_shard_that_is_missing_is_named_by_the_index() {
    let shard = "model-00002-of-00003.safetensors";
    let text = sentence(folder("qwen2.5", |files| files.retain(|(n, _)| n != shard)));
    assert_eq!(
        text,
        "it/model.safetensors.index.json names 3 safetensors files, \
         and `model-00002-of-00003.safetensors` is not beside it; fetch all of them"
    );
}

#[test]
fn a_shard_that_was_cut_off_says_how_much_is_missing() {
    let shard = "model-00002-of-00003.safetensors";
    let mut whole = 0;
    let text = sentence(folder("qwen2.5", |files| {
        let (_, bytes) = files.iter_mut().find(|(n, _)| n == shard).unwrap();
        whole = bytes.len();
        bytes.truncate(20_000);
    }));
    assert_eq!(
        text,
        format!(
            "it/{shard} ends in the middle of its tensors (it has 20000 bytes and {whole} are \
             needed); it is incomplete or damaged: fetch it again"
        )
    );
}

#[test]
fn a_description_of_another_model_is_told_by_its_numbers() {
    for (from, to, parts) in [
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 2",
            ["of layer 2", "`num_hidden_layers` is 2"],
        ),
        (
            "\"vocab_size\": 288",
            "\"vocab_size\": 300",
            ["has 288 rows", "`vocab_size` is 300"],
        ),
        (
            "\"hidden_size\": 96",
            "\"hidden\": 96",
            ["`hidden_size`", "incomplete"],
        ),
    ] {
        let text = described("qwen3", from, to);
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}
