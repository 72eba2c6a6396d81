//! The real models against float32: `tests/fixtures/reference/` has the numbers and how they were made.
//!
//! The models are looked for in the cache folder (`omnimini pull`), or in the folder that
//! `OMNIMINI_TEST_MODELS` names, as `NAME.gguf`. A model that is not there is said to be skipped.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use omnimini::Model;
use omnimini::engine::{LoadOptions, Sampling, Sequence};
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
fn load(name: &str, context: usize) -> Option<Model> {
    let Some(file) = model_file(name) else {
        println!("skipped: {name} is not here; `omnimini pull {name}` fetches it");
        return None;
    };
    let options = LoadOptions {
        device: common::options(),
        context: Some(context),
        ..LoadOptions::default()
    };
    Some(Model::load(file, &options).unwrap())
}

/// Token ids, ten best log-probabilities and greedy tokens, held to float32.
fn holds(name: &str) {
    let Some(model) = load(name, 2048) else {
        return;
    };
    let fixture = fixture(name);
    let mut worst = (0f64, String::new());
    let mut prompts = std::collections::HashMap::new();
    for p in fixture["prompts"].as_array().unwrap() {
        let (label, want) = (p["name"].as_str().unwrap(), ids(&p["ids"]));
        let specials = if p["special"].as_bool().unwrap() {
            omnimini::text::Specials::Parse
        } else {
            omnimini::text::Specials::AsText
        };
        if let Some(text) = p["text"].as_str() {
            assert_eq!(
                model.tokenizer().encode_text(text, specials),
                want,
                "ids of `{label}`"
            );
        }
        prompts.insert(label.to_string(), want.clone());
        let mut sequence = Sequence::new(model.engine()).unwrap();
        let sampling = Sampling {
            max_tokens: 1,
            ..Sampling::default()
        };
        let mut generation = sequence.generate(&want, &sampling, &[], Some(40)).unwrap();
        let got = generation.next().unwrap().unwrap().logprob.unwrap();
        for best in p["best"].as_array().unwrap() {
            let (id, truth) = (best[0].as_u64().unwrap() as u32, best[1].as_f64().unwrap());
            let ours = got
                .top
                .iter()
                .find(|(i, _)| *i == id)
                .map_or(f64::NEG_INFINITY, |(_, l)| f64::from(*l));
            let error = (ours - truth).abs();
            if error > worst.0 {
                worst = (error, label.into());
            }
        }
    }
    println!(
        "{name}: the ten best after {} prompts are within {:.4} nats (`{}`)",
        prompts.len(),
        worst.0,
        worst.1
    );
    assert!(
        worst.0 < 0.02,
        "{name}: {} nats off after `{}`",
        worst.0,
        worst.1
    );

    let mut equal = 0;
    for g in fixture["greedy"].as_array().unwrap() {
        let label = g["prompt"].as_str().unwrap();
        let want = ids(&g["ids"]);
        let mut sequence = Sequence::new(model.engine()).unwrap();
        let sampling = Sampling {
            max_tokens: want.len(),
            ..Sampling::default()
        };
        let mut generation = sequence
            .generate(&prompts[label], &sampling, &[], None)
            .unwrap();
        for (i, want) in want.iter().enumerate() {
            let two = &g["best_two"][i];
            // Where float32's own two best are this close, either is right, and the texts part.
            if (two[0][1].as_f64().unwrap() - two[1][1].as_f64().unwrap()).abs() < 0.05 {
                break;
            }
            let got = generation.next().unwrap().unwrap().token;
            assert_eq!(got, *want, "{name}: token {i} after `{label}`");
            equal += 1;
        }
    }
    println!("{name}: {equal} greedy tokens are float32's");
    assert!(equal > 100);
}

#[test]
fn smollm2_holds_to_float32() {
    holds("smollm2-135m-instruct");
}

/// Perplexity of some windows of a long text, within 0.2 percent.
#[test]
fn smollm2_predicts_as_float32_does() {
    let name = "smollm2-135m-instruct";
    let Some(model) = load(name, 512) else { return };
    let truth = &fixture(name)["perplexity"];
    let n = truth["context"].as_u64().unwrap() as usize;
    let path = format!(
        "{}/tests/fixtures/reference/text.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let tokens = model
        .tokenizer()
        .encode_text(&text, omnimini::text::Specials::AsText);
    assert_eq!(tokens.len() as u64, truth["text_tokens"].as_u64().unwrap());
    let mut sequence = Sequence::new(model.engine()).unwrap();
    let (mut ours, mut theirs, mut count) = (0.0, 0.0, 0);
    // Two of the eight windows: the program's own command scores them all.
    for (window, nll) in tokens
        .chunks_exact(n)
        .zip(truth["chunk_nll"].as_array().unwrap())
        .take(2)
    {
        let scores = block_on(sequence.score(window, &window[1..], n / 2)).unwrap();
        ours -= scores.iter().map(|s| f64::from(*s)).sum::<f64>();
        theirs += nll.as_f64().unwrap();
        count += scores.len();
    }
    let ratio = ((ours - theirs) / count as f64).exp();
    println!("{name}: perplexity is {ratio:.6} of float32's over {count} tokens");
    assert!((ratio - 1.0).abs() < 0.002, "{ratio}");
}
