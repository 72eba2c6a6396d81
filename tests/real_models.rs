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

/// Loads a model, or says that it is skipped.
fn load(name: &str, context: usize, device: DeviceOptions, kv: KvType) -> Option<Model> {
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

/// Token ids, the ten best log-probabilities after each prompt of at most `longest` tokens within `limit`
/// nats of float32's, and at most `greedy` greedy tokens that follow, equal to float32's. Returns how many
/// prompts and how many tokens.
fn holds(model: &Model, fixture: &Value, longest: usize, greedy: usize, limit: f64) -> (u32, u32) {
    let mut worst = (0f64, "");
    let (mut count, mut equal) = (0, 0);
    for p in fixture["prompts"].as_array().unwrap() {
        let (label, prompt) = (p["name"].as_str().unwrap(), ids(&p["ids"]));
        let specials = if p["special"].as_bool().unwrap() {
            Specials::Parse
        } else {
            Specials::AsText
        };
        if let Some(text) = p["text"].as_str() {
            let ids = model.tokenizer().encode_text(text, specials);
            assert_eq!(ids, prompt, "ids of `{label}`");
        }
        if prompt.len() > longest {
            continue;
        }
        let mut answers = fixture["greedy"].as_array().unwrap().iter();
        let answer = answers.find(|g| g["prompt"] == p["name"]);
        let mut want = answer.map_or(Vec::new(), |g| ids(&g["ids"]));
        want.truncate(greedy);
        let mut sequence = Sequence::new(model.engine()).unwrap();
        let sampling = Sampling {
            max_tokens: want.len().max(1),
            ..Sampling::default()
        };
        let mut generation = sequence
            .generate(&prompt, &sampling, &[], Some(40))
            .unwrap();
        let mut step = generation.next().unwrap().unwrap();
        count += 1;
        let top = step.logprob.take().unwrap().top;
        for best in p["best"].as_array().unwrap() {
            let (id, truth) = (best[0].as_u64().unwrap() as u32, best[1].as_f64().unwrap());
            let found = top.iter().find(|(i, _)| *i == id);
            let ours = found.map_or(f64::NEG_INFINITY, |(_, l)| f64::from(*l));
            let error = (ours - truth).abs();
            if error > worst.0 {
                worst = (error, label);
            }
        }
        for (i, want) in want.iter().enumerate() {
            let two = &answer.unwrap()["best_two"][i];
            // Where float32's own two best are this close, either is right, and the texts part.
            if (two[0][1].as_f64().unwrap() - two[1][1].as_f64().unwrap()).abs() < 2.5 * limit {
                break;
            }
            if i > 0 {
                step = generation.next().unwrap().unwrap();
            }
            assert_eq!(step.token, *want, "token {i} after `{label}`");
            equal += 1;
        }
    }
    let (worst, label) = worst;
    println!("the ten best after {count} prompts are within {worst:.4} nats (`{label}`)");
    println!("{equal} greedy tokens are float32's");
    assert!(worst < limit, "{worst} nats off after `{label}`");
    (count, equal)
}

/// Perplexity over the first `n` tokens of a long text but a few, as a share of float32's.
///
/// The program's own command scores the whole text.
fn perplexity(name: &str, device: DeviceOptions, kv: KvType, n: usize) -> Option<f64> {
    /// Tokens before the first that is scored.
    const BEFORE: usize = 16;
    let model = load(name, n, device, kv)?;
    let path = format!(
        "{}/tests/fixtures/reference/text.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut tokens = model.tokenizer().encode_text(&text, Specials::AsText);
    let truth = &fixture(name)["perplexity"];
    assert_eq!(tokens.len() as u64, truth["text_tokens"].as_u64().unwrap());
    tokens.truncate(n);
    let targets = tokens[1..].to_vec();
    if let Some(bos) = model.tokenizer().bos() {
        tokens[0] = bos;
    }
    let mut sequence = Sequence::new(model.engine()).unwrap();
    let scores = block_on(sequence.score(&tokens, &targets, BEFORE)).unwrap();
    let theirs = truth["token_nll"].as_array().unwrap()[BEFORE..].iter();
    let more = scores
        .iter()
        .zip(theirs)
        .map(|(ours, nll)| -f64::from(*ours) - nll.as_f64().unwrap());
    let ratio = (more.sum::<f64>() / scores.len() as f64).exp();
    let count = scores.len();
    println!("{name}, {kv}: perplexity is {ratio:.6} of float32's over {count} tokens");
    assert_eq!(count, n - 1 - BEFORE);
    Some(ratio)
}

const SMOLLM2: &str = "smollm2-135m-instruct";
const GEMMA: &str = "gemma-3-270m";

/// The built-in model's ten best and greedy tokens, in the default precision.
fn holds_to_float32(name: &str) {
    let longest = common::longest(800);
    let Some(model) = load(name, 2048, common::options(), KvType::F16) else {
        return;
    };
    let (count, equal) = holds(&model, &fixture(name), longest, 48, 0.02);
    assert!(
        count >= 18 && equal >= 100,
        "{count} prompts, {equal} tokens"
    );
}

#[test]
fn smollm2_holds_to_float32() {
    holds_to_float32(SMOLLM2);
}

#[test]
fn gemma_holds_to_float32() {
    holds_to_float32(GEMMA);
}

/// With a cache in halves as float32 does; with one in blocks nearly as well as with that.
fn predicts(name: &str, limits: &[(KvType, f64)]) {
    let of = |kv| perplexity(name, common::options(), kv, 256);
    let Some(halves) = of(KvType::F16) else {
        return;
    };
    assert!((halves - 1.0).abs() < 0.002, "{halves}");
    for (kv, limit) in limits {
        let ratio = of(*kv).unwrap() / halves;
        println!("{name}: {kv} is {:+.3}% of f16", 100.0 * (ratio - 1.0));
        assert!(ratio - 1.0 < *limit, "{kv}: {ratio}");
    }
}

// Of so few tokens the measure itself is good to a fifth of a percent or two: rounding moves each
// token's either way. Four bits are few for models as small as these.

#[test]
fn smollm2_predicts_as_float32_does() {
    predicts(SMOLLM2, &[(KvType::Q8_0, 0.005), (KvType::Q4_0, 0.08)]);
}

#[test]
fn gemma_predicts_as_float32_does() {
    predicts(GEMMA, &[(KvType::Q8_0, 0.005)]);
}

// A software driver takes its time over a GPU's kernels: short texts alone.

#[test]
fn half_precision_holds_to_float32() {
    if !common::gpu().caps.f16 {
        println!("skipped: this adapter has no f16");
        return;
    }
    for (name, longest, prompts) in [(SMOLLM2, 24, 5), (GEMMA, 13, 3)] {
        let Some(model) = load(name, 2048, as_gpu(Precision::F16), KvType::F16) else {
            return;
        };
        let (count, _) = holds(&model, &fixture(name), common::longest(longest), 0, 0.05);
        assert!(count >= prompts, "{count} prompts");
    }
}

#[test]
fn eight_bits_predict_within_a_percent() {
    for name in [SMOLLM2, GEMMA] {
        let of = perplexity(name, as_gpu(Precision::Int8), KvType::F16, 128);
        let Some(ratio) = of else {
            return;
        };
        assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
    }
}
