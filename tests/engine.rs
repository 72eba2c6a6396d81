//! Whole models on the adapter at hand: tiny ones of true structure against plain f64 arithmetic.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::sync::Arc;

use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{Engine, LoadOptions, Sampling, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::DeviceOptions;
use omnimini::graph::Graph;
use omnimini::graph::reference::evaluate;
use omnimini::kernel::attention::KvType;
use omnimini::model::{Description, Head};
use omnimini::quant::testing::Rng;
use pollster::block_on;

mod common;
use common::tiny::{Floats, GEMMA, LLAMA, Tiny};

struct Rig {
    engine: Arc<Engine>,
    graph: Graph,
    floats: Floats,
    vocab: usize,
}

fn rig(tiny: &Tiny, seed: u64, kv: KvType, chunk: usize, context: usize) -> Rig {
    rig_on(common::options(), tiny, seed, kv, chunk, context)
}

fn rig_on(
    device: DeviceOptions,
    tiny: &Tiny,
    seed: u64,
    kv: KvType,
    chunk: usize,
    context: usize,
) -> Rig {
    let checkpoint = Checkpoint::from_bytes(tiny.gguf(seed)).unwrap();
    let options = LoadOptions {
        device,
        context: Some(context),
        kv,
        chunk,
        ..LoadOptions::default()
    };
    let engine = block_on(Engine::load(&checkpoint, &options, &mut |_, _| {})).unwrap();
    Rig {
        graph: Description::new(&checkpoint)
            .unwrap()
            .graph(&checkpoint, Head::Last, 4096)
            .unwrap(),
        floats: Floats::new(&checkpoint),
        vocab: tiny.vocab,
        engine,
    }
}

impl Rig {
    fn prompt(&self, rng: &mut Rng, n: usize) -> Vec<u32> {
        (0..n).map(|_| rng.below(self.vocab) as u32).collect()
    }

    /// log softmax of the reference's logits after `tokens`.
    fn truth(&self, tokens: &[u32]) -> Vec<f64> {
        let logits = evaluate(&self.graph, &self.floats, tokens);
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let norm = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        logits.iter().map(|l| l - norm).collect()
    }

    /// Greedy tokens after `prompt`, each held to the reference: the largest error of the ten best
    /// log-probabilities.
    fn worst(&self, sequence: &mut Sequence, prompt: &[u32], n: usize) -> f64 {
        let sampling = Sampling {
            max_tokens: n,
            ..Sampling::default()
        };
        let mut context = prompt.to_vec();
        let mut generation = sequence.generate(prompt, &sampling, &[], Some(10)).unwrap();
        let mut worst = 0f64;
        while let Some(step) = generation.next().unwrap() {
            let truth = self.truth(&context);
            let got = step.logprob.unwrap();
            assert_eq!(got.id, got.top[0].0, "greedy takes the best");
            for (id, logprob) in &got.top {
                worst = worst.max((truth[*id as usize] - f64::from(*logprob)).abs());
            }
            context.push(step.token);
        }
        assert_eq!(context.len(), prompt.len() + n);
        worst
    }
}

fn agrees(tiny: &Tiny, kv: KvType, limit: f64) {
    agrees_on(common::options(), tiny, kv, limit);
}

fn agrees_on(device: DeviceOptions, tiny: &Tiny, kv: KvType, limit: f64) {
    let rig = rig_on(device, tiny, 7, kv, 32, 128);
    let mut rng = Rng::new(11);
    for n in [1, 2, 31, 32, 33, 70] {
        let prompt = rig.prompt(&mut rng, n);
        let mut sequence = Sequence::new(&rig.engine).unwrap();
        let worst = rig.worst(&mut sequence, &prompt, 4);
        println!("{} prompt {n}: {worst:.2e} nats", tiny.arch);
        assert!(
            worst < limit,
            "{} after {n} tokens: {worst} nats",
            tiny.arch
        );
    }
}

#[test]
fn llama_agrees_with_the_reference() {
    agrees(&LLAMA, KvType::F32, 2e-4);
    agrees(&LLAMA, KvType::F16, 1e-2);
}

#[test]
fn gemma_agrees_with_the_reference() {
    agrees(&GEMMA, KvType::F32, 2e-4);
    agrees(&GEMMA, KvType::F16, 1e-2);
}

/// The kernels that a GPU of this adapter's abilities would get, in every precision.
#[test]
fn kernels_for_gpus_agree_with_the_reference() {
    let adapter = common::gpu();
    for tiny in [&LLAMA, &GEMMA] {
        for (precision, limit) in [
            (Precision::F32, 5e-5),
            (Precision::F16, 1e-2),
            (Precision::Int8, 0.1),
        ] {
            if precision == Precision::F16 && !adapter.caps.f16 {
                println!("skipped: {} has no f16", adapter.info);
                continue;
            }
            println!("{precision:?}");
            let device = DeviceOptions {
                kind: Some(DeviceKind::Discrete),
                precision,
                ..common::options()
            };
            agrees_on(device, tiny, KvType::F32, limit);
        }
    }
}

#[test]
fn biases_and_own_heads_agree_with_the_reference() {
    agrees(
        &Tiny {
            biases: true,
            ..LLAMA
        },
        KvType::F32,
        2e-4,
    );
}

#[test]
fn the_loop_makes_what_single_steps_make() {
    let rig = rig(&GEMMA, 3, KvType::F16, 16, 256);
    let prompt = rig.prompt(&mut Rng::new(5), 40);
    let sampling = Sampling {
        max_tokens: 100,
        ..Sampling::default()
    };
    let make = |sequence: &mut Sequence, logprobs| {
        let mut generation = sequence
            .generate(&prompt, &sampling, &[], logprobs)
            .unwrap();
        let mut made = Vec::new();
        while let Some(step) = generation.next().unwrap() {
            made.push(step.token);
        }
        made
    };
    let single = make(&mut Sequence::new(&rig.engine).unwrap(), Some(1));
    let mut sequence = Sequence::new(&rig.engine).unwrap();
    assert_eq!(single.len(), 100);
    assert_eq!(make(&mut sequence, None), single);
    // The same prompt again: all of it but its last token comes from the cache.
    let mut again = sequence.generate(&prompt, &sampling, &[], None).unwrap();
    assert_eq!(again.reused(), prompt.len() - 1);
    assert_eq!(again.next().unwrap().unwrap().token, single[0]);
}

#[test]
fn a_prompt_that_is_dropped_between_chunks_is_gone_on_with() {
    let rig = rig(&LLAMA, 3, KvType::F32, 16, 256);
    let prompt: Vec<u32> = (0..120).map(|i| 3 + (i * 7) % 250).collect();
    let sampling = Sampling {
        max_tokens: 8,
        ..Sampling::default()
    };
    let make = |sequence: &mut Sequence| {
        let mut generation = sequence.generate(&prompt, &sampling, &[], None).unwrap();
        let made: Vec<u32> =
            std::iter::from_fn(|| generation.next().unwrap().map(|s| s.token)).collect();
        (generation.reused(), made)
    };
    let (_, want) = make(&mut Sequence::new(&rig.engine).unwrap());
    let mut sequence = Sequence::new(&rig.engine).unwrap();
    {
        let mut generation = sequence.generate(&prompt, &sampling, &[], None).unwrap();
        let mut step = std::pin::pin!(generation.next_step());
        let mut looks = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            assert!(step.as_mut().poll(&mut looks).is_pending());
        }
    }
    let (reused, made) = make(&mut sequence);
    assert!(reused > 0 && reused < prompt.len() - 1, "{reused}");
    assert_eq!(made, want);
}

#[test]
fn two_sequences_take_turns() {
    let rig = rig(&LLAMA, 9, KvType::F16, 16, 256);
    let mut rng = Rng::new(1);
    let prompts = [rig.prompt(&mut rng, 20), rig.prompt(&mut rng, 33)];
    let sampling = Sampling {
        max_tokens: 40,
        ..Sampling::default()
    };
    let alone: Vec<Vec<u32>> = prompts
        .iter()
        .map(|p| {
            let mut s = Sequence::new(&rig.engine).unwrap();
            let mut g = s.generate(p, &sampling, &[], None).unwrap();
            std::iter::from_fn(|| g.next().unwrap().map(|s| s.token)).collect()
        })
        .collect();
    let (mut a, mut b) = (
        Sequence::new(&rig.engine).unwrap(),
        Sequence::new(&rig.engine).unwrap(),
    );
    let mut a = a.generate(&prompts[0], &sampling, &[], None).unwrap();
    let mut b = b.generate(&prompts[1], &sampling, &[], None).unwrap();
    let mut made = [Vec::new(), Vec::new()];
    for i in 0..80 {
        // Uneven turns.
        let which = usize::from(i % 5 < 2);
        let next = if which == 0 { a.next() } else { b.next() }.unwrap();
        made[which].extend(next.map(|s| s.token));
    }
    for (made, alone) in made.iter().zip(&alone) {
        assert!(made.len() >= 20);
        assert_eq!(made[..], alone[..made.len()]);
    }
}

#[test]
fn a_seed_repeats_and_cuts_cut() {
    let rig = rig(&LLAMA, 2, KvType::F32, 16, 256);
    let prompt = rig.prompt(&mut Rng::new(8), 12);
    let draw = |sampling: &Sampling| -> Vec<u32> {
        let mut s = Sequence::new(&rig.engine).unwrap();
        let mut g = s.generate(&prompt, sampling, &[], None).unwrap();
        std::iter::from_fn(|| g.next().unwrap().map(|s| s.token)).collect()
    };
    let base = Sampling {
        temperature: 1.0,
        max_tokens: 30,
        seed: 42,
        ..Sampling::default()
    };
    assert_eq!(draw(&base), draw(&base));
    assert_ne!(
        draw(&base),
        draw(&Sampling {
            seed: 43,
            ..base.clone()
        })
    );
    let greedy = draw(&Sampling {
        temperature: 0.0,
        ..base.clone()
    });
    assert_eq!(
        draw(&Sampling {
            top_k: 1,
            ..base.clone()
        }),
        greedy
    );
    assert_eq!(
        draw(&Sampling {
            top_p: 1e-6,
            ..base.clone()
        }),
        greedy
    );
    assert_eq!(
        draw(&Sampling {
            min_p: 1.0,
            ..base.clone()
        }),
        greedy
    );
    // The first token's draws follow the distribution, within the cut that top-k makes.
    let truth = rig.truth(&prompt);
    let mut order: Vec<usize> = (0..truth.len()).collect();
    order.sort_by(|a, b| truth[*b].total_cmp(&truth[*a]));
    let k = 5;
    let total: f64 = order[..k].iter().map(|i| truth[*i].exp()).sum();
    let n = 400;
    let mut counts = vec![0; truth.len()];
    let mut sequence = Sequence::new(&rig.engine).unwrap();
    for seed in 0..n {
        let sampling = Sampling {
            top_k: k as u32,
            max_tokens: 1,
            seed,
            ..base.clone()
        };
        let mut g = sequence.generate(&prompt, &sampling, &[], None).unwrap();
        counts[g.next().unwrap().unwrap().token as usize] += 1;
    }
    let mut chi2 = 0.0;
    for i in &order[..k] {
        let want = n as f64 * truth[*i].exp() / total;
        chi2 += (f64::from(counts[*i]) - want).powi(2) / want;
        counts[*i] = 0;
    }
    assert!(
        counts.iter().all(|c| *c == 0),
        "a token outside the cut was drawn"
    );
    // Four degrees of freedom: 23.5 is passed by chance once in ten thousand times.
    assert!(chi2 < 23.5, "chi2 {chi2}");
}

#[test]
fn penalties_and_bias_change_the_choice() {
    let rig = rig(&LLAMA, 4, KvType::F32, 16, 128);
    let prompt = rig.prompt(&mut Rng::new(2), 9);
    let truth = rig.truth(&prompt);
    let best = (0..truth.len())
        .max_by(|a, b| truth[*a].total_cmp(&truth[*b]))
        .unwrap() as u32;
    let first = |sampling: Sampling, n: usize| -> Vec<u32> {
        let mut s = Sequence::new(&rig.engine).unwrap();
        let sampling = Sampling {
            max_tokens: n,
            ..sampling
        };
        let mut g = s.generate(&prompt, &sampling, &[], None).unwrap();
        std::iter::from_fn(|| g.next().unwrap().map(|s| s.token)).collect()
    };
    assert_eq!(first(Sampling::default(), 1), [best]);
    let banned = Sampling {
        logit_bias: vec![(best, -100.0)],
        ..Sampling::default()
    };
    assert_ne!(first(banned, 1), [best]);
    let wanted = Sampling {
        logit_bias: vec![(17, 100.0)],
        ..Sampling::default()
    };
    assert_eq!(first(wanted, 3), [17, 17, 17]);
    // A token made once costs more than any bias gives it.
    let once = Sampling {
        logit_bias: vec![(17, 100.0)],
        presence_penalty: 200.0,
        ..Sampling::default()
    };
    let made = first(once, 3);
    assert_eq!(made[0], 17);
    assert!(!made[1..].contains(&17));
}

#[test]
fn limits_are_errors_in_words() {
    let rig = rig(&LLAMA, 2, KvType::F16, 16, 64);
    let mut sequence = Sequence::new(&rig.engine).unwrap();
    let e = sequence
        .generate(&[], &Sampling::default(), &[], None)
        .unwrap_err();
    assert!(e.to_string().contains("empty"), "{e}");
    let e = sequence
        .generate(&[1; 65], &Sampling::default(), &[], None)
        .unwrap_err();
    assert!(
        e.to_string().contains("65 tokens") && e.to_string().contains("64"),
        "{e}"
    );
    let e = sequence
        .generate(&[300], &Sampling::default(), &[], None)
        .unwrap_err();
    assert!(e.to_string().contains("300"), "{e}");
    // The context fills up to its last place, and generation ends there.
    let mut generation = sequence
        .generate(&[5; 60], &Sampling::default(), &[], None)
        .unwrap();
    let mut made = 0;
    while generation.next().unwrap().is_some() {
        made += 1;
    }
    assert_eq!(made, 5);
}
