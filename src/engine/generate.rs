//! Sequences of tokens, and the loop that extends them.
//!
//! The loop keeps the device busy without the CPU: a sampled token becomes the next step's input on
//! the device, several steps go into one submission, and while one submission runs the one after it
//! is queued already. Tokens arrive a little late; what was made past an end token or a stop is
//! simply not part of the sequence, and its places in the cache are written again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::cache::Pool;
use super::pace::MOST_STEPS;
use super::{Engine, Row, Sampling, State};
use crate::error::{Error, Result};
use crate::gpu::{Extent, Program, Readback, Ticket};
use crate::kernel::Resource;
use crate::kernel::attention::PAGE;
use crate::kernel::sample::{NONE, RING};

/// A sequence of tokens with its part of the KV cache.
#[derive(Debug)]
pub struct Sequence {
    engine: Arc<Engine>,
    slot: u32,
    /// Its pages of each pool of the cache.
    pages: Vec<Vec<u32>>,
    /// Tokens whose keys and values are in the cache, from position 0 on.
    cached: Vec<u32>,
    /// Positions that may have been written since it was empty: a ring of pages has the last of them.
    written: usize,
}

/// A token's log-probability and the best alternatives.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its natural log-probability under the model, before temperature, penalties and cuts.
    pub logprob: f32,
    /// The best tokens and theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// One token made.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The token.
    pub token: u32,
    /// Whether it is an end token, after which nothing follows.
    pub end: bool,
    /// Its log-probability, where asked for.
    pub logprob: Option<TokenLogprob>,
}

impl Sequence {
    /// An empty sequence on an engine.
    ///
    /// # Errors
    /// [`Error::SequencesFull`] where as many are open as the engine was loaded for, and
    /// [`Error::Encoder`] where the model makes no text.
    pub fn new(engine: &Arc<Engine>) -> Result<Self> {
        engine.decoder()?;
        let mut state = engine.state();
        let slot = state.free_slots.pop().ok_or(Error::SequencesFull)?;
        let pools = state.cache.pools.iter();
        Ok(Self {
            engine: Arc::clone(engine),
            slot,
            pages: pools.map(|p| Vec::with_capacity(p.entries)).collect(),
            cached: Vec::with_capacity(engine.context),
            written: 0,
        })
    }

    /// Tokens in the cache.
    pub fn cached(&self) -> &[u32] {
        &self.cached
    }

    /// The engine it runs on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Its pages of each pool of the cache.
    pub(super) fn pages(&self) -> &[Vec<u32>] {
        &self.pages
    }

    /// Takes tokens for cached.
    pub(super) fn adopt(&mut self, tokens: &[u32]) {
        self.cached.clear();
        self.cached.extend_from_slice(tokens);
    }

    /// Its entry of the page table.
    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Forgets every token after the first `len`; and those, too, where layers with a window no longer
    /// have the positions that the next token sees.
    pub fn truncate(&mut self, len: usize) {
        self.cached.truncate(len);
        let (len, written) = (self.cached.len(), self.written);
        let state = self.engine.state();
        let whole = state.cache.pools.iter().all(|pool| {
            let oldest = (len + 1).saturating_sub(pool.window.map_or(0, |w| w as usize));
            pool.window.is_none() || oldest + pool.entries * PAGE >= written
        });
        drop(state);
        if !whole || len == 0 {
            self.cached.clear();
            self.written = 0;
        }
    }

    /// Makes tokens after `prompt`, which is the whole context: what of it the cache holds already
    /// is not computed again. `ends` are the tokens that end an answer.
    ///
    /// # Errors
    /// [`Error::Prompt`] where the prompt is empty or longer than the context, [`Error::Token`]
    /// where it has a token the model does not know.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        sampling: &Sampling,
        ends: &[u32],
        logprobs: Option<usize>,
    ) -> Result<Generation<'_>> {
        let context = self.engine.context;
        if prompt.is_empty() || prompt.len() > context {
            return Err(Error::Prompt {
                tokens: prompt.len(),
                context,
            });
        }
        let vocab = self.engine.model.config.vocab;
        if let Some(id) = prompt.iter().find(|t| **t as usize >= vocab) {
            return Err(Error::Token { id: *id, vocab });
        }
        let common = self
            .cached
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        self.truncate(common.min(prompt.len() - 1));
        let reused = self.cached.len();
        // A token that is made at the last place of the context has no place of its own to go on from.
        let limit = sampling.max_tokens.min(context + 1 - prompt.len());
        let mut state = self.engine.state();
        state.generations += 1;
        let id = state.generations;
        drop(state);
        Ok(Generation {
            id,
            prompt: prompt.to_vec(),
            sampling: sampling.clone(),
            ends: if sampling.ignore_end {
                Vec::new()
            } else {
                ends.to_vec()
            },
            logprobs,
            limit,
            // What the loop fills has its room from the start.
            made: Vec::with_capacity(limit),
            submitted: 0,
            reused,
            flight: VecDeque::with_capacity(FLIGHTS),
            refused: None,
            ready: VecDeque::with_capacity(MOST_STEPS),
            done: limit == 0,
            idle: Vec::with_capacity(FLIGHTS),
            ring: Vec::with_capacity(RING as usize),
            prompt_time: Duration::ZERO,
            first: None,
            last: Instant::now(),
            sequence: self,
        })
    }

    /// Takes pages for positions below `len`, which may be written from now on, and tells the device.
    pub(super) fn reserve(&mut self, state: &mut State, len: usize) -> Result<()> {
        let gpu = &self.engine.gpu;
        let version = state.cache.version;
        let mut done = Ok(());
        for (i, mine) in self.pages.iter_mut().enumerate() {
            let had = mine.len();
            let Pool { entries, ring, .. } = state.cache.pools[i];
            let count = len.div_ceil(PAGE).min(entries);
            done = done.and_then(|()| state.cache.take(gpu, i, count, mine));
            if mine.len() > had {
                let at = (self.slot as usize * entries + had) * 4;
                let bytes = bytemuck::cast_slice(&mine[had..]);
                let table = self.engine.buffer(Resource::Pages(ring));
                gpu.queue.write_buffer(table, at as u64, bytes);
            }
        }
        if state.cache.version != version {
            let buffers = state.cache.buffers();
            for program in &mut state.programs {
                *program = Arc::new(program.rebound(gpu, &buffers));
            }
        }
        if done.is_ok() {
            self.written = self.written.max(len);
        }
        done
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        for (i, pages) in self.pages.iter_mut().enumerate() {
            state.cache.give(i, pages);
        }
        state.free_slots.push(self.slot);
    }
}

/// Submissions under way at once: one runs, one waits for it.
const FLIGHTS: usize = 2;

/// A submission under way.
#[derive(Debug)]
struct Flight {
    /// Steps it holds.
    steps: usize,
    /// Rows of the prompt that its only step holds, if it does.
    rows: Option<usize>,
    tokens: Readback,
    logits: Option<Readback>,
    submitted: Instant,
}

/// Tokens being made. Ask [`Generation::next`] for them one by one; dropping it stops.
#[derive(Debug)]
pub struct Generation<'s> {
    sequence: &'s mut Sequence,
    id: u64,
    prompt: Vec<u32>,
    sampling: Sampling,
    ends: Vec<u32>,
    logprobs: Option<usize>,
    limit: usize,
    /// Tokens read back, in order.
    made: Vec<u32>,
    /// Steps submitted.
    submitted: usize,
    reused: usize,
    flight: VecDeque<Flight>,
    /// Why nothing more is submitted, told once what is under way has landed.
    refused: Option<Error>,
    ready: VecDeque<Step>,
    done: bool,
    /// Places for tokens read back that are not under way.
    idle: Vec<Readback>,
    /// The device's ring of tokens, as read last.
    ring: Vec<u32>,
    prompt_time: Duration,
    /// When the first token was there, and the newest.
    first: Option<Instant>,
    last: Instant,
}

impl Generation<'_> {
    /// Prompt tokens that the cache held already.
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// Time the prompt took, to its first token.
    pub fn prompt_time(&self) -> Duration {
        self.prompt_time
    }

    /// Tokens made so far.
    pub fn made(&self) -> &[u32] {
        &self.made
    }

    /// Time from the first token to the newest.
    pub fn generation_time(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last - first)
    }

    /// The next token; `None` after an end token, at the limit or at the context's end.
    ///
    /// # Errors
    /// [`Error::CacheFull`] and [`Error::CacheMemory`] where the cache cannot grow: the sequence keeps
    /// what it has. Where the device fails, what is in its cache is not known any more.
    pub async fn next_step(&mut self) -> Result<Option<Step>> {
        let result = self.advance().await;
        if let Err(e) = &result {
            self.done = true;
            if !stops_short(e) {
                self.sequence.truncate(0);
            }
        }
        result
    }

    /// [`Generation::next_step`], waiting for it.
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends and fails; an iterator does neither"
    )]
    pub fn next(&mut self) -> Result<Option<Step>> {
        pollster::block_on(self.next_step())
    }

    async fn advance(&mut self) -> Result<Option<Step>> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Ok(Some(step));
            }
            if self.done {
                // What is still under way was made past the end.
                self.flight.clear();
                return Ok(None);
            }
            if self.submitted == 0 {
                self.start().await?;
            }
            while self.refused.is_none()
                && self.flight.len() < FLIGHTS
                && self.submitted < self.limit
            {
                match self.submit(false).await {
                    Err(e) if stops_short(&e) => self.refused = Some(e),
                    submitted => submitted?,
                }
            }
            if self.flight.is_empty()
                && let Some(e) = self.refused.take()
            {
                return Err(e);
            }
            self.land().await?;
        }
    }

    /// Computes the prompt and the first token.
    async fn start(&mut self) -> Result<()> {
        let began = Instant::now();
        let engine = Arc::clone(&self.sequence.engine);
        // Its pages all at once: a cache that grows chunk by chunk would be copied more often.
        let written = self.sequence.written;
        let len = self.prompt.len();
        self.sequence.reserve(&mut engine.state(), len)?;
        self.sequence.written = written;
        // The chunk that the device is at: its submission, rows, and when it was submitted.
        let mut running: Option<(Ticket, usize, Instant)> = None;
        let mut landed = began;
        loop {
            let first = self.sequence.cached.len();
            let (next, last) = {
                let mut state = engine.state();
                let rows = state.pace.rows(engine.chunk);
                // The last chunk ends with the prompt: it is run by `submit`, which samples after it.
                let last = self.prompt.len() - first <= rows;
                let mut next = None;
                if !last {
                    state.current = 0;
                    self.write_rows(&mut state, first, rows)?;
                    // Nobody asks for this chunk's logits.
                    let count = engine.decoder()?.plans[1].body;
                    let pieces = state.pace.chunk_pieces(rows, count);
                    let program = Arc::clone(&state.programs[1]);
                    let extent = Extent {
                        tokens: rows,
                        positions: first + rows,
                    };
                    let encoder = encode(&engine, &program, count, extent, pieces);
                    next = Some((engine.gpu.submit(encoder), rows, Instant::now()));
                    self.sequence
                        .cached
                        .extend_from_slice(&self.prompt[first..first + rows]);
                }
                (next, last)
            };
            // One chunk runs and one is queued: that keeps the device busy and bounds what waits.
            if let Some((ticket, rows, submitted)) = running.take() {
                engine.gpu.wait(Some(&ticket))?;
                let now = Instant::now();
                let took = now - submitted.max(landed);
                landed = now;
                if cfg!(not(target_arch = "wasm32")) {
                    engine.state().pace.chunk_took(rows, took);
                }
            }
            running = next;
            if last {
                break;
            }
            pause().await;
        }
        self.last = landed;
        self.submit(true).await?;
        self.land().await?;
        self.prompt_time = began.elapsed();
        Ok(())
    }

    /// Puts `count` tokens of the prompt from `first` on into the step.
    fn write_rows(&mut self, state: &mut State, first: usize, count: usize) -> Result<()> {
        let engine = Arc::clone(&self.sequence.engine);
        self.sequence.reserve(state, first + count)?;
        let mut rows = vec![Row::default(); engine.chunk];
        for (i, row) in rows.iter_mut().take(count).enumerate() {
            *row = Row {
                token: self.prompt[first + i],
                pos: (first + i) as u32,
                slot: self.sequence.slot,
                live: 1,
            };
        }
        let step = engine.buffer(Resource::Step);
        engine
            .gpu
            .queue
            .write_buffer(step, 0, bytemuck::cast_slice(&rows));
        Ok(())
    }

    /// Queues one submission: the end of the prompt and a token, or some steps of decode.
    async fn submit(&mut self, prompt: bool) -> Result<()> {
        // Where another sequence took the device's step, ours goes on from what was read.
        while !self.record(prompt)? {
            while !self.flight.is_empty() {
                Box::pin(self.land()).await?;
            }
            if self.done {
                break;
            }
        }
        Ok(())
    }

    /// Records and submits, unless another sequence has the step while tokens of ours are under way.
    fn record(&mut self, prompt: bool) -> Result<bool> {
        let engine = Arc::clone(&self.sequence.engine);
        let mut state = engine.state();
        let ours = state.current == self.id;
        if !ours && !self.flight.is_empty() {
            return Ok(false);
        }
        let left = self.limit - self.submitted;
        let steps = if prompt || self.logprobs.is_some() {
            1
        } else {
            state.pace.steps(left)
        };
        if !ours || prompt {
            state.current = self.id;
            self.write_sampler(&engine);
        }
        let len = self.prompt.len() + self.submitted + steps;
        self.sequence.reserve(&mut state, len.min(engine.context))?;
        let first = self.sequence.cached.len();
        if prompt {
            self.write_rows(&mut state, first, self.prompt.len() - first)?;
            self.sequence
                .cached
                .extend_from_slice(&self.prompt[first..]);
        } else if !ours {
            let newest = *self.made.last().unwrap_or(&NONE);
            let row = Row {
                token: newest,
                pos: (self.prompt.len() + self.made.len() - 1) as u32,
                slot: self.sequence.slot,
                live: 1,
            };
            let step = engine.buffer(Resource::Step);
            engine
                .gpu
                .queue
                .write_buffer(step, 0, bytemuck::bytes_of(&row));
        }

        let decoder = engine.decoder()?;
        let which = usize::from(prompt);
        let program = Arc::clone(&state.programs[which]);
        let (sampler, logits) = (&decoder.sample[which], &decoder.logits[which]);
        let rows = prompt.then(|| self.prompt.len() - first);
        let pieces = match rows {
            Some(rows) => state.pace.chunk_pieces(rows, program.len()),
            None if steps == 1 => state.pace.step_pieces(program.len()),
            None => 1,
        };
        let extent = Extent {
            tokens: rows.unwrap_or(1),
            positions: len,
        };
        let mut encoder = encode(&engine, &program, program.len(), extent, pieces);
        let mut logits_copy = None;
        if self.logprobs.is_some() {
            let bytes = engine.model.config.vocab as u64 * 4;
            let readback = Readback::new(&engine.gpu, bytes);
            encoder.copy_buffer_to_buffer(logits, 0, readback.staging(), 0, bytes);
            logits_copy = Some(readback);
        }
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            sampler.encode(&mut pass);
            for _ in 1..steps {
                program.encode_range(0..program.len(), extent, &mut pass);
                sampler.encode(&mut pass);
            }
        }
        let bytes = u64::from(RING) * 4;
        let mut tokens = self
            .idle
            .pop()
            .unwrap_or_else(|| Readback::new(&engine.gpu, bytes));
        let out = engine.buffer(Resource::Out);
        encoder.copy_buffer_to_buffer(out, 0, tokens.staging(), 0, bytes);
        let ticket = engine.gpu.submit(encoder);
        tokens.start(ticket.clone());
        if let Some(logits) = &mut logits_copy {
            logits.start(ticket);
        }
        self.submitted += steps;
        self.flight.push_back(Flight {
            steps,
            rows,
            tokens,
            logits: logits_copy,
            submitted: Instant::now(),
        });
        Ok(true)
    }

    /// The sampler's state, history and bias of this generation.
    fn write_sampler(&self, engine: &Engine) {
        let queue = &engine.gpu.queue;
        let state = self.sampling.state(self.made.len(), self.limit, &self.ends);
        queue.write_buffer(
            engine.buffer(Resource::Sampler),
            0,
            bytemuck::bytes_of(&state),
        );
        let vocab = engine.model.config.vocab;
        if self.sampling.penalises() {
            let mut history = vec![0u32; vocab];
            for token in &self.prompt {
                history[*token as usize] |= 1 << 31;
            }
            for token in &self.made {
                history[*token as usize] += 1;
            }
            queue.write_buffer(
                engine.buffer(Resource::History),
                0,
                bytemuck::cast_slice(&history),
            );
        }
        if !self.sampling.logit_bias.is_empty() {
            let mut bias = vec![0f32; vocab];
            for (id, b) in &self.sampling.logit_bias {
                if let Some(to) = bias.get_mut(*id as usize) {
                    *to += b;
                }
            }
            queue.write_buffer(
                engine.buffer(Resource::Bias),
                0,
                bytemuck::cast_slice(&bias),
            );
        }
    }

    /// Waits for the oldest submission and takes its tokens.
    async fn land(&mut self) -> Result<()> {
        let Some(mut flight) = self.flight.pop_front() else {
            return Ok(());
        };
        let engine = Arc::clone(&self.sequence.engine);
        flight.tokens.finish(&engine.gpu, &mut self.ring).await?;
        self.idle.push(flight.tokens);
        let mut logits = Vec::new();
        if let Some(mut readback) = flight.logits {
            readback.finish(&engine.gpu, &mut logits).await?;
        }
        let now = Instant::now();
        // With two submissions queued, the device took as long as since the last one landed.
        let took = now - self.last.max(flight.submitted);
        match flight.rows {
            Some(rows) => engine.state().pace.chunk_took(rows, took),
            None => engine.state().pace.steps_took(flight.steps, took),
        }
        self.last = now;
        self.first.get_or_insert(now);
        if self.done {
            return Ok(());
        }
        for _ in 0..flight.steps {
            let token = self.ring[self.made.len() % RING as usize];
            // The token before this one has been computed, so its keys and values are there.
            if let Some(before) = self.made.last() {
                self.sequence.cached.push(*before);
            }
            self.made.push(token);
            let end = self.ends.contains(&token);
            let logprob = self
                .logprobs
                .map(|k| logprob(bytemuck::cast_slice(&logits), token, k));
            self.ready.push_back(Step {
                token,
                end,
                logprob,
            });
            if end || self.made.len() >= self.limit {
                self.done = true;
                break;
            }
        }
        Ok(())
    }
}

/// Lets whoever polls look up between two chunks of a prompt, and drop the answer there.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether nothing is wrong but that there is no room to go on.
fn stops_short(e: &Error) -> bool {
    matches!(e, Error::CacheFull { .. } | Error::CacheMemory { .. })
}

/// Submits all but the last of `pieces` parts of the first `count` launches of a program, for a step of
/// this extent, and gives the last one, encoded.
pub(super) fn encode(
    engine: &Engine,
    program: &Program,
    count: usize,
    extent: Extent,
    pieces: usize,
) -> wgpu::CommandEncoder {
    let part = count.div_ceil(pieces.max(1)).max(1);
    let mut first = 0;
    loop {
        let mut encoder = engine.gpu.encoder();
        let end = (first + part).min(count);
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            program.encode_range(first..end, extent, &mut pass);
        }
        if end >= count {
            return encoder;
        }
        engine.gpu.submit(encoder);
        first = end;
    }
}

/// log softmax(logits) at `id`, and the `k` best.
pub(crate) fn logprob(logits: &[f32], id: u32, k: usize) -> TokenLogprob {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    let norm = f64::from(top) + sum.ln();
    let at = |id: u32| (f64::from(logits[id as usize]) - norm) as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let better = |a: &u32, b: &u32| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    };
    let k = k.min(ids.len());
    if k < ids.len() && k > 0 {
        ids.select_nth_unstable_by(k - 1, better);
    }
    ids.truncate(k);
    ids.sort_by(better);
    TokenLogprob {
        id,
        logprob: at(id),
        top: ids.into_iter().map(|id| (id, at(id))).collect(),
    }
}
