//! What is written of a folder beside the file that the converter of ggml's makers made of it
//! (`tests/fixtures/families/README.md`): key by key and tensor by tensor.
//!
//! `tools/written` has llama.cpp itself read the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use omnimini::format::{Checkpoint, Value};
use omnimini::quant::dequantize;
use omnimini::quantize::{self, Mix, Recipe};
use omnimini::tensor::TensorInfo;
use omnimini::text::TokenizerSpec;

/// Keys that one of the two files has alone, without the architecture's name, and why that does not matter.
const OURS: &[(&str, &str)] = &[
    (
        "attention.scale",
        "Gemma's, which llama.cpp works out from the sizes",
    ),
    ("attention.rope_pattern", "SmolLM3's, which llama.cpp knows"),
    (
        "attention.sliding_window_pattern",
        "what llama.cpp knows of the architecture",
    ),
    (
        "expert_weights_norm",
        "what llama.cpp knows of the architecture",
    ),
    (
        "rope.dimension_count",
        "the whole head, which is what is taken without it",
    ),
    ("rope.freq_base", "Gemma 2's, the usual one"),
    (
        "rope.scaling.attn_factor",
        "Ministral's amplitude, which the converter says otherwise",
    ),
    (
        "rope.scaling.original_context_length",
        "not looked at where positions are divided",
    ),
    (
        "rope.scaling.type",
        "LongRoPE's, which its tensors tell as well",
    ),
    ("rope.scaling.yarn_truncate", "gpt-oss's, a key of our own"),
    (
        "tokenizer.ggml.add_eos_token",
        "said where it is false, too",
    ),
    (
        "tokenizer.ggml.bos_token_id",
        "named by the folder, and not put before texts",
    ),
    ("tokenizer.ggml.padding_token_id", "named by the folder"),
    ("vocab_size", "as many as there are tokens"),
];
const THEIRS: &[(&str, &str)] = &[
    (
        "attention.key_length",
        "the width by the heads, which is what is taken without it",
    ),
    ("attention.value_length", "the same"),
    ("general.basename", "guessed from the name"),
    ("general.sampling.temp", "advice"),
    ("general.sampling.top_p", "advice"),
    ("general.size_label", "counted from the weights"),
    ("general.type", "a model is what is taken without it"),
    ("general.version", "guessed from the name"),
    ("rope.freq_base_swa", "OLMo's, the other layers' base"),
    (
        "rope.scaling.yarn_attn_factor",
        "OLMo's, YaRN's usual amplitude",
    ),
    (
        "rope.scaling.yarn_log_multiplier",
        "Ministral's amplitude, which we say otherwise",
    ),
];

/// Names of one way to cut text: ours and the converter's, which goes by the model.
const SAME_CUTS: &[(&str, &str)] = &[
    // The small tokenizers do not look words up whole, as `llama-bpe` says.
    ("dbrx", "llama-bpe"),
    ("dbrx", "smaug-bpe"),
    ("smollm", "refact"),
];

/// The folders of models that answer, where there is a file beside them.
fn folders() -> Vec<PathBuf> {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let entries = std::fs::read_dir(families).unwrap();
    let mut folders: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.gguf").exists())
        .filter(|p| {
            let reference = std::fs::read_to_string(p.join("reference.json")).unwrap();
            reference.contains("\"logits\"")
        })
        .collect();
    folders.sort();
    folders
}

/// A checkpoint written in float32, as `omnimini quantize` does it.
fn written(source: &Checkpoint, path: &Path) -> Checkpoint {
    let recipe = Recipe {
        mix: Mix::named("f32").unwrap(),
        pure: false,
        replace: false,
    };
    let more = if source.is_folder() {
        let spec = TokenizerSpec::of(source).unwrap();
        spec.metadata().unwrap()
    } else {
        Vec::new()
    };
    quantize::write(source, more, &recipe, path, &mut |_, _| true).unwrap();
    Checkpoint::open(path).unwrap()
}

/// Metadata by key, without the architecture's name, which is [`Value`] `general.architecture`.
fn keys(checkpoint: &Checkpoint) -> BTreeMap<String, Value> {
    let arch = checkpoint.meta.str("general.architecture").unwrap();
    let of_arch = format!("{arch}.");
    let pairs = checkpoint.meta.iter();
    pairs
        .map(|(k, v)| (k.strip_prefix(&of_arch).unwrap_or(k).to_string(), v.clone()))
        .collect()
}

fn tensors(checkpoint: &Checkpoint) -> BTreeMap<&str, &TensorInfo> {
    let tensors = checkpoint.tensors().iter();
    tensors.map(|t| (t.name.as_str(), t)).collect()
}

#[test]
fn files_are_those_of_ggmls_converter() {
    let folders = folders();
    assert!(folders.len() >= 15, "{} folders", folders.len());
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for folder in folders {
        let name = folder.file_name().unwrap().display().to_string();
        let temp = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(&folder).unwrap();
        let ours = written(&source, &temp.path().join("ours.gguf"));
        let source = Checkpoint::open(folder.join("model.gguf")).unwrap();
        let theirs = written(&source, &temp.path().join("theirs.gguf"));

        let (a, b) = (keys(&ours), keys(&theirs));
        for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let known = match (a.get(key), b.get(key)) {
                (one, other) if one == other => continue,
                (Some(Value::String(one)), Some(Value::String(other))) => {
                    key == "tokenizer.ggml.pre"
                        && SAME_CUTS.contains(&(one.as_str(), other.as_str()))
                }
                (Some(_), None) => OURS.iter().any(|(k, _)| k == key),
                (None, Some(_)) => THEIRS.iter().any(|(k, _)| k == key),
                _ => false,
            };
            seen.insert(key.clone());
            if !known {
                wrong.push(format!("{name}: {key}: {:?}, {:?}", a.get(key), b.get(key)));
            }
        }

        let (a, b) = (tensors(&ours), tensors(&theirs));
        if !a.keys().eq(b.keys()) {
            wrong.push(format!("{name}: {:?}, {:?}", a.keys(), b.keys()));
            continue;
        }
        for (x, y) in a.values().zip(b.values()) {
            let same = if x.name == "rope_freqs.weight" {
                // Ours are worked out in f64, theirs in f32.
                let values = |c: &Checkpoint, t: &TensorInfo| {
                    dequantize(t.dtype, &c.data(t).unwrap()).unwrap()
                };
                let (one, other) = (values(&ours, x), values(&theirs, y));
                one.iter()
                    .zip(&other)
                    .all(|(x, y)| (x / y - 1.0).abs() < 1e-5)
            } else {
                ours.data(x).unwrap() == theirs.data(y).unwrap()
            };
            if !same || (&x.shape, x.dtype) != (&y.shape, y.dtype) {
                wrong.push(format!("{name}: tensor {}", x.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The tables say what is, and no more.
    let told = OURS.iter().chain(THEIRS).map(|(key, _)| *key);
    let idle: Vec<_> = told.filter(|key| !seen.contains(*key)).collect();
    assert!(idle.is_empty(), "{idle:?} differ no more");
}
