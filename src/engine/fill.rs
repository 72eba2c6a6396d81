//! A cache filled without computing what it holds: to measure how cost grows with depth.

use std::sync::Arc;

use super::Sequence;
use super::cache::Cache;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::quant::testing::Rng;

impl Sequence {
    /// Takes `tokens` for cached, in the place of what was there, though nothing of them is computed:
    /// their keys and values are normal random numbers.
    ///
    /// # Errors
    /// [`Error::Prompt`] where they do not fit the context, [`Error::CacheFull`] and
    /// [`Error::CacheMemory`] where there are no pages for them.
    pub fn fill(&mut self, tokens: &[u32]) -> Result<()> {
        let engine = Arc::clone(self.engine());
        let context = engine.context();
        if tokens.len() > context {
            return Err(Error::Prompt {
                tokens: tokens.len(),
                context,
            });
        }
        self.truncate(0);
        let mut state = engine.state();
        self.reserve(&mut state, tokens.len())?;
        for (pool, pages) in self.pages().iter().enumerate() {
            state.cache.fill(&engine.gpu, pool, pages)?;
        }
        drop(state);
        self.adopt(tokens);
        Ok(())
    }
}

/// Pages of random numbers that differ. Where all were alike, a sum over a long context would be of the
/// same few terms over and over, whose roundings add up rather than cancel.
const DIFFERENT: usize = 61;

impl Cache {
    /// Writes random keys and values into pages of every layer of a pool.
    fn fill(&self, gpu: &Gpu, pool: usize, pages: &[u32]) -> Result<()> {
        for (seed, layer) in (1..).zip(&self.pools[pool].layers) {
            let mut random = Rng::new(seed);
            let n = DIFFERENT.min(pages.len()) * layer.page_elements;
            let values: Vec<f32> = (0..n).map(|_| random.normal()).collect();
            let words = self.dtype.encode(&values);
            let different = gpu.buffer("random pages", 4 * words.len() as u64);
            gpu.queue
                .write_buffer(&different, 0, bytemuck::cast_slice(&words));
            let bytes = layer.page_bytes;
            let mut encoder = gpu.encoder();
            for (from, to) in (0..DIFFERENT as u64).cycle().zip(pages) {
                let (from, to) = (from * bytes, u64::from(*to) * bytes);
                encoder.copy_buffer_to_buffer(&different, from, &layer.buffer, to, bytes);
            }
            gpu.wait(Some(&gpu.submit(encoder)))?;
        }
        Ok(())
    }
}
