//! Embeddings: small models of every family against their makers' code, whole texts against plain f64
//! arithmetic, texts together and alone, and the real all-MiniLM-L6-v2 where it is.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omnimini::caps::{DeviceKind, Precision};
use omnimini::engine::{Engine, LoadOptions, Sequence};
use omnimini::format::Checkpoint;
use omnimini::gpu::DeviceOptions;
use omnimini::graph::reference::evaluate;
use omnimini::kernel::attention::KvType;
use omnimini::model::{Description, Head, Pooling};
use omnimini::quant::testing::Rng;
use omnimini::session::EmbedOptions;
use omnimini::tensor::DType;
use omnimini::text::Specials;
use omnimini::{Error, Model, hub};
use pollster::block_on;
use serde_json::Value;

mod common;
use common::tiny::{Floats, GEMMA, LLAMA, Tiny};

/// The families with embeddings, how theirs are made, and their longest texts where those are short.
const FAMILIES: [(&str, Pooling, Option<usize>); 4] = [
    ("minilm", Pooling::Mean, Some(64)),
    ("bge", Pooling::Cls, Some(64)),
    ("nomic-embed", Pooling::Mean, None),
    ("qwen3-embedding", Pooling::Last, None),
];

/// Largest relative error, with activations in f32 and in f16.
const F32: f64 = 1e-3;
const F16: f64 = 5e-3;

fn family(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    folder.join(name)
}

/// A family's folder and its GGUF file.
fn containers(name: &str) -> [(&'static str, Checkpoint); 2] {
    let folder = family(name);
    [
        ("folder", Checkpoint::open(&folder).unwrap()),
        ("GGUF", Checkpoint::open(folder.join("model.gguf")).unwrap()),
    ]
}

fn reference(folder: &Path) -> (Value, Vec<u8>) {
    let text = std::fs::read_to_string(folder.join("reference.json")).unwrap();
    let bytes = std::fs::read(folder.join("reference.bin")).unwrap();
    (serde_json::from_str(&text).unwrap(), bytes)
}

/// An array of `reference.bin`.
fn array(place: &Value, bytes: &[u8]) -> Vec<f32> {
    let offset = place["offset"].as_u64().unwrap() as usize;
    let shape = place["shape"].as_array().unwrap().iter();
    let count: u64 = shape.map(|n| n.as_u64().unwrap()).product();
    bytemuck::pod_collect_to_vec(&bytes[offset..offset + 4 * count as usize])
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

fn options(precision: Precision) -> LoadOptions {
    let half = precision == Precision::F16;
    LoadOptions {
        device: DeviceOptions {
            kind: half.then_some(DeviceKind::Discrete),
            precision,
            ..common::options()
        },
        kv: if half { KvType::F16 } else { KvType::F32 },
        ..LoadOptions::default()
    }
}

fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Arc<Engine> {
    block_on(Engine::load(checkpoint, options, &mut |_, _| {})).unwrap()
}

fn embed(engine: &Engine, texts: &[Vec<u32>], pooling: Pooling) -> Vec<Vec<f32>> {
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    block_on(engine.embed(&texts, pooling)).unwrap()
}

/// ‖ours − truth‖ / ‖truth‖.
fn error(ours: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(ours.len(), truth.len());
    let square = |v: f32| f64::from(v).powi(2);
    let off: f64 = ours.iter().zip(truth).map(|(a, b)| square(a - b)).sum();
    (off / truth.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
}

fn random_texts(rng: &mut Rng, vocab: usize, lengths: &[usize]) -> Vec<Vec<u32>> {
    let text = |n: &usize| (0..*n).map(|_| rng.below(vocab) as u32).collect();
    lengths.iter().map(text).collect()
}

/// Hidden states and sentences' vectors of every family, from both containers.
fn hold(precision: Precision, limit: f64) {
    let mut failures = Vec::new();
    for (name, pooling, _) in FAMILIES {
        let (reference, bytes) = reference(&family(name));
        for (container, checkpoint) in containers(name) {
            let engine = load(&checkpoint, &options(precision));
            assert_eq!(engine.model().config.pooling, Some(pooling), "{name}");
            for case in reference["cases"].as_array().unwrap() {
                let text = ids(&case["ids"]);
                let hidden = block_on(engine.hidden(&text)).unwrap();
                let hidden = error(&hidden, &array(&case["hidden"], &bytes));
                let sentence = embed(&engine, &[text], pooling).remove(0);
                let sentence = error(&sentence, &array(&case["sentence"], &bytes));
                let line = format!(
                    "{name}, {container}, {}: hidden {hidden:.1e}, sentence {sentence:.1e}",
                    case["name"]
                );
                println!("{line}");
                // A NaN fails, too.
                if !(hidden < limit && sentence < limit) {
                    failures.push(line);
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_family_is_its_makers() {
    hold(Precision::F32, F32);
}

#[test]
fn every_family_is_its_makers_in_half_precision() {
    if !common::gpu().caps.f16 {
        println!("skipped: this adapter has no f16");
        return;
    }
    hold(Precision::F16, F16);
}

/// Every token's state by plain f64 arithmetic.
fn truth(checkpoint: &Checkpoint, text: &[u32]) -> Vec<f32> {
    let description = Description::new(checkpoint).unwrap();
    let graph = description.graph(checkpoint, Head::Hidden, 4096).unwrap();
    let scale = f64::from(description.config.logit_scale);
    let states = evaluate(&graph, &Floats::new(checkpoint), text);
    states.iter().map(|v| (v * scale) as f32).collect()
}

/// Texts that end at a page's end and beside it, several to a step, and with all cores' tiles in between.
#[test]
fn texts_together_are_as_alone() {
    let lengths = [
        3, 64, 1, 31, 32, 33, 2, 17, 63, 40, 64, 5, 64, 64, 64, 64, 9, 64, 64, 7,
    ];
    for (name, pooling, _) in FAMILIES {
        let (_, checkpoint) = containers(name).into_iter().next().unwrap();
        let engine = load(&checkpoint, &options(Precision::F32));
        let vocab = engine.model().config.vocab;
        let texts = random_texts(&mut Rng::new(5), vocab, &lengths);
        let together = embed(&engine, &texts, pooling);
        for (text, together) in texts.iter().zip(&together) {
            let alone = embed(&engine, std::slice::from_ref(text), pooling).remove(0);
            let error = error(together, &alone);
            assert!(error < 1e-5, "{name}, {} tokens: {error:.1e}", text.len());
            let length: f32 = alone.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-5, "{name}: {length}");
        }
        // Another text in the same place leaves nothing behind.
        let states = block_on(engine.hidden(&texts[9])).unwrap();
        let error = error(&states, &truth(&checkpoint, &texts[9]));
        assert!(error < 1e-4, "{name}: {error:.1e}");
    }
    assert!(lengths.iter().sum::<usize>() > 512, "two steps at least");
}

/// Mean, first and last of what every token has, for texts of one step and of several.
#[test]
fn pooling_is_of_the_states() {
    let (_, checkpoint) = containers("qwen3-embedding").into_iter().next().unwrap();
    let options = LoadOptions {
        context: Some(2048),
        ..options(Precision::F32)
    };
    let engine = load(&checkpoint, &options);
    let (vocab, width) = (engine.model().config.vocab, engine.model().config.width);
    // The second grows the cache, the third goes on in it.
    for text in random_texts(&mut Rng::new(3), vocab, &[40, 1100, 700]) {
        let states = block_on(engine.hidden(&text)).unwrap();
        let off = error(&states, &truth(&checkpoint, &text));
        println!("{} tokens: {off:.1e}", text.len());
        assert!(off < 1e-4, "{} tokens: {off:.1e}", text.len());
        let mut mean = vec![0f64; width];
        for row in states.chunks_exact(width) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, v)| *m += f64::from(*v));
        }
        let mean: Vec<f32> = mean.iter().map(|m| *m as f32).collect();
        let last = states[states.len() - width..].to_vec();
        for (pooling, want) in [
            (Pooling::Mean, mean),
            (Pooling::Cls, states[..width].to_vec()),
            (Pooling::Last, last),
        ] {
            let got = embed(&engine, std::slice::from_ref(&text), pooling).remove(0);
            let length: f64 = want.iter().map(|v| f64::from(*v).powi(2)).sum();
            let want: Vec<f32> = want.iter().map(|v| v / length.sqrt() as f32).collect();
            let off = error(&got, &want);
            assert!(
                off < 1e-5,
                "{pooling:?} of {} tokens: {off:.1e}",
                text.len()
            );
        }
    }
}

/// Decoders of other structure, such as windows, and one whose tokens see the whole text.
#[test]
fn any_decoder_has_states() {
    let whole = |tiny: &Tiny| {
        let key = format!("{}.attention.causal", tiny.arch);
        Checkpoint::from_bytes(tiny.gguf_with(5, |g| g.bool(&key, false))).unwrap()
    };
    let granite = Checkpoint::open(family("granite-3")).unwrap();
    for (what, checkpoint) in [
        ("llama", Checkpoint::from_bytes(LLAMA.gguf(5)).unwrap()),
        ("gemma3", Checkpoint::from_bytes(GEMMA.gguf(5)).unwrap()),
        ("llama without causality", whole(&LLAMA)),
        ("granite", granite),
    ] {
        let engine = load(&checkpoint, &options(Precision::F32));
        let vocab = engine.model().config.vocab;
        for text in random_texts(&mut Rng::new(8), vocab, &[1, 45]) {
            let states = block_on(engine.hidden(&text)).unwrap();
            let off = error(&states, &truth(&checkpoint, &text));
            println!("{what}, {} tokens: {off:.1e}", text.len());
            assert!(off < 1e-3, "{what}, {} tokens: {off:.1e}", text.len());
        }
    }
}

#[test]
fn mixtures_of_experts_have_states_too() {
    let (_, checkpoint) = containers("qwen3-moe").into_iter().next().unwrap();
    let engine = load(&checkpoint, &options(Precision::F32));
    let texts = random_texts(&mut Rng::new(8), engine.model().config.vocab, &[7, 33, 12]);
    let together = embed(&engine, &texts, Pooling::Last);
    for (text, vector) in texts.iter().zip(together) {
        let states = truth(&checkpoint, text);
        let last = &states[states.len() - engine.model().config.width..];
        let cosine: f32 = last.iter().zip(&vector).map(|(a, b)| a * b).sum();
        let length = last.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(cosine / length > 0.99999, "{}", cosine / length);
    }
}

/// The longest text there may be, one more, and how that is cut.
#[test]
fn long_texts_are_an_error_or_cut() {
    for (name, pooling, longest) in FAMILIES {
        let Some(longest) = longest else { continue };
        let (_, checkpoint) = containers(name).into_iter().next().unwrap();
        let engine = load(&checkpoint, &options(Precision::F32));
        assert_eq!(engine.longest_text(), longest, "{name}");
        let vocab = engine.model().config.vocab;
        let text = random_texts(&mut Rng::new(1), vocab, &[longest]).remove(0);
        let states = block_on(engine.hidden(&text)).unwrap();
        let off = error(&states, &truth(&checkpoint, &text));
        assert!(off < 1e-4, "{name}: {off:.1e}");
        let long = [&text[..], &text[..1]].concat();
        let e = block_on(engine.embed(&[&long], pooling)).unwrap_err();
        let said = e.to_string();
        assert!(said.contains("65") && said.contains("64"), "{said}");

        let model = block_on(Model::open(
            &checkpoint,
            &options(Precision::F32),
            &mut |_, _| {},
        ));
        let model = model.unwrap();
        let words = "heron ".repeat(100);
        let all = EmbedOptions::default();
        let e = model.embed(&["short", &words], &all).unwrap_err();
        assert!(
            matches!(
                e,
                Error::LongText {
                    number: 2,
                    limit: 64,
                    ..
                }
            ),
            "{e}"
        );
        let cut = EmbedOptions {
            truncate: true,
            ..all
        };
        let made = model.embed(&["short", &words], &cut).unwrap();
        let tokenizer = model.tokenizer();
        let whole = tokenizer.encode_text(&words, Specials::AsText);
        assert_eq!((made[0].cut, made[1].cut), (0, whole.len() - 64));
        assert_eq!(made[1].tokens, 64);
        // What is left begins and ends as a text does.
        let mut kept = whole[..63].to_vec();
        kept.extend(whole.last());
        assert_eq!(tokenizer.truncate(whole, 64), kept);
        let want = embed(&engine, &[kept], pooling).remove(0);
        let off = error(&made[1].vector, &want);
        assert!(off < 1e-5, "{name}: {off:.1e}");
    }
}

/// A model and its tokenizer: the fixture's texts, by both containers alike.
#[test]
fn texts_are_those_of_the_makers_tokenizers() {
    for (name, pooling, _) in FAMILIES {
        let (reference, _) = reference(&family(name));
        let rows = reference["texts"].as_array().unwrap();
        let texts: Vec<&str> = rows.iter().map(|r| r["text"].as_str().unwrap()).collect();
        let tokens: Vec<Vec<u32>> = rows.iter().map(|r| ids(&r["ids"])).collect();
        for (container, checkpoint) in containers(name) {
            let model = block_on(Model::open(
                &checkpoint,
                &options(Precision::F32),
                &mut |_, _| {},
            ));
            let model = model.unwrap();
            let made = model.embed(&texts, &EmbedOptions::default()).unwrap();
            let want = embed(model.engine(), &tokens, pooling);
            for ((made, want), tokens) in made.iter().zip(&want).zip(&tokens) {
                assert_eq!(made.tokens, tokens.len(), "{name}, {container}");
                let off = error(&made.vector, want);
                assert!(off < 1e-5, "{name}, {container}: {off:.1e}");
                let own = made.similarity(made);
                assert!((own - 1.0).abs() < 1e-5, "{own}");
            }
        }
    }
}

#[test]
fn an_encoder_makes_no_text_and_keeps_no_cache() {
    let (_, checkpoint) = containers("minilm").into_iter().next().unwrap();
    let engine = load(&checkpoint, &options(Precision::F32));
    assert!(engine.model().is_encoder() && engine.plans().is_empty());
    assert_eq!((engine.kv_bytes(), engine.kv_bytes_full()), (0, 0));
    let said = Sequence::new(&engine).unwrap_err().to_string();
    assert!(said.contains("`minilm` is an encoder"), "{said}");
    let e = engine
        .model()
        .graph(&checkpoint, Head::Last, 64)
        .unwrap_err();
    assert!(matches!(e, Error::Encoder { .. }), "{e}");
    let e = block_on(engine.embed(&[&[2, 3], &[]], Pooling::Mean)).unwrap_err();
    assert!(matches!(e, Error::EmptyText { number: 2 }), "{e}");
    let e = block_on(engine.embed(&[&[2, 288]], Pooling::Mean)).unwrap_err();
    assert!(
        matches!(
            e,
            Error::Token {
                id: 288,
                vocab: 288
            }
        ),
        "{e}"
    );
    assert!(
        block_on(engine.embed(&[], Pooling::Mean))
            .unwrap()
            .is_empty()
    );
}

/// A chat goes on undisturbed while its model makes embeddings.
#[test]
fn embeddings_and_text_from_one_model() {
    let checkpoint = Checkpoint::from_bytes(LLAMA.gguf(5)).unwrap();
    let engine = load(&checkpoint, &options(Precision::F32));
    let text = random_texts(&mut Rng::new(4), 300, &[50]).remove(0);
    let score = |sequence: &mut Sequence| block_on(sequence.score(&text, &text[1..], 0)).unwrap();
    let mut sequence = Sequence::new(&engine).unwrap();
    let before = score(&mut sequence);
    let first = embed(&engine, std::slice::from_ref(&text), Pooling::Last);
    assert_eq!(score(&mut sequence), before);
    assert_eq!(
        embed(&engine, std::slice::from_ref(&text), Pooling::Last),
        first
    );
}

/// The folder that `tools/vocabularies` leaves in the cache folder.
fn real() -> Option<PathBuf> {
    let home = hub::Home::from_env().ok()?;
    let folder = home.root().join("embeddings/all-minilm-l6-v2");
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    println!("skipped: all-MiniLM-L6-v2 is not here; `tools/vocabularies` fetches it");
    None
}

/// The real model: ids, vectors and what is like what, as its makers' code has it.
#[test]
fn all_minilm_is_its_makers() {
    let Some(folder) = real() else { return };
    let path = "tests/fixtures/reference/all-minilm-l6-v2.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = fixture["texts"].as_array().unwrap();
    let texts: Vec<&str> = rows.iter().map(|r| r["text"].as_str().unwrap()).collect();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    // In f32, in halves where there are any, and in eight bits and four.
    let quantised = |dtype| LoadOptions {
        quant: Some(dtype),
        ..options(Precision::F32)
    };
    let mut ways = vec![
        ("f32", options(Precision::F32), F32),
        ("q8_0", quantised(DType::Q8_0), 0.05),
        ("q4_k", quantised(DType::Q4_K), 0.4),
    ];
    if common::gpu().caps.f16 {
        ways.push(("f16", options(Precision::F16), F16));
    }
    let software = common::gpu().caps.kind == DeviceKind::Cpu;
    for (way, options, limit) in ways {
        // A GPU's kernels are slow on a software driver: the long texts, which are the last, are left out.
        let count = texts.len() - 2 * usize::from(software && way == "f16");
        let texts = &texts[..count];
        let model = block_on(Model::open(&checkpoint, &options, &mut |_, _| {})).unwrap();
        // The last text is too long, as its makers have it, though there are positions for 512 tokens.
        assert_eq!(model.engine().longest_text(), 256);
        let cut = EmbedOptions {
            truncate: true,
            ..EmbedOptions::default()
        };
        let made = model.embed(texts, &cut).unwrap();
        let mut worst = 0f64;
        for (row, made) in rows.iter().zip(&made) {
            let text = row["text"].as_str().unwrap();
            let want: Vec<f32> = serde_json::from_value(row["vector"].clone()).unwrap();
            let tokens = model.tokenizer().encode_text(text, Specials::AsText);
            let tokens = model.tokenizer().truncate(tokens, 256);
            assert_eq!(tokens, ids(&row["ids"]), "{text:?}");
            worst = worst.max(error(&made.vector, &want));
        }
        println!("all-MiniLM-L6-v2, {way}: {worst:.1e}");
        assert!(worst < limit, "{way}: {worst:.1e}");
        // The first six are pairs that mean the same.
        for i in 0..6 {
            let near = |j: &usize| made[i].similarity(&made[*j]);
            let best = (0..6)
                .filter(|j| *j != i)
                .max_by(|a, b| near(a).total_cmp(&near(b)));
            assert_eq!(best, Some(i ^ 1), "{way}: {:?}", texts[i]);
        }
    }
}
