//! Any chat template and any messages: tokens or one clear sentence, never a panic, and never a
//! control token that a message wrote.
//!
//! Input is readable: parts between lines of `----`. The first is the template, the others are
//! messages; the first letter of each says who speaks. In a message, `\u{1}` stands for a marker
//! that no template here can write, `\u{2}` and `\u{3}` for its halves.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use omnimini::text::{ChatTemplate, Message, Role, Tokenizer, TokenizerSpec, ToolCall};

mod bytes;

/// Halves of the marker that is looked for: no template may have its characters.
const SECRET: [&str; 2] = ["<|⟪", "⟫|>"];

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut tokens: Vec<String> = (0..=255).map(|b| bytes::written(b).to_string()).collect();
    let bytes = tokens.len();
    tokens.push(SECRET.concat());
    tokens.extend(["<|im_start|>", "<|im_end|>", "<s>", "</s>"].map(String::from));
    let mut types = vec![3; tokens.len()];
    types[..bytes].fill(1);
    Tokenizer::new(TokenizerSpec {
        tokens,
        types,
        ..TokenizerSpec::default()
    })
    .expect("a vocabulary")
});

fuzz_target!(|input: &[u8]| {
    let input = String::from_utf8_lossy(input);
    let mut parts = input.split("\n----\n");
    // No escape, no character of the secret, and no number that could become one of its
    // characters: so whatever holds it came from a message.
    let source = parts.next().unwrap_or_default();
    let source = source.replace(['\\', '⟪', '⟫'], "");
    let template = match ChatTemplate::new(&source) {
        Ok(template) => template,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let secret = |text: &str| {
        let text = text.replace('\u{1}', &SECRET.concat());
        text.replace('\u{2}', SECRET[0]).replace('\u{3}', SECRET[1])
    };
    let messages: Vec<Message> = parts
        .map(|part| {
            let mut letters = part.chars();
            let role = match letters.next() {
                Some('s') => Role::System,
                Some('d') => Role::Developer,
                Some('a') => Role::Assistant,
                Some('t') => Role::Tool,
                _ => Role::User,
            };
            let content = secret(letters.as_str());
            let mut message = Message::new(role, content.clone());
            if role == Role::Assistant && content.len() % 2 == 1 {
                message.tool_calls.push(ToolCall {
                    id: content.clone(),
                    name: content.clone(),
                    arguments: serde_json::json!({ content.clone(): content }),
                });
            }
            if role == Role::Tool {
                message.tool_call_id = Some(message.content.clone());
            }
            message
        })
        .collect();
    let forged = TOKENIZER.vocab() as u32 - 5;
    assert!(TOKENIZER.is_control(forged));
    match template.encode(&TOKENIZER, &messages) {
        Ok(ids) => assert!(!ids.contains(&forged), "a message forged a marker"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = template.text(&TOKENIZER, &messages);
});
