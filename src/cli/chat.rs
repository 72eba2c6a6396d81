//! `omnimini chat`: a conversation in the terminal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::{DeviceArgs, ModelArgs, SamplingArgs, print, progress, tell};
use crate::session::{Options, Session};

/// Arguments of `chat`.
#[derive(Debug, Args)]
pub(super) struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instructions that hold for the whole conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

const HELP: &str = "\
/clear          forget the conversation, keep the system text
/system TEXT    set the system text (none: remove it)
/save FILE      write the conversation as JSON
/help           this
/quit           leave (so does Ctrl-D)
A line that ends in \\ goes on in the next. Ctrl-C stops an answer.";

impl Chat {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let model = progress::load(&self.model.model, &self.device.options())?;
        let mut session = model.session()?;
        session.system(self.system.as_deref().unwrap_or_default());
        let options = Options {
            sampling: self.sampling.sampling(),
            ..Options::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed))
            .context("cannot watch for Ctrl-C")?;
        let mut editor = DefaultEditor::new().context("cannot use this terminal")?;
        let history = crate::hub::Home::from_env()
            .ok()
            .map(|h| h.root().join("history.txt"));
        if let Some(file) = &history {
            // A first conversation has no history yet.
            let _ = editor.load_history(file);
        }
        tell(&format!(
            "{} on {}; /help for help",
            self.model.model,
            model.engine().gpu().info
        ));
        while let Some(line) = read(&mut editor)? {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let _ = editor.add_history_entry(line);
            if let Some(file) = &history {
                let _ = editor.save_history(file);
            }
            match command(&mut session, line) {
                Some(Ok(true)) => break,
                Some(Ok(false)) => {}
                Some(Err(e)) => tell(&format!("{e:#}")),
                None => {
                    stop.store(false, Ordering::Relaxed);
                    if let Err(e) = say(&mut session, line, &options, &stop) {
                        if super::is_broken_pipe(&e) {
                            return Err(e);
                        }
                        tell(&format!("{e:#}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A line, or several joined by `\` at their ends; `None` at the end of input.
fn read(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { "> " } else { ". " };
        match editor.readline(prompt) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(more) => {
                    text.push_str(more);
                    text.push('\n');
                }
                None => return Ok(Some(text + &line)),
            },
            // Ctrl-C at the prompt drops what was typed.
            Err(ReadlineError::Interrupted) => return Ok(Some(String::new())),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(e) => return Err(e).context("cannot read from this terminal"),
        }
    }
}

/// Does what a line that begins with `/` says; true to leave. `None` where it is no command.
fn command(session: &mut Session, line: &str) -> Option<anyhow::Result<bool>> {
    let rest = line.strip_prefix('/')?;
    let (name, argument) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(match name {
        "clear" => {
            session.clear();
            Ok(false)
        }
        "system" => {
            session.system(argument.trim());
            Ok(false)
        }
        "save" => save(session, argument.trim()).map(|()| false),
        "help" => {
            tell(HELP);
            Ok(false)
        }
        "quit" | "exit" => Ok(true),
        _ => {
            tell(&format!("there is no command /{name}; /help lists them"));
            Ok(false)
        }
    })
}

fn save(session: &Session, file: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!file.is_empty(), "say where: /save FILE");
    let path = PathBuf::from(file);
    let json = serde_json::to_string_pretty(session.messages())?;
    std::fs::write(&path, json + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    tell(&format!("saved to {}", path.display()));
    Ok(())
}

fn say(
    session: &mut Session,
    line: &str,
    options: &Options,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut answer = session.ask(line, options)?;
    while let Some(delta) = answer.next()? {
        print(&delta.text)?;
        if stop.load(Ordering::Relaxed) {
            print(" [stopped]")?;
            break;
        }
    }
    print("\n")?;
    let (usage, timings) = (answer.usage(), answer.timings());
    tell(&format!(
        "[{} tokens, {:.1} tokens/s]",
        usage.completion_tokens, timings.generation_per_second
    ));
    Ok(())
}
