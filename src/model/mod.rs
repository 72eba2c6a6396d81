//! Model descriptions: metadata to a config, a config to a graph.
//!
//! [`ARCHS`] has a row for each architecture; what a model has beyond its row (norms of q and k,
//! norms after blocks, biases, its own output matrix) is seen from the tensors that are there.

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::graph::{Act, Attention, Graph, NodeId, RopeSpec, VectorId, WeightId, WeightSpec};
use crate::quant::Format;

/// What an architecture is, as far as its metadata does not say.
#[derive(Debug)]
pub struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    /// Activation of the feed-forward block.
    pub act: Act,
    /// Rotating pairs are halves of the head apart, rather than neighbours.
    pub neox: bool,
    /// The embedding is multiplied by sqrt(width).
    pub embed_scale: bool,
    /// Layers with a sliding window come in periods: all but the last of each.
    pub window_period: Option<usize>,
    /// Rotary base of the layers with a window, where it is another.
    pub local_base: Option<f64>,
    /// Name of the norm before the feed-forward block.
    pub ffn_norm: &'static str,
}

/// Every architecture we know.
pub const ARCHS: &[Arch] = &[
    Arch {
        name: "llama",
        act: Act::Silu,
        neox: false,
        embed_scale: false,
        window_period: None,
        local_base: None,
        ffn_norm: "ffn_norm",
    },
    Arch {
        name: "gemma3",
        act: Act::GeluTanh,
        neox: true,
        embed_scale: true,
        window_period: Some(6),
        local_base: Some(10_000.0),
        ffn_norm: "ffn_norm",
    },
];

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
    /// Rotary base.
    pub rope_base: f64,
    /// Rotating elements of a head.
    pub rope_dims: usize,
    /// Linear scaling of positions (of layers without a window).
    pub rope_scale: f64,
    /// Sliding window, positions.
    pub window: Option<u32>,
    /// Cap of attention scores.
    pub attn_softcap: Option<f32>,
    /// Cap of logits.
    pub logit_softcap: Option<f32>,
}

/// Which tokens get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The last of a step.
    Last,
    /// Every one.
    All,
}

/// A model: its row and its numbers.
#[derive(Clone, Debug)]
pub struct Description {
    /// Row of the table.
    pub arch: &'static Arch,
    /// Numbers.
    pub config: Config,
}

impl Description {
    /// Reads a checkpoint's description.
    ///
    /// # Errors
    /// [`Error::Architecture`] for one we do not know; [`Error::Config`] for numbers that make no
    /// model.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let meta = &checkpoint.meta;
        let name = meta.str("general.architecture")?;
        let arch = ARCHS
            .iter()
            .find(|a| a.name == name)
            .ok_or_else(|| Error::Architecture {
                name: name.into(),
                known: ARCHS.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
            })?;
        let key = |k: &str| format!("{name}.{k}");
        let size = |k: &str, most: usize| -> Result<usize> {
            let value = meta.u32(&key(k))? as usize;
            within(&key(k), value, most)?;
            Ok(value)
        };
        let optional = |k: &str| meta.value(&key(k)).is_some();
        let layers = size("block_count", 4096)?;
        let width = size("embedding_length", 1 << 20)?;
        let heads = size("attention.head_count", 4096)?;
        let kv_heads = if optional("attention.head_count_kv") {
            size("attention.head_count_kv", 4096)?
        } else {
            heads
        };
        let head_dim = if optional("attention.key_length") {
            size("attention.key_length", 1024)?
        } else {
            width / heads
        };
        let rope_dims = if optional("rope.dimension_count") {
            size("rope.dimension_count", head_dim)?
        } else {
            head_dim
        };
        let float = |k: &str, default: f32| -> Result<f32> {
            if optional(k) {
                meta.f32(&key(k))
            } else {
                Ok(default)
            }
        };
        let positive = |k: &str| -> Result<Option<f32>> {
            let value = float(k, 0.0)?;
            Ok((value > 0.0).then_some(value))
        };
        let window = if arch.window_period.is_some() && optional("attention.sliding_window") {
            Some(size("attention.sliding_window", 1 << 30)? as u32)
        } else {
            None
        };
        let linear =
            optional("rope.scaling.type") && meta.str(&key("rope.scaling.type"))? == "linear";
        let table = checkpoint.need("token_embd.weight")?;
        let config = Config {
            arch: arch.name,
            name: meta.str("general.name").unwrap_or(name).into(),
            layers,
            width,
            heads,
            kv_heads,
            head_dim,
            ffn: size("feed_forward_length", 1 << 20)?,
            vocab: table.rows_cols().0,
            context: size("context_length", 1 << 30)?,
            eps: float("attention.layer_norm_rms_epsilon", 1e-5)?,
            rope_base: f64::from(float("rope.freq_base", 10_000.0)?),
            rope_dims,
            rope_scale: if linear {
                f64::from(float("rope.scaling.factor", 1.0)?)
            } else {
                1.0
            },
            window,
            attn_softcap: positive("attn_logit_softcapping")?,
            logit_softcap: positive("final_logit_softcapping")?,
        };
        config.check()?;
        Ok(Self { arch, config })
    }

    /// Whether `layer` sees only a window.
    fn local(&self, layer: usize) -> bool {
        self.config.window.is_some()
            && self
                .arch
                .window_period
                .is_some_and(|p| !(layer + 1).is_multiple_of(p))
    }

    /// What the model computes for the tokens of one step.
    ///
    /// # Errors
    /// Where a tensor is missing or has another shape than the config says.
    pub fn graph(&self, checkpoint: &Checkpoint, head: Head) -> Result<Graph> {
        let c = &self.config;
        let mut b = Builder {
            graph: Graph::new(),
            checkpoint,
        };
        let table = b.weight("token_embd.weight", c.vocab, c.width)?;
        let scale = if self.arch.embed_scale {
            (c.width as f32).sqrt()
        } else {
            1.0
        };
        let mut x = b.graph.embed(table, scale);
        let factors = checkpoint
            .tensor("rope_freqs.weight")
            .map(|t| t.name.clone());
        let rope = |local: bool| RopeSpec {
            dims: c.rope_dims,
            base: self
                .arch
                .local_base
                .filter(|_| local)
                .unwrap_or(c.rope_base),
            scale: if local { 1.0 } else { c.rope_scale },
            neox: self.arch.neox,
            factors: factors.clone(),
        };
        for layer in 0..c.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let bias = |part: &str| format!("blk.{layer}.{part}.bias");
            b.graph.scope(format!("blk.{layer}"));
            let normed = b.norm(x, &name("attn_norm"), c)?;
            let (q_cols, kv_cols) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
            let q = b.linear(normed, &name("attn_q"), &bias("attn_q"), q_cols, c.width)?;
            let k = b.linear(normed, &name("attn_k"), &bias("attn_k"), kv_cols, c.width)?;
            let v = b.linear(normed, &name("attn_v"), &bias("attn_v"), kv_cols, c.width)?;
            let qk_norm = match checkpoint.tensor(&name("attn_q_norm")) {
                Some(_) => Some((
                    b.vector(&name("attn_q_norm"), c.head_dim)?,
                    b.vector(&name("attn_k_norm"), c.head_dim)?,
                )),
                None => None,
            };
            let rope = b.graph.rope(rope(self.local(layer)));
            let attended = b.graph.attention(Attention {
                q,
                k,
                v,
                layer,
                heads: c.heads,
                kv_heads: c.kv_heads,
                head_dim: c.head_dim,
                scale: (c.head_dim as f32).sqrt().recip(),
                sharpen: None,
                causal: true,
                window: c.window.filter(|_| self.local(layer)),
                softcap: c.attn_softcap,
                sinks: None,
                rope: Some(rope),
                qk_norm,
                eps: c.eps,
            });
            let out = b.linear(
                attended,
                &name("attn_output"),
                &bias("attn_output"),
                c.width,
                q_cols,
            )?;
            let out = b.post_norm(out, &name("post_attention_norm"), c)?;
            x = b.graph.add(x, out);
            let normed = b.norm(x, &name(self.arch.ffn_norm), c)?;
            let gate = b.linear(normed, &name("ffn_gate"), &bias("ffn_gate"), c.ffn, c.width)?;
            let up = b.linear(normed, &name("ffn_up"), &bias("ffn_up"), c.ffn, c.width)?;
            let gated = b.graph.glu(gate, up, self.arch.act);
            let down = b.linear(gated, &name("ffn_down"), &bias("ffn_down"), c.width, c.ffn)?;
            let down = b.post_norm(down, &name("post_ffw_norm"), c)?;
            x = b.graph.add(x, down);
        }
        b.graph.scope("head");
        if head == Head::Last {
            x = b.graph.last_row(x);
        }
        let normed = b.norm(x, "output_norm.weight", c)?;
        let own = checkpoint.tensor("output.weight").is_some();
        let output = if own {
            "output.weight"
        } else {
            "token_embd.weight"
        };
        let w = b.weight(output, c.vocab, c.width)?;
        let logits = b.graph.linear(normed, w, None);
        if let Some(cap) = c.logit_softcap {
            b.graph.softcap(logits, cap);
        }
        Ok(b.graph)
    }
}

fn within(key: &str, value: usize, most: usize) -> Result<()> {
    if value == 0 || value > most {
        return Err(Error::Config {
            key: key.into(),
            value: value.to_string(),
            want: "a size that a model can have",
        });
    }
    Ok(())
}

impl Config {
    /// What the kernels count on.
    fn check(&self) -> Result<()> {
        let want = |ok: bool, key: &str, value: usize, want: &'static str| {
            if ok {
                return Ok(());
            }
            Err(Error::Config {
                key: format!("{}.{key}", self.arch),
                value: value.to_string(),
                want,
            })
        };
        let kv = self.kv_heads;
        want(
            self.heads.is_multiple_of(kv),
            "attention.head_count_kv",
            kv,
            "a divisor of the heads",
        )?;
        want(
            self.head_dim.is_multiple_of(4),
            "attention.key_length",
            self.head_dim,
            "a multiple of 4",
        )?;
        want(
            self.rope_dims.is_multiple_of(2),
            "rope.dimension_count",
            self.rope_dims,
            "even",
        )?;
        want(
            self.width.is_multiple_of(32),
            "embedding_length",
            self.width,
            "a multiple of 32",
        )?;
        want(
            self.ffn.is_multiple_of(32),
            "feed_forward_length",
            self.ffn,
            "a multiple of 32",
        )?;
        let cols = self.heads * self.head_dim;
        want(
            cols.is_multiple_of(32),
            "attention.head_count",
            self.heads,
            "heads of 32 elements in all",
        )
    }
}

/// A graph under way, with the checkpoint that its weights are looked up in.
struct Builder<'a> {
    graph: Graph,
    checkpoint: &'a Checkpoint,
}

impl Builder<'_> {
    fn shaped(&self, name: &str, want: &[usize]) -> Result<&crate::tensor::TensorInfo> {
        let info = self.checkpoint.need(name)?;
        if info.shape == want {
            return Ok(info);
        }
        Err(Error::Shape {
            tensor: name.into(),
            want: want.to_vec(),
            got: info.shape.clone(),
        })
    }

    fn weight(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId> {
        let info = self.shaped(name, &[rows, cols])?;
        let block = Format::of(info.dtype).block.max(32);
        if !cols.is_multiple_of(block) {
            return Err(Error::Config {
                key: name.into(),
                value: format!("{cols} columns of {}", info.dtype),
                want: "whole blocks of 32 (or, for K-quants, 256) columns",
            });
        }
        let spec = WeightSpec {
            name: name.into(),
            dtype: info.dtype,
            rows,
            cols,
        };
        Ok(self.graph.weight(spec))
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<VectorId> {
        self.shaped(name, &[len])?;
        Ok(self.graph.vector(name.into(), len))
    }

    fn norm(&mut self, x: NodeId, name: &str, c: &Config) -> Result<NodeId> {
        let gain = self.vector(name, c.width)?;
        Ok(self.graph.rms_norm(x, gain, c.eps))
    }

    /// A norm after a block, where the checkpoint has one.
    fn post_norm(&mut self, x: NodeId, name: &str, c: &Config) -> Result<NodeId> {
        if self.checkpoint.tensor(name).is_some() {
            return self.norm(x, name, c);
        }
        Ok(x)
    }

    /// A product, with a bias where the checkpoint has one.
    fn linear(
        &mut self,
        x: NodeId,
        name: &str,
        bias: &str,
        rows: usize,
        cols: usize,
    ) -> Result<NodeId> {
        let w = self.weight(name, rows, cols)?;
        let bias = match self.checkpoint.tensor(bias) {
            Some(_) => Some(self.vector(bias, rows)?),
            None => None,
        };
        Ok(self.graph.linear(x, w, bias))
    }
}
