//! What the program says of bad input: one sentence, exit code 1, nothing on standard output.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::common::tiny::LLAMA;
use crate::{A, FOLDER, TINY, file, omnimini, run};

/// Runs it, and gives the one sentence it must fail with.
fn failure(args: &[&str]) -> String {
    let done = run(args);
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert_eq!(done.out, "", "{done:#?}");
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines.len(), 1, "{done:#?}");
    lines[0].strip_prefix("omnimini: ").unwrap().to_owned()
}

#[test]
fn a_file_that_is_no_model() {
    let whole = fs::read(&*TINY).unwrap();
    let mut flipped = whole.clone();
    // The number of tensors, far beyond what any file holds.
    flipped[15] ^= 0x40;
    let text = file("text.gguf", b"This is a text and no model.\n");
    let cut = file("cut.gguf", &whole[..whole.len() / 2]);
    let header = file("header.gguf", &whole[..100]);
    let flipped = file("flipped.gguf", &flipped);
    let empty = file("empty.gguf", b"");
    let folder = FOLDER.to_str().unwrap();
    for (path, want) in [
        (text.as_str(), "is a text file, not a GGUF model"),
        (&cut, "incomplete or damaged"),
        (&header, "damaged: fetch it again"),
        (&flipped, "damaged: fetch it again"),
        (&empty, "is empty"),
        (folder, "has no config.json"),
        ("./missing.gguf", "No such file"),
        ("missing.gguf", "No such file"),
    ] {
        for command in [
            &["run", "-m", path, "hi"][..],
            &["inspect", path],
            &["bench", "-m", path],
            &["tokenize", "-m", path, "hi"],
            &["chat", "-m", path],
        ] {
            let message = failure(command);
            assert!(message.contains(want), "{command:?}: {message}");
        }
    }
}

#[test]
fn a_model_that_is_not_known() {
    let message = failure(&["run", "-m", "nosuch", "hi"]);
    assert!(
        message.contains("no model is called \"nosuch\""),
        "{message}"
    );
    assert!(message.contains("smollm2-135m-instruct"), "{message}");
    let message = failure(&["run", "-m", "gemma-3-270m", "hi"]);
    assert!(
        message.contains("run `omnimini pull gemma-3-270m`"),
        "{message}"
    );
    assert!(failure(&["rm", "nosuch"]).contains("is not on this machine"));
    assert!(failure(&["pull", "nosuch"]).contains("no model is called"));
    assert!(failure(&["pull", "hf:x"]).contains("does not name a model"));
    let unknown = String::from_utf8_lossy(&fs::read(&*TINY).unwrap()[..200]).contains("llama");
    assert!(unknown, "the architecture is at the beginning");
    let mut bytes = fs::read(&*TINY).unwrap();
    let at = bytes.windows(5).position(|w| w == b"llama").unwrap();
    bytes[at..at + 5].copy_from_slice(b"lemma");
    let path = file("lemma.gguf", &bytes);
    let message = failure(&["run", "-m", &path, "hi"]);
    assert!(message.contains("architecture is `lemma`"), "{message}");
}

#[test]
fn an_adapter_that_is_not_there() {
    for wanted in ["nosuch", "99"] {
        let message = failure(&["run", "-m", &TINY, "--adapter", wanted, "hi"]);
        assert!(
            message.contains(&format!("no adapter is called `{wanted}`")),
            "{message}"
        );
        assert!(message.contains("there are: 0 "), "{message}");
    }
    // No driver at all.
    let done = omnimini(&["run", "-m", &TINY, "hi"])
        .env("VK_DRIVER_FILES", "/nosuch")
        .env("VK_ICD_FILENAMES", "/nosuch")
        .output()
        .unwrap();
    if cfg!(target_os = "linux") {
        let message = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{message}");
        assert!(
            message.contains("no GPU or Vulkan driver was found"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_prompt_that_does_not_fit() {
    let long = "word ".repeat(100);
    let args = ["run", "-m", &TINY, "--ctx", "64", &long];
    assert!(failure(&args).contains("and the context holds 64"));
    let message = failure(&["run", "-m", &TINY, "--raw", "--ctx", "64", &long]);
    assert!(message.contains("the prompt has 704 tokens"), "{message}");
    let message = failure(&["run", "-m", &TINY, "--ctx", "1000000", "hi"]);
    assert!(message.contains("this model knows 4096"), "{message}");
}

#[test]
fn arguments_that_only_the_model_can_judge() {
    let message = failure(&["run", "-m", &TINY, "--logit-bias", "300=1", "hi"]);
    assert!(message.contains("token 300 is outside"), "{message}");
    let plain = file("plain.gguf", &LLAMA.gguf(5));
    let message = failure(&["chat", "-m", &plain]);
    assert!(message.contains("no chat template"), "{message}");
}

#[test]
fn files_of_text_that_cannot_be_read() {
    let binary = file("binary.txt", &[0xff, 0xfe, 0x00, 0xc3]);
    for args in [
        &["run", "-m", &TINY, "--prompt-file", "/nosuch"][..],
        &["tokenize", "-m", &TINY, "--file", "/nosuch"],
        &["perplexity", "-m", &TINY, "/nosuch"],
    ] {
        let message = failure(args);
        assert!(
            message.starts_with("cannot read /nosuch: No such file"),
            "{message}"
        );
    }
    let message = failure(&["perplexity", "-m", &TINY, &binary]);
    assert!(message.contains("UTF-8"), "{message}");
    let short = file("short.txt", b"too short");
    let message = failure(&["perplexity", "-m", &TINY, "--ctx", "64", &short]);
    assert!(message.contains("fewer than one window of 64"), "{message}");
}

#[test]
fn nothing_in_the_cache_is_damaged_by_bad_input() {
    let home = tempfile::tempdir().unwrap();
    let here = |args: &[&str]| {
        let mut command = omnimini(args);
        command.env("OMNIMINI_HOME", home.path()).output().unwrap()
    };
    let bad = file("bad.gguf", b"This is a text and no model.\n");
    assert!(here(&["pull", &TINY, "--name", "good"]).status.success());
    let before = here(&["list", "--json"]).stdout;
    assert!(!here(&["pull", &bad, "--name", "good"]).status.success());
    assert!(!here(&["run", "-m", &bad, "hi"]).status.success());
    assert!(!here(&["rm", "../good"]).status.success());
    assert_eq!(here(&["list", "--json"]).stdout, before);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let args = ["run", "-m", &TINY, "-n", "4000", "--logit-bias", A, "hi"];
    let mut command = omnimini(&args);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut some = [0; 8];
    out.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"aaaaaaaa");
    drop(out);
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
