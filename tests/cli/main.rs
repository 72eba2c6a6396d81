//! The program as scripts and people meet it: what it prints and where, its exit codes, its help,
//! what it says of bad input, and a conversation in a pseudo terminal.
//!
//! The model is a tiny one of random weights, made to say `a` again and again by a logit bias.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[cfg(unix)]
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod embed;
mod errors;
mod fit;
mod reports;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use common::tiny::LLAMA;
use serde_json::Value;
use tempfile::NamedTempFile;

/// The token of the byte `a`, which [`A`] makes the model say.
const TOKEN: u32 = 3 + 'a' as u32;
/// Makes the model say `a` at every step.
const A: &str = "100=10000";
/// Every command.
const COMMANDS: [&str; 12] = [
    "run",
    "chat",
    "embed",
    "pull",
    "list",
    "rm",
    "devices",
    "inspect",
    "tokenize",
    "quantize",
    "perplexity",
    "bench",
];

/// A folder of these tests alone, where what was found of the adapter is kept from run to run.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(folder.join("runtime")).unwrap();
    folder
});

/// A tiny model that can hold a conversation.
static TINY: LazyLock<String> = LazyLock::new(|| {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    let bytes = LLAMA.gguf_with(5, |g| g.str("tokenizer.chat_template", template));
    file("tiny.gguf", &bytes)
});

/// Writes a file of these tests in one step, since several of them may do so at once.
fn file(name: &str, bytes: &[u8]) -> String {
    let path = FOLDER.join(name);
    let mut unfinished = NamedTempFile::new_in(&*FOLDER).unwrap();
    unfinished.write_all(bytes).unwrap();
    unfinished.persist(&path).unwrap();
    path.to_str().unwrap().into()
}

/// The program, with nothing of this machine's own settings but its adapter.
fn omnimini(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omnimini"));
    command
        .args(args)
        .env("OMNIMINI_HOME", &*FOLDER)
        // Some drivers complain where there is none.
        .env("XDG_RUNTIME_DIR", FOLDER.join("runtime"))
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn run(args: &[&str]) -> Done {
    Done::new(args, &omnimini(args).output().unwrap())
}

/// Runs it with a text as its standard input.
fn run_with(args: &[&str], input: &str) -> Done {
    let mut command = omnimini(args);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Done::new(args, &child.wait_with_output().unwrap())
}

/// What a run ended with.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn new(args: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let done = Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        assert!(!done.err.contains("panicked"), "{args:?}: {done:#?}");
        done
    }

    /// Its data, where it went well.
    fn data(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// Its data as JSON, where it went well.
    fn json(self) -> Value {
        serde_json::from_str(&self.data()).unwrap()
    }
}

/// Checks that a value has these fields, and that `command --help` names each of them.
fn has_fields(command: &str, value: &Value, fields: &[&str]) {
    let found: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, fields, "{command}");
    let help = run(&[command, "--help"]).data();
    let listed = &help[help.find("ields of").unwrap_or_default()..];
    let words: Vec<&str> = listed
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    for field in fields {
        assert!(
            words.contains(field),
            "{command} --help says nothing of {field}"
        );
    }
}

#[test]
fn every_help_has_examples() {
    for command in [
        &[][..],
        &["run"],
        &["chat"],
        &["embed"],
        &["pull"],
        &["list"],
        &["rm"],
        &["devices"],
        &["inspect"],
        &["tokenize"],
        &["quantize"],
        &["perplexity"],
        &["bench"],
    ] {
        let done = run(&[command, &["--help"]].concat());
        assert_eq!(done.err, "");
        let help = done.data();
        assert!(help.contains("\nExamples:\n  "), "{command:?}");
        assert!(!help.contains('\x1b'), "{command:?}: colours in a pipe");
        let wide = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{command:?}");
    }
    let all = run(&["--help"]).data();
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command}");
    }
}

#[test]
fn misuse_is_exit_code_2() {
    let wrong: &[&[&str]] = &[
        &[],
        &["nosuch"],
        &["run", "--nosuch", "hi"],
        &["run", "a", "b"],
        &["run", "--prompt-file", "f", "hi"],
        &["run", "--special", "hi"],
        &["run", "--raw", "--system", "s", "hi"],
        &["run", "--logprobs", "3", "hi"],
        &["run", "-n", "0", "hi"],
        &["run", "--ctx", "0", "hi"],
        &["run", "-t", "-1", "hi"],
        &["run", "-t", "nan", "hi"],
        &["run", "--top-p", "1.5", "hi"],
        &["run", "--logit-bias", "3", "hi"],
        &["run", "--kv", "f64", "hi"],
        &["embed", "--file", "f", "hi"],
        &["embed", "--pooling", "max", "hi"],
        &["embed", "--json", "--similarity", "a", "b"],
        &["run", "--fit", "--memory", "much", "hi"],
        &["inspect", "m.gguf", "--memory", "-3GiB"],
        &["rm"],
        &["inspect"],
        &["perplexity"],
        &["tokenize", "--tokenizer", "nosuch", "hi"],
        &["quantize", "a.gguf", "b.gguf"],
        &["quantize", "a.gguf", "b.gguf", "--type", "q9"],
        &["bench", "-o", "xml"],
        &["bench", "-r", "0"],
    ];
    for args in wrong {
        let done = run(args);
        assert_eq!(done.code, Some(2), "{done:#?}");
        assert_eq!(done.out, "", "{done:#?}");
        assert!(!done.err.is_empty(), "{done:#?}");
    }
    assert_eq!(run(&["--version"]).code, Some(0));
}
