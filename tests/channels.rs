//! The parts of an assistant's turn, as the makers of the harmony format read it
//! (`tools/reference/harmony.py`), and thoughts between marks.

#![expect(clippy::unwrap_used, reason = "tests")]

use omnimini::text::{
    ChatTemplate, Effort, Message, Part, Request, Role, Specials, Tokenizer, Turn,
};
use serde_json::{Value, json};

mod common;
use common::vocabularies;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/harmony.json")).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What a turn's tokens say, part by part.
fn parts(tokenizer: &Tokenizer, prompt: &[u32], turn: &[u32]) -> Vec<(Part, String)> {
    let mut reader = Turn::new(tokenizer, prompt);
    let mut parts: Vec<(Part, Vec<u8>)> = Vec::new();
    for id in turn {
        // As an answer does: a control token has no text.
        let bytes = if tokenizer.is_control(*id) {
            &[][..]
        } else {
            tokenizer.token_bytes(*id)
        };
        let bytes = reader.take(*id, bytes);
        if bytes.is_empty() {
            continue;
        }
        match parts.last_mut() {
            Some((part, said)) if part == reader.part() => said.extend_from_slice(&bytes),
            _ => parts.push((reader.part().clone(), bytes.into_owned())),
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    parts
        .into_iter()
        .map(|(part, said)| (part, text(said)))
        .collect()
}

#[test]
fn harmony_is_read_as_its_makers_do() {
    let tokenizer = Tokenizer::named("o200k_harmony").unwrap();
    let prompt = tokenizer.encode(
        "<|start|>user<|message|>Hi<|end|><|start|>assistant",
        Specials::Parse,
    );
    let fixture = fixture();
    let turns = fixture["turns"].as_array().unwrap();
    assert!(turns.len() >= 9);
    for turn in turns {
        let mut want: Vec<(Part, String)> = Vec::new();
        for message in turn["messages"].as_array().unwrap() {
            let part = match (message["recipient"].as_str(), message["channel"].as_str()) {
                (Some(to), _) => Part::Call(to.trim_start_matches("functions.").into()),
                (None, Some("analysis")) => Part::Reasoning,
                _ => Part::Content,
            };
            let text = message["text"].as_str().unwrap();
            match want.last_mut() {
                Some((last, said)) if *last == part => said.extend(["\n\n", text]),
                _ => want.push((part, text.into())),
            }
        }
        let got = parts(&tokenizer, &prompt, &ids(&turn["ids"]));
        assert_eq!(got, want, "{}", turn["text"]);
    }
}

#[test]
fn a_turn_in_no_format_is_what_is_said() {
    let tokenizer = Tokenizer::named("o200k_harmony").unwrap();
    let ids = |text: &str| tokenizer.encode(text, Specials::Parse);
    let prompt = ids("<|start|>assistant");
    for text in [
        "Plain words, no header.",
        "to be or not",
        "assistants",
        "🙂",
    ] {
        let got = parts(&tokenizer, &prompt, &ids(text));
        assert_eq!(got, [(Part::Content, text.into())]);
    }
    // The prompt may have begun the message.
    let prompt = ids("<|start|>assistant<|channel|>analysis<|message|>Well,");
    let got = parts(
        &tokenizer,
        &prompt,
        &ids(" yes<|end|><|start|>assistant<|channel|>final<|message|>Yes"),
    );
    let want = [
        (Part::Reasoning, " yes".into()),
        (Part::Content, "Yes".into()),
    ];
    assert_eq!(got, want);
    // A header that never ends says nothing.
    assert_eq!(
        parts(
            &tokenizer,
            &ids("<|start|>assistant"),
            &ids("<|channel|>anal")
        ),
        []
    );
}

#[test]
fn a_message_ends_no_turn_where_there_are_channels() {
    let ends = |tokenizer: &Tokenizer| {
        let text = |id: &u32| tokenizer.spec().tokens[*id as usize].clone();
        tokenizer.ends().iter().map(text).collect::<Vec<_>>()
    };
    let harmony = ends(&Tokenizer::named("o200k_harmony").unwrap());
    assert!(harmony.contains(&"<|return|>".into()) && harmony.contains(&"<|call|>".into()));
    assert!(!harmony.contains(&"<|end|>".into()), "{harmony:?}");
    let phi = vocabularies::SMALL
        .iter()
        .find(|(name, _)| *name == "phi3")
        .unwrap();
    let phi = ends(&vocabularies::from_json(phi.1).unwrap());
    assert!(phi.contains(&"<|end|>".into()), "{phi:?}");
}

/// A vocabulary with marks of thoughts, as Qwen's and SmolLM's have them: text, not control tokens.
fn thinker() -> Tokenizer {
    let (_, json) = vocabularies::SMALL
        .iter()
        .find(|(name, _)| *name == "qwen2")
        .unwrap();
    let mut json: Value = serde_json::from_str(json).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    let next = added
        .iter()
        .map(|t| t["id"].as_u64().unwrap())
        .max()
        .unwrap()
        + 1;
    for (i, content) in ["<think>", "</think>"].iter().enumerate() {
        let mut token = added[0].clone();
        token["id"] = json!(next + i as u64);
        (token["content"], token["special"]) = (json!(content), json!(false));
        added.push(token);
    }
    vocabularies::from_json(&json.to_string()).unwrap()
}

#[test]
fn thoughts_stand_between_marks() {
    let tokenizer = thinker();
    let ids = |text: &str| tokenizer.encode(text, Specials::Parse);
    let prompt = "<|im_start|>user\nWhat is <think>?<|im_end|>\n<|im_start|>assistant\n";
    let both = |thought: &str, said: &str| {
        vec![
            (Part::Reasoning, thought.to_string()),
            (Part::Content, said.to_string()),
        ]
    };
    let read = |prompt: &str, turn: &str| parts(&tokenizer, &ids(prompt), &ids(turn));
    let turn = "<think>\nHm, 2.\n</think>\n\nIt is 2.\n\nYes.";
    assert_eq!(read(prompt, turn), both("Hm, 2.\n", "It is 2.\n\nYes."));
    // The template may begin the thoughts, or begin and end them.
    let begun = format!("{prompt}<think>\n");
    assert_eq!(read(&begun, "Hm.</think>2"), both("Hm.", "2"));
    let skipped = format!("{prompt}<think>\n\n</think>\n\n");
    assert_eq!(read(&skipped, "2"), [(Part::Content, "2".into())]);
    // What is said without thoughts is not touched.
    assert_eq!(read(prompt, "\n 2"), [(Part::Content, "\n 2".into())]);
}

/// The template that gpt-oss comes with, against what its makers' library writes.
#[test]
fn gpt_oss_is_asked_as_its_makers_do() {
    let Some(folder) = vocabularies::folder() else {
        return;
    };
    let source = std::fs::read_to_string(folder.join("gpt-oss.jinja")).unwrap();
    let template = ChatTemplate::new(&source).unwrap();
    let tokenizer = Tokenizer::named("o200k_harmony").unwrap();
    for conversation in fixture()["conversations"].as_array().unwrap() {
        let said = conversation["messages"].as_array().unwrap().iter();
        let messages: Vec<Message> = said
            .map(|m| {
                let role = if m["role"] == "user" {
                    Role::User
                } else {
                    Role::Assistant
                };
                Message::new(role, m["content"].as_str().unwrap())
            })
            .collect();
        let want = ids(&conversation["ids"]);
        for (effort, name) in [
            (None, "medium"),
            (Some(Effort::None), "low"),
            (Some(Effort::Low), "low"),
            (Some(Effort::High), "high"),
        ] {
            let request = Request {
                effort,
                ..Request::default()
            };
            let got = template
                .encode_with(&tokenizer, &messages, request)
                .unwrap();
            assert!(got.ends_with(&want), "{:?}", conversation["messages"]);
            let head = tokenizer.decode(&got[..got.len() - want.len()]);
            let head = String::from_utf8(head).unwrap();
            assert!(head.contains(&format!("Reasoning: {name}\n")), "{head}");
            assert!(head.contains("Current date: 2024-07-26\n"), "{head}");
        }
    }
}
