//! What happens when drivers compute wrongly, devices go away, files are damaged and weights are no
//! numbers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use omnimini::engine::{Engine, LoadOptions, Sampling, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::{DeviceOptions, Gpu};
use omnimini::graph::reference::evaluate;
use omnimini::kernel::attention::KvType;
use omnimini::model::{Description, Head};
use omnimini::{Error, Model, Options};
use pollster::block_on;

mod common;
use common::tiny::{Floats, LLAMA, Tiny};
use omnimini::format::{Files, Source};
use omnimini::quant::Format;
use omnimini::tensor::DType;

fn checkpoint() -> Checkpoint {
    Checkpoint::from_bytes(LLAMA.gguf(5)).unwrap()
}

fn options(cache: Option<&Path>) -> LoadOptions {
    LoadOptions {
        device: DeviceOptions {
            cache: cache.map(Path::to_owned),
            ..common::options()
        },
        context: Some(128),
        kv: KvType::F32,
        chunk: 16,
        ..LoadOptions::default()
    }
}

fn open(cache: Option<&Path>) -> Gpu {
    block_on(Gpu::open(&options(cache).device)).unwrap()
}

fn load(gpu: Gpu, cache: Option<&Path>) -> omnimini::Result<Arc<Engine>> {
    block_on(Engine::load_on(
        gpu,
        &checkpoint(),
        &options(cache),
        &mut |_, _| {},
    ))
}

/// The largest error of the best log-probabilities after a prompt and after three tokens more.
fn error(engine: &Arc<Engine>) -> f64 {
    let checkpoint = checkpoint();
    let graph = Description::new(&checkpoint)
        .unwrap()
        .graph(&checkpoint, Head::Last, 4096)
        .unwrap();
    let floats = Floats::new(&checkpoint);
    let mut tokens: Vec<u32> = (20..60).collect();
    let mut sequence = Sequence::new(engine).unwrap();
    let sampling = Sampling {
        max_tokens: 4,
        ..Sampling::default()
    };
    let mut generation = sequence
        .generate(&tokens, &sampling, &[], Some(10))
        .unwrap();
    let mut worst = 0f64;
    while let Some(step) = generation.next().unwrap() {
        let logits = evaluate(&graph, &floats, &tokens);
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let norm = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        for (id, logprob) in &step.logprob.unwrap().top {
            worst = worst.max((logits[*id as usize] - norm - f64::from(*logprob)).abs());
        }
        tokens.push(step.token);
    }
    worst
}

/// What may happen to a file.
type Damage = fn(&[u8]) -> Vec<u8>;

/// A driver whose matrix products of prompts are wrong in the variants for software drivers.
fn wrong_products(kernel: &str, wgsl: &str) -> String {
    match kernel {
        "matmul_direct" | "matmul_lanes" => wgsl.replace("= vec4<f32>(0.0);", "= vec4<f32>(0.25);"),
        _ => wgsl.into(),
    }
}

/// A driver whose subgroup sums are twice what they should be.
fn wrong_subgroups(_: &str, wgsl: &str) -> String {
    wgsl.replace("subgroupAdd(", "2.0 * subgroupAdd(")
        .replace("subgroupShuffleXor(", "2.0 * subgroupShuffleXor(")
}

/// A driver that compiles no kernel with subgroup operations.
fn no_subgroups(_: &str, wgsl: &str) -> String {
    if wgsl.contains("subgroupShuffle") {
        format!("{wgsl}this is no kernel")
    } else {
        wgsl.into()
    }
}

/// A driver on which norms come out wrong whatever is done.
fn wrong_norms(_: &str, wgsl: &str) -> String {
    wgsl.replace("inverseSqrt(", "1.5 * inverseSqrt(")
}

/// A driver that draws the wrong tokens.
fn wrong_draws(kernel: &str, wgsl: &str) -> String {
    match kernel {
        "sample_pick" => wgsl.replace("0x7feb352du", "0x7feb352fu"),
        _ => wgsl.into(),
    }
}

#[test]
fn a_sound_driver_loses_nothing() {
    let gpu = open(None);
    let caps = gpu.caps.clone();
    let engine = load(gpu, None).unwrap();
    assert_eq!(
        engine.gpu().caps,
        caps,
        "a right kernel was taken for a wrong one"
    );
    assert!(engine.checked() > 8, "{}", engine.checked());
    let worst = error(&engine);
    assert!(worst < 2e-4, "{worst} nats");
}

#[test]
fn a_wrong_kernel_is_found_and_another_is_used() {
    let before = open(None).caps;
    for (name, rewrite) in [
        ("products", wrong_products as omnimini::gpu::Rewrite),
        ("subgroups", wrong_subgroups),
        ("no subgroups", no_subgroups),
    ] {
        let engine = load(open(None).with_rewrite(rewrite), None).unwrap();
        let (caps, worst) = (&engine.gpu().caps, error(&engine));
        println!(
            "{name}: {worst:.1e} nats, {:?} {:?}",
            caps.kind, caps.subgroups
        );
        assert!(worst < 2e-4, "{name}: {worst} nats");
        if name == "products" && before.kind == omnimini::caps::DeviceKind::Cpu {
            assert_ne!(caps.kind, before.kind);
        }
        if name != "products" {
            assert_eq!(caps.subgroups, None, "{name}");
        }
    }
}

#[test]
fn a_kernel_that_is_wrong_in_every_variant_ends_the_load_in_words() {
    for (rewrite, kernel) in [
        (wrong_norms as omnimini::gpu::Rewrite, ""),
        (wrong_draws, "sample_scan"),
    ] {
        let gpu = open(None).with_rewrite(rewrite);
        let name = gpu.info.name.clone();
        let e = load(gpu, None).unwrap_err();
        let text = e.to_string();
        println!("{text}");
        assert!(matches!(e, Error::BrokenDriver { .. }), "{text}");
        assert!(text.contains(&name) && text.contains(kernel) && !text.contains('\n'));
    }
}

#[test]
fn what_was_checked_and_compiled_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Some(folder.path());
    let first = load(open(cache), cache).unwrap().checked();
    assert!(first > 8);
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    };
    let compiled = files()
        .iter()
        .any(|f| f.display().to_string().contains("pipeline_cache"));
    let can = open(None)
        .device
        .features()
        .contains(wgpu::Features::PIPELINE_CACHE);
    assert_eq!(compiled, can, "{:?}", files());
    let second = load(open(cache), cache).unwrap();
    assert_eq!(second.checked(), 0, "everything was known");
    assert!(error(&second) < 2e-4);
    // What was found on a sound driver says nothing of a broken one.
    let rewrite = if second.gpu().caps.subgroups.is_some() {
        wrong_subgroups
    } else {
        wrong_products
    };
    let broken = load(open(cache).with_rewrite(rewrite), cache).unwrap();
    let caps = broken.gpu().caps.clone();
    if caps != second.gpu().caps {
        assert!(broken.checked() > 0);
        // And what failed is not tried again.
        let again = load(open(cache).with_rewrite(rewrite), cache).unwrap();
        assert_eq!((again.checked(), &again.gpu().caps), (0, &caps));
    }
    // Damaged files are as good as none.
    let whole: Vec<Vec<u8>> = files().iter().map(|f| std::fs::read(f).unwrap()).collect();
    let damages: [Damage; 3] = [
        |b| b[..b.len() / 2].to_vec(),
        |b| {
            let mut b = b.to_vec();
            let middle = b.len() / 2;
            b[middle] ^= 1;
            b
        },
        |_| b"a text in its place".to_vec(),
    ];
    for damage in damages {
        for (file, bytes) in files().iter().zip(&whole) {
            std::fs::write(file, damage(bytes)).unwrap();
        }
        let engine = load(open(cache), cache).unwrap();
        assert_eq!(engine.checked(), first, "all is checked again");
        assert!(error(&engine) < 2e-4);
        assert_eq!(
            load(open(cache), cache).unwrap().checked(),
            0,
            "and kept again"
        );
    }
}

#[test]
fn a_lost_device_is_an_error_and_the_conversation_goes_on() {
    let checkpoint = checkpoint();
    let load = || {
        block_on(Model::open_on(
            open(None),
            &checkpoint,
            &options(None),
            &mut |_, _| {},
        ))
        .unwrap()
    };
    let prompt: Vec<u32> = (20..60).collect();
    let answer = Options {
        sampling: Sampling {
            max_tokens: 60,
            ignore_end: true,
            ..Sampling::default()
        },
        ..Options::default()
    };
    let model = load();
    let whole: Vec<u32> = {
        let mut session = model.session().unwrap();
        let mut answer = session.complete(&prompt, &answer).unwrap();
        std::iter::from_fn(|| answer.next().unwrap().and_then(|d| d.token)).collect()
    };
    // At once, in the prompt, in the first tokens, with much under way, and near the end.
    for after in [0, 1, 2, 7, 30] {
        let model = load();
        let mut session = model.session().unwrap();
        let mut made = prompt.clone();
        let mut generation = session.complete(&prompt, &answer).unwrap();
        for _ in 0..after {
            made.extend(generation.next().unwrap().unwrap().token);
        }
        model.engine().gpu().device.destroy();
        let e = loop {
            match generation.next() {
                Ok(Some(delta)) => made.extend(delta.token),
                Ok(None) => panic!("{after}: it went on to the end without a device"),
                Err(e) => break e,
            }
        };
        let text = e.to_string();
        println!("{after}: {text}");
        assert!(matches!(e, Error::DeviceLost { .. }), "{text}");
        assert!(text.contains("try again") && !text.contains('\n'), "{text}");
        // It says so again, and never hangs.
        assert!(generation.next().is_err() || generation.next().unwrap().is_none());
        drop(generation);
        let e = session
            .complete(&prompt, &answer)
            .unwrap()
            .next()
            .unwrap_err();
        assert!(matches!(e, Error::DeviceLost { .. }), "{e}");
        // On a new device the conversation goes on from its tokens.
        let again = block_on(model.reload(open(None), &checkpoint, &mut |_, _| {})).unwrap();
        session.move_to(&again).unwrap();
        drop(model);
        let left = whole.len() - (made.len() - prompt.len());
        let mut generation = session.complete(&made, &answer).unwrap();
        for _ in 0..left {
            made.extend(generation.next().unwrap().unwrap().token);
        }
        assert_eq!(made[prompt.len()..], whole);
    }
}

#[test]
fn a_device_that_is_gone_loads_nothing() {
    let gpu = open(None);
    gpu.device.destroy();
    let e = load(gpu, None).unwrap_err();
    assert!(matches!(e, Error::DeviceLost { .. }), "{e}");
}

#[test]
fn what_a_driver_refuses_is_an_error() {
    let gpu = open(None);
    let bytes = gpu.device.limits().max_buffer_size + 16;
    gpu.buffer("too large", bytes);
    let e = gpu.check().unwrap_err();
    assert!(matches!(e, Error::Device { .. }), "{e}");
    assert!(!e.to_string().contains('\n'), "{e}");
    gpu.check().unwrap();
    // A cache that cannot be: the limit is named.
    let huge = LoadOptions {
        contexts: 1 << 24,
        ..options(None)
    };
    let e = block_on(Engine::load_on(
        open(None),
        &checkpoint(),
        &huge,
        &mut |_, _| {},
    ))
    .unwrap_err();
    println!("{e}");
    assert!(matches!(e, Error::CacheTooLarge { .. }), "{e}");
}

/// What loading a checkpoint fails with.
fn refusal(checkpoint: &Checkpoint) -> String {
    let options = options(None);
    let gpu = block_on(Gpu::open(&options.device)).unwrap();
    let loaded = block_on(Engine::load_on(gpu, checkpoint, &options, &mut |_, _| {}));
    let e = loaded.unwrap_err();
    assert!(matches!(e, Error::NotFinite { .. }), "{e}");
    e.to_string()
}

/// Types, and bytes at a place of a block that make of it no number.
const NO_NUMBERS: &[(DType, usize, &[u8])] = &[
    (DType::F32, 0, &[0, 0, 0xc0, 0x7f]),
    (DType::F32, 0, &[0, 0, 0x80, 0xff]),
    (DType::F16, 0, &[1, 0x7c]),
    (DType::BF16, 0, &[0x80, 0x7f]),
    // Scales, and what is added to an element.
    (DType::Q4_1, 2, &[0, 0x7c]),
    (DType::Q4_K, 0, &[0, 0xfe]),
    (DType::Q4_K, 2, &[0, 0xfc]),
    (DType::Q6_K, 208, &[0, 0x7e]),
    (DType::Q8_0, 0, &[0xff, 0x7f]),
    // The Microscaling formats' exponent that is NaN.
    (DType::MXFP4, 0, &[0xff]),
];

#[test]
fn weights_that_are_no_numbers_are_named() {
    for (dtype, at, bytes) in NO_NUMBERS {
        let types: &'static [DType] = vec![*dtype].leak();
        let tiny = Tiny { types, ..LLAMA };
        let mut file = tiny.gguf(5);
        let checkpoint = Checkpoint::from_bytes(file.clone()).unwrap();
        let tensor = checkpoint.need("blk.1.ffn_up.weight").unwrap();
        let format = Format::of(*dtype);
        // In the last block of a row.
        let (row, each) = (301, format.row_bytes(tiny.width).unwrap());
        let start = tensor.offset as usize + (row + 1) * each - format.block_bytes + at;
        file[start..start + bytes.len()].copy_from_slice(bytes);
        let text = refusal(&Checkpoint::from_bytes(file).unwrap());
        let want = "row 301 of tensor `blk.1.ffn_up.weight` has a weight that is NaN or infinite";
        assert!(text.starts_with(want), "{dtype}: {text}");
        assert_eq!(text.lines().count(), 1);
    }
    // A vector, which is no row of anything.
    let mut file = LLAMA.gguf(5);
    let checkpoint = Checkpoint::from_bytes(file.clone()).unwrap();
    let start = checkpoint.need("blk.2.attn_norm.weight").unwrap().offset as usize;
    file[start + 40..start + 44].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = refusal(&Checkpoint::from_bytes(file).unwrap());
    assert!(
        text.starts_with("tensor `blk.2.attn_norm.weight` has a weight"),
        "{text}"
    );
}

#[test]
fn eight_bit_floats_that_are_no_numbers_are_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/qwen3-fp8");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let weights = read("model.safetensors");
    let head = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let index: serde_json::Value = serde_json::from_slice(&weights[8..8 + head]).unwrap();
    let start = |name: &str| {
        let start = index[name]["data_offsets"][0].as_u64().unwrap();
        8 + head + start as usize
    };
    let up = "model.layers.1.mlp.up_proj.weight";
    assert_eq!(index[up]["dtype"], "F8_E4M3");
    let cols = index[up]["shape"][1].as_u64().unwrap() as usize;
    let scale = f32::INFINITY.to_le_bytes();
    let scale = if index[format!("{up}_scale_inv")]["dtype"] == "BF16" {
        &scale[2..]
    } else {
        &scale[..]
    };
    for (at, bytes, row) in [
        (start(up) + 5 * cols + 3, &[0xff][..], 5),
        (start(&format!("{up}_scale_inv")), scale, 0),
    ] {
        let mut weights = weights.clone();
        weights[at..at + bytes.len()].copy_from_slice(bytes);
        let mut files = Files::new();
        for name in ["config.json", "tokenizer.json"] {
            files.insert(name.into(), Source::memory(name, read(name)));
        }
        let name = "model.safetensors";
        files.insert(name.into(), Source::memory(name, weights));
        let text = refusal(&Checkpoint::from_folder("qwen3-fp8", files).unwrap());
        let want = format!("row {row} of tensor `blk.1.ffn_up.weight` has a weight");
        assert!(text.starts_with(&want), "{text}");
    }
}
