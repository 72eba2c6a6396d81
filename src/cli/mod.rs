//! The command line: typed arguments, commands, and what they print.
//!
//! Data goes to standard output, everything else to standard error. A program that stops reading
//! our output ends us quietly. Exit codes: 0 done, 1 failed, 2 misused.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::caps::Precision;
use crate::engine::LoadOptions;
use crate::gpu::DeviceOptions;
use crate::kernel::attention::KvType;
use crate::kernel::encode::ENCODERS;
use crate::session::Delta;
use crate::tensor::DType;
use crate::text::Part;

mod chat;
mod embed;
mod fit;
mod generate;
mod help;
mod measure;
mod models;
mod progress;
mod quantize;
mod sampling;

/// A local GPT-4o mini: small open models on any GPU.
#[derive(Debug, Parser)]
#[command(version, about, after_help = help::ALL, infer_subcommands = true)]
struct Cli {
    /// Say more on standard error: -v what is done, -vv how the model is planned.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt.
    #[command(after_help = help::RUN)]
    Run(generate::Run),
    /// Talk in the terminal.
    #[command(after_help = help::CHAT)]
    Chat(chat::Chat),
    /// Turn texts into vectors, by which they can be compared.
    #[command(after_help = help::EMBED)]
    Embed(embed::Embed),
    /// Fetch a model into the cache folder.
    #[command(after_help = help::PULL)]
    Pull(models::Pull),
    /// List the models in the cache folder.
    #[command(after_help = help::LIST)]
    List(models::List),
    /// Remove models from the cache folder.
    #[command(after_help = help::RM)]
    Rm(models::Rm),
    /// List every adapter with its abilities and limits.
    #[command(after_help = help::DEVICES)]
    Devices(models::Devices),
    /// Say what is in a model file.
    #[command(after_help = help::INSPECT)]
    Inspect(models::Inspect),
    /// Turn text into token ids.
    #[command(after_help = help::TOKENIZE)]
    Tokenize(models::Tokenize),
    /// Write a model in another type: fewer bits for its weights, a smaller file.
    #[command(after_help = help::QUANTIZE)]
    Quantize(quantize::Quantize),
    /// How well a model predicts a text.
    #[command(after_help = help::PERPLEXITY)]
    Perplexity(measure::Perplexity),
    /// Measure prompt and generation rates.
    #[command(after_help = help::BENCH)]
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
    /// Element type of the KV cache: f32, f16, q8_0 (nine bits an element) or q4_0 (five).
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: KvType,
    /// What activations may be rounded to in products: auto takes f16 on GPUs that have it; int8 is
    /// fast on some and never chosen by itself.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "auto",
        env = "OMNIMINI_PRECISION"
    )]
    precision: Precision,
    /// Quantise matrices that have more bits to this type while loading: f16, q8_0, q6_k, q5_0, q4_k
    /// or q4_0.
    #[arg(long, value_name = "TYPE", value_parser = dtype)]
    quant: Option<DType>,
    /// Choose --quant, --kv and --ctx so that the model fits the device's memory, the best first; what
    /// is given of them is kept.
    #[arg(long)]
    fit: bool,
    /// Memory that the model may take, such as 6GiB or 800MB; what the device has when not given.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

/// What sizes may end in.
const UNITS: [(&str, f64); 8] = [
    ("gib", 1_073_741_824.0),
    ("mib", 1_048_576.0),
    ("kib", 1024.0),
    ("gb", 1e9),
    ("mb", 1e6),
    ("kb", 1e3),
    ("g", 1_073_741_824.0),
    ("m", 1_048_576.0),
];

/// Parses a size in bytes.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let unit = UNITS
        .iter()
        .find_map(|(end, n)| Some((lower.strip_suffix(end)?, *n)));
    let (number, unit) = unit.unwrap_or((&lower, 1.0));
    match number.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n.is_finite() => Ok((n * unit) as u64),
        _ => Err("a size is a number of bytes, or one with a unit, such as 6GiB or 800MB".into()),
    }
}

/// Parses one of the types that weights can be quantised to while loading.
fn dtype(name: &str) -> Result<DType, String> {
    let types = ENCODERS.iter().map(|e| e.0);
    let named = |dtype: &DType| dtype.to_string().eq_ignore_ascii_case(name);
    types.clone().find(named).ok_or_else(|| {
        let names: Vec<String> = types.map(|t| t.to_string().to_lowercase()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

impl DeviceArgs {
    /// With `context` tokens of context; the model's own, up to 4096, where that is `None`.
    fn options(&self, context: Option<usize>) -> LoadOptions {
        LoadOptions {
            device: DeviceOptions {
                adapter: self.adapter.clone(),
                precision: self.precision,
                strict_webgpu: std::env::var_os("OMNIMINI_STRICT_WEBGPU").is_some(),
                ..DeviceOptions::default()
            },
            context,
            kv: self.kv,
            quant: self.quant,
            memory: self.memory,
            ..LoadOptions::default()
        }
    }
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, Args)]
struct ContextArgs {
    /// Tokens of context; the model's own, up to 4096, when not given.
    #[arg(long, value_name = "TOKENS", value_parser = count())]
    ctx: Option<usize>,
}

/// Parses a number that is at least 1.
fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
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
    let level = ["warn", "info", "debug"][usize::from(cli.verbose.min(2))];
    let filter = format!("omnimini={level}");
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format_target(false)
        .init();
    let done = match cli.command {
        Command::Run(c) => c.run(),
        Command::Chat(c) => c.run(),
        Command::Embed(c) => c.run(),
        Command::Pull(c) => c.run(),
        Command::List(c) => c.run(),
        Command::Rm(c) => c.run(),
        Command::Devices(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Tokenize(c) => c.run(),
        Command::Quantize(c) => c.run(),
        Command::Perplexity(c) => c.run(),
        Command::Bench(c) => c.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            tell(&format!("omnimini: {}", sentence(&e)));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    let io = e.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// An error with its causes, which the library's own errors name already.
fn sentence(e: &anyhow::Error) -> String {
    match e.downcast_ref::<crate::Error>() {
        Some(e) => e.to_string(),
        None => format!("{e:#}"),
    }
}

/// Prints data.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Without the control characters by which a model could move a terminal's cursor or worse.
fn harmless(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.replace(|c| !harmless(c), "\u{fffd}")
}

/// Prints what a model or a person says: as it is, but in a terminal harmless.
fn print_said(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() {
        print(&harmless(text))
    } else {
        print(text)
    }
}

/// Prints an answer as it is made: what is said to standard output, thoughts and calls, which are no
/// part of the answer, to standard error.
struct Voice {
    /// Whether something else than content was told last.
    aside: bool,
}

impl Voice {
    fn new() -> Self {
        Self { aside: false }
    }

    fn say(&mut self, delta: &Delta) -> anyhow::Result<()> {
        if delta.text.is_empty() {
            return Ok(());
        }
        let mut err = io::stderr();
        // Dim, where that can be seen.
        let [dim, plain] = if err.is_terminal() {
            ["\x1b[2m", "\x1b[0m"]
        } else {
            [""; 2]
        };
        if delta.part == Part::Content {
            if std::mem::take(&mut self.aside) {
                tell("");
            }
            return print_said(&delta.text);
        }
        let begin = match &delta.part {
            Part::Call(name) if !self.aside => harmless(&format!("{name} ")),
            _ => String::new(),
        };
        self.aside = true;
        let _ = write!(err, "{dim}{begin}{}{plain}", harmless(&delta.text));
        Ok(())
    }
}

/// Prints a value as JSON, on one line or several.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Tells the user something that is no data.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The text of standard input; a person who may not know that it is read is told.
fn read_stdin(what: &str) -> anyhow::Result<String> {
    use anyhow::Context;
    if io::stdin().is_terminal() {
        tell(&format!(
            "type the {what}, and end it with Ctrl-D on a line of its own"
        ));
    }
    io::read_to_string(io::stdin()).context("cannot read standard input")
}

/// The file of a model by name, source or path.
fn model_file(name: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(name);
    if path.is_file() || path.join("config.json").is_file() {
        return Ok(path);
    }
    Ok(crate::hub::find(&crate::hub::Home::from_env()?, name)?)
}
