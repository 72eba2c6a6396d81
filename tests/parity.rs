//! Small models of every family against the makers' own code: `tests/fixtures/families/README.md` says how
//! they were made. Each is loaded from its Hugging Face folder and, where there is one, from its GGUF.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{Engine, LoadOptions, Sampling, Sequence};
use omnimini::format::{Checkpoint, Files, Source};
use omnimini::gpu::DeviceOptions;
use omnimini::kernel::attention::KvType;
use omnimini::model::{Description, Head};
use pollster::block_on;
use serde_json::Value;

mod common;
#[path = "parity/experts.rs"]
mod experts;

/// Largest relative error of all logits together, with activations in f32 and in f16.
const F32: f64 = 1e-3;
const F16: f64 = 5e-3;

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    folder.join(name)
}

/// Every decoder but those with numbers of far positions alone.
fn families() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder("")).unwrap();
    let mut families: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("reference.json").exists() && p.file_name().unwrap() != "rope")
        .collect();
    families.sort();
    families
}

fn reference(family: &Path) -> (Value, Vec<u8>) {
    let text = std::fs::read_to_string(family.join("reference.json")).unwrap();
    let bytes = std::fs::read(family.join("reference.bin")).unwrap();
    (serde_json::from_str(&text).unwrap(), bytes)
}

/// An array of `reference.bin`.
fn array(place: &Value, bytes: &[u8]) -> Vec<f32> {
    let offset = place["offset"].as_u64().unwrap() as usize;
    let count: usize = numbers(&place["shape"]).iter().product();
    bytemuck::pod_collect_to_vec(&bytes[offset..offset + 4 * count])
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

impl Case {
    fn new(case: &Value, bytes: &[u8]) -> Self {
        Self {
            name: case["name"].as_str().unwrap().into(),
            ids: numbers(&case["ids"]).iter().map(|i| *i as u32).collect(),
            rows: numbers(&case["rows"]),
            logits: array(&case["logits"], bytes),
        }
    }
}

fn cases(family: &Path) -> Vec<Case> {
    let (reference, bytes) = reference(family);
    let cases = reference["cases"].as_array().unwrap().iter();
    cases
        .filter(|c| c["logits"].is_object() && c["ids"].is_array())
        .map(|c| Case::new(c, &bytes))
        .collect()
}

/// The relative error of a case's logits.
fn error(checkpoint: &Checkpoint, case: &Case, options: &LoadOptions) -> omnimini::Result<f64> {
    let engine = block_on(Engine::load(checkpoint, options, &mut |_, _| {}))?;
    error_of(&engine, case)
}

fn error_of(engine: &Arc<Engine>, case: &Case) -> omnimini::Result<f64> {
    let mut sequence = Sequence::new(engine)?;
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

/// A folder with some keys of its description replaced.
fn with(folder: &Path, keys: &Value) -> Checkpoint {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let mut bytes = std::fs::read(&path).unwrap();
        if name == "config.json" {
            let mut config: Value = serde_json::from_slice(&bytes).unwrap();
            for (key, value) in keys.as_object().unwrap() {
                config[key] = value.clone();
            }
            bytes = serde_json::to_vec(&config).unwrap();
        }
        files.insert(name.clone(), Source::memory(name, bytes));
    }
    Checkpoint::from_folder("the folder", files).unwrap()
}

/// Windows of 48 tokens around 4K, 32K and 128K for every way to stretch the rotation.
///
/// The makers' code multiplies positions by frequencies in f32, which far into a text is off by itself; the
/// fixture says by how much, and so much more is allowed.
#[test]
fn every_rope_scaling_holds_far_into_a_text() {
    let (reference, bytes) = reference(&folder("rope"));
    let mut failures = Vec::new();
    for c in reference["cases"].as_array().unwrap() {
        let case = Case::new(c, &bytes);
        let start = c["start"].as_u64().unwrap() as usize;
        let checkpoint = with(&folder(c["folder"].as_str().unwrap()), &c["config"]);
        let options = LoadOptions {
            first: start,
            ..options(Precision::F32, &case)
        };
        // Frequencies, first: any error here is a mistake.
        let description = Description::new(&checkpoint).unwrap();
        let end = start + case.ids.len();
        let graph = description.graph(&checkpoint, Head::Last, end).unwrap();
        let frequencies = graph.ropes[0].frequencies();
        for (ours, truth) in frequencies.iter().zip(array(&c["inv_freq"], &bytes)) {
            let off = (ours / f64::from(truth) - 1.0).abs();
            assert!(
                off < 1e-6,
                "{} at {start}: {ours} is not {truth}",
                case.name
            );
        }
        let amplitude = c["attention_factor"].as_f64().unwrap();
        assert!((graph.ropes[0].amplitude / amplitude - 1.0).abs() < 1e-6);
        let error = error(&checkpoint, &case, &options).unwrap();
        let own = c["exact_angles_difference"].as_f64().unwrap();
        println!(
            "{} at {start}: {error:.1e} (the makers' own {own:.1e})",
            case.name
        );
        if error.is_nan() || error > F32 + own {
            failures.push(format!("{} at {start}: {error:.1e}", case.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// What a whole text may take beside its cache, with the other tests of this file in the same process.
const SPARE: u64 = 512 << 20;

/// The most that was ever resident of this process, where the system says.
fn peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Whole texts of thousands of tokens, their last eight logits, and the memory that they take: keys and
/// values of every position in the layers that see all, 16 of each in f32, and no more than a window and a
/// chunk in those that do not.
#[test]
fn long_texts_hold_to_their_last_tokens() {
    let longest = common::longest(8192);
    for name in ["context-llama", "context-gemma"] {
        let family = folder(name);
        let (reference, bytes) = reference(&family);
        for c in reference["cases"].as_array().unwrap() {
            let length = c["length"].as_u64().unwrap() as usize;
            if length > longest {
                println!("{name}: {length} tokens are for who sets OMNIMINI_LONGEST={length}");
                continue;
            }
            let mut x = c["seed"].as_u64().unwrap() as u32;
            let mut ids = vec![0; length];
            for id in &mut ids {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *id = (x >> 16) % 288;
            }
            let first = numbers(&reference["first_ids"]);
            assert!(first.iter().zip(&ids).all(|(a, b)| *a == *b as usize));
            let case = Case {
                name: c["name"].as_str().unwrap().into(),
                ids,
                rows: numbers(&c["rows"]),
                logits: array(&c["logits"], &bytes),
            };
            let began = std::time::Instant::now();
            let checkpoint = Checkpoint::open(&family).unwrap();
            let options = options(Precision::F32, &case);
            let engine = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap();
            let error = error_of(&engine, &case).unwrap();
            let (cache, peak) = (engine.kv_bytes(), peak());
            println!(
                "{name}, {length} tokens: {error:.1e} in {:.0?}, a cache of {} KiB, at most {:?} MiB",
                began.elapsed(),
                cache >> 10,
                peak.map(|bytes| bytes >> 20)
            );
            assert!(error < F32, "{name}, {length} tokens: {error:.1e}");
            let stated = 2 * 16 * 4 * (length + 4096);
            assert!(cache <= stated, "{name}: {cache} bytes, {stated} stated");
            if engine.gpu().caps.kind == DeviceKind::Cpu {
                assert!(peak.is_none_or(|peak| peak <= cache as u64 + SPARE));
            }
        }
    }
}

/// Decode, a token at a time, gives the log-probabilities that the same tokens have in a prompt.
#[test]
fn every_family_goes_on_as_it_reads() {
    for family in families() {
        let name = family.file_name().unwrap().to_str().unwrap().to_string();
        let Some(case) = cases(&family).into_iter().next() else {
            continue;
        };
        let checkpoint = Checkpoint::open(&family).unwrap();
        let mut options = options(Precision::F32, &case);
        options.context = Some(case.ids.len() + 12);
        let engine = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap();
        let mut sequence = Sequence::new(&engine).unwrap();
        let sampling = Sampling {
            max_tokens: 12,
            ..Sampling::default()
        };
        let mut ids = case.ids.clone();
        let mut ours = Vec::new();
        let mut generation = sequence.generate(&ids, &sampling, &[], Some(1)).unwrap();
        while let Some(step) = generation.next().unwrap() {
            ours.push(step.logprob.unwrap().logprob);
        }
        ids.extend(generation.made());
        drop(generation);
        let first = case.ids.len() - 1;
        let truth = block_on(sequence.score(&ids, &ids[1..], first)).unwrap();
        assert_eq!((ours.len(), truth.len()), (12, 12), "{name}");
        for (i, (ours, truth)) in ours.iter().zip(&truth).enumerate() {
            assert!(
                (ours - truth).abs() < 2e-4,
                "{name}, token {i}: {ours}, not {truth}"
            );
        }
    }
}
