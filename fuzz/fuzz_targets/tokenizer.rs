//! Any vocabulary, by way of a GGUF file or a `tokenizer.json`, and any texts: a tokenizer or one
//! clear sentence; texts come back exactly, no text makes a control token, and nothing panics.
//!
//! Input is readable: parts between lines of `----`. The first is `MODEL PRE FLAGS` (flags: `whole`
//! begins with a token for every byte and for SentencePiece's space, without which nothing need
//! come back; `prefix` puts a space before texts), the second tokens, one a line, with a tab and
//! their type after some; the third merges, one a line; the others are texts. Where MODEL is
//! `json`, the second part is a `tokenizer.json` and the third a `tokenizer_config.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omnimini::format::Checkpoint;
use omnimini::text::{Detokenizer, FolderFiles, Specials, Step, Tokenizer, TokenizerSpec};

mod bytes;
#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "only its writer of GGUF files is used")]
mod tiny;

fuzz_target!(|input: &[u8]| {
    let input = String::from_utf8_lossy(input);
    let mut parts = input.split("\n----\n");
    let mut part = || parts.next().unwrap_or_default();
    let (head, tokens, merges) = (part(), part(), part());
    let mut words = head.split_whitespace();
    let (model, pre) = (
        words.next().unwrap_or("gpt2"),
        words.next().unwrap_or("default"),
    );
    let flags: Vec<_> = words.collect();
    let whole = flags.contains(&"whole") && ["gpt2", "llama"].contains(&model);

    let spec = match model {
        "json" => TokenizerSpec::from_folder(&FolderFiles {
            tokenizer: Some(tokens.as_bytes()),
            tokenizer_config: Some(merges.as_bytes()).filter(|config| !config.is_empty()),
            ..FolderFiles::default()
        }),
        _ => from_gguf(model, pre, &flags, tokens, merges),
    };
    let tokenizer = match spec.and_then(Tokenizer::new) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            let sentence = error.to_string();
            assert!(
                !sentence.contains('\n') && sentence.len() < 1000,
                "{sentence}"
            );
            return;
        }
    };
    for text in parts {
        let ids = tokenizer.encode(text, Specials::AsText);
        for id in &ids {
            assert!(
                (*id as usize) < tokenizer.vocab() && !tokenizer.is_control(*id),
                "{id}"
            );
        }
        let back = tokenizer.decode(&ids);
        // Composed text comes back composed.
        if whole && !tokenizer.spec().normalizer.contains(&Step::Nfc) {
            // SentencePiece writes a space as U+2581, so that one comes back as the other.
            let kept = if model == "llama" {
                text.replace('\u{2581}', " ")
            } else {
                text.into()
            };
            assert_eq!(String::from_utf8_lossy(&back), kept);
        }
        let mut stream = Detokenizer::new();
        let parts = ids.iter().map(|id| tokenizer.token_bytes(*id));
        let all: Vec<u8> = parts.clone().flatten().copied().collect();
        let mut streamed: String = parts.map(|part| stream.push(part)).collect();
        streamed += &stream.finish();
        assert_eq!(streamed, String::from_utf8_lossy(&all));
        // With markers, and ids that nobody encoded.
        let marked = tokenizer.encode_text(text, Specials::Parse);
        let _ = tokenizer.decode(&marked);
        let _ = tokenizer.spec().metadata();
        let _ = tokenizer.decode(&text.chars().map(u32::from).collect::<Vec<_>>());
    }
});

/// The description in a GGUF file that is made of the input's parts.
fn from_gguf(
    model: &str,
    pre: &str,
    flags: &[&str],
    tokens: &str,
    merges: &str,
) -> omnimini::Result<TokenizerSpec> {
    let whole = flags.contains(&"whole");
    let mut vocabulary: Vec<(String, i32)> = Vec::new();
    if whole {
        let byte = |b: u8| match model {
            "llama" => (format!("<0x{b:02X}>"), 6),
            _ => (bytes::written(b).to_string(), 1),
        };
        vocabulary.extend((0..=255).map(byte));
        vocabulary.push(("\u{2581}".into(), 1));
    }
    vocabulary.extend(tokens.lines().map(|line| match line.rsplit_once('\t') {
        Some((text, ty)) => (text.into(), ty.parse().unwrap_or(1)),
        None => (line.into(), 1),
    }));
    let (texts, types): (Vec<String>, Vec<i32>) = vocabulary.into_iter().unzip();
    let scores: Vec<f32> = (0..texts.len()).map(|i| -(i as f32)).collect();
    let merges: Vec<String> = merges.lines().map(String::from).collect();
    let mut file = tiny::Gguf::default();
    file.str("tokenizer.ggml.model", model);
    file.str("tokenizer.ggml.pre", pre);
    file.bool("tokenizer.ggml.add_space_prefix", flags.contains(&"prefix"));
    file.strings("tokenizer.ggml.tokens", &texts);
    file.i32s("tokenizer.ggml.token_type", &types);
    file.f32s("tokenizer.ggml.scores", &scores);
    file.strings("tokenizer.ggml.merges", &merges);

    let checkpoint = Checkpoint::from_bytes(file.finish()).expect("a GGUF file");
    TokenizerSpec::of(&checkpoint)
}
