//! BERT's encoder block, from the tensors that are there.

use super::Description;
use super::decoder::Builder;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::graph::{Attention, Graph, NodeId};

/// Rows of the tensor of kinds of sentences; a text that stands alone is of the first.
const KINDS: &str = "token_types.weight";

impl Description {
    /// The last hidden states `[T, width]` of whole texts of up to `context` tokens.
    pub(super) fn encoder(&self, checkpoint: &Checkpoint, context: usize) -> Result<Graph> {
        let c = &self.config;
        let mut b = Builder {
            graph: Graph::new(),
            checkpoint,
            width: c.width,
        };
        let table = b.matrix("token_embd.weight", c.vocab, c.width)?;
        let positions = match checkpoint.tensor("position_embd.weight") {
            Some(_) => Some(b.vector("position_embd.weight", &[c.context, c.width])?),
            None => None,
        };
        let shift = match checkpoint.tensor(KINDS) {
            Some(kinds) => {
                let kinds = kinds.rows_cols().0;
                b.shaped(KINDS, &[kinds, c.width])?;
                Some(b.graph.vector(KINDS.into(), 0, c.width, 1.0))
            }
            None => None,
        };
        // Who has no learned positions rotates.
        let rope = if positions.is_none() {
            let rope = c.rope(self.arch, checkpoint, false, context)?;
            Some(b.graph.rope(rope))
        } else {
            None
        };
        let embedded = b.graph.embed(table, 1.0, positions, shift);
        let mut x = b.layer_norm(embedded, "token_embd_norm", c.eps)?;
        let (q_rows, kv_rows) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        for layer in 0..c.layers {
            let block = format!("blk.{layer}");
            let name = |part: &str| format!("{block}.{part}");
            let parts = ["attn_q", "attn_k", "attn_v"].map(name);
            let rows = [q_rows, kv_rows, kv_rows];
            let [q, k, v] = b.split(x, &parts, &name("attn_qkv"), rows)?;
            b.graph.scope(&block);
            let attended = b.graph.attention(Attention {
                q,
                k,
                v,
                layer: 0,
                heads: c.heads,
                kv_heads: c.kv_heads,
                head_dim: c.head_dim,
                scale: c.attn_scale,
                sharpen: None,
                causal: c.causal,
                window: None,
                softcap: None,
                sinks: None,
                rope,
                qk_norm: None,
                eps: c.eps,
            });
            let out = b.linear(attended, &name("attn_output"), c.width, q_rows)?;
            let sum = b.graph.add(x, out);
            x = b.layer_norm(sum, &name("attn_output_norm"), c.eps)?;
            let up = b.linear(x, &name("ffn_up"), c.ffn, c.width)?;
            let inner = if b.len(&name("ffn_gate")).is_some() {
                let gate = b.linear(x, &name("ffn_gate"), c.ffn, c.width)?;
                b.graph.glu(gate, up, self.arch.act)
            } else {
                b.graph.act(up, self.arch.act)
            };
            let out = b.linear(inner, &name("ffn_down"), c.width, c.ffn)?;
            let sum = b.graph.add(x, out);
            x = b.layer_norm(sum, &name("layer_output_norm"), c.eps)?;
        }
        Ok(b.graph)
    }
}

impl Builder<'_> {
    /// LayerNorm by a part's gain and bias.
    fn layer_norm(&mut self, x: NodeId, part: &str, eps: f32) -> Result<NodeId> {
        let width = [self.width];
        let gain = self.vector(&format!("{part}.weight"), &width)?;
        let bias = self.vector(&format!("{part}.bias"), &width)?;
        Ok(self.graph.layer_norm(x, gain, bias, eps))
    }
}
