//! `omnimini run`: one prompt, one answer.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::sampling::SamplingArgs;
use super::{
    ContextArgs, DeviceArgs, ModelArgs, Voice, print, print_json, progress, read_stdin, tell,
};
use crate::engine::TokenLogprob;
use crate::session::{FinishReason, Options, Timings, Usage};
use crate::text::{Effort, Part, Specials};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Run {
    /// The prompt; `-` or nothing reads standard input.
    prompt: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instructions that come before the prompt.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Read the prompt from a file, as it is.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// No chat template: the model goes on with the text.
    #[arg(long)]
    raw: bool,
    /// With --raw, control tokens written in the prompt are parsed.
    #[arg(long, requires = "raw")]
    special: bool,
    /// End the answer at this text; repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How long the model thinks before it answers, where it can be told: none, low, medium or high.
    #[arg(long, value_name = "EFFORT", conflicts_with = "raw")]
    reasoning_effort: Option<Effort>,
    /// With --json: log-probabilities of each token and of the K best.
    #[arg(long, value_name = "K", requires = "json")]
    logprobs: Option<usize>,
    /// Go on after an end token.
    #[arg(long)]
    ignore_end: bool,
    /// One JSON object instead of the text as it is made; its fields are listed below.
    #[arg(long)]
    json: bool,
}

/// What `run --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning: String,
    tokens: Vec<u32>,
    finish_reason: Option<FinishReason>,
    usage: Usage,
    timings: Timings,
    adapter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprob>>,
}

impl Run {
    fn prompt(&self) -> anyhow::Result<String> {
        if let Some(file) = &self.prompt_file {
            return std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()));
        }
        match self.prompt.as_deref() {
            Some(prompt) if prompt != "-" => Ok(prompt.into()),
            _ => {
                let mut text = read_stdin("prompt")?;
                // The line break that ends a program's output is no part of what is asked.
                if !self.raw {
                    text.truncate(text.trim_end_matches(['\r', '\n']).len());
                }
                Ok(text)
            }
        }
    }

    pub(super) fn run(&self) -> anyhow::Result<()> {
        let prompt = self.prompt()?;
        let device = self.device.options(self.context.ctx);
        let model = progress::load(&self.model.model, &device, self.device.fit)?;
        let mut session = model.session()?;
        let mut options = Options {
            sampling: self.sampling.sampling(),
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            effort: self.reasoning_effort,
            ..Options::default()
        };
        options.sampling.ignore_end = self.ignore_end;
        let mut answer = if self.raw || model.template().is_none() {
            if !self.raw {
                tell("this model has no chat template: it goes on with the text, as with --raw");
            }
            let specials = if self.special {
                Specials::Parse
            } else {
                Specials::AsText
            };
            let ids = model.tokenizer().encode_text(&prompt, specials);
            session.complete(&ids, &options)?
        } else {
            session.system(self.system.as_deref().unwrap_or_default());
            session.ask(&prompt, &options)?
        };
        let (mut text, mut reasoning) = (String::new(), String::new());
        let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
        let mut voice = Voice::new();
        while let Some(delta) = answer.next()? {
            if self.json {
                match delta.part {
                    Part::Reasoning => reasoning.push_str(&delta.text),
                    Part::Content | Part::Call(_) => text.push_str(&delta.text),
                }
                tokens.extend(delta.token);
                logprobs.extend(delta.logprob);
            } else {
                voice.say(&delta)?;
            }
        }
        let (usage, timings) = (answer.usage(), answer.timings());
        if self.json {
            return print_json(&Report {
                text,
                reasoning: reasoning.trim_end().into(),
                tokens,
                finish_reason: answer.finish_reason(),
                usage,
                timings,
                adapter: model.engine().gpu().info.to_string(),
                logprobs: self.logprobs.map(|_| logprobs),
            });
        }
        print("\n")?;
        let cut = match answer.finish_reason() {
            Some(FinishReason::Length) => ", cut there",
            _ => "",
        };
        tell(&format!(
            "{} tokens{cut}, {:.1} tokens/s; prompt {} tokens, {:.1} tokens/s; {}",
            usage.completion_tokens,
            timings.generation_per_second,
            usage.prompt_tokens,
            timings.prompt_per_second,
            model.engine().gpu().info
        ));
        Ok(())
    }
}
