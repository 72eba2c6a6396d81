//! The real models against float32: `tests/fixtures/reference/` has the numbers and how they were made.
//!
//! The models are looked for in the cache folder (`omnimini pull`), or in the folder that
//! `OMNIMINI_TEST_MODELS` names, as `NAME.gguf`. A model that is not there is said to be skipped.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use omnimini::Model;
use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{LoadOptions, Sampling, Sequence};
use omnimini::gpu::DeviceOptions;
use omnimini::kernel::attention::KvType;
use omnimini::text::Specials;
use pollster::block_on;
use serde_json::Value;

mod common;
use common::model_file;

fn fixture(name: &str) -> Value {
    let path = format!(
        "{}/tests/fixtures/reference/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(v: &Value) -> Vec<u32> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|i| i.as_u64().unwrap() as u32)
        .collect()
}

fn load(name: &str, context: usize, device: DeviceOptions) -> Option<Model> {
    load_with(name, context, device, KvType::F16)
}

/// Loads a model, or says that it is skipped.
fn load_with(name: &str, context: usize, device: DeviceOptions, kv: KvType) -> Option<Model> {
    let Some(file) = model_file(name) else {
        println!("skipped: {name} is not here; `omnimini pull {name}` fetches it");
        return None;
    };
    let options = LoadOptions {
        device,
        context: Some(context),
        kv,
        ..LoadOptions::default()
    };
    Some(Model::load(file, &options).unwrap())
}

/// The kernels that a GPU of this adapter's abilities would get.
fn as_gpu(precision: Precision) -> DeviceOptions {
    DeviceOptions {
        kind: Some(DeviceKind::Discrete),
        precision,
        ..common::options()
    }
}

/// Token ids, and the ten best log-probabilities after each prompt of at most `longest` tokens, within
/// `limit` nats of float32.
fn best_hold(model: &Model, fixture: &Value, longest: usize, limit: f64) {
    let mut worst = (0f64, String::new());
    let mut count = 0;
    for p in fixture["prompts"].as_array().unwrap() {
        let (label, want) = (p["name"].as_str().unwrap(), ids(&p["ids"]));
        let specials = if p["special"].as_bool().unwrap() {
            Specials::Parse
        } else {
            Specials::AsText
        };
        if let Some(text) = p["text"].as_str() {
            let ids = model.tokenizer().encode_text(text, specials);
            assert_eq!(ids, want, "ids of `{label}`");
        }
        if want.len() > longest {
            continue;
        }
        let mut sequence = Sequence::new(model.engine()).unwrap();
        let sampling = Sampling {
            max_tokens: 1,
            ..Sampling::default()
        };
        let mut generation = sequence.generate(&want, &sampling, &[], Some(40)).unwrap();
        let got = generation.next().unwrap().unwrap().logprob.unwrap();
        count += 1;
        for best in p["best"].as_array().unwrap() {
            let (id, truth) = (best[0].as_u64().unwrap() as u32, best[1].as_f64().unwrap());
            let found = got.top.iter().find(|(i, _)| *i == id);
            let ours = found.map_or(f64::NEG_INFINITY, |(_, l)| f64::from(*l));
            let error = (ours - truth).abs();
            if error > worst.0 {
                worst = (error, label.into());
            }
        }
    }
    let (worst, label) = worst;
    println!("the ten best after {count} prompts are within {worst:.4} nats (`{label}`)");
    assert!(count >= 8, "{count} prompts");
    assert!(worst < limit, "{worst} nats off after `{label}`");
}

/// Greedy tokens after the prompts of at most `longest` tokens, equal to float32's.
fn greedy_holds(model: &Model, fixture: &Value, longest: usize) {
    let prompts = fixture["prompts"].as_array().unwrap();
    let mut equal = 0;
    for g in fixture["greedy"].as_array().unwrap() {
        let label = g["prompt"].as_str().unwrap();
        let prompt = prompts.iter().find(|p| p["name"] == g["prompt"]).unwrap();
        let want = ids(&g["ids"]);
        let prompt = ids(&prompt["ids"]);
        if prompt.len() > longest {
            continue;
        }
        let mut sequence = Sequence::new(model.engine()).unwrap();
        let sampling = Sampling {
            max_tokens: want.len(),
            ..Sampling::default()
        };
        let mut generation = sequence.generate(&prompt, &sampling, &[], None).unwrap();
        for (i, want) in want.iter().enumerate() {
            let two = &g["best_two"][i];
            // Where float32's own two best are this close, either is right, and the texts part.
            if (two[0][1].as_f64().unwrap() - two[1][1].as_f64().unwrap()).abs() < 0.05 {
                break;
            }
            let got = generation.next().unwrap().unwrap().token;
            assert_eq!(got, *want, "token {i} after `{label}`");
            equal += 1;
        }
    }
    println!("{equal} greedy tokens are float32's");
    assert!(equal > 100);
}

/// Perplexity over some windows of a long text, as a share of float32's.
///
/// These are the first of the fixture's windows: the program's own command scores them all.
fn perplexity(name: &str, device: DeviceOptions, kv: KvType, windows: usize) -> Option<f64> {
    let truth = &fixture(name)["perplexity"];
    let n = truth["context"].as_u64().unwrap() as usize;
    let model = load_with(name, n, device, kv)?;
    let path = format!(
        "{}/tests/fixtures/reference/text.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let tokens = model.tokenizer().encode_text(&text, Specials::AsText);
    assert_eq!(tokens.len() as u64, truth["text_tokens"].as_u64().unwrap());
    let mut sequence = Sequence::new(model.engine()).unwrap();
    let (mut ours, mut theirs, mut count) = (0.0, 0.0, 0);
    let known = truth["chunk_nll"].as_array().unwrap();
    for (window, nll) in tokens.chunks_exact(n).zip(known).take(windows) {
        let mut window = window.to_vec();
        if let Some(bos) = model.tokenizer().bos() {
            window[0] = bos;
        }
        let scores = block_on(sequence.score(&window, &window[1..], n / 2)).unwrap();
        ours -= scores.iter().map(|s| f64::from(*s)).sum::<f64>();
        theirs += nll.as_f64().unwrap();
        count += scores.len();
    }
    let ratio = ((ours - theirs) / count as f64).exp();
    println!("{name}, {kv}: perplexity is {ratio:.6} of float32's over {count} tokens");
    Some(ratio)
}

/// The same, within `limit`.
fn perplexity_holds(name: &str, device: DeviceOptions, windows: usize, limit: f64) {
    if let Some(ratio) = perplexity(name, device, KvType::F16, windows) {
        assert!((ratio - 1.0).abs() < limit, "{ratio}");
    }
}

const SMOLLM2: &str = "smollm2-135m-instruct";
const GEMMA: &str = "gemma-3-270m";

/// The built-in model's ten best and greedy tokens, in the default precision.
fn holds_to_float32(name: &str) {
    let Some(model) = load(name, 2048, common::options()) else {
        return;
    };
    let caps = &model.engine().gpu().caps;
    // A software driver whose lanes cannot pass each other values, as under a browser's rules, would
    // take a quarter of an hour over the two long prompts.
    let slow = caps.kind == DeviceKind::Cpu && caps.software_lanes().is_none();
    let longest = if slow { 100 } else { usize::MAX };
    let fixture = fixture(name);
    best_hold(&model, &fixture, longest, 0.02);
    greedy_holds(&model, &fixture, longest);
}

#[test]
fn smollm2_holds_to_float32() {
    holds_to_float32(SMOLLM2);
}

#[test]
fn gemma_holds_to_float32() {
    holds_to_float32(GEMMA);
}

#[test]
fn both_predict_as_float32_does() {
    perplexity_holds(SMOLLM2, common::options(), 2, 0.002);
    perplexity_holds(GEMMA, common::options(), 2, 0.002);
}

/// A cache in blocks against one in halves.
#[test]
fn small_caches_predict_nearly_as_well() {
    // Of so few tokens the measure itself is good to a fifth of a percent or two: rounding moves each
    // token's either way. Four bits are few for models as small as these; of the second, one key head
    // serves a layer.
    for (name, limits) in [(SMOLLM2, [0.005, 0.05]), (GEMMA, [0.005, 0.2])] {
        let of = |kv| perplexity(name, common::options(), kv, 2);
        let Some(halves) = of(KvType::F16) else {
            continue;
        };
        for (kv, limit) in [KvType::Q8_0, KvType::Q4_0].into_iter().zip(limits) {
            let ratio = of(kv).unwrap() / halves;
            println!("{name}: {kv} is {:+.3}% of f16", 100.0 * (ratio - 1.0));
            assert!(ratio - 1.0 < limit, "{kv}: {ratio}");
        }
    }
}

/// Short prompts alone: a software driver takes its time over a GPU's kernels.
#[test]
fn half_precision_holds_to_float32() {
    if !common::gpu().caps.f16 {
        println!("skipped: this adapter has no f16");
        return;
    }
    for name in [SMOLLM2, GEMMA] {
        let Some(model) = load(name, 2048, as_gpu(Precision::F16)) else {
            return;
        };
        best_hold(&model, &fixture(name), 40, 0.05);
    }
}

#[test]
fn eight_bits_predict_within_a_percent() {
    for name in [SMOLLM2, GEMMA] {
        perplexity_holds(name, as_gpu(Precision::Int8), 1, 0.01);
    }
}
