//! What a model takes, known before it is loaded: held to what the engine makes and what the driver
//! allocates; which way to load it fits; and what is said of one that does not.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use omnimini::caps::Caps;
use omnimini::engine::{self, Engine, LoadOptions, Memory, estimate, fit, ways};
use omnimini::format::Checkpoint;
use omnimini::kernel::attention::KvType;
use omnimini::tensor::DType;
use omnimini::{Error, Result};

mod common;
use common::tiny::{GEMMA, LLAMA, Tiny};

fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<std::sync::Arc<Engine>> {
    pollster::block_on(Engine::load(checkpoint, options, &mut |_, _| {}))
}

fn options() -> LoadOptions {
    LoadOptions {
        device: common::options(),
        ..LoadOptions::default()
    }
}

/// Estimates, loads, and compares; returns what it takes.
fn holds(name: &str, checkpoint: &Checkpoint, options: &LoadOptions) -> Memory {
    let gpu = common::gpu();
    let want = estimate(checkpoint, &gpu.caps, options).unwrap();
    drop(gpu);
    let engine = load(checkpoint, options).unwrap();
    let got = engine.memory();
    assert_eq!(
        (got.weights, got.buffers),
        (want.weights, want.buffers),
        "{name}: what the engine made"
    );
    assert_eq!(engine.kv_bytes_full() as u64, want.cache, "{name}");
    // The driver's own account: beside the buffers there are parameters of launches and what was
    // staged, which is a few megabytes whatever the model.
    if let Some(report) = engine.gpu().device.generate_allocator_report() {
        let allocated: u64 = report.allocations.iter().map(|a| a.size).sum();
        let beside = allocated as i64 - got.total() as i64;
        println!(
            "{name}: {} bytes estimated, {} with the cache as it is, {allocated} allocated",
            want.total(),
            got.total()
        );
        assert!((0..8 << 20).contains(&beside), "{name}: {beside} beside");
    }
    want
}

#[test]
fn the_estimate_is_what_is_allocated() {
    for tiny in [&LLAMA, &GEMMA] {
        let checkpoint = Checkpoint::from_bytes(tiny.gguf(1)).unwrap();
        let plain = holds(tiny.arch, &checkpoint, &options());
        let small = LoadOptions {
            quant: Some(DType::Q4_0),
            kv: KvType::Q8_0,
            context: Some(700),
            chunk: 64,
            ..options()
        };
        let small = holds(&format!("{}, small", tiny.arch), &checkpoint, &small);
        assert!(small.weights < plain.weights && small.cache < plain.cache);
        assert!(small.buffers < plain.buffers);
    }
    for name in ["smollm2-135m-instruct", "gemma-3-270m"] {
        match common::model_file(name) {
            Some(path) => {
                holds(name, &Checkpoint::open(path).unwrap(), &options());
            }
            None => println!("skipped: {name} is not here; `omnimini pull {name}` fetches it"),
        }
    }
}

/// An encoder keeps nothing between steps: its cache is that of one.
#[test]
fn encoders_are_estimated_too() {
    for name in ["bge", "nomic-embed"] {
        let families = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families");
        let checkpoint = Checkpoint::open(format!("{families}/{name}")).unwrap();
        let caps = common::gpu().caps;
        let want = estimate(&checkpoint, &caps, &options()).unwrap();
        let got = load(&checkpoint, &options()).unwrap().memory();
        assert_eq!(got, want, "{name}");
        assert!(want.cache > 0 && want.buffers > 0, "{name}: {want:?}");
    }
}

/// With matrices in floats, so that there is something to choose.
const FLOATS: Tiny = Tiny {
    types: &[DType::F32],
    ..LLAMA
};

fn brief(way: &LoadOptions) -> (Option<DType>, KvType) {
    (way.quant, way.kv)
}

#[test]
fn ways_lose_more_and_more() {
    let checkpoint = Checkpoint::from_bytes(FLOATS.gguf(2)).unwrap();
    let all: Vec<_> = ways(&checkpoint, &options())
        .unwrap()
        .iter()
        .map(brief)
        .collect();
    let quants = [
        None,
        Some(DType::F16),
        Some(DType::Q8_0),
        Some(DType::Q6_K),
        Some(DType::Q5_0),
        // Q4_0 has as many bits as Q4_K.
        Some(DType::Q4_K),
    ];
    let mut want = Vec::new();
    for quant in quants {
        want.extend([(quant, KvType::F16), (quant, KvType::Q8_0)]);
    }
    want.extend(quants.map(|quant| (quant, KvType::Q4_0)));
    assert_eq!(all, want);
    // What is asked for stays; what is small already is not listed again.
    let asked = LoadOptions {
        quant: Some(DType::Q8_0),
        kv: KvType::Q8_0,
        ..options()
    };
    let kept: Vec<_> = ways(&checkpoint, &asked)
        .unwrap()
        .iter()
        .map(brief)
        .collect();
    assert_eq!(
        kept,
        [KvType::Q8_0, KvType::Q4_0].map(|kv| (Some(DType::Q8_0), kv))
    );
    let small = Tiny {
        types: &[DType::Q4_K],
        ..LLAMA
    };
    let checkpoint = Checkpoint::from_bytes(small.gguf(2)).unwrap();
    assert_eq!(ways(&checkpoint, &options()).unwrap().len(), 3);
}

#[test]
fn the_best_that_fits_is_chosen() {
    let checkpoint = Checkpoint::from_bytes(FLOATS.gguf(3)).unwrap();
    let caps = Caps::webgpu_default();
    let take = |way: &LoadOptions| estimate(&checkpoint, &caps, way).unwrap().total();
    let at = |context| LoadOptions {
        context,
        ..options()
    };
    for context in [None, Some(1000)] {
        let ways = ways(&checkpoint, &at(context)).unwrap();
        // With exactly what a way takes, that or a better one is chosen; with a byte less, a worse one.
        for (i, way) in ways.iter().enumerate() {
            let limit = take(way);
            let (chosen, memory) = fit(&checkpoint, &caps, &at(context), limit).unwrap();
            let first = ways.iter().position(|w| take(w) <= limit).unwrap();
            assert!(first <= i);
            assert_eq!(brief(&chosen), brief(&ways[first]));
            assert!(memory.total() <= limit && memory.total() == take(&chosen));
            assert_eq!(chosen.context, Some(context.unwrap_or(4096)));
        }
    }
    // A context that is asked for is kept, at any cost; else it shrinks before nothing is left.
    let least = ways(&checkpoint, &at(None))
        .unwrap()
        .iter()
        .map(take)
        .min()
        .unwrap();
    let (chosen, _) = fit(&checkpoint, &caps, &at(None), least - 1).unwrap();
    assert_eq!(chosen.context, Some(2048));
    let asked = fit(&checkpoint, &caps, &at(Some(4096)), least - 1).unwrap_err();
    assert!(matches!(asked, Error::Memory { .. }), "{asked}");
    let nothing = fit(&checkpoint, &caps, &at(None), 1000).unwrap_err();
    let nothing = nothing.to_string();
    assert!(nothing.contains("choose a smaller model"), "{nothing}");
}

#[test]
fn a_long_context_is_taken_where_it_fits() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families/qwen3");
    let checkpoint = Checkpoint::open(folder).unwrap();
    let caps = Caps::webgpu_default();
    let (all, _) = fit(&checkpoint, &caps, &options(), 1 << 40).unwrap();
    assert_eq!(
        (all.quant, all.kv, all.context),
        (None, KvType::F16, Some(40_960))
    );
    let at = |context| LoadOptions {
        context: Some(context),
        ..options()
    };
    let limit = estimate(&checkpoint, &caps, &at(16_384)).unwrap().total();
    let (some, _) = fit(&checkpoint, &caps, &options(), limit).unwrap();
    assert_eq!(
        (some.quant, some.kv, some.context),
        (None, KvType::F16, Some(16_384))
    );
}

#[test]
fn what_cannot_fit_is_refused_with_what_would() {
    let checkpoint = Checkpoint::from_bytes(FLOATS.gguf(4)).unwrap();
    let gpu = common::gpu();
    let with = |context: usize, memory: u64| LoadOptions {
        context: Some(context),
        memory: Some(memory),
        ..options()
    };
    let need = estimate(&checkpoint, &gpu.caps, &with(4096, 0)).unwrap();
    drop(gpu);
    // It loads with just enough, and not with a byte less.
    load(&checkpoint, &with(4096, need.total())).unwrap();
    let e = load(&checkpoint, &with(4096, need.total() - 1)).unwrap_err();
    let text = e.to_string();
    println!("{text}");
    for part in [
        "for its weights",
        "for a context of 4096 tokens",
        "--quant f16 or --kv q8_0 or --ctx 2048 would fit",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.lines().count(), 1);
    // Each of them does.
    for better in [
        LoadOptions {
            quant: Some(DType::F16),
            ..with(4096, need.total() - 1)
        },
        LoadOptions {
            kv: KvType::Q8_0,
            ..with(4096, need.total() - 1)
        },
        with(2048, need.total() - 1),
    ] {
        load(&checkpoint, &better).unwrap();
    }
    // Where no change alone is enough, several are named; where none are, another model.
    let least = LoadOptions {
        quant: Some(DType::Q4_K),
        kv: KvType::Q4_0,
        ..with(512, 0)
    };
    let gpu = common::gpu();
    let least = estimate(&checkpoint, &gpu.caps, &least).unwrap().total();
    drop(gpu);
    let text = load(&checkpoint, &with(4096, least))
        .unwrap_err()
        .to_string();
    println!("{text}");
    let together = "--quant q4_k --kv q4_0 --ctx 512 would fit";
    assert!(text.contains(together), "{text}");
    let text = load(&checkpoint, &with(4096, 1000))
        .unwrap_err()
        .to_string();
    assert!(text.contains("choose a smaller model"), "{text}");
}

#[test]
fn a_tenth_is_left_to_others_but_of_what_is_said() {
    let gpu = common::gpu();
    let there = gpu.info.memory;
    let said = LoadOptions {
        memory: Some(1 << 30),
        ..options()
    };
    assert_eq!(engine::budget(&gpu.info, &said), Some(1 << 30));
    let budget = engine::budget(&gpu.info, &options());
    assert_eq!(budget, there.map(|bytes| bytes / 10 * 9));
    println!("{}: {there:?} bytes", gpu.info);
}
