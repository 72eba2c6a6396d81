//! `omnimini chat`: a conversation in the terminal.

use std::future::{Future as _, poll_fn};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use anyhow::Context;
use clap::Args;
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Cmd, Config, DefaultEditor, KeyCode, KeyEvent, Modifiers};

use super::sampling::SamplingArgs;
use super::{
    ContextArgs, DeviceArgs, ModelArgs, Voice, model_file, print, progress, sentence, tell,
};
use crate::engine::LoadOptions;
use crate::format::Checkpoint;
use crate::gpu::Gpu;
use crate::session::{Answer, Delta, Options, Session};
use crate::text::Effort;

/// Arguments of `chat`.
#[derive(Debug, Args)]
pub(super) struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instructions that hold for the whole conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How long the model thinks before it answers, where it can be told: none, low, medium or high.
    #[arg(long, value_name = "EFFORT")]
    reasoning_effort: Option<Effort>,
}

const HELP: &str = "\
/clear          forget the conversation, keep the system text
/system TEXT    set the system text (none: remove it)
/save FILE      write the conversation as JSON
/help           this
/quit           leave (so does Ctrl-D)
Several lines: end a line with \\, press Alt-Enter, or paste them. Arrow keys bring back what was
typed before, in this conversation and in earlier ones. Ctrl-C stops an answer.";

impl Chat {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let options = Options {
            sampling: self.sampling.sampling(),
            effort: self.reasoning_effort,
            ..Options::default()
        };
        let device = self.device.options(self.context.ctx);
        let mut session = progress::load(&self.model.model, &device, self.device.fit)?.session()?;
        if session.model().template().is_none() {
            return Err(crate::Error::NoTemplate.into());
        }
        session.system(self.system.as_deref().unwrap_or_default());
        let stop = Arc::new(AtomicBool::new(false));
        // A script's Ctrl-C ends it as any program; a person's stops the answer.
        if io::stdin().is_terminal() {
            progress::on_ctrl_c(&stop)?;
        }
        let mut input = Input::new()?;
        tell(&format!(
            "{} on {}; /help for help",
            self.model.model,
            session.model().engine().gpu().info
        ));
        while let Some(text) = input.read()? {
            let done = match command(&mut session, &text) {
                Some(Ok(true)) => break,
                Some(done) => done.map(|_| ()),
                None => say(&mut session, &text, &options, &stop),
            };
            match done {
                Err(e) if super::is_broken_pipe(&e) => return Err(e),
                Err(e) => self.recover(&mut session, &e, &device),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Says what went wrong; where the device was lost, opens it again for the same conversation.
    fn recover(&self, session: &mut Session, e: &anyhow::Error, device: &LoadOptions) {
        match e.downcast_ref() {
            Some(crate::Error::DeviceLost { .. }) => {
                tell(&sentence(e));
                if let Err(e) = self.reopen(session, device) {
                    tell(&sentence(&e));
                }
            }
            Some(crate::Error::Prompt { .. }) => {
                tell(&format!(
                    "{}; or forget the conversation by /clear",
                    sentence(e)
                ));
            }
            _ => tell(&sentence(e)),
        }
    }

    fn reopen(&self, session: &mut Session, device: &LoadOptions) -> anyhow::Result<()> {
        tell("opening the GPU again");
        let checkpoint = Checkpoint::open(model_file(&self.model.model)?)?;
        let gpu = pollster::block_on(Gpu::open(&device.device))?;
        let model = pollster::block_on(session.model().reload(gpu, &checkpoint, &mut |_, _| {}))?;
        session.move_to(&model)?;
        Ok(())
    }
}

/// What is typed, with the history of this conversation and of those before.
struct Input {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

impl Input {
    fn new() -> anyhow::Result<Self> {
        let person = io::stdin().is_terminal();
        // Answers may go to a file: what is typed, and the prompts, belong to the terminal.
        let behavior = if person && !io::stdout().is_terminal() {
            Behavior::PreferTerm
        } else {
            Behavior::Stdio
        };
        let config = Config::builder().behavior(behavior).build();
        let mut editor = DefaultEditor::with_config(config).context("cannot use this terminal")?;
        let alt_enter = KeyEvent(KeyCode::Enter, Modifiers::ALT);
        editor.bind_sequence(alt_enter, Cmd::Newline);
        let history = crate::hub::Home::from_env()
            .ok()
            .map(|home| home.root().join("history.txt"))
            .filter(|_| person);
        if let Some(file) = &history {
            // A first conversation has no history yet.
            let _ = editor.load_history(file);
        }
        Ok(Self { editor, history })
    }

    /// A text that is not blank: a line, or several joined by `\` at their ends; `None` at the end
    /// of input.
    fn read(&mut self) -> anyhow::Result<Option<String>> {
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { "> " } else { ". " };
            match self.editor.readline(prompt) {
                Ok(line) => {
                    if let Some(more) = line.strip_suffix('\\') {
                        text.push_str(more);
                        text.push('\n');
                        continue;
                    }
                    text.push_str(&line);
                    if !text.trim().is_empty() {
                        self.remember(text.trim());
                        return Ok(Some(text.trim().into()));
                    }
                    text.clear();
                }
                // Ctrl-C at the prompt drops what was typed.
                Err(ReadlineError::Interrupted) => text.clear(),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(e).context("cannot read from this terminal"),
            }
        }
    }

    fn remember(&mut self, text: &str) {
        // A history that cannot be kept is no reason to stop talking.
        let _ = self.editor.add_history_entry(text);
        if let Some(file) = &self.history {
            let _ = self.editor.save_history(file);
        }
    }
}

/// Does what a line that begins with `/` says; true to leave. `None` where it is no command.
fn command(session: &mut Session, text: &str) -> Option<anyhow::Result<bool>> {
    let rest = text.strip_prefix('/')?;
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    match name {
        "clear" => {
            session.clear();
            tell("the conversation is forgotten");
        }
        "system" => {
            session.system(argument);
            tell(match argument {
                "" => "there is no system text now",
                _ => "the system text is set",
            });
        }
        "save" => return Some(save(session, argument).map(|()| false)),
        "help" => tell(HELP),
        "quit" | "exit" => return Some(Ok(true)),
        _ => tell(&format!("there is no command /{name}; /help lists them")),
    }
    Some(Ok(false))
}

fn save(session: &Session, file: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!file.is_empty(), "say where: /save FILE");
    let path = Path::new(file);
    let json = serde_json::to_string_pretty(session.messages())?;
    std::fs::write(path, json + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    tell(&format!("saved to {}", path.display()));
    Ok(())
}

/// Asks, and prints the answer as it is made, until it ends or `stop` is set.
fn say(
    session: &mut Session,
    text: &str,
    options: &Options,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    stop.store(false, Ordering::Relaxed);
    let mut answer = session.ask(text, options)?;
    let mut voice = Voice::new();
    let stopped = loop {
        match next(&mut answer, stop) {
            None => break true,
            Some(Ok(Some(delta))) => voice.say(&delta)?,
            Some(Ok(None)) => break false,
            Some(Err(e)) => {
                print("\n")?;
                return Err(e.into());
            }
        }
    };
    print("\n")?;
    tell(&format!(
        "[{}{} tokens, {:.1} tokens/s]",
        if stopped { "stopped: " } else { "" },
        answer.usage().completion_tokens,
        answer.timings().generation_per_second
    ));
    Ok(())
}

/// The next piece of an answer, or `None` once `stop` is set: a long prompt is stopped as well.
fn next(answer: &mut Answer<'_>, stop: &AtomicBool) -> Option<crate::Result<Option<Delta>>> {
    let mut piece = pin!(answer.next_delta());
    pollster::block_on(poll_fn(|cx| {
        if stop.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        piece.as_mut().poll(cx).map(Some)
    }))
}
