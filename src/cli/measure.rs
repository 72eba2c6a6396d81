//! `omnimini perplexity` and `omnimini bench`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{DeviceArgs, ModelArgs, model_file, print, print_json, progress, tell};
use crate::bench::{self, Test};
use crate::engine::{Sequence, Timed};
use crate::session::Model;
use crate::text::Specials;

/// Arguments of `perplexity`.
#[derive(Debug, Args)]
pub(super) struct Perplexity {
    /// A text file.
    file: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// The adapter: a number of `omnimini devices`, or a part of its name.
    #[arg(long, env = "OMNIMINI_ADAPTER")]
    adapter: Option<String>,
    /// Tokens of a window; the second half of each is scored.
    #[arg(long, value_name = "N", default_value_t = 512)]
    ctx: usize,
    /// Windows to score at most; all when not given.
    #[arg(long, value_name = "K")]
    chunks: Option<usize>,
    /// One JSON object: perplexity, tokens.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct PerplexityReport {
    perplexity: f64,
    tokens: usize,
}

impl Perplexity {
    /// llama.cpp's definition: the text is cut into windows of N tokens, the first of each replaced
    /// by the beginning-of-text token where the model has one, and tokens N/2 + 1 .. N scored.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let n = self.ctx;
        anyhow::ensure!(
            n >= 4,
            "a window of {n} tokens is too short; give --ctx 4 or more"
        );
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let device = DeviceArgs {
            adapter: self.adapter.clone(),
            ctx: Some(n),
            kv: "f16".into(),
        };
        let model = progress::load(&self.model.model, &device.options())?;
        let ids = model.tokenizer().encode_text(&text, Specials::AsText);
        let windows = (ids.len() / n).min(self.chunks.unwrap_or(usize::MAX));
        anyhow::ensure!(
            windows > 0,
            "the text has {} tokens, fewer than one window of {n}; give a longer text or a smaller --ctx",
            ids.len()
        );
        let mut sequence = Sequence::new(model.engine())?;
        let (mut sum, mut count) = (0.0, 0);
        for (i, window) in ids.chunks_exact(n).take(windows).enumerate() {
            let mut tokens = window.to_vec();
            if let Some(bos) = model.tokenizer().bos() {
                tokens[0] = bos;
            }
            let scores = pollster::block_on(sequence.score(&tokens, &window[1..], n / 2))?;
            sum -= scores.iter().map(|s| f64::from(*s)).sum::<f64>();
            count += scores.len();
            if !self.json {
                tell(&format!(
                    "[{}/{windows}] {:.4}",
                    i + 1,
                    (sum / count as f64).exp()
                ));
            }
        }
        let report = PerplexityReport {
            perplexity: (sum / count as f64).exp(),
            tokens: count,
        };
        if self.json {
            return print_json(&report);
        }
        print(&format!(
            "perplexity {:.4} over {} tokens\n",
            report.perplexity, report.tokens
        ))
    }
}

/// How `bench` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
    Csv,
    Md,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tokens of the prompt; repeatable.
    #[arg(short = 'p', long, value_name = "N", default_values_t = [512])]
    n_prompt: Vec<usize>,
    /// Tokens to make; repeatable.
    #[arg(short = 'g', long, value_name = "N", default_values_t = [128])]
    n_gen: Vec<usize>,
    /// Repetitions of each test, after one that is not counted.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Every adapter in turn.
    #[arg(long, conflicts_with = "adapter")]
    all: bool,
    /// Where the time of a decode step and of a prompt chunk goes, launch by launch, instead.
    #[arg(long, conflicts_with = "output")]
    profile: bool,
    /// Form of the results.
    #[arg(short, long, value_name = "FORM", default_value = "md")]
    output: Output,
}

impl Bench {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let file = model_file(&self.model.model)?;
        let tests: Vec<Test> = self
            .n_prompt
            .iter()
            .filter(|n| **n > 0)
            .map(|n| Test {
                prompt: *n,
                generate: 0,
            })
            .chain(self.n_gen.iter().filter(|n| **n > 0).map(|n| Test {
                prompt: 0,
                generate: *n,
            }))
            .collect();
        let adapters: Vec<Option<String>> = if self.all {
            let all = pollster::block_on(crate::gpu::adapters());
            all.iter().map(|a| Some(a.index.to_string())).collect()
        } else {
            vec![self.device.adapter.clone()]
        };
        let mut results = Vec::new();
        for adapter in adapters {
            let device = DeviceArgs {
                adapter,
                ..self.device.clone()
            };
            let mut options = device.options();
            let longest = tests
                .iter()
                .map(|t| t.prompt + t.generate)
                .max()
                .unwrap_or(1);
            options.context = options.context.or(Some(longest.max(512)));
            let model = progress::load(&self.model.model, &options)?;
            if self.profile {
                self.profile(&model, longest)?;
                continue;
            }
            for test in &tests {
                results.push(bench::run(&model, &file, *test, self.repetitions)?);
            }
        }
        if self.profile {
            return Ok(());
        }
        match self.output {
            Output::Json => print_json(&results),
            Output::Csv => print(&bench::csv(&results)),
            Output::Md => print(&bench::markdown(&results)),
        }
    }

    fn profile(&self, model: &Model, longest: usize) -> anyhow::Result<()> {
        let depth = longest / 2;
        let steps = [
            (
                format!("one token at position {depth}"),
                Timed::Decode { depth },
            ),
            ("a chunk of a prompt".into(), Timed::Prompt),
        ];
        for (title, step) in steps {
            let times = pollster::block_on(model.engine().profile(step, self.repetitions))?;
            print(&bench::profile_markdown(&title, &times))?;
            print("\n")?;
        }
        Ok(())
    }
}
