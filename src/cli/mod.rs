//! The command line: typed arguments, commands, and what they print.
//!
//! Data goes to standard output, everything else to standard error. A program that stops reading
//! our output ends us quietly. Exit codes: 0 done, 1 failed, 2 misused.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::engine::{LoadOptions, Sampling};
use crate::gpu::DeviceOptions;
use crate::kernel::attention::KvType;

mod chat;
mod generate;
mod measure;
mod models;
mod progress;

/// A local GPT-4o mini: small open models on any GPU.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES, infer_subcommands = true)]
struct Cli {
    /// Say more on standard error: -v what is done, -vv how the model is planned.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  omnimini pull                              fetch the default model
  omnimini run \"Why is the sky blue?\"        answer one prompt
  echo \"...\" | omnimini run -                the prompt from standard input
  omnimini chat -m gemma-3-270m              talk in the terminal
  omnimini bench -o md                       prompt and generation rates";

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt.
    Run(generate::Run),
    /// Talk in the terminal.
    Chat(chat::Chat),
    /// Fetch a model into the cache folder.
    Pull(models::Pull),
    /// List the models in the cache folder.
    List(models::List),
    /// Remove a model from the cache folder.
    Rm(models::Rm),
    /// List every adapter with its abilities and limits.
    Devices(models::Devices),
    /// Say what is in a model file.
    Inspect(models::Inspect),
    /// Turn text into token ids.
    Tokenize(models::Tokenize),
    /// How well a model predicts a text.
    Perplexity(measure::Perplexity),
    /// Measure prompt and generation rates.
    Bench(measure::Bench),
}

/// Which model.
#[derive(Clone, Debug, Args)]
struct ModelArgs {
    /// A built-in or pulled name, or a path to a GGUF file.
    #[arg(short, long, default_value = crate::hub::DEFAULT_MODEL)]
    model: String,
}

/// Where and how it runs.
#[derive(Clone, Debug, Args)]
struct DeviceArgs {
    /// The adapter: a number of `omnimini devices`, or a part of its name.
    #[arg(long, env = "OMNIMINI_ADAPTER")]
    adapter: Option<String>,
    /// Tokens of context; the model's own, up to 4096, when not given.
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<usize>,
    /// Element type of the KV cache.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = ["f16", "f32"])]
    kv: String,
}

impl DeviceArgs {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            device: DeviceOptions {
                adapter: self.adapter.clone(),
                strict_webgpu: std::env::var_os("OMNIMINI_STRICT_WEBGPU").is_some(),
                ..DeviceOptions::default()
            },
            context: self.ctx,
            kv: if self.kv == "f32" {
                KvType::F32
            } else {
                KvType::F16
            },
            ..LoadOptions::default()
        }
    }
}

/// How tokens are chosen.
#[derive(Clone, Debug, Args)]
struct SamplingArgs {
    /// Tokens to make at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    /// Randomness; 0 always takes the best token.
    #[arg(short, long, default_value_t = 0.0)]
    temperature: f32,
    /// Only the K best tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Only the best tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Only tokens with this share of the best one's probability.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Divides the logits of tokens seen; 1 for none.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Taken from the logits of tokens made before.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f32,
    /// Taken from them for each time they were made.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Seed of the draws: the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            max_tokens: self.max_tokens,
            ..Sampling::default()
        }
    }
}

/// Runs the program with `args` (the program's own name first) and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let failed = e.use_stderr();
            return match e.print() {
                Ok(()) if failed => ExitCode::from(2),
                _ => ExitCode::SUCCESS,
            };
        }
    };
    let level = ["error", "info", "debug"][usize::from(cli.verbose.min(2))];
    let filter = format!("omnimini={level}");
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format_target(false)
        .init();
    let done = match cli.command {
        Command::Run(c) => c.run(),
        Command::Chat(c) => c.run(),
        Command::Pull(c) => c.run(),
        Command::List(c) => c.run(),
        Command::Rm(c) => c.run(),
        Command::Devices(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Tokenize(c) => c.run(),
        Command::Perplexity(c) => c.run(),
        Command::Bench(c) => c.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "omnimini: {e}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    let io = e.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints data.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a value as JSON, on one line or several.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Tells the user something that is no data.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The file of a model by name, source or path.
fn model_file(name: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(name);
    if path.is_file() {
        return Ok(path);
    }
    Ok(crate::hub::find(&crate::hub::Home::from_env()?, name)?)
}
