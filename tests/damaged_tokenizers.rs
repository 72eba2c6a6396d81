//! Damaged and hostile tokenizers: each is one clear sentence, and nothing panics or hangs.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use omnimini::text::{FolderFiles, Specials, Tokenizer, TokenizerSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

mod common;
use common::vocabularies::{SMALL, from_json};

fn small(name: &str) -> Value {
    let (_, json) = SMALL.iter().find(|(small, _)| *small == name).unwrap();
    serde_json::from_str(json).unwrap()
}

/// The sentence that says what is wrong.
fn refusal(json: &str) -> String {
    let sentence = from_json(json).unwrap_err().to_string();
    assert!(
        sentence.len() < 1000 && !sentence.contains('\n'),
        "{sentence}"
    );
    sentence
}

/// What is said of a small tokenizer that is changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut file = small(name);
    change(&mut file);
    refusal(&file.to_string())
}

#[track_caller]
fn says(sentence: &str, part: &str) {
    assert!(sentence.contains(part), "{sentence}");
}

#[test]
fn holes_and_doubles_are_named() {
    let hole = changed("llama3", |file| {
        file["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .shift_remove("b");
    });
    says(
        &hole,
        "no token has the id 65, and its vocabulary goes up to 599",
    );
    let double = changed("llama3", |file| file["model"]["vocab"]["c"] = json!(65));
    says(&double, "its tokens `b` and `c` both have the id 65");
    let twice = small("bert")
        .to_string()
        .replace("\"vocab\":{", "\"vocab\":{\"[CLS]\":2,");
    says(&refusal(&twice), "its token `[CLS]` has the ids 2 and 2");
    let added = changed("llama3", |file| file["added_tokens"][0]["id"] = json!(65));
    says(
        &added,
        "its tokens `b` and `<|begin_of_text|>` both have the id 65",
    );
    let far = changed("llama3", |file| {
        file["added_tokens"][0]["id"] = json!(4_000_000_000u32);
    });
    says(&far, "it has 603 tokens, and ids up to 4000000000");
    let far = changed("llama3", |file| {
        file["model"]["vocab"]["b"] = json!(4_000_000_000u32);
    });
    says(&far, "and ids up to 4000000000");
    says(
        &changed("llama3", |file| file["model"]["vocab"] = json!({})),
        "is no token",
    );
    let empty = json!({ "model": { "type": "BPE", "vocab": {}, "merges": [] }, "decoder": { "type": "ByteLevel" } });
    says(&refusal(&empty.to_string()), "it has no tokens");
    // Makers leave ids free behind what the model makes.
    let mut free = small("llama3");
    free["added_tokens"][2]["id"] = json!(700);
    let tokenizer = from_json(&free.to_string()).unwrap();
    assert_eq!(tokenizer.vocab(), 701);
    assert_eq!(tokenizer.token_bytes(650), b"");
}

#[test]
fn merges_of_no_tokens_are_named() {
    for name in ["llama3", "mistral", "qwen2"] {
        let side = changed(name, |file| {
            file["model"]["merges"][3] = json!(["zzq", "b"]);
        });
        says(&side, "it merges `zzq b`, and `zzq` is no token");
        let made = changed(name, |file| file["model"]["merges"][3] = json!("Q Z"));
        says(&made, "it merges `Q Z`, which is no token");
    }
    says(
        &changed("qwen2", |file| file["model"]["merges"][3] = json!("Q")),
        "a pair of tokens",
    );
    says(
        &changed("qwen2", |file| file["model"]["merges"][3] = json!(["Q"])),
        "a pair of tokens",
    );
    says(
        &changed("mistral", |file| file["model"]["merges"] = json!([])),
        "it has no merges",
    );
}

#[test]
fn patterns_that_do_not_compile_are_named() {
    let split = |regex: &str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated" });
    let with = |regex: &str| {
        changed("llama3", |file| {
            file["pre_tokenizer"]["pretokenizers"][0] = split(regex);
        })
    };
    says(&with("(a"), "its pattern `(a` does not compile");
    says(&with(r"\p{Nonsense}"), "does not compile");
    says(&with("((a{999}){999}){999}"), "does not compile");
    says(&with(&"(".repeat(10_000)), "does not compile");
    says(
        &with(&format!("{}a(?!b){}", "(".repeat(5000), ")".repeat(5000))),
        "does not compile",
    );
}

#[test]
fn unknown_kinds_are_named() {
    let of = |name, pointer: &str, kind| {
        changed(name, |file| {
            *file.pointer_mut(pointer).unwrap() = json!(kind);
        })
    };
    says(
        &of("bert", "/model/type", "WordLevel"),
        "its model is of type `WordLevel`, and BPE, Unigram and WordPiece are known",
    );
    says(
        &of("bert", "/normalizer/type", "Magic"),
        "its normaliser `Magic` is not known",
    );
    says(
        &of("bert", "/pre_tokenizer/type", "Magic"),
        "its pre-tokenizer `Magic` is not known",
    );
    says(
        &of("bert", "/post_processor/type", "Magic"),
        "its post-processor `Magic` is not known",
    );
    says(
        &of("llama3", "/pre_tokenizer/pretokenizers/0/behavior", "Torn"),
        "its way to split `Torn` is not known",
    );
    let affix = changed("mistral", |file| {
        file["model"]["end_of_word_suffix"] = json!("</w>");
    });
    says(&affix, "marks the insides or ends of words");
    let none = changed("bert", |file| file["model"]["unk_token"] = json!("[NOPE]"));
    says(
        &none,
        "its token for what is unknown, `[NOPE]`, is none of its tokens",
    );
    let none = changed("xlmr", |file| file["model"]["unk_id"] = Value::Null);
    says(&none, "no token for what is unknown");
    let none = changed("xlmr", |file| file["model"]["unk_id"] = json!(123_456));
    says(&none, "it has no token 123456");
    let kind = changed("xlmr", |file| file["model"]["vocab"] = json!({ "a": 0 }));
    says(&kind, "not of the kind of its model");
    let token = changed("bert", |file| {
        file["post_processor"]["special_tokens"] = json!({});
    });
    says(&token, "its template's token `[CLS]` has no id");
    let outside = changed("bert", |file| {
        file["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([99_999]);
    });
    says(&outside, "its special token 99999 is outside");
}

#[test]
fn hostile_files_are_refused() {
    let json = small("llama3").to_string();
    for cut in [0, 1, json.len() / 2, json.len() - 1] {
        says(&refusal(&json[..cut]), "its tokenizer.json cannot be read");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = json.replacen("\"normalizer\":null", &format!("\"normalizer\":{deep}"), 1);
    says(&refusal(&deep), "recursion limit exceeded");
    let many = changed("bert", |file| {
        file["normalizer"] =
            json!({ "type": "Sequence", "normalizers": vec![json!({ "type": "NFC" }); 10_000] });
    });
    says(&many, "it takes 10000 steps");
    let grow = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaaaaaaaa" });
    let grows = changed("bert", |file| {
        file["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![grow; 20] });
    });
    says(&grows, "times as long");
    let long = changed("bert", |file| {
        file["added_tokens"][0]["content"] = json!("x".repeat(100_000));
        file["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .shift_remove("[PAD]");
    });
    says(&long, "has 100000 bytes");
    for (table, what) in [
        ("!", "is no base64"),
        ("AAAA", "ends too early"),
        ("/////w==", "ends too early"),
    ] {
        let charsmap = json!({ "type": "Precompiled", "precompiled_charsmap": table });
        says(&changed("xlmr", |file| file["normalizer"] = charsmap), what);
    }
    // A table whose units lead anywhere.
    let tables = ["CAAAAP///////////wBh", "EAAAAAABAAD//wAAYQEAAP//////AGE="];
    for table in tables {
        let charsmap = json!({ "type": "Precompiled", "precompiled_charsmap": table });
        let mut file = small("xlmr");
        file["normalizer"] = charsmap;
        if let Ok(tokenizer) = from_json(&file.to_string()) {
            tokenizer.encode("abc\u{ff}漢 e\u{301}", Specials::AsText);
        }
    }
}

#[test]
fn the_other_files_are_named() {
    let json = small("llama3").to_string();
    let files = FolderFiles {
        tokenizer: Some(json.as_bytes()),
        ..FolderFiles::default()
    };
    let refused =
        |files: &FolderFiles<'_>| TokenizerSpec::from_folder(files).unwrap_err().to_string();
    says(
        &refused(&FolderFiles::default()),
        "its folder has no tokenizer.json",
    );
    let bad: Option<&[u8]> = Some(b"{");
    says(
        &refused(&FolderFiles {
            tokenizer_config: bad,
            ..files
        }),
        "its tokenizer_config.json cannot be read",
    );
    says(
        &refused(&FolderFiles {
            special_tokens_map: bad,
            ..files
        }),
        "its special_tokens_map.json",
    );
    says(
        &refused(&FolderFiles {
            generation_config: bad,
            ..files
        }),
        "its generation_config.json",
    );
    says(
        &refused(&FolderFiles {
            config: bad,
            ..files
        }),
        "its config.json",
    );
    says(
        &refused(&FolderFiles {
            chat_template_json: bad,
            ..files
        }),
        "its chat_template.json",
    );
    let bad: Option<&[u8]> = Some(b"\xff");
    says(
        &refused(&FolderFiles {
            chat_template: bad,
            ..files
        }),
        "its chat_template.jinja is not UTF-8",
    );
}

/// Values that a file may have anywhere.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        (-3..700i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "<s>",
            "\u{2581}",
            "a",
            "Sequence",
            "ByteLevel",
            "Bpe",
            "BPE",
            "Removed",
            "(?=a)|b",
            "\\s*",
            ".*",
            "$"
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!({ "type": "Prepend", "prepend": "\u{2581}" })),
        Just(
            json!({ "type": "Split", "pattern": { "Regex": "a*|(?<!b)c" }, "behavior": "MergedWithNext", "invert": true })
        ),
        Just(json!({ "type": "ByteLevel" })),
        Just(json!({ "type": "Metaspace", "replacement": "_", "prepend_scheme": "first" })),
    ]
}

/// Every place of a file, but for the tokens of which there are hundreds.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_string());
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().take(20) {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (i, value) in values.iter().enumerate().take(20) {
                places(value, &format!("{at}/{i}"), found);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_change_is_a_tokenizer_or_a_sentence(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
        text in "[ab<>s|/ \u{2581}é漢\u{301}\\n]{0,20}",
    ) {
        let mut file: Value = serde_json::from_str(which.get(SMALL).1).unwrap();
        for (place, value) in changes {
            let mut found = Vec::new();
            places(&file, "", &mut found);
            *file.pointer_mut(place.get(&found[..]).as_str()).unwrap() = value;
        }
        let start = Instant::now();
        match from_json(&file.to_string()) {
            Ok(tokenizer) => try_out(&tokenizer, &text),
            Err(error) => {
                let sentence = error.to_string();
                prop_assert!(sentence.len() < 1000 && !sentence.contains('\n'), "{sentence}");
            }
        }
        prop_assert!(start.elapsed() < Duration::from_secs(20));
    }
}

/// No text makes a control token, and no ids panic.
fn try_out(tokenizer: &Tokenizer, text: &str) {
    for text in [text, "<s> a</s>[CLS]<|eot_id|>  \n\n", ""] {
        let ids = tokenizer.encode(text, Specials::AsText);
        for id in &ids {
            assert!(
                (*id as usize) < tokenizer.vocab() && !tokenizer.is_control(*id),
                "{id}"
            );
        }
        tokenizer.decode(&ids);
        tokenizer.decode(&tokenizer.encode_text(text, Specials::Parse));
        tokenizer.spec().metadata().ok();
    }
}

/// As in a GGUF file; the fuzzer found the sentence too long.
#[test]
fn an_unknown_pre_tokenizer_is_named() {
    let mut file = common::tiny::Gguf::default();
    file.str("tokenizer.ggml.model", "gpt2");
    file.str("tokenizer.ggml.pre", &"\u{19}".repeat(200));
    file.strings("tokenizer.ggml.tokens", &["a".into()]);
    let checkpoint = omnimini::format::Checkpoint::from_bytes(file.finish()).unwrap();
    let sentence = TokenizerSpec::of(&checkpoint).unwrap_err().to_string();
    says(&sentence, "is unknown; known are gpt-2, ");
    assert!(
        sentence.len() < 1000 && !sentence.contains('\n'),
        "{sentence}"
    );
}
