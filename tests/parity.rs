//! Small models of every family against the makers' own code: `tests/fixtures/families/README.md` says how
//! they were made. Each is loaded from its Hugging Face folder and, where there is one, from its GGUF.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{Engine, LoadOptions, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::DeviceOptions;
use omnimini::kernel::attention::KvType;
use pollster::block_on;
use serde_json::Value;

mod common;

/// Largest relative error of all logits together, with activations in f32 and in f16.
const F32: f64 = 1e-3;
const F16: f64 = 5e-3;

fn families() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    let mut families: Vec<_> = entries
        .filter(|p| p.join("reference.json").exists())
        .collect();
    families.sort();
    families
}

fn numbers(value: &Value) -> Vec<usize> {
    let items = value.as_array().unwrap().iter();
    items.map(|v| v.as_u64().unwrap() as usize).collect()
}

/// One text of a family, and its logits by the makers' code: a row `[vocabulary]` for some tokens.
struct Case {
    name: String,
    ids: Vec<u32>,
    rows: Vec<usize>,
    logits: Vec<f32>,
}

fn cases(family: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(family.join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let bytes = std::fs::read(family.join("reference.bin")).unwrap();
    let cases = reference["cases"].as_array().unwrap().iter();
    cases
        .filter(|c| c["logits"].is_object())
        .map(|c| {
            let offset = c["logits"]["offset"].as_u64().unwrap() as usize;
            let count: usize = numbers(&c["logits"]["shape"]).iter().product();
            Case {
                name: c["name"].as_str().unwrap().into(),
                ids: numbers(&c["ids"]).iter().map(|i| *i as u32).collect(),
                rows: numbers(&c["rows"]),
                logits: bytemuck::pod_collect_to_vec(&bytes[offset..offset + 4 * count]),
            }
        })
        .collect()
}

/// The relative error of a case's logits.
fn error(checkpoint: &Checkpoint, case: &Case, options: &LoadOptions) -> omnimini::Result<f64> {
    let engine = block_on(Engine::load(checkpoint, options, &mut |_, _| {}))?;
    let mut sequence = Sequence::new(&engine)?;
    let vocab = engine.model().config.vocab;
    assert_eq!(case.logits.len(), case.rows.len() * vocab, "{}", case.name);
    let mut wanted = case
        .rows
        .iter()
        .zip(case.logits.chunks_exact(vocab))
        .peekable();
    let (mut off, mut all) = (0f64, 0f64);
    let each = |i: usize, logits: &[f32]| {
        let Some((_, truth)) = wanted.next_if(|(row, _)| **row == i) else {
            return;
        };
        for (ours, truth) in logits.iter().zip(truth) {
            off += f64::from(ours - truth).powi(2);
            all += f64::from(*truth).powi(2);
        }
    };
    block_on(sequence.logits(&case.ids, 0..case.ids.len(), each))?;
    assert!(wanted.next().is_none(), "{}: rows are left", case.name);
    Ok((off / all).sqrt())
}

fn options(precision: Precision, case: &Case) -> LoadOptions {
    let kind = (precision == Precision::F16).then_some(DeviceKind::Discrete);
    LoadOptions {
        device: DeviceOptions {
            kind,
            precision,
            ..common::options()
        },
        context: Some(case.ids.len()),
        kv: if precision == Precision::F16 {
            KvType::F16
        } else {
            KvType::F32
        },
        ..LoadOptions::default()
    }
}

/// Holds every family in one precision, and says what the errors are.
fn hold(precision: Precision, limit: f64) {
    let only = std::env::var("OMNIMINI_FAMILY").ok();
    let mut failures = Vec::new();
    let mut count = 0;
    for family in families() {
        let name = family.file_name().unwrap().to_str().unwrap().to_string();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let gguf = family.join("model.gguf");
        for path in [Some(family.clone()), gguf.exists().then_some(gguf)] {
            let Some(path) = path else { continue };
            let container = if path == family { "folder" } else { "GGUF" };
            for case in cases(&family) {
                let options = options(precision, &case);
                let error = Checkpoint::open(&path).and_then(|c| error(&c, &case, &options));
                count += 1;
                let line = match &error {
                    Ok(error) => format!("{name}, {container}, `{}`: {error:.1e}", case.name),
                    Err(error) => format!("{name}, {container}, `{}`: {error}", case.name),
                };
                println!("{line}");
                // A NaN fails, too.
                if !error.is_ok_and(|error| error < limit) {
                    failures.push(line);
                }
            }
        }
    }
    assert!(count > 0 && failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_family_is_its_makers() {
    hold(Precision::F32, F32);
}

#[test]
fn every_family_is_its_makers_in_half_precision() {
    if !common::gpu().caps.f16 {
        println!("skipped: this adapter has no f16");
        return;
    }
    hold(Precision::F16, F16);
}
