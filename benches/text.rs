//! Tokenizers on a long text, in tokens a second: there and back.
//!
//! The encodings that come with the crate, and those of the built-in models that are here.

#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use omnimini::format::Checkpoint;
use omnimini::text::{Detokenizer, ENCODINGS, Specials, Tokenizer, TokenizerSpec};

#[path = "../tests/common/mod.rs"]
mod common;

const TEXT: &str = include_str!("../tests/fixtures/reference/text.txt");

fn tokenizers() -> impl Iterator<Item = (&'static str, Tokenizer)> {
    let named = ENCODINGS
        .iter()
        .map(|name| (*name, Tokenizer::named(name).unwrap()));
    let models = ["smollm2-135m-instruct", "gemma-3-270m"];
    let real = models.into_iter().filter_map(|name| {
        let checkpoint = Checkpoint::open(common::model_file(name)?).unwrap();
        let spec = TokenizerSpec::of(&checkpoint).unwrap();
        Some((name, Tokenizer::new(spec).unwrap()))
    });
    named.chain(real)
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (name, tokenizer) in tokenizers() {
        let ids = tokenizer.encode(TEXT, Specials::AsText);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ids.len() as u64));
        group.bench_function("encode", |b| {
            b.iter(|| tokenizer.encode(black_box(TEXT), Specials::AsText));
        });
        group.bench_function("decode", |b| b.iter(|| tokenizer.decode(black_box(&ids))));
        // As a conversation does it: a token at a time, whole characters only.
        group.bench_function("stream", |b| {
            b.iter(|| {
                let mut stream = Detokenizer::new();
                let parts = black_box(&ids).iter().map(|id| tokenizer.token_bytes(*id));
                parts.map(|part| stream.push(part).len()).sum::<usize>()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
