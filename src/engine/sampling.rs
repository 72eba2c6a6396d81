//! How a token is chosen.

use crate::kernel::sample::{ENDS, NONE, SamplerState};

/// How a token is chosen from the model's logits: penalties and bias first, then the temperature,
/// then the cuts top-k, top-p and min-p in this order, then the draw.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Divides the logits; 0 takes the best token.
    pub temperature: f32,
    /// Only the k best; 0 for all.
    pub top_k: u32,
    /// Only the best that together have this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens with this share of the best's probability; 0 for all.
    pub min_p: f32,
    /// Divides positive logits (multiplies negative) of tokens in the context; 1 for none.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens made before.
    pub presence_penalty: f32,
    /// Taken from them for each time they were made.
    pub frequency_penalty: f32,
    /// Added to the logits of some tokens: (id, bias).
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same text, on the same device and model.
    pub seed: u64,
    /// Tokens to make at most.
    pub max_tokens: usize,
    /// Go on after an end token.
    pub ignore_end: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            max_tokens: usize::MAX,
            ignore_end: false,
        }
    }
}

impl Sampling {
    pub(super) fn penalises(&self) -> bool {
        let off = |v: f32, none: f32| v.to_bits() == none.to_bits();
        !(off(self.repetition_penalty, 1.0)
            && off(self.presence_penalty, 0.0)
            && off(self.frequency_penalty, 0.0))
    }

    /// The device's form, with `made` tokens made of `limit`.
    pub(super) fn state(&self, made: usize, limit: usize, ends: &[u32]) -> SamplerState {
        let mut state = SamplerState {
            temperature: self.temperature.max(0.0),
            top_p: self.top_p.clamp(0.0, 1.0),
            min_p: self.min_p.clamp(0.0, 1.0),
            repetition: self.repetition_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            top_k: self.top_k,
            seed: [self.seed as u32, (self.seed >> 32) as u32],
            flags: u32::from(self.penalises()) | u32::from(!self.logit_bias.is_empty()) << 1,
            made: made as u32,
            limit: limit as u32,
            ends: [NONE; ENDS],
            candidates: 0,
        };
        if !self.ignore_end {
            for (to, end) in state.ends.iter_mut().zip(ends) {
                *to = *end;
            }
        }
        state
    }
}
