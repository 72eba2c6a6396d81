//! Peak memory of loading a model and making some tokens, in a process of its own: at most the
//! file, the KV cache and 300 MiB. A software driver's buffers are this process's own memory, and
//! mapped pages of the file count as they are.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use omnimini::caps::DeviceKind;
use omnimini::engine::{LoadOptions, Sequence};
use omnimini::format::Checkpoint;
use omnimini::quant::{Format, smaller};
use omnimini::quantize::{self, Mix, Recipe};
use omnimini::tensor::{DType, TensorInfo};
use omnimini::{Model, Options, Sampling};

mod common;
use common::tiny::{GEMMA, LLAMA, Tiny};

/// What may come on top of the file and the cache.
const SPARE: u64 = 300 << 20;
const FILE: &str = "OMNIMINI_TEST_MEMORY_OF";
/// Set where the file is quantised while it is loaded: then what it becomes counts, and not the file.
const QUANT: &str = "OMNIMINI_TEST_MEMORY_QUANT";

/// A line of this process's memory, in bytes: `VmHWM` is the most that was ever resident.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// The child: loads the file that the parent names, answers, and holds its own peak to the limit.
#[test]
#[ignore = "run by the others, in a process of its own"]
fn child() {
    let Some(path) = std::env::var_os(FILE).map(PathBuf::from) else {
        return;
    };
    let quant = std::env::var_os(QUANT).map(|_| DType::Q4_0);
    let file = match quant {
        Some(dtype) => quantised_bytes(&path, dtype),
        None => std::fs::metadata(&path).unwrap().len(),
    };
    let before = status("VmHWM");
    let options = LoadOptions {
        device: common::options(),
        quant,
        ..LoadOptions::default()
    };
    let model = Model::load(&path, &options).unwrap();
    let loaded = status("VmHWM");
    let cache = model.engine().kv_bytes() as u64;
    let mut session = model.session().unwrap();
    let options = Options {
        sampling: Sampling {
            max_tokens: 24,
            ignore_end: true,
            ..Sampling::default()
        },
        ..Options::default()
    };
    let prompt: Vec<u32> = (10..110).collect();
    let mut answer = session.complete(&prompt, &options).unwrap();
    let mut made = 0;
    while answer.next().unwrap().is_some() {
        made += 1;
    }
    assert!(made >= 24);
    let peak = status("VmHWM");
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "file {} MiB, cache {} MiB, before {} MiB, loaded {} MiB, at the end {} MiB; peak {} MiB, {} beyond both",
        mib(file),
        mib(cache),
        mib(before),
        mib(loaded),
        mib(status("VmRSS")),
        mib(peak),
        peak.saturating_sub(file + cache) as i64 >> 20,
    );
    if model.engine().gpu().caps.kind == DeviceKind::Cpu {
        assert!(
            peak <= file + cache + SPARE,
            "{} MiB too much",
            mib(peak - file - cache - SPARE)
        );
    }
}

/// Bytes of a file's tensors where those with more bits are kept in `dtype`.
fn quantised_bytes(path: &Path, dtype: DType) -> u64 {
    let checkpoint = Checkpoint::open(path).unwrap();
    let bytes = |t: &TensorInfo| {
        let (rows, cols) = t.rows_cols();
        let kept = if rows == 1 {
            t.dtype
        } else {
            smaller(t.dtype, dtype, cols)
        };
        (rows * Format::of(kept).row_bytes(cols).unwrap()) as u64
    };
    checkpoint.tensors().iter().map(bytes).sum()
}

fn holds(path: &Path) {
    holds_with(path, false);
}

fn holds_with(path: &Path, quant: bool) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(FILE, path);
    if quant {
        child.env(QUANT, "1");
    }
    let child = child.output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    for line in text.lines().filter(|l| l.contains("peak")) {
        println!("{}: {line}", path.file_name().unwrap().display());
    }
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
}

#[test]
fn tiny_models_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    for tiny in [&LLAMA, &GEMMA] {
        let path = folder.path().join(format!("{}.gguf", tiny.arch));
        std::fs::write(&path, tiny.gguf(1)).unwrap();
        holds(&path);
    }
}

#[test]
fn real_models_stay_within_the_limit() {
    for name in ["smollm2-135m-instruct", "gemma-3-270m"] {
        match common::model_file(name) {
            Some(path) => holds(&path),
            None => println!("skipped: {name} is not here; `omnimini pull {name}` fetches it"),
        }
    }
}

/// A model of 540 MB in floats, quantised while it is loaded, takes what it is afterwards: never is
/// there a copy in floats.
#[test]
fn quantising_while_loading_keeps_no_floats() {
    let Some(path) = common::model_file("smollm2-135m-instruct") else {
        println!("skipped: smollm2-135m-instruct is not here; `omnimini pull` fetches it");
        return;
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let floats = folder.path().join("floats.gguf");
    let recipe = Recipe {
        mix: Mix::named("f32").unwrap(),
        pure: false,
        replace: false,
    };
    let source = Checkpoint::open(path).unwrap();
    quantize::write(&source, Vec::new(), &recipe, &floats, &mut |_, _| true).unwrap();
    holds_with(&floats, true);
}

const STARVED: &str = "OMNIMINI_TEST_STARVED";

/// The child: takes away its own address space, and lets a cache grow beyond what is left.
#[test]
#[ignore = "run by another, in a process of its own"]
fn starved() {
    if std::env::var_os(STARVED).is_none() {
        return;
    }
    let tiny = Tiny {
        kv_heads: 8,
        head_dim: 128,
        ..LLAMA
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny.gguf(1)).unwrap();
    let options = LoadOptions {
        device: common::options(),
        context: Some(32 << 10),
        stretch: true,
        ..LoadOptions::default()
    };
    let model = Model::load(&path, &options).unwrap();
    let engine = model.engine();
    let mut sequence = Sequence::new(engine).unwrap();
    let tokens: Vec<u32> = (0..30_000).map(|i| 3 + i % 250).collect();
    let sampling = Sampling {
        max_tokens: 4,
        ignore_end: true,
        ..Sampling::default()
    };
    let mut make = |n: usize| {
        let mut generation = sequence.generate(&tokens[..n], &sampling, &[], None)?;
        let reused = generation.reused();
        let mut made = Vec::new();
        while let Some(step) = generation.next()? {
            made.push(step.token);
        }
        Ok((reused, made))
    };
    let (_, before) = make(400).unwrap();
    // 64 MiB more than it has; the cache would take 384.
    let most = status("VmSize") + (64 << 20);
    let limited = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--as={most}"))
        .status();
    if !limited.is_ok_and(|s| s.success()) {
        println!("skipped: no prlimit is here to take memory away by");
        return;
    }
    let e: omnimini::Result<_> = make(30_000);
    let e = e.unwrap_err();
    println!("starved: {e}");
    assert!(matches!(e, omnimini::Error::CacheMemory { .. }), "{e}");
    // The conversation is as it was.
    let (reused, after) = make(400).unwrap();
    assert_eq!((reused, after), (399, before));
}

#[test]
fn a_device_without_memory_for_a_longer_cache_keeps_the_conversation() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starved", "--nocapture"])
        .env(STARVED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    for line in text
        .lines()
        .filter(|l| l.contains("starved:") || l.contains("skipped"))
    {
        println!("{line}");
    }
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}{errors}");
}
