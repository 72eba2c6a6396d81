//! Logits of every token of a text, for perplexity.

use std::ops::Range;

use super::generate::logprob;
use super::{Row, Sequence, settle::settle};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::gpu::{Program, Readback};
use crate::kernel::Resource;
use crate::plan;

/// Tokens scored at once: their logits are kept for a moment, a vocabulary each.
pub(super) const ROWS: usize = 32;

impl Sequence {
    /// Natural log-probabilities of `targets[i]` after `tokens[..= i]`, for every i from `first` on;
    /// the sequence starts anew and its cache holds `tokens` afterwards.
    ///
    /// # Errors
    /// [`Error::Prompt`] where the tokens do not fit the context, and where the device fails.
    pub async fn score(
        &mut self,
        tokens: &[u32],
        targets: &[u32],
        first: usize,
    ) -> Result<Vec<f32>> {
        let mut scores = Vec::new();
        let wanted = first..targets.len().min(tokens.len());
        let each = |i: usize, logits: &[f32]| scores.push(logprob(logits, targets[i], 0).logprob);
        self.logits(tokens, wanted, each).await?;
        Ok(scores)
    }

    /// Gives `each` the logits `[vocabulary]` after `tokens[..= i]`, for every i of `wanted` in turn; the
    /// sequence starts anew and its cache holds `tokens` afterwards.
    ///
    /// # Errors
    /// As [`Sequence::score`].
    pub async fn logits(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let engine = self.engine().clone();
        if tokens.is_empty() || tokens.len() > engine.context() {
            return Err(Error::Prompt {
                tokens: tokens.len(),
                context: engine.context(),
            });
        }
        let mut checks = std::mem::take(&mut *engine.checks());
        let make = |caps: &Caps| {
            let graph = &engine.decoder()?.score;
            Ok(vec![plan::plan(graph, caps, engine.kv, ROWS)?])
        };
        let (gpu, pipelines) = (&engine.gpu, &engine.pipelines);
        let settled = settle(gpu, pipelines, &mut checks, false, make, || Ok(())).await;
        *engine.checks() = checks;
        let plan = settled?.0.remove(0);
        self.truncate(0);
        let mut buffers = engine.buffers.clone();
        let mut version = {
            let mut state = engine.state();
            self.reserve(&mut state, tokens.len())?;
            buffers.extend(state.cache.buffers());
            state.cache.version
        };
        for (i, bytes) in plan.slots.iter().enumerate() {
            buffers.insert(Resource::Slot(i), engine.gpu.buffer("score", *bytes as u64));
        }
        let mut program = Program::new(&engine.gpu, &engine.pipelines, &plan.dispatches, &buffers)?;
        let vocab = plan.shape[1];
        let mut words = Vec::new();
        for (n, chunk) in tokens.chunks(ROWS).enumerate() {
            let at = n * ROWS;
            let mut rows = vec![Row::default(); ROWS];
            for (i, (row, token)) in rows.iter_mut().zip(chunk).enumerate() {
                *row = Row {
                    token: *token,
                    pos: (at + i) as u32,
                    slot: self.slot(),
                    live: 1,
                };
            }
            let inside = |i: usize| i.saturating_sub(at).min(chunk.len());
            let wanted = inside(wanted.start)..inside(wanted.end);
            let bytes = (wanted.len() * vocab * 4) as u64;
            let mut readback = (bytes > 0).then(|| Readback::new(&engine.gpu, bytes));
            {
                let mut state = engine.state();
                state.current = 0;
                // Another sequence may have made the cache grow meanwhile.
                if state.cache.version != version {
                    version = state.cache.version;
                    program = program.rebound(&engine.gpu, &state.cache.buffers());
                }
                let (queue, step) = (&engine.gpu.queue, &buffers[&Resource::Step]);
                queue.write_buffer(step, 0, bytemuck::cast_slice(&rows));
                let mut encoder = engine.gpu.encoder();
                program.encode(
                    &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
                );
                if let Some(logits) = &readback {
                    let (from, to) = (&buffers[&plan.output], logits.staging());
                    let first = (wanted.start * vocab * 4) as u64;
                    encoder.copy_buffer_to_buffer(from, first, to, 0, bytes);
                }
                let ticket = engine.gpu.submit(encoder);
                if let Some(logits) = &mut readback {
                    logits.start(ticket);
                }
            }
            let Some(mut readback) = readback else {
                continue;
            };
            readback.finish(&engine.gpu, &mut words).await?;
            let logits: &[f32] = bytemuck::cast_slice(&words);
            for (row, i) in logits.chunks_exact(vocab).zip(wanted) {
                each(at + i, row);
            }
        }
        engine.gpu.check()
    }
}
