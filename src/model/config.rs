//! A model's numbers, from its metadata.

use std::borrow::Cow;

use super::archs::Arch;
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::graph::Sharpen;
use crate::rope::{RopeSpec, Scaling, dynamic_base, longrope_amplitude, yarn_amplitude};

/// A model's numbers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Config {
    /// Architecture.
    pub arch: &'static str,
    /// Its own name, where it has one.
    pub name: String,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Context it was trained for, tokens.
    pub context: usize,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Factor of the embedding.
    pub embed_scale: f32,
    /// Factor of what a block adds to the residual stream.
    pub residual_scale: f32,
    /// What logits are divided by.
    pub logit_scale: f32,
    /// Factor of attention scores.
    pub attn_scale: f32,
    /// Cap of attention scores.
    pub attn_softcap: Option<f32>,
    /// Cap of logits.
    pub logit_softcap: Option<f32>,
    /// Scores of late tokens grow.
    pub sharpen: Option<Sharpen>,
    /// Rotary base.
    pub rope_base: f64,
    /// Rotary base of the layers with a window.
    pub rope_base_local: f64,
    /// Rotating elements of a head.
    pub rope_dims: usize,
    /// How rotation was stretched (of layers without a window, as a rule).
    pub rope_scaling: RopeScaling,
    /// Sliding window, positions.
    pub window: Option<u32>,
    /// Layers that see only the window.
    pub local_layers: Vec<bool>,
    /// Layers that rotate.
    pub turning_layers: Vec<bool>,
    /// Experts, where feed-forward blocks have any.
    pub experts: Option<Experts>,
    /// Each token sees those before it and itself; where not, all of a text.
    pub causal: bool,
    /// How its makers make one vector of a text, where they say.
    pub pooling: Option<Pooling>,
    /// Tokens of the longest text that its makers give it: the context, where they say nothing else.
    pub longest_text: usize,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's: BERT's `[CLS]`.
    Cls,
    /// The last token's, which in a decoder has seen all others.
    Last,
}

impl Pooling {
    /// GGUF's numbers; there are others, for none and for models that rank.
    fn of_number(number: u32) -> Option<Self> {
        [None, Some(Self::Mean), Some(Self::Cls), Some(Self::Last)]
            .get(number as usize)
            .copied()
            .flatten()
    }
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Experts {
    /// Experts in a block.
    pub count: usize,
    /// How many a token goes through.
    pub used: usize,
    /// Width of one.
    pub ffn: usize,
    /// Their weights sum to one.
    pub renormalise: bool,
}

/// How the rotation was stretched.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by this.
    Linear(f64),
    /// The base grows with the context.
    Dynamic {
        /// How many times.
        factor: f64,
        /// Context before.
        original: f64,
    },
    /// See [`Scaling::Yarn`].
    Yarn {
        /// How many times.
        factor: f64,
        /// Context before.
        original: f64,
        /// Turns from which on a pair is fast.
        beta_fast: f64,
        /// Turns below which a pair is slow.
        beta_slow: f64,
        /// The ramp begins and ends at whole pairs.
        truncate: bool,
        /// Factor of the turned elements.
        amplitude: f64,
    },
    /// Each frequency is divided by its own number: tensor `rope_freqs.weight`.
    Divisors,
    /// The same by `rope_factors_short.weight` or, for a context longer than the original, by
    /// `rope_factors_long.weight`.
    LongRope {
        /// Context before.
        original: f64,
        /// Factor of the turned elements.
        amplitude: f64,
    },
}

/// The metadata of one architecture, read with limits.
struct Keys<'a> {
    checkpoint: &'a Checkpoint,
    arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, k: &str) -> String {
        format!("{}.{k}", self.arch)
    }

    fn has(&self, k: &str) -> bool {
        self.checkpoint.meta.value(&self.key(k)).is_some()
    }

    fn size(&self, k: &str, most: usize) -> Result<usize> {
        let value = self.checkpoint.meta.u32(&self.key(k))? as usize;
        if value == 0 || value > most {
            return Err(Error::Config {
                key: self.key(k),
                value: value.to_string(),
                want: "a size that a model can have",
            });
        }
        Ok(value)
    }

    fn size_or(&self, k: &str, most: usize, default: usize) -> Result<usize> {
        if self.has(k) {
            self.size(k, most)
        } else {
            Ok(default)
        }
    }

    fn float(&self, k: &str, default: f32) -> Result<f32> {
        Ok(self.checkpoint.meta.find(&self.key(k))?.unwrap_or(default))
    }

    /// A factor that means nothing where it is zero or absent.
    fn positive(&self, k: &str) -> Result<Option<f32>> {
        let value = self.float(k, 0.0)?;
        Ok((value > 0.0).then_some(value))
    }
}

impl Config {
    /// Reads the numbers of a checkpoint of this architecture.
    ///
    /// # Errors
    /// Where a key is missing, of another type, or says what no model can have.
    pub(super) fn new(arch: &Arch, checkpoint: &Checkpoint) -> Result<Self> {
        let keys = Keys {
            checkpoint,
            arch: arch.name,
        };
        let layers = keys.size("block_count", 4096)?;
        let width = keys.size("embedding_length", 1 << 20)?;
        let heads = keys.size("attention.head_count", 4096)?;
        let kv_heads = keys.size_or("attention.head_count_kv", 4096, heads)?;
        let head_dim = keys.size_or("attention.key_length", 1024, width / heads)?;
        let context = keys.size("context_length", 1 << 30)?;
        let rope_base = f64::from(keys.float("rope.freq_base", 10_000.0)?);
        let window = match keys
            .checkpoint
            .meta
            .find::<u32>(&keys.key("attention.sliding_window"))?
        {
            // Some writers put zero where there is no window.
            None | Some(0) => None,
            Some(window) => Some(window.min(1 << 30)),
        };
        let wide = arch.wide_scale == Some(layers);
        let per_head = if wide { width / heads } else { head_dim };
        let experts = match keys.size_or("expert_count", 4096, 0)? {
            0 => None,
            count => Some(Experts {
                count,
                used: keys.size("expert_used_count", count)?,
                ffn: if keys.has("expert_feed_forward_length") {
                    keys.size("expert_feed_forward_length", 1 << 20)?
                } else {
                    keys.size("feed_forward_length", 1 << 20)?
                },
                renormalise: keys
                    .checkpoint
                    .meta
                    .find(&keys.key("expert_weights_norm"))?
                    .unwrap_or(true),
            }),
        };
        let embed_scale = if arch.embed_scale {
            (width as f32).sqrt()
        } else {
            1.0
        };
        let sharpen = match keys.positive("attention.temperature_scale")? {
            Some(beta) => Some(Sharpen {
                beta,
                original: keys.size("rope.scaling.original_context_length", 1 << 30)? as u32,
            }),
            None => None,
        };
        let table = checkpoint.need("token_embd.weight")?;
        let name = checkpoint.meta.str("general.name").unwrap_or(arch.name);
        let config = Self {
            arch: arch.name,
            name: name.into(),
            layers,
            width,
            heads,
            kv_heads,
            head_dim,
            ffn: match &experts {
                Some(e) => keys.size_or("feed_forward_length", 1 << 20, e.ffn)?,
                None => keys.size("feed_forward_length", 1 << 20)?,
            },
            vocab: table.rows_cols().0,
            context,
            eps: if arch.encoder {
                keys.float("attention.layer_norm_epsilon", 1e-12)?
            } else {
                keys.float("attention.layer_norm_rms_epsilon", 1e-5)?
            },
            embed_scale: keys.positive("embedding_scale")?.unwrap_or(embed_scale),
            residual_scale: keys.positive("residual_scale")?.unwrap_or(1.0),
            logit_scale: keys.positive("logit_scale")?.unwrap_or(1.0),
            attn_scale: keys
                .positive("attention.scale")?
                .unwrap_or_else(|| (per_head as f32).sqrt().recip()),
            attn_softcap: keys.positive("attn_logit_softcapping")?,
            logit_softcap: keys.positive("final_logit_softcapping")?,
            sharpen,
            rope_base,
            rope_base_local: match keys.positive("rope.freq_base_swa")? {
                Some(base) => f64::from(base),
                None => arch.local_base.unwrap_or(rope_base),
            },
            rope_dims: keys.size_or("rope.dimension_count", head_dim, head_dim)?,
            rope_scaling: scaling(&keys, arch, context)?,
            local_layers: local_layers(&keys, arch, layers, window)?,
            turning_layers: turning_layers(&keys, arch, layers)?,
            window,
            experts,
            causal: keys
                .checkpoint
                .meta
                .find(&keys.key("attention.causal"))?
                .unwrap_or(!arch.encoder),
            pooling: keys
                .checkpoint
                .meta
                .find(&keys.key("pooling_type"))?
                .and_then(Pooling::of_number),
            longest_text: keys
                .size_or(crate::format::LONGEST_TEXT, 1 << 30, context)?
                .min(context),
        };
        config.check()?;
        Ok(config)
    }

    /// What the kernels count on.
    fn check(&self) -> Result<()> {
        let kv = self.kv_heads;
        let dims = self.head_dim;
        let cols = self.heads * dims;
        let expert_ffn = self.experts.map_or(32, |e| e.ffn);
        // Whether it holds, key, value, what would.
        let rules = [
            (
                self.heads.is_multiple_of(kv),
                "attention.head_count_kv",
                kv,
                "a divisor of the heads",
            ),
            (
                dims.is_multiple_of(4),
                "attention.key_length",
                dims,
                "a multiple of 4",
            ),
            (
                self.rope_dims.is_multiple_of(2),
                "rope.dimension_count",
                self.rope_dims,
                "even",
            ),
            (
                self.width.is_multiple_of(32),
                "embedding_length",
                self.width,
                "a multiple of 32",
            ),
            (
                self.ffn.is_multiple_of(32),
                "feed_forward_length",
                self.ffn,
                "a multiple of 32",
            ),
            (
                expert_ffn.is_multiple_of(32),
                "expert_feed_forward_length",
                expert_ffn,
                "a multiple of 32",
            ),
            (
                cols.is_multiple_of(32),
                "attention.head_count",
                self.heads,
                "heads of 32 elements in all",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some((_, key, value, want)) => Err(Error::Config {
                key: format!("{}.{key}", self.arch),
                value: value.to_string(),
                want,
            }),
        }
    }

    /// The rotation of a layer, for sequences of up to `context` tokens.
    ///
    /// Dynamic and LongRoPE scaling depend on how long a text is. It is the context that decides here,
    /// once for all: the cache keeps keys as they were turned.
    ///
    /// # Errors
    /// Where a tensor of divisors is missing or of another length.
    pub(super) fn rope(
        &self,
        arch: &Arch,
        checkpoint: &Checkpoint,
        local: bool,
        context: usize,
    ) -> Result<RopeSpec> {
        let base = if local {
            self.rope_base_local
        } else {
            self.rope_base
        };
        let mut rope = RopeSpec::plain(self.rope_dims, arch.neox, base);
        if local && !arch.local_scaled {
            return Ok(rope);
        }
        let divisors = |name: &str| -> Result<Scaling> {
            let info = checkpoint.need(name)?;
            if info.shape != [self.rope_dims / 2] {
                return Err(Error::Shape {
                    tensor: name.into(),
                    want: vec![self.rope_dims / 2],
                    got: info.shape.clone(),
                });
            }
            let values = crate::quant::dequantize(info.dtype, &checkpoint.data(info)?)?;
            Ok(Scaling::Divisors(values))
        };
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear(factor) => rope.scaling = Scaling::Linear(factor),
            RopeScaling::Dynamic { factor, original } => {
                rope.base = dynamic_base(base, rope.dims, factor, original, context as f64);
            }
            RopeScaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                amplitude,
                truncate,
            } => {
                rope.amplitude = amplitude;
                rope.scaling = Scaling::Yarn {
                    factor,
                    original,
                    beta_fast,
                    beta_slow,
                    truncate,
                };
            }
            RopeScaling::Divisors => rope.scaling = divisors("rope_freqs.weight")?,
            RopeScaling::LongRope {
                original,
                amplitude,
            } => {
                rope.amplitude = amplitude;
                rope.scaling = divisors(if context as f64 > original {
                    "rope_factors_long.weight"
                } else {
                    "rope_factors_short.weight"
                })?;
            }
        }
        Ok(rope)
    }
}

/// Which layers see only the window: a pattern of the file's own, or the architecture's.
fn local_layers(
    keys: &Keys<'_>,
    arch: &Arch,
    layers: usize,
    window: Option<u32>,
) -> Result<Vec<bool>> {
    if window.is_none() {
        return Ok(vec![false; layers]);
    }
    let key = keys.key("attention.sliding_window_pattern");
    let meta = &keys.checkpoint.meta;
    let period = match meta.value(&key) {
        Some(crate::format::Value::Array(array)) => {
            let crate::format::Array::Bool(pattern) = array else {
                return Err(Error::KeyType {
                    key,
                    want: "a flag for each layer",
                    got: "another array".into(),
                });
            };
            let mut pattern = pattern.clone();
            pattern.resize(layers, false);
            return Ok(pattern);
        }
        Some(_) => Some(meta.u32(&key)? as usize).filter(|p| *p > 0),
        None => arch.window_period,
    };
    let local = |layer: usize| period.is_none_or(|p| !(layer + 1).is_multiple_of(p));
    Ok((0..layers).map(local).collect())
}

/// Which layers rotate: a pattern of the file's own, or the architecture's.
fn turning_layers(keys: &Keys<'_>, arch: &Arch, layers: usize) -> Result<Vec<bool>> {
    let key = keys.key("attention.rope_pattern");
    if let Some(pattern) = keys.checkpoint.meta.find::<Cow<'_, [bool]>>(&key)? {
        let mut pattern = pattern.into_owned();
        pattern.resize(layers, true);
        return Ok(pattern);
    }
    let period = arch.rope_period;
    let turns = |layer: usize| period.is_none_or(|p| !(layer + 1).is_multiple_of(p));
    Ok((0..layers).map(turns).collect())
}

/// How the file says that rotation is stretched.
fn scaling(keys: &Keys<'_>, arch: &Arch, context: usize) -> Result<RopeScaling> {
    let key = keys.key("rope.scaling.type");
    let kind = keys.checkpoint.meta.find::<&str>(&key)?.unwrap_or("none");
    let factor = f64::from(keys.positive("rope.scaling.factor")?.unwrap_or(1.0));
    let original = || -> Result<f64> {
        Ok(keys.size_or("rope.scaling.original_context_length", 1 << 30, context)? as f64)
    };
    let tensor = |name: &str| keys.checkpoint.tensor(name).is_some();
    // Files with divisors do not always name a type.
    if tensor("rope_freqs.weight") {
        return Ok(RopeScaling::Divisors);
    }
    if tensor("rope_factors_long.weight") {
        let original = original()?;
        let amplitude = match keys.positive("rope.scaling.attn_factor")? {
            Some(amplitude) => f64::from(amplitude),
            None => longrope_amplitude(context as f64 / original, original),
        };
        return Ok(RopeScaling::LongRope {
            original,
            amplitude,
        });
    }
    Ok(match kind {
        // A key of our own: to programs that do not know it the file is right up to the original length.
        "none" => match keys.positive("rope.scaling.dynamic_factor")? {
            None => RopeScaling::None,
            Some(factor) => RopeScaling::Dynamic {
                factor: f64::from(factor),
                original: original()?,
            },
        },
        "linear" => RopeScaling::Linear(factor),
        "yarn" => {
            let full = yarn_amplitude(factor, 1.0);
            let log = keys.positive("rope.scaling.yarn_log_multiplier")?;
            let amplitude = match (keys.positive("rope.scaling.yarn_attn_factor")?, log) {
                (Some(amplitude), _) => f64::from(amplitude),
                (None, Some(m)) => full / yarn_amplitude(factor, f64::from(m)),
                (None, None) => full,
            };
            let more = f64::from(keys.float("rope.scaling.attn_factor", 1.0)?);
            RopeScaling::Yarn {
                factor,
                original: original()?,
                beta_fast: f64::from(keys.float("rope.scaling.yarn_beta_fast", 32.0)?),
                beta_slow: f64::from(keys.float("rope.scaling.yarn_beta_slow", 1.0)?),
                amplitude: amplitude * more,
                truncate: keys
                    .checkpoint
                    .meta
                    .find(&keys.key("rope.scaling.yarn_truncate"))?
                    .unwrap_or(arch.yarn_truncate),
            }
        }
        other => {
            return Err(Error::Config {
                key,
                value: format!("`{other}`"),
                want: "one of none, linear, yarn, longrope (with its factors' tensors)",
            });
        }
    })
}
