//! The paged cache of whole tiny models: it grows, keeps windows in rings, and runs out in words.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::sync::Arc;

use omnimini::Error;
use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{Engine, Generation, LoadOptions, Sampling, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::DeviceOptions;
use omnimini::graph::reference::{evaluate, evaluate_rounded};
use omnimini::kernel::attention::{KvType, PAGE};
use omnimini::model::{Description, Head};
use omnimini::tensor::DType;
use pollster::block_on;

mod common;
use common::tiny::{Floats, GEMMA, LLAMA, Tiny};

/// The longest context that is asked for.
const LONG: usize = 131_072;

/// Positions that a cache has room for when it is new.
const FIRST: usize = 512;

fn load(tiny: &Tiny, options: &LoadOptions) -> Arc<Engine> {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(3)).unwrap();
    let options = LoadOptions {
        device: common::options(),
        kv: KvType::F32,
        ..options.clone()
    };
    block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap()
}

fn context(tokens: usize) -> LoadOptions {
    LoadOptions {
        context: Some(tokens),
        ..LoadOptions::default()
    }
}

fn prompt(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|i| 3 + (i * 7919 + seed * 31) % 250)
        .collect()
}

fn sampling(max_tokens: usize) -> Sampling {
    Sampling {
        max_tokens,
        ignore_end: true,
        ..Sampling::default()
    }
}

fn rest(mut generation: Generation<'_>) -> Vec<u32> {
    std::iter::from_fn(|| generation.next().unwrap().map(|s| s.token)).collect()
}

fn make(engine: &Arc<Engine>, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut sequence = Sequence::new(engine).unwrap();
    rest(sequence.generate(prompt, &sampling(n), &[], None).unwrap())
}

/// The largest difference, in nats, of some log-probabilities after `tokens` to those of f64 arithmetic.
fn difference(tiny: &Tiny, tokens: &[u32], best: &[(u32, f32)]) -> f64 {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(3)).unwrap();
    let graph = Description::new(&checkpoint).unwrap();
    let graph = graph.graph(&checkpoint, Head::Last, 4096).unwrap();
    let logits = evaluate(&graph, &Floats::new(&checkpoint), tokens);
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let norm = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
    let errors = best
        .iter()
        .map(|(id, l)| (logits[*id as usize] - norm - f64::from(*l)).abs());
    errors.fold(0.0, f64::max)
}

/// The same of the ten best after `tokens`.
fn error(tiny: &Tiny, sequence: &mut Sequence, tokens: &[u32]) -> f64 {
    let mut generation = sequence
        .generate(tokens, &sampling(1), &[], Some(10))
        .unwrap();
    let best = generation.next().unwrap().unwrap().logprob.unwrap().top;
    difference(tiny, tokens, &best)
}

#[test]
fn a_cache_grows_as_it_fills() {
    let engine = load(&LLAMA, &context(4096));
    let (small, full) = (engine.kv_bytes(), engine.kv_bytes_full());
    assert_eq!(small * 8, full);
    let mut sequence = Sequence::new(&engine).unwrap();
    // Across a growth in the loop, and across two at once in a prompt.
    let mut tokens = prompt(FIRST - 20, 1);
    tokens.extend(rest(
        sequence
            .generate(&tokens, &sampling(60), &[], None)
            .unwrap(),
    ));
    assert_eq!(engine.kv_bytes(), 2 * small);
    assert_eq!(sequence.cached(), &tokens[..tokens.len() - 1]);
    let worst = error(&LLAMA, &mut sequence, &tokens);
    println!("{worst:.1e} nats after a growth");
    assert!(worst < 2e-4, "{worst}");
    tokens.extend(prompt(1500, 2));
    rest(sequence.generate(&tokens, &sampling(2), &[], None).unwrap());
    // What was there before is there still: nothing is computed again.
    let again = sequence.generate(&tokens, &sampling(1), &[], None).unwrap();
    assert_eq!(again.reused(), tokens.len() - 1);
    let grown = rest(again);
    assert_eq!(engine.kv_bytes(), full);
    // A cache that has the room from the start makes the same.
    drop(sequence);
    assert_eq!(make(&engine, &tokens, 1), grown);
}

#[test]
fn one_sequence_grows_the_cache_under_another() {
    let engine = load(
        &LLAMA,
        &LoadOptions {
            contexts: 2,
            ..context(1024)
        },
    );
    let texts = [prompt(30, 5), prompt(FIRST - 40, 6)];
    let alone = texts
        .each_ref()
        .map(|t| make(&load(&LLAMA, &context(1024)), t, 120));
    let mut open = [
        Sequence::new(&engine).unwrap(),
        Sequence::new(&engine).unwrap(),
    ];
    let [a, b] = &mut open;
    let mut a = a.generate(&texts[0], &sampling(120), &[], None).unwrap();
    let mut b = b.generate(&texts[1], &sampling(120), &[], None).unwrap();
    let mut made = [Vec::new(), Vec::new()];
    for i in 0..240 {
        let which = usize::from(i % 3 > 0);
        let next = [&mut a, &mut b][which].next().unwrap();
        made[which].extend(next.map(|s| s.token));
    }
    for (made, alone) in made.iter().zip(&alone) {
        assert!(made.len() >= 80);
        assert_eq!(made[..], alone[..made.len()]);
    }
}

#[test]
fn a_window_is_kept_in_a_ring() {
    let options = LoadOptions {
        chunk: 32,
        ..context(4096)
    };
    let engine = load(&GEMMA, &options);
    // Of seven layers one keeps everything; the others keep (24 + 64) / 32, one more, and one to round.
    let page = engine.kv_bytes_full() / (128 + 6 * 4);
    assert_eq!(page, 2 * PAGE * GEMMA.kv_heads * GEMMA.head_dim * 4);
    let mut sequence = Sequence::new(&engine).unwrap();
    let mut tokens = prompt(300, 1);
    let worst = error(&GEMMA, &mut sequence, &tokens);
    println!("{worst:.1e} nats after {}", tokens.len());
    assert!(worst < 2e-4, "{worst}");
    // The ring turns in the loop, too.
    tokens.extend(rest(
        sequence
            .generate(&tokens, &sampling(150), &[], None)
            .unwrap(),
    ));
    let worst = error(&GEMMA, &mut sequence, &tokens);
    println!("{worst:.1e} nats after {}", tokens.len());
    assert!(worst < 2e-4, "{worst}");
    // A little back, the window is whole, whatever ran past the end.
    tokens.truncate(tokens.len() - 20);
    let again = sequence.generate(&tokens, &sampling(1), &[], None).unwrap();
    assert_eq!(again.reused(), tokens.len() - 1);
    drop(again);
    let worst = error(&GEMMA, &mut sequence, &tokens);
    assert!(worst < 2e-4, "{worst}");
    // Further back it is not, and everything is computed again.
    for (len, whole) in [(330, false), (329, true), (200, false), (20, false)] {
        tokens.truncate(len);
        let again = sequence.generate(&tokens, &sampling(1), &[], None).unwrap();
        assert_eq!(again.reused(), if whole { len - 1 } else { 0 }, "{len}");
        drop(again);
        let worst = error(&GEMMA, &mut sequence, &tokens);
        println!("{worst:.1e} nats after going back to {len}");
        assert!(worst < 2e-4, "{worst}");
    }
}

#[test]
fn a_cache_that_cannot_grow_is_an_error_and_the_conversation_goes_on() {
    let small = load(&LLAMA, &context(4096)).kv_bytes() as u64;
    for (room, most) in [(small, FIRST), (small * 3 / 2, FIRST * 3 / 2)] {
        let engine = load(
            &LLAMA,
            &LoadOptions {
                cache: Some(room),
                ..context(4096)
            },
        );
        let mut sequence = Sequence::new(&engine).unwrap();
        let mut tokens = prompt(FIRST - 30, 1);
        let want = make(&load(&LLAMA, &context(4096)), &tokens, 400);
        let mut generation = sequence
            .generate(&tokens, &sampling(400), &[], None)
            .unwrap();
        let mut made = Vec::new();
        let e = loop {
            match generation.next() {
                Ok(step) => made.extend(step.map(|s| s.token)),
                Err(e) => break e,
            }
        };
        println!("{} tokens, then: {e}", made.len());
        assert!(matches!(e, Error::CacheMemory { .. }), "{e}");
        assert!(e.to_string().contains(&most.to_string()), "{e}");
        assert!(generation.next().unwrap().is_none(), "it is told once");
        drop(generation);
        // What was made is right, and most of what there was room for was made.
        assert_eq!(made[..], want[..made.len()]);
        assert!(made.len() + tokens.len() + 64 >= most, "{}", made.len());
        // A shorter answer goes on from the cache.
        tokens.extend(&made[..made.len() - 1]);
        let again = sequence.generate(&tokens, &sampling(1), &[], None).unwrap();
        assert_eq!(again.reused(), tokens.len() - 1);
        assert_eq!(rest(again), made[made.len() - 1..]);
        // A prompt that is too long takes nothing away.
        let long = [&tokens[..], &prompt(2000, 3)[..]].concat();
        let mut generation = sequence.generate(&long, &sampling(1), &[], None).unwrap();
        let e = generation.next().unwrap_err();
        assert!(matches!(e, Error::CacheMemory { .. }), "{e}");
        drop(generation);
        assert_eq!(sequence.cached(), tokens);
    }
}

/// The largest error, in nats, of the ten best log-probabilities of some steps after `n` tokens, with
/// a cache of this type: of an engine against f64 arithmetic with a cache that rounds the same.
fn rounded(tiny: &Tiny, device: DeviceOptions, kv: KvType, n: usize) -> f64 {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(3)).unwrap();
    let options = LoadOptions {
        device,
        kv,
        ..context(1024)
    };
    let engine = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap();
    let graph = Description::new(&checkpoint).unwrap();
    let graph = graph.graph(&checkpoint, Head::Last, 4096).unwrap();
    let floats = Floats::new(&checkpoint);
    let mut tokens = prompt(n, 4);
    let mut sequence = Sequence::new(&engine).unwrap();
    let mut generation = sequence
        .generate(&tokens, &sampling(4), &[], Some(10))
        .unwrap();
    let mut worst = 0f64;
    while let Some(step) = generation.next().unwrap() {
        let round = |head: &mut [f64]| kv.round(head);
        let logits = evaluate_rounded(&graph, &floats, &tokens, &round);
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let norm = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        for (id, l) in step.logprob.unwrap().top {
            worst = worst.max((logits[id as usize] - norm - f64::from(l)).abs());
        }
        tokens.push(step.token);
    }
    worst
}

#[test]
fn caches_of_every_type_agree_with_the_reference() {
    let gpu = DeviceOptions {
        kind: Some(DeviceKind::Discrete),
        precision: Precision::F32,
        ..common::options()
    };
    for tiny in [&LLAMA, &GEMMA] {
        for device in [&common::options(), &gpu] {
            for kv in KvType::ALL {
                let worst = rounded(tiny, device.clone(), kv, 70);
                println!("{} {kv}: {worst:.1e} nats", tiny.arch);
                // An element between two codes may be rounded either way: a step of one of many.
                let limit = match kv {
                    KvType::F32 => 2e-4,
                    KvType::F16 | KvType::Q8_0 => 1e-2,
                    KvType::Q4_0 => 3e-2,
                };
                assert!(worst < limit, "{} {kv}: {worst} nats", tiny.arch);
            }
        }
    }
}

#[test]
fn a_cache_that_no_binding_holds_is_refused_with_what_would_fit() {
    let strict = DeviceOptions {
        strict_webgpu: true,
        ..common::options()
    };
    let tiny = Tiny {
        heads: 8,
        kv_heads: 8,
        head_dim: 128,
        layers: 1,
        ..LLAMA
    };
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(1)).unwrap();
    let load = |context: usize, kv: KvType| {
        let options = LoadOptions {
            device: strict.clone(),
            context: Some(context),
            stretch: true,
            kv,
            ..LoadOptions::default()
        };
        block_on(Engine::load(&checkpoint, &options, &mut |_, _| {}))
    };
    let e = load(131_072, KvType::F16).unwrap_err();
    println!("{e}");
    let Error::CacheTooLarge {
        fits, ref others, ..
    } = e
    else {
        panic!("{e}");
    };
    // 128 MiB: 4096 bytes a position in halves.
    assert_eq!(fits, 32_768);
    assert_eq!(others[0], ("q8_0".into(), 58_240));
    assert_eq!(others[1], ("q4_0".into(), 104_832));
    // What it says is so.
    assert_eq!(load(fits, KvType::F16).unwrap().context(), fits);
    load(fits + 1, KvType::F16).unwrap_err();
    load(others[1].1, KvType::Q4_0).unwrap();
    // Heads of forty have no blocks of 32.
    let tiny = Tiny {
        head_dim: 40,
        types: &[DType::Q8_0],
        ..LLAMA
    };
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(1)).unwrap();
    let options = LoadOptions {
        device: common::options(),
        kv: KvType::Q8_0,
        ..LoadOptions::default()
    };
    let e = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap_err();
    println!("{e}");
    assert!(matches!(e, Error::CacheBlocks { head_dim: 40, .. }), "{e}");
}

/// The whole of 131072 tokens by layers with a window: each is computed, and the last are held to f64
/// arithmetic, which needs no more than they see.
#[test]
fn a_context_of_131072_tokens_is_computed_to_its_end() {
    let tiny = Tiny {
        layers: 3,
        width: 64,
        heads: 2,
        head_dim: 32,
        ffn: 64,
        types: &[DType::Q8_0],
        ..GEMMA
    };
    let options = LoadOptions {
        chunk: 512,
        stretch: true,
        ..context(LONG)
    };
    let engine = load(&tiny, &options);
    let tokens = prompt(LONG - 1, 1);
    let mut sequence = Sequence::new(&engine).unwrap();
    let clock = std::time::Instant::now();
    let mut generation = sequence
        .generate(&tokens, &sampling(8), &[], Some(10))
        .unwrap();
    let best = generation.next().unwrap().unwrap().logprob.unwrap().top;
    println!("{LONG} tokens in {:.1} s", clock.elapsed().as_secs_f64());
    // The context's last place is the last that is filled.
    assert!(generation.next().unwrap().is_some());
    assert!(generation.next().unwrap().is_none());
    drop(generation);
    assert_eq!(sequence.cached().len(), LONG);
    assert!(engine.kv_bytes() < 2 << 20, "{} bytes", engine.kv_bytes());
    // Three layers see 3 · 23 back; angles are differences of positions, so that a tail says the same.
    let worst = difference(&tiny, &tokens[LONG - 1 - 100..], &best);
    println!("{worst:.1e} nats");
    assert!(worst < 1e-3, "{worst}");
}

/// The end of a context of 131072 tokens over a filled cache: kernels of two kinds, which split it
/// differently, agree at every place; in the memory that was said.
#[test]
fn a_filled_context_of_131072_tokens_is_attended_to_its_end() {
    let tiny = Tiny {
        layers: 2,
        heads: 4,
        kv_heads: 1,
        head_dim: 32,
        width: 128,
        types: &[DType::Q8_0],
        ..LLAMA
    };
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(3)).unwrap();
    let tokens = prompt(LONG - 8, 1);
    let depth = LONG - 40;
    for kv in [KvType::F16, KvType::Q4_0] {
        let best = [None, Some(DeviceKind::Discrete)].map(|kind| {
            let options = LoadOptions {
                device: DeviceOptions {
                    kind,
                    precision: Precision::F32,
                    ..common::options()
                },
                stretch: true,
                kv,
                ..context(LONG)
            };
            let engine = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap();
            let mut sequence = Sequence::new(&engine).unwrap();
            sequence.fill(&tokens[..depth]).unwrap();
            let bits = if kv == KvType::F16 { 16 } else { 5 };
            assert_eq!(engine.kv_bytes(), 2 * 2 * LONG * 32 * bits / 8);
            let mut generation = sequence
                .generate(&tokens, &sampling(100), &[], Some(10))
                .unwrap();
            assert_eq!(generation.reused(), depth);
            let steps = std::iter::from_fn(|| generation.next().unwrap());
            steps.map(|s| s.logprob.unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(best[0].len(), 9, "to the context's end");
        let (mut worst, mut equal) = (0f32, 0);
        for (a, b) in best[0].iter().zip(&best[1]) {
            for (id, l) in &a.top {
                // The last of the ten may not be among the other's.
                if let Some((_, m)) = b.top.iter().find(|(i, _)| i == id) {
                    worst = worst.max((l - m).abs());
                } else {
                    let [.., (_, last)] = b.top[..] else {
                        panic!("there are ten")
                    };
                    worst = worst.max(l - last);
                }
            }
            equal += 1;
            if a.id != b.id {
                // Two are as good as equal, and the texts part.
                break;
            }
        }
        println!("{kv}: {worst:.1e} nats between two kinds of kernels after {equal} tokens");
        assert!(worst < 2e-3, "{worst}");
    }
}

#[test]
fn pages_of_closed_sequences_are_used_again() {
    let engine = load(&LLAMA, &context(1024));
    let long = prompt(900, 1);
    let first = make(&engine, &long, 2);
    let bytes = engine.kv_bytes();
    let mut open = Sequence::new(&engine).unwrap();
    rest(open.generate(&long, &sampling(2), &[], None).unwrap());
    // Others have none left, and are told so.
    let mut other = Sequence::new(&engine).unwrap();
    let e = other
        .generate(&long, &sampling(2), &[], None)
        .unwrap()
        .next()
        .unwrap_err();
    assert!(matches!(e, Error::CacheFull { .. }), "{e}");
    drop(open);
    assert_eq!(
        rest(other.generate(&long, &sampling(2), &[], None).unwrap()),
        first
    );
    assert_eq!(engine.kv_bytes(), bytes);
}
