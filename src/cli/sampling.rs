//! The options by which tokens are chosen, and the numbers they take.

use clap::Args;

use crate::engine::Sampling;

/// How tokens are chosen.
#[derive(Clone, Debug, Args)]
pub(super) struct SamplingArgs {
    /// Tokens to make at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1024, value_parser = super::count())]
    max_tokens: usize,
    /// Randomness; 0 always takes the best token.
    #[arg(short, long, default_value_t = 0.0, value_parser = within(0.0, 100.0), allow_negative_numbers = true)]
    temperature: f32,
    /// Only the K best tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Only the best tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = within(0.0, 1.0), allow_negative_numbers = true)]
    top_p: f32,
    /// Only tokens with this share of the best one's probability.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = within(0.0, 1.0), allow_negative_numbers = true)]
    min_p: f32,
    /// Divides the logits of tokens seen; 1 for none.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = within(0.01, 100.0))]
    repetition_penalty: f32,
    /// Taken from the logits of tokens made before.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = within(-100.0, 100.0), allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken from them for each time they were made.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = within(-100.0, 100.0), allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Added to the logit of a token, such as 42=-100 to ban token 42; repeatable.
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws: the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            max_tokens: self.max_tokens,
            ..Sampling::default()
        }
    }
}

/// Parses a number from `least` to `most`.
fn within(
    least: f32,
    most: f32,
) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("give a number from {least} to {most}")),
    }
}

/// Parses `ID=BIAS`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)))
        .filter(|(_, bias): &(u32, f32)| bias.is_finite());
    parsed.ok_or_else(|| "give a token's id and a number, such as 42=-100".into())
}
