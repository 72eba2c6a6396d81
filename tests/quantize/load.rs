//! Quantising while loading, on the adapter at hand: the same model as one that was quantised
//! before.

use std::sync::Arc;

use omnimini::engine::{Engine, LoadOptions, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::Gpu;
use omnimini::quant::testing::Rng;
use omnimini::quantize::Mix;
use omnimini::tensor::DType;
use pollster::block_on;

use crate::common;
use crate::common::tiny::{GEMMA, LLAMA, Tiny};
use crate::rewritten;

fn options(quant: Option<DType>) -> LoadOptions {
    LoadOptions {
        device: common::options(),
        context: Some(128),
        quant,
        ..LoadOptions::default()
    }
}

/// Log-probabilities of random tokens, one after another.
fn scores(checkpoint: &Checkpoint, quant: Option<DType>, tokens: &[u32]) -> Vec<f32> {
    let options = options(quant);
    let engine: Arc<Engine> = block_on(Engine::load(checkpoint, &options, &mut |_, _| {})).unwrap();
    scores_on(&engine, tokens)
}

fn scores_on(engine: &Arc<Engine>, tokens: &[u32]) -> Vec<f32> {
    let mut sequence = Sequence::new(engine).unwrap();
    block_on(sequence.score(tokens, &tokens[1..], 0)).unwrap()
}

/// Root mean square of differences.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    (a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64).sqrt()
}

fn loads_as_quantised(tiny: &Tiny, types: &[DType]) {
    let mut rng = Rng::new(4);
    let tokens: Vec<u32> = (0..65).map(|_| rng.below(tiny.vocab) as u32).collect();
    let source = Checkpoint::from_bytes(tiny.gguf(9)).unwrap();
    let whole = scores(&source, None, &tokens);
    for dtype in types {
        let name = dtype.to_string();
        assert!(Mix::named(&name).is_some());
        let (_folder, before) = rewritten(&source, &name, true);
        let before = scores(&before, None, &tokens);
        let loaded = scores(&source, Some(*dtype), &tokens);
        let (lost, apart) = (apart(&whole, &before), apart(&before, &loaded));
        println!(
            "{} {name}: {lost:.1e} nats lost, {apart:.1e} apart",
            tiny.arch
        );
        assert!(loaded.iter().all(|s| s.is_finite()));
        // A few codes may differ by a step; all of them would be another model.
        assert!(
            apart < 0.4 * lost + 1e-3,
            "{name}: {apart:.1e} apart, {lost:.1e} lost"
        );
        assert!(
            *dtype == DType::F16 || lost > 1e-3,
            "{name}: {lost:.1e} lost"
        );
    }
}

#[test]
fn floats_are_quantised_on_the_device() {
    let tiny = Tiny {
        types: &[DType::F32, DType::BF16, DType::F16],
        ..LLAMA
    };
    let types = [DType::Q8_0, DType::Q6_K, DType::Q4_K, DType::Q4_0];
    loads_as_quantised(&tiny, &types);
    let floats = Tiny {
        types: &[DType::F32],
        ..GEMMA
    };
    // The last has no kernel, so that the processor makes it.
    loads_as_quantised(&floats, &[DType::F16, DType::Q4_K, DType::Q5_K]);
}

/// Columns that are no whole super-blocks; a part of the model has few bits already.
#[test]
fn stand_ins_are_made_on_the_device_too() {
    let tiny = Tiny {
        width: 96,
        ffn: 320,
        types: &[DType::F32, DType::Q8_0],
        ..LLAMA
    };
    loads_as_quantised(&tiny, &[DType::Q4_K]);
}

/// A driver that rounds factors to no six bits.
fn wrong_factors(kernel: &str, wgsl: &str) -> String {
    match kernel {
        "encode_q4_k" => wgsl.replace("over(63.0, ", "over(31.0, "),
        _ => wgsl.into(),
    }
}

#[test]
fn what_the_device_makes_wrongly_the_processor_makes() {
    let tiny = Tiny {
        types: &[DType::F16],
        ..LLAMA
    };
    let tokens: Vec<u32> = (100..150).collect();
    let source = Checkpoint::from_bytes(tiny.gguf(6)).unwrap();
    let (_folder, before) = rewritten(&source, "q4_k", true);
    let load = |wrong: bool| {
        let mut options = options(Some(DType::Q4_K));
        options.device.cache = None;
        let mut gpu = block_on(Gpu::open(&options.device)).unwrap();
        if wrong {
            gpu = gpu.with_rewrite(wrong_factors);
        }
        block_on(Engine::load_on(gpu, &source, &options, &mut |_, _| {})).unwrap()
    };
    let [right, wrong] = [false, true].map(load);
    let launches = [&right, &wrong].map(|e| e.gpu().counts().launches);
    assert_eq!(scores_on(&wrong, &tokens), scores(&before, None, &tokens));
    // Both had their kernels checked; then one of them had the matrices made, each by a launch.
    let matrices = source.tensors().iter().filter(|t| t.shape.len() > 1);
    assert_eq!(launches[0] - launches[1], matrices.count() as u64);
}
