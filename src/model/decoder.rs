//! The decoder block, from the tensors that are there.

use std::ops::Range;

use super::Description;
use super::config::Experts;
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::graph::{self, Act, Attention, Graph, NodeId, VectorId, WeightId, WeightSpec};
use crate::quant::Format;
use crate::tensor::TensorInfo;

/// What a graph gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Logits of the last token of a step.
    Last,
    /// Logits of every token.
    All,
    /// The last hidden state `[width]` of every token, as embeddings are made from; where logits are
    /// divided by a number ([`super::Config::logit_scale`]), it is, too.
    Hidden,
}

impl Description {
    /// What the model computes for the tokens of one step of a sequence of up to `context` tokens.
    ///
    /// # Errors
    /// Where a tensor is missing or has another shape than the config says, and [`Error::Encoder`] for
    /// logits of a model that has none.
    pub fn graph(&self, checkpoint: &Checkpoint, head: Head, context: usize) -> Result<Graph> {
        let c = &self.config;
        if self.is_encoder() && head != Head::Hidden {
            return Err(Error::Encoder {
                name: c.name.clone(),
            });
        }
        if self.arch.encoder {
            return self.encoder(checkpoint, context);
        }
        let ropes = [false, true].map(|local| c.rope(self.arch, checkpoint, local, context));
        let [global, local] = ropes;
        let ropes = [global?, local?];
        let mut b = Builder {
            graph: Graph::new(),
            checkpoint,
            width: c.width,
        };
        // A block's factor m is not applied to its output: the stream is kept m times smaller instead,
        // which a norm does not see but in its epsilon.
        let eps = c.eps / c.residual_scale.powi(2);
        let table = b.matrix("token_embd.weight", c.vocab, c.width)?;
        let mut x = b
            .graph
            .embed(table, c.embed_scale / c.residual_scale, None, None);
        let (q_rows, kv_rows) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        for layer in 0..c.layers {
            let block = format!("blk.{layer}");
            let name = |part: &str| format!("{block}.{part}");
            let local = c.local_layers[layer];
            let normed = b.norm(x, &name("attn_norm"), eps)?;
            let parts = ["attn_q", "attn_k", "attn_v"].map(name);
            let rows = [q_rows, kv_rows, kv_rows];
            let [mut q, mut k, v] = b.split(normed, &parts, &name("attn_qkv"), rows)?;
            b.graph.scope(&block);
            // q and k are normed head by head, or as a whole.
            let gains = [name("attn_q_norm.weight"), name("attn_k_norm.weight")];
            let per_head = b.len(&name("attn_q_norm")) == Some(c.head_dim);
            let mut qk_norm = None;
            if per_head {
                let [q_gain, k_gain] = gains;
                let head = [c.head_dim];
                qk_norm = Some((b.vector(&q_gain, &head)?, b.vector(&k_gain, &head)?));
            } else if b.len(&name("attn_q_norm")).is_some() {
                let [q_gain, k_gain] = gains;
                let (q_gain, k_gain) = (
                    b.vector(&q_gain, &[q_rows])?,
                    b.vector(&k_gain, &[kv_rows])?,
                );
                q = b.graph.rms_norm(q, q_gain, c.eps);
                k = b.graph.rms_norm(k, k_gain, c.eps);
            }
            let sinks = b.optional(&name("attn_sinks.weight"), &[c.heads])?;
            let rope = c.turning_layers[layer].then(|| {
                let rope = ropes[usize::from(local)].clone();
                b.graph.rope(rope)
            });
            let attended = b.graph.attention(Attention {
                q,
                k,
                v,
                layer: if c.causal { layer } else { 0 },
                heads: c.heads,
                kv_heads: c.kv_heads,
                head_dim: c.head_dim,
                scale: c.attn_scale,
                sharpen: c.sharpen,
                causal: c.causal,
                window: c.window.filter(|_| local),
                softcap: c.attn_softcap,
                sinks,
                rope,
                qk_norm,
                eps: c.eps,
            });
            let mut out = b.linear(attended, &name("attn_output"), c.width, q_rows)?;
            if let Some(part) = self.arch.post_attn_norm {
                out = b.norm(out, &name(part), c.eps)?;
            }
            x = b.graph.add(x, out);
            let normed = b.norm(x, &name(self.arch.ffn_norm), eps)?;
            let out = match c.experts {
                Some(experts) if b.len(&name("ffn_gate_inp")).is_some() => {
                    b.experts(normed, &block, experts, self.arch.act)?
                }
                _ => {
                    // A fused tensor goes by the name of its second half.
                    let parts = ["ffn_gate", "ffn_up"].map(name);
                    let fused = name("ffn_up");
                    let [gate, up] = b.split(normed, &parts, &fused, [c.ffn, c.ffn])?;
                    let gated = b.graph.glu(gate, up, self.arch.act);
                    b.linear(gated, &name("ffn_down"), c.width, c.ffn)?
                }
            };
            let out = b.norm(out, &name("post_ffw_norm"), c.eps)?;
            x = b.graph.add(x, out);
        }
        b.graph.scope("head");
        if head == Head::Last {
            x = b.graph.last_row(x);
        }
        // Logits are divided by dividing what they are made from.
        b.shaped("output_norm.weight", &[c.width])?;
        let gain = c.logit_scale.recip();
        let gain = b
            .graph
            .vector("output_norm.weight".into(), 0, c.width, gain);
        let normed = b.graph.rms_norm(x, gain, eps);
        if head == Head::Hidden {
            return Ok(b.graph);
        }
        let own = checkpoint.tensor("output.weight").is_some();
        let output = if own {
            "output.weight"
        } else {
            "token_embd.weight"
        };
        let w = b.matrix(output, c.vocab, c.width)?;
        let logits = b.graph.linear(normed, w, None);
        if let Some(cap) = c.logit_softcap {
            b.graph.softcap(logits, cap);
        }
        Ok(b.graph)
    }
}

/// A graph under way, with the checkpoint that its weights are looked up in.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) checkpoint: &'a Checkpoint,
    /// Width of the residual stream.
    pub(super) width: usize,
}

impl Builder<'_> {
    /// Elements of a part's weight, where there is one.
    pub(super) fn len(&self, part: &str) -> Option<usize> {
        let tensor = self.checkpoint.tensor(&format!("{part}.weight"))?;
        Some(tensor.elements())
    }

    /// The tensor of a name, of `want`'s shape but for dimensions of one.
    pub(super) fn shaped(&self, name: &str, want: &[usize]) -> Result<&TensorInfo> {
        let info = self.checkpoint.need(name)?;
        let real =
            |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|n| *n != 1).collect() };
        if real(&info.shape) == real(want) {
            return Ok(info);
        }
        Err(Error::Shape {
            tensor: name.into(),
            want: want.to_vec(),
            got: info.shape.clone(),
        })
    }

    /// Some rows of a matrix; `shape` is the whole tensor's: rows and columns, and before them experts.
    fn weight(&mut self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<WeightId> {
        let info = self.shaped(name, shape)?;
        let (dtype, cols) = (info.dtype, shape[shape.len() - 1]);
        let group = if let [_, rows, _] = shape { *rows } else { 1 };
        if !cols.is_multiple_of(Format::of(dtype).block.max(32)) {
            return Err(Error::Config {
                key: name.into(),
                value: format!("{cols} columns of {dtype}"),
                want: "whole blocks of 32 (or, for K-quants, 256) columns",
            });
        }
        let spec = WeightSpec {
            name: name.into(),
            dtype,
            first: rows.start,
            group,
            rows: rows.len(),
            cols,
        };
        Ok(self.graph.weight(spec))
    }

    /// A whole matrix `[rows, cols]`.
    pub(super) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<WeightId> {
        self.weight(name, &[rows, cols], 0..rows)
    }

    /// A vector, or several one after the other.
    pub(super) fn vector(&mut self, name: &str, shape: &[usize]) -> Result<VectorId> {
        self.shaped(name, shape)?;
        let len = shape.iter().product();
        Ok(self.graph.vector(name.into(), 0, len, 1.0))
    }

    /// A vector, where the checkpoint has it.
    fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<VectorId>> {
        match self.checkpoint.tensor(name) {
            Some(_) => self.vector(name, shape).map(Some),
            None => Ok(None),
        }
    }

    /// A norm of the residual stream or of a block's output, where the checkpoint has it.
    fn norm(&mut self, x: NodeId, part: &str, eps: f32) -> Result<NodeId> {
        let gain = self.optional(&format!("{part}.weight"), &[self.width])?;
        Ok(gain.map_or(x, |gain| self.graph.rms_norm(x, gain, eps)))
    }

    /// A product, with a bias where the checkpoint has one.
    pub(super) fn linear(
        &mut self,
        x: NodeId,
        part: &str,
        rows: usize,
        cols: usize,
    ) -> Result<NodeId> {
        let w = self.matrix(&format!("{part}.weight"), rows, cols)?;
        let bias = self.optional(&format!("{part}.bias"), &[rows])?;
        Ok(self.graph.linear(x, w, bias))
    }

    /// Several products of the residual stream: tensors of their own, or one `fused` of all their rows.
    pub(super) fn split<const N: usize>(
        &mut self,
        x: NodeId,
        parts: &[String; N],
        fused: &str,
        rows: [usize; N],
    ) -> Result<[NodeId; N]> {
        // Where there is neither, it is the first part that is missed.
        let own = self.len(fused).is_none() || self.len(&parts[0]).is_some();
        let total: usize = rows.iter().sum();
        let cols = self.width;
        let mut products = [x; N];
        let mut first = 0;
        for ((product, part), rows) in products.iter_mut().zip(parts).zip(rows) {
            if own {
                *product = self.linear(x, part, rows, cols)?;
                continue;
            }
            let (weight, bias) = (format!("{fused}.weight"), format!("{fused}.bias"));
            let w = self.weight(&weight, &[total, cols], first..first + rows)?;
            let bias = match self.checkpoint.tensor(&bias) {
                Some(_) => {
                    self.shaped(&bias, &[total])?;
                    Some(self.graph.vector(bias, first, rows, 1.0))
                }
                None => None,
            };
            *product = self.graph.linear_as(x, w, bias, part);
            first += rows;
        }
        Ok(products)
    }

    /// A mixture of experts over `x`.
    fn experts(&mut self, x: NodeId, block: &str, e: Experts, act: Act) -> Result<NodeId> {
        let name = |part: &str| format!("{block}.{part}");
        let (width, count) = (self.width, e.count);
        let scores = self.linear(x, &name("ffn_gate_inp"), count, width)?;
        let mut matrix = |part: &str, rows: usize, cols: usize| {
            let name = format!("{}.weight", name(part));
            self.weight(&name, &[count, rows, cols], 0..count * rows)
        };
        let gate = matrix("ffn_gate_exps", e.ffn, width)?;
        let up = matrix("ffn_up_exps", e.ffn, width)?;
        let down = matrix("ffn_down_exps", width, e.ffn)?;
        let mut bias = |part: &str, rows: usize| {
            self.optional(&format!("{}.bias", name(part)), &[count, rows])
        };
        let biases = [
            bias("ffn_gate_exps", e.ffn)?,
            bias("ffn_up_exps", e.ffn)?,
            bias("ffn_down_exps", width)?,
        ];
        Ok(self.graph.experts(graph::Experts {
            x,
            scores,
            count,
            used: e.used,
            ffn: e.ffn,
            gate,
            up,
            down,
            biases,
            act,
            renormalise: e.renormalise,
        }))
    }
}
