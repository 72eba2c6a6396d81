//! The built-in models with fewer bits: perplexity beside that of the file that llama.cpp's own
//! `llama-quantize --allow-requantize` makes of the same one.

use omnimini::Model;
use omnimini::caps::DeviceKind;
use omnimini::engine::{LoadOptions, Sequence};
use omnimini::format::Checkpoint;
use omnimini::tensor::DType;
use omnimini::text::Specials;
use pollster::block_on;

use crate::{common, rewritten};

/// Tokens of the text's beginning, of which the second half is scored.
const WINDOW: usize = 256;

/// A model, a file type, and what `omnimini perplexity --ctx 256 --chunks 1` says of llama.cpp's
/// file of that type, on `tests/fixtures/reference/text.txt`.
const PEERS: &[(&str, &str, f64)] = &[
    ("smollm2-135m-instruct", "q4_k", 20.9405),
    ("smollm2-135m-instruct", "q6_k", 20.5166),
    ("gemma-3-270m", "q4_k", 21.8489),
];

fn perplexity(checkpoint: &Checkpoint, quant: Option<DType>) -> f64 {
    let options = LoadOptions {
        device: common::options(),
        context: Some(WINDOW),
        quant,
        ..LoadOptions::default()
    };
    let model = block_on(Model::open(checkpoint, &options, &mut |_, _| {})).unwrap();
    let text = include_str!("../fixtures/reference/text.txt");
    let tokenizer = model.tokenizer();
    let mut tokens = tokenizer.encode_text(text, Specials::AsText);
    tokens.truncate(WINDOW);
    let targets = tokens[1..].to_vec();
    if let Some(bos) = tokenizer.bos() {
        tokens[0] = bos;
    }
    let mut sequence = Sequence::new(model.engine()).unwrap();
    let scores = block_on(sequence.score(&tokens, &targets, WINDOW / 2)).unwrap();
    let sum: f64 = scores.iter().map(|s| f64::from(*s)).sum();
    (-sum / scores.len() as f64).exp()
}

#[test]
fn perplexity_is_that_of_llama_cpps_files() {
    let caps = &common::gpu().caps;
    if caps.kind == DeviceKind::Cpu && caps.software_lanes().is_none() {
        println!("skipped: a software driver whose lanes cannot pass values takes ten minutes");
        return;
    }
    for (name, mix, peer) in PEERS {
        let Some(path) = common::model_file(name) else {
            println!("skipped: {name} is not here; `omnimini pull {name}` fetches it");
            continue;
        };
        let source = Checkpoint::open(path).unwrap();
        let (_folder, new) = rewritten(&source, mix, false);
        let ours = perplexity(&new, None);
        println!("{name} {mix}: {ours:.4}, llama.cpp's file {peer:.4}");
        assert!(
            (ours / peer - 1.0).abs() < 0.01,
            "{name} {mix}: {ours}, not {peer}"
        );
    }
}

/// In 16 bits a file is what it was; from there the device quantises it, all at once.
#[test]
fn perplexity_is_the_same_where_the_device_quantises() {
    let name = "smollm2-135m-instruct";
    let Some(path) = common::model_file(name) else {
        println!("skipped: {name} is not here; `omnimini pull {name}` fetches it");
        return;
    };
    let source = Checkpoint::open(path).unwrap();
    let (_folder, halves) = rewritten(&source, "f16", false);
    let (_folder, new) = rewritten(&halves, "q4_k", true);
    let (file, device) = (
        perplexity(&new, None),
        perplexity(&halves, Some(DType::Q4_K)),
    );
    println!("{name} q4_k: {file:.4} from a file, {device:.4} while loading");
    assert!((device / file - 1.0).abs() < 0.01, "{device}, not {file}");
}
