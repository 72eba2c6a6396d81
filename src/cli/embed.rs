//! `omnimini embed`: texts to vectors.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{ContextArgs, DeviceArgs, ModelArgs, print, print_said, progress, read_stdin, tell};
use crate::model::Pooling;
use crate::session::{EmbedOptions, Embedding};

/// How a text's tokens become one vector.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// The mean of all.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

/// Arguments of `embed`.
#[derive(Debug, Args)]
pub(super) struct Embed {
    /// The texts; where there is none, the lines of standard input.
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    /// Read the texts from a file, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// How a text's tokens become one vector; as the model says when not given.
    #[arg(long, value_name = "HOW")]
    pooling: Option<PoolingArg>,
    /// Cut texts that are too long, rather than fail.
    #[arg(long)]
    truncate: bool,
    /// How alike the texts are instead, from -1 to 1: each with each.
    #[arg(long, conflicts_with = "json")]
    similarity: bool,
    /// A JSON array instead; its fields are listed below.
    #[arg(long)]
    json: bool,
}

/// What `embed --json` prints of a text.
#[derive(Debug, Serialize)]
struct Report<'e> {
    index: usize,
    embedding: &'e [f32],
    tokens: usize,
    cut: usize,
}

impl Embed {
    fn texts(&self) -> anyhow::Result<Vec<String>> {
        let lines = match self.file.as_deref() {
            None if !self.texts.is_empty() => return Ok(self.texts.clone()),
            Some(file) if file != Path::new("-") => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?,
            _ => read_stdin("texts, one a line")?,
        };
        Ok(lines.lines().map(str::to_owned).collect())
    }

    pub(super) fn run(&self) -> anyhow::Result<()> {
        let texts = self.texts()?;
        anyhow::ensure!(!texts.is_empty(), "there is no text to embed; give one");
        anyhow::ensure!(
            texts.len() > 1 || !self.similarity,
            "--similarity compares texts, and there is one; give two or more"
        );
        let device = self.device.options(self.context.ctx);
        let model = progress::load(&self.model.model, &device, self.device.fit)?;
        let description = model.engine().model();
        if self.pooling.is_none() && description.config.pooling.is_none() {
            let taken = match description.pooling() {
                Pooling::Mean => "the mean of its tokens' states is",
                Pooling::Cls => "its first token's state is",
                Pooling::Last => "its last token's state is",
            };
            tell(&format!(
                "this model does not say how it makes vectors, so it may not be made for that: {taken} taken \
                 (--pooling changes it)"
            ));
        }
        let options = EmbedOptions {
            pooling: self.pooling.map(|p| match p {
                PoolingArg::Mean => Pooling::Mean,
                PoolingArg::Cls => Pooling::Cls,
                PoolingArg::Last => Pooling::Last,
            }),
            truncate: self.truncate,
        };
        let words: Vec<&str> = texts.iter().map(String::as_str).collect();
        let began = Instant::now();
        let made = model.embed(&words, &options)?;
        let seconds = began.elapsed().as_secs_f64();
        for (number, text) in (1..).zip(&made).filter(|(_, e)| e.cut > 0) {
            tell(&format!(
                "text {number} was cut: {} of its tokens are left out",
                text.cut
            ));
        }
        if self.similarity {
            print_said(&matrix(&texts, &made))?;
        } else if self.json {
            print(&json(&made)?)?;
        } else {
            for text in &made {
                let numbers: Vec<String> = text.vector.iter().map(f32::to_string).collect();
                print(&(numbers.join(" ") + "\n"))?;
            }
        }
        let tokens: usize = made.iter().map(|e| e.tokens).sum();
        tell(&format!(
            "{} texts, {tokens} tokens, {:.1} tokens/s; {}",
            made.len(),
            tokens as f64 / seconds.max(1e-9),
            model.engine().gpu().info
        ));
        Ok(())
    }
}

/// An array with a line for each text: a vector would be hundreds of lines otherwise.
fn json(made: &[Embedding]) -> anyhow::Result<String> {
    let mut rows = Vec::with_capacity(made.len());
    for (index, text) in made.iter().enumerate() {
        rows.push(serde_json::to_string(&Report {
            index,
            embedding: &text.vector,
            tokens: text.tokens,
            cut: text.cut,
        })?);
    }
    Ok(format!("[\n{}\n]\n", rows.join(",\n")))
}

/// Characters of a text that stand beside its row.
const SHOWN: usize = 48;

/// How alike each text is to each, a row for each with its beginning.
fn matrix(texts: &[String], made: &[Embedding]) -> String {
    let mut out = "   ".to_string();
    for number in 1..=made.len() {
        let _ = write!(out, " {number:>6}");
    }
    out.push('\n');
    for (number, (text, a)) in (1..).zip(texts.iter().zip(made)) {
        let _ = write!(out, "{number:>3}");
        for b in made {
            let _ = write!(out, " {:>6.3}", a.similarity(b));
        }
        let line = text.lines().next().unwrap_or_default();
        let mut shown: String = line.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        let _ = writeln!(out, "  {shown}");
    }
    out
}
