//! `omnimini perplexity` and `omnimini bench`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    ContextArgs, DeviceArgs, ModelArgs, count, model_file, print, print_json, progress, sentence,
    tell,
};
use crate::bench::{self, BenchResult, OperationTime, Test};
use crate::engine::{LoadOptions, Sequence, Timed};
use crate::format::Checkpoint;
use crate::gpu::Gpu;
use crate::session::Model;
use crate::text::Specials;

/// Arguments of `perplexity`.
#[derive(Debug, Args)]
pub(super) struct Perplexity {
    /// A text file.
    file: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tokens of a window; the second half of each is scored.
    #[arg(long, value_name = "N", default_value_t = 512)]
    ctx: usize,
    /// Windows to score at most; all when not given.
    #[arg(long, value_name = "K", value_parser = count())]
    chunks: Option<usize>,
    /// One JSON object; its fields are listed below.
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
        let model = progress::load(
            &self.model.model,
            &self.device.options(Some(n)),
            self.device.fit,
        )?;
        let ids = model.tokenizer().encode_text(&text, Specials::AsText);
        let windows = (ids.len() / n).min(self.chunks.unwrap_or(usize::MAX));
        anyhow::ensure!(
            windows > 0,
            "the text has {} tokens, fewer than one window of {n}; give a longer text or a smaller --ctx",
            ids.len()
        );
        let mut sequence = Sequence::new(model.engine())?;
        let (mut sum, mut scored) = (0.0, 0);
        for (i, window) in ids.chunks_exact(n).take(windows).enumerate() {
            let mut tokens = window.to_vec();
            if let Some(bos) = model.tokenizer().bos() {
                tokens[0] = bos;
            }
            let scores = pollster::block_on(sequence.score(&tokens, &window[1..], n / 2))?;
            sum -= scores.iter().map(|s| f64::from(*s)).sum::<f64>();
            scored += scores.len();
            let so_far = (sum / scored as f64).exp();
            tell(&format!("[{}/{windows}] {so_far:.4}", i + 1));
        }
        let report = PerplexityReport {
            perplexity: (sum / scored as f64).exp(),
            tokens: scored,
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

/// What `--adapter` takes for every adapter in turn.
const ALL: &str = "all";

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    /// Tokens of the prompt; repeatable, 0 for no such test.
    #[arg(short = 'p', long, value_name = "N", default_values_t = [512])]
    n_prompt: Vec<usize>,
    /// Tokens to make; repeatable, 0 for no such test.
    #[arg(short = 'n', long, visible_short_alias = 'g', value_name = "N", default_values_t = [128])]
    n_gen: Vec<usize>,
    /// Tokens in the cache before each test, filled without being computed; several by commas. A depth
    /// beyond the model's own context is measured all the same.
    #[arg(short = 'd', long, visible_alias = "depth", value_name = "N", value_delimiter = ',', default_values_t = [0])]
    n_depth: Vec<usize>,
    /// Repetitions of each test, after one that is not counted.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = count())]
    repetitions: usize,
    /// Where the time of a decode step and of a prompt chunk goes, launch by launch, instead.
    #[arg(long, conflicts_with = "output")]
    profile: bool,
    /// Form of the results.
    #[arg(short, long, value_name = "FORM", default_value = "md")]
    output: Output,
    /// The same as -o json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Bench {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        // What is wrong with the model is said once, and before anything is measured.
        Checkpoint::open(model_file(&self.model.model)?)?;
        let adapters: Vec<Option<String>> = if self.device.adapter.as_deref() == Some(ALL) {
            let all = pollster::block_on(crate::gpu::adapters());
            all.iter().map(|a| Some(a.index.to_string())).collect()
        } else {
            vec![self.device.adapter.clone()]
        };
        let (mut results, mut profiles, mut failed) = (Vec::new(), Vec::new(), None);
        for adapter in adapters {
            let device = DeviceArgs {
                adapter,
                ..self.device.clone()
            };
            let done = if self.profile {
                self.profile(&device).map(|p| profiles.extend(p))
            } else {
                self.measure(&device, &mut results)
            };
            // The others' results are wanted all the same.
            if let Err(e) = done
                && let Some(before) = failed.replace(e)
            {
                tell(&format!("omnimini: {}", sentence(&before)));
            }
        }
        match failed {
            Some(e) if results.is_empty() && profiles.is_empty() => return Err(e),
            _ => {}
        }
        if self.profile && self.json {
            print_json(&profiles)?;
        } else if self.profile {
            print(&bench::profile_markdown(&profiles))?;
        } else {
            match (self.json, self.output) {
                (true, _) | (_, Output::Json) => print_json(&results)?,
                (_, Output::Csv) => print(&bench::csv(&results))?,
                (_, Output::Md) => print(&bench::markdown(&results))?,
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Tokens of the longest test.
    fn longest(&self) -> usize {
        let sizes = self.n_prompt.iter().chain(&self.n_gen);
        let depth = self.n_depth.iter().max().unwrap_or(&0);
        sizes.max().unwrap_or(&1) + depth
    }

    fn load(&self, device: &DeviceArgs) -> anyhow::Result<Model> {
        let context = self.context.ctx.unwrap_or(self.longest().max(512));
        let options = LoadOptions {
            stretch: self.n_depth.iter().any(|d| *d > 0),
            ..device.options(Some(context))
        };
        progress::load(&self.model.model, &options, device.fit)
    }

    /// All tests on one adapter; what was measured before one fails is kept.
    fn measure(&self, device: &DeviceArgs, results: &mut Vec<BenchResult>) -> anyhow::Result<()> {
        // Before the model takes its memory.
        let gpu = pollster::block_on(Gpu::open(&device.options(None).device))?;
        let copy_gb_s = bench::copy_bandwidth(&gpu)?;
        tell(&format!("{}: copies {copy_gb_s:.1} GB/s", gpu.info));
        drop(gpu);
        let model = self.load(device)?;
        let file = model_file(&self.model.model)?;
        let at = |depth: usize| {
            let test = move |prompt, generate| Test {
                prompt,
                generate,
                depth,
            };
            let prompts = self.n_prompt.iter().map(move |n| test(*n, 0));
            prompts.chain(self.n_gen.iter().map(move |n| test(0, *n)))
        };
        for test in self.n_depth.iter().copied().flat_map(at) {
            if test.prompt + test.generate == 0 {
                continue;
            }
            let result = bench::run(&model, &file, test, self.repetitions, copy_gb_s)?;
            tell(&format!("{test}: {:.2} tokens/s", result.avg_ts));
            results.push(result);
        }
        Ok(())
    }

    fn profile(&self, device: &DeviceArgs) -> anyhow::Result<Vec<OperationTime>> {
        let model = self.load(device)?;
        let depth = match self.n_depth.iter().max() {
            None | Some(0) => self.longest() / 2,
            Some(depth) => *depth,
        };
        let steps = [
            (
                format!("one token at position {depth}"),
                Timed::Decode { depth },
            ),
            ("a chunk of a prompt".into(), Timed::Prompt),
        ];
        let mut profile = Vec::new();
        for (title, step) in steps {
            let times = pollster::block_on(model.engine().profile(step, self.repetitions))?;
            profile.extend(bench::operations(&title, &times));
        }
        Ok(profile)
    }
}
