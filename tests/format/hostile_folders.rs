//! Hugging Face folders: what is missing, damaged or of no model is named, and nothing panics.

use super::{MIB, alloc, assert_sentence, fixture};
use omnimini::Error;
use omnimini::format::{Checkpoint, Files, Source};
use omnimini::model::{Description, Head};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// A folder's files, to be changed before they are opened.
type Bytes = BTreeMap<String, Vec<u8>>;

/// What a model is read from, of the folder of a family.
fn family(name: &str) -> Bytes {
    let folder = std::fs::read_dir(fixture("families").join(name)).unwrap();
    let files = folder.map(|entry| entry.unwrap());
    let files = files.map(|e| (e.file_name().into_string().unwrap(), e.path()));
    files
        .filter(|(name, _)| name == "config.json" || name.contains(".safetensors"))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

/// Opens a folder and describes its model, as a load does before it needs a device; holds what is
/// promised for any content at all.
fn outcome(files: &Bytes) -> Result<(), Error> {
    let size: usize = files.values().map(Vec::len).sum();
    let source = |(name, bytes): (&String, &Vec<u8>)| {
        let source = Source::memory(format!("folder/{name}"), bytes.clone());
        (name.clone(), source)
    };
    let sources: Files = files.iter().map(source).collect();
    let (result, peak) = alloc::peak(|| {
        let checkpoint = Checkpoint::from_folder("folder", sources)?;
        let description = Description::new(&checkpoint)?;
        for head in [Head::Last, Head::All] {
            description.graph(&checkpoint, head, 512)?;
        }
        for tensor in checkpoint.tensors() {
            let rows = tensor.rows_cols().0;
            checkpoint.rows(tensor, rows.saturating_sub(1)..rows)?;
        }
        Ok(())
    });
    let most = 64 * MIB + 4 * size;
    assert!(peak.bytes <= most, "{} bytes for {size}", peak.bytes);
    if let Err(error) = &result {
        assert_sentence(error);
    }
    result
}

fn refused(files: &Bytes) -> String {
    outcome(files).unwrap_err().to_string()
}

fn config(files: &Bytes) -> Json {
    serde_json::from_slice(&files["config.json"]).unwrap()
}

/// The same folder with a key of its description changed.
fn with(files: &Bytes, key: &str, value: Json) -> Bytes {
    let mut config = config(files);
    config[key] = value;
    let mut files = files.clone();
    files.insert("config.json".into(), config.to_string().into_bytes());
    files
}

/// The same with another head of a safetensors file.
fn with_head(files: &Bytes, name: &str, change: impl FnOnce(&mut Json)) -> Bytes {
    let old = &files[name];
    let len = u64::from_le_bytes(old[..8].try_into().unwrap()) as usize;
    let mut head = serde_json::from_slice(&old[8..8 + len]).unwrap();
    change(&mut head);
    let head = head.to_string().into_bytes();
    let mut new = (head.len() as u64).to_le_bytes().to_vec();
    new.extend(head);
    new.extend(&old[8 + len..]);
    let mut files = files.clone();
    files.insert(name.into(), new);
    files
}

const MODEL: &str = "model.safetensors";
const QUERIES: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn what_is_missing_is_named() {
    let whole = family("qwen2.5");
    outcome(&whole).unwrap();
    let mut files = whole.clone();
    files.remove("config.json");
    assert!(refused(&files).starts_with("folder has no config.json;"));
    let mut files = whole.clone();
    files.remove("model-00002-of-00003.safetensors");
    let sentence = refused(&files);
    assert!(
        sentence.contains("model-00002-of-00003.safetensors"),
        "{sentence}"
    );
    let mut files = whole.clone();
    files.retain(|name, _| !name.contains(".safetensors"));
    assert!(refused(&files).starts_with("folder has no *.safetensors;"));
    // Of the index, but in no file.
    let shard = "model-00001-of-00003.safetensors";
    let mut gone = String::new();
    let files = with_head(&whole, shard, |head| {
        let head = head.as_object_mut().unwrap();
        gone = head.keys().find(|k| k.contains("layers")).unwrap().clone();
        let renamed = head.remove(&gone).unwrap();
        head.insert("other".into(), renamed);
    });
    let sentence = refused(&files);
    assert!(sentence.contains(&format!("`{gone}`")), "{sentence}");
    assert!(sentence.contains(shard), "{sentence}");
    // Without an index.
    let files = with_head(&family("qwen3"), MODEL, |head| {
        let head = head.as_object_mut().unwrap();
        let renamed = head.remove(QUERIES).unwrap();
        head.insert("other".into(), renamed);
    });
    let sentence = refused(&files);
    assert!(sentence.contains("blk.1.attn_q.weight"), "{sentence}");
}

#[test]
fn what_is_damaged_is_named() {
    let whole = family("qwen3");
    outcome(&whole).unwrap();
    let changed = |name: &str, bytes: Vec<u8>| {
        let mut files = whole.clone();
        files.insert(name.into(), bytes);
        refused(&files)
    };
    let weights = &whole[MODEL];
    let cut = changed(MODEL, weights[..weights.len() - 1].to_vec());
    assert!(cut.contains("ends in the middle of its tensors"), "{cut}");
    for bytes in [&b"{"[..], b"", b"[]", b"null", b"\xff\xfe", b"3"] {
        let sentence = changed("config.json", bytes.to_vec());
        assert!(!sentence.contains("panicked"), "{sentence}");
    }
    for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
        let sentence = changed(MODEL, bytes.to_vec());
        assert!(
            sentence.starts_with("folder/model.safetensors "),
            "{sentence}"
        );
    }
    // What another library quotes of a file moves no terminal, and is not the whole file.
    for text in ["\u{7f}F16", "\u{1b}[2J", "\n", &"x".repeat(5000)] {
        let files = with_head(&whole, MODEL, |head| head[QUERIES]["dtype"] = json!(text));
        refused(&files);
        for key in ["model_type", "hidden_act", "torch_dtype"] {
            let _ = outcome(&with(&whole, key, json!(text)));
        }
    }
}

#[test]
fn a_shape_that_the_description_denies_is_named() {
    let whole = family("qwen3");
    let sentence = refused(&with(&whole, "num_attention_heads", json!(4)));
    assert!(sentence.contains("attn_q.weight"), "{sentence}");
    assert!(
        sentence.contains("128") && sentence.contains("96"),
        "{sentence}"
    );
    let files = with_head(&whole, MODEL, |head| {
        let shape = head[QUERIES]["shape"].as_array_mut().unwrap();
        (shape[0], shape[1]) = (json!(48), json!(192));
    });
    let sentence = refused(&files);
    assert!(sentence.contains("blk.1.attn_q.weight"), "{sentence}");
}

#[test]
fn numbers_that_make_no_model_are_named() {
    let wrong = [
        ("qwen3", "model_type", json!("mamba"), "mamba"),
        ("qwen3", "num_hidden_layers", json!(-1), "num_hidden_layers"),
        (
            "qwen3",
            "num_hidden_layers",
            json!(1.5),
            "num_hidden_layers",
        ),
        (
            "qwen3",
            "num_hidden_layers",
            json!("3"),
            "num_hidden_layers",
        ),
        (
            "qwen3",
            "num_hidden_layers",
            json!(4_000_000_000u64),
            "block_count",
        ),
        ("qwen3", "head_dim", json!(33), "head_dim"),
        ("qwen3", "head_dim", json!(0), "head_dim"),
        ("qwen3", "head_dim", json!(4_000_000_000u64), "head_dim"),
        ("qwen3", "hidden_size", json!(0), "embedding_length"),
        ("qwen3", "num_key_value_heads", json!(2), "head_count_kv"),
        ("qwen3", "rms_norm_eps", json!("1e-6"), "rms_norm_eps"),
        (
            "phi-4-mini",
            "partial_rotary_factor",
            json!(1.5),
            "partial_rotary_factor",
        ),
        (
            "phi-4-mini",
            "partial_rotary_factor",
            json!(-0.5),
            "partial_rotary_factor",
        ),
        (
            "phi-4-mini",
            "rope_scaling",
            json!({"type": "swirl"}),
            "swirl",
        ),
        (
            "phi-4-mini",
            "rope_scaling",
            json!({"type": "longrope", "long_factor": ["x"], "short_factor": [1]}),
            "long_factor",
        ),
        (
            "phi-4-mini",
            "rope_scaling",
            json!({"type": "longrope", "long_factor": [1, 2], "short_factor": [1, 2]}),
            "rope_factors_",
        ),
    ];
    for (name, key, value, named) in wrong {
        let sentence = refused(&with(&family(name), key, value.clone()));
        assert!(sentence.contains(named), "{key} = {value}: {sentence}");
    }
}

#[test]
fn the_longest_text_is_a_number_of_tokens() {
    let mut files = family("qwen3");
    let mut given = |value: Json| {
        let file = json!({ "max_seq_length": value }).to_string();
        files.insert("sentence_bert_config.json".into(), file.into_bytes());
        outcome(&files)
    };
    for right in [json!(256), json!(null)] {
        given(right).unwrap();
    }
    for wrong in [json!(0), json!(-1), json!("256"), json!(u64::MAX)] {
        let sentence = given(wrong.clone()).unwrap_err().to_string();
        assert!(sentence.contains("max_seq_length"), "{wrong}: {sentence}");
    }
}

/// Numbers that someone may have thought of.
fn odd_number() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(-1)),
        Just(json!(u32::MAX)),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!(1e-320)),
        Just(json!(null)),
        Just(json!([])),
        Just(json!("sliding_attention")),
        Just(json!([1, 2, 3])),
        (0u32..5000).prop_map(|n| json!(n)),
        any::<f32>().prop_map(|n| json!(n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_description_panics(
        name in prop_oneof![
            Just("qwen3"), Just("phi-4-mini"), Just("gpt-oss"), Just("gemma-3"), Just("smollm3"),
            Just("ministral-3"), Just("llama-3.1"), Just("qwen3-moe"), Just("granite-3"),
        ],
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_number()), 1..4),
    ) {
        let mut files = family(name);
        let mut config = config(&files);
        let inner = if config["text_config"].is_object() { &mut config["text_config"] } else { &mut config };
        for (key, value) in changes {
            let map = inner.as_object_mut().unwrap();
            let key = key.get(&map.keys().cloned().collect::<Vec<_>>()).clone();
            // Half of the time inside of what a key holds.
            match map.get_mut(&key) {
                Some(Json::Object(deep)) if !deep.is_empty() && value != json!(0) => {
                    let first = deep.keys().next().unwrap().clone();
                    deep.insert(first, value);
                }
                _ => drop(map.insert(key, value)),
            }
        }
        files.insert("config.json".into(), config.to_string().into_bytes());
        let _ = outcome(&files);
    }

    #[test]
    fn no_head_of_weights_panics(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        shape in prop::collection::vec(prop_oneof![Just(0u64), Just(1), Just(32), Just(96), any::<u64>()], 0..5),
        name in any::<prop::sample::Index>(),
    ) {
        let whole = family("qwen3-moe");
        let mut files = whole.clone();
        let weights = files.get_mut(MODEL).unwrap();
        let head = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        weights[at.index(head + 8)] = byte;
        let _ = outcome(&files);
        let files = with_head(&whole, MODEL, |head| {
            let map = head.as_object_mut().unwrap();
            let key = name.get(&map.keys().cloned().collect::<Vec<_>>()).clone();
            if key != "__metadata__" {
                map[&key]["shape"] = json!(shape);
            }
        });
        let _ = outcome(&files);
    }
}
