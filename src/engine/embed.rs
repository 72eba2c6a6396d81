//! Vectors of whole texts: sums of their tokens' last hidden states, several texts to a step.
//!
//! A text has consecutive rows of a step and attends to itself alone: it is a sequence of its own in a
//! cache that lasts no longer than the step. Texts begin at multiples of a page's positions, so that
//! row r's keys lie in page r / PAGE, in a page table that never changes; and what a tile of rows holds
//! is one text's. Sums leave the device, a row for each text, and not the tokens' own states.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::Instant;

use super::generate::encode;
use super::settle::settle;
use super::{Engine, Row};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::gpu::{Buffers, Extent, Program, Readback};
use crate::graph::{Attention, Graph};
use crate::kernel::attention::{KvShape, KvType, PAGE};
use crate::kernel::{Resource, pointwise};
use crate::model::Pooling;
use crate::plan::{self, Plan};

/// Tokens of a step, where texts are shorter.
const ROWS: usize = 512;

/// What makes embeddings, beside the weights.
#[derive(Debug)]
pub(super) struct Embedder {
    plan: Plan,
    kv: KvShape,
    /// Positions that the cache has room for.
    positions: usize,
    pub(super) buffers: Buffers,
    program: Program,
}

/// How keys and values are kept while a step lasts: they need not be small.
fn shape(kv: KvType, context: usize) -> KvShape {
    let positions = context.max(ROWS).next_multiple_of(PAGE);
    KvShape {
        dtype: if kv.has_blocks() { KvType::F16 } else { kv },
        stride: positions / PAGE,
        // No layer has a ring: pages are where their rows are.
        ahead: positions,
    }
}

/// Plans steps of whole texts of up to `context` tokens: last come the sums of their rows. A text may
/// be longer than a step only where its tokens see none that follow.
pub(super) fn plan(graph: &Graph, caps: &Caps, kv: KvType, context: usize) -> Result<Plan> {
    let whole = graph.attentions().any(|a| !a.causal);
    let rows = if whole { context.max(ROWS) } else { ROWS };
    let kv = shape(kv, context);
    let mut plan = plan::longest(graph, caps, kv, rows.next_multiple_of(PAGE))?;
    let [_, width] = plan.shape;
    let sums = Resource::Slot(plan.slots.len());
    plan.slots.push(plan.tokens * width * 4);
    let (states, most) = (plan.output, [plan.tokens, width]);
    let d = pointwise::pool("pool", [states, Resource::Spans, sums], most);
    plan.dispatches.push(d);
    plan.body = plan.dispatches.len();
    plan.output = sums;
    Ok(plan)
}

/// Rows of a step, and which of them are summed for whom.
#[derive(Debug, Default)]
struct Step {
    rows: Vec<Row>,
    sums: Vec<Sum>,
}

/// Some rows of a step that are summed.
#[derive(Debug)]
struct Sum {
    first: usize,
    count: usize,
    /// The text, and which of its ranges.
    owner: (usize, usize),
}

impl Step {
    /// Adds tokens of a text from position `pos` on, and what of `ranges` (of positions) is among them.
    fn add(&mut self, text: usize, tokens: &[u32], pos: usize, ranges: &[Range<usize>]) {
        let first = self.start();
        self.rows.resize(first, Row::default());
        self.rows.extend((0..).zip(tokens).map(|(i, token)| Row {
            token: *token,
            pos: pos as u32 + i,
            slot: (first / PAGE) as u32,
            live: 1,
        }));
        for (i, range) in ranges.iter().enumerate() {
            let from = range.start.max(pos);
            let to = range.end.min(pos + tokens.len());
            if from < to {
                self.sums.push(Sum {
                    first: first + from - pos,
                    count: to - from,
                    owner: (text, i),
                });
            }
        }
    }

    /// Where the next text begins.
    fn start(&self) -> usize {
        self.rows.len().next_multiple_of(PAGE)
    }
}

/// Puts texts into steps of `rows` rows, in order; each has a step of its own where they may not be
/// `together`.
fn steps(
    texts: &[&[u32]],
    ranges: &dyn Fn(usize) -> Vec<Range<usize>>,
    rows: usize,
    together: bool,
) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    for (i, text) in texts.iter().enumerate() {
        let ranges = ranges(text.len());
        for (n, chunk) in text.chunks(rows).enumerate() {
            let fits = steps.last().is_some_and(|s| {
                s.rows.is_empty() || together && n == 0 && s.start() + text.len() <= rows
            });
            if !fits {
                steps.push(Step::default());
            }
            if let Some(step) = steps.last_mut() {
                step.add(i, chunk, n * rows, &ranges);
            }
        }
    }
    steps
}

/// A step under way.
struct Flight<'s> {
    step: &'s Step,
    submitted: Instant,
    sums: Readback,
}

impl Engine {
    /// Tokens of the longest text that a vector can be made of.
    pub fn longest_text(&self) -> usize {
        self.longest
    }

    /// One vector `[width]` of each text, by `pooling`, of length 1; several texts go into a step. A text
    /// is its tokens as the model wants them, with those that begin and end it.
    ///
    /// # Errors
    /// [`Error::EmptyText`] and [`Error::LongText`] for texts that have no vector, [`Error::Token`] for
    /// a token that the model does not know, and where the device fails.
    pub async fn embed(&self, texts: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        let ranges = |len: usize| {
            let range = match pooling {
                Pooling::Mean => 0..len,
                Pooling::Cls => 0..1,
                Pooling::Last => len - 1..len,
            };
            std::iter::once(range).collect()
        };
        let mut vectors = self.sums(texts, &ranges).await?;
        for vector in &mut vectors {
            // The same for a sum and for a mean.
            let square: f64 = vector.iter().map(|v| f64::from(*v).powi(2)).sum();
            let length = square.sqrt();
            if length > 0.0 {
                for v in vector {
                    *v = (f64::from(*v) / length) as f32;
                }
            }
        }
        Ok(vectors)
    }

    /// The last hidden states `[tokens, width]` of a text.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub async fn hidden(&self, text: &[u32]) -> Result<Vec<f32>> {
        let each = |len: usize| (0..len).map(|i| i..i + 1).collect();
        let mut states = self.sums(&[text], &each).await?.remove(0);
        // They are made as logits want them.
        let scale = self.model.config.logit_scale;
        for v in &mut states {
            *v *= scale;
        }
        Ok(states)
    }

    /// Sums of each text's hidden states over `ranges` of its positions, given its length: one after the
    /// other.
    async fn sums(
        &self,
        texts: &[&[u32]],
        ranges: &dyn Fn(usize) -> Vec<Range<usize>>,
    ) -> Result<Vec<Vec<f32>>> {
        let (vocab, limit) = (self.model.config.vocab, self.longest);
        for (number, text) in (1..).zip(texts) {
            if text.is_empty() {
                return Err(Error::EmptyText { number });
            }
            if let Some(id) = text.iter().find(|t| **t as usize >= vocab) {
                return Err(Error::Token { id: *id, vocab });
            }
            let tokens = text.len();
            if tokens > limit {
                return Err(Error::LongText {
                    number,
                    tokens,
                    limit,
                });
            }
        }
        let mut embedder = self.embedder().await?;
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        embedder.make_room(self, longest)?;
        let width = embedder.plan.shape[1];
        let mut sums: Vec<Vec<f32>> = texts
            .iter()
            .map(|t| vec![0.0; ranges(t.len()).len() * width])
            .collect();
        // Lists of experts' tokens count on rows without gaps.
        let together = self.model.config.experts.is_none();
        let mut words = Vec::new();
        let mut take = |words: &[u32], step: &Step| {
            let rows: &[f32] = bytemuck::cast_slice(words);
            for (row, sum) in rows.chunks_exact(width).zip(&step.sums) {
                let (text, range) = sum.owner;
                let to = &mut sums[text][range * width..][..width];
                to.iter_mut().zip(row).for_each(|(to, v)| *to += v);
            }
        };
        let steps = steps(texts, ranges, embedder.plan.tokens, together);
        // While one step runs, the next is written and queued.
        let mut flight: Option<Flight<'_>> = None;
        let mut landed = Instant::now();
        let queued = steps.iter().filter(|s| !s.rows.is_empty()).map(Some);
        for step in queued.chain([None]) {
            let next = step.map(|step| Flight {
                step,
                submitted: Instant::now(),
                sums: embedder.submit(self, step),
            });
            if let Some(mut done) = std::mem::replace(&mut flight, next) {
                done.sums.finish(&self.gpu, &mut words).await?;
                let began = done.submitted.max(landed);
                landed = Instant::now();
                if cfg!(not(target_arch = "wasm32")) {
                    let took = landed - began;
                    self.state().pace.chunk_took(done.step.rows.len(), took);
                }
                take(&words, done.step);
            }
        }
        self.gpu.check()?;
        self.keep(embedder);
        Ok(sums)
    }

    /// Takes what makes embeddings, or makes it; [`Engine::keep`] puts it back. Who comes meanwhile makes
    /// another.
    async fn embedder(&self) -> Result<Embedder> {
        let kept = self.embedder.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let (kv, context) = (self.options.kv, self.context);
        let mut checks = std::mem::take(&mut *self.checks());
        let make = |caps: &Caps| Ok(vec![plan(&self.hidden, caps, kv, context)?]);
        let (gpu, pipelines) = (&self.gpu, &self.pipelines);
        let settled = settle(gpu, pipelines, &mut checks, false, make, || Ok(())).await;
        *self.checks() = checks;
        Embedder::new(self, settled?.0.remove(0))
    }

    fn keep(&self, embedder: Embedder) {
        let kept = self.embedder.lock();
        *kept.unwrap_or_else(PoisonError::into_inner) = Some(embedder);
    }

    /// Makes embeddings by the first of `plans` from now on.
    pub(super) fn embed_with(&mut self, plans: Vec<Plan>) -> Result<()> {
        for plan in plans {
            log::debug!("plan of embeddings: {plan}");
            // An encoder's text is one step.
            self.longest = self.context.min(plan.tokens);
            self.keep(Embedder::new(self, plan)?);
        }
        Ok(())
    }
}

impl Embedder {
    fn new(engine: &Engine, plan: Plan) -> Result<Self> {
        let gpu = &engine.gpu;
        let kv = shape(engine.options.kv, engine.context);
        let mut buffers = engine.buffers.clone();
        let mut add = |resource: Resource, bytes: usize| {
            let label = format!("embed {resource}");
            buffers.insert(resource, gpu.buffer(&label, bytes as u64));
        };
        for (i, bytes) in plan.slots.iter().enumerate() {
            add(Resource::Slot(i), *bytes);
        }
        let (graph, context) = (&engine.hidden, engine.context);
        for (resource, bytes) in self::buffers(graph, &plan, engine.options.kv, context) {
            add(resource, bytes);
        }
        let slots = plan.tokens.div_ceil(PAGE);
        let pages: Vec<u32> = (0..slots)
            .flat_map(|slot| (0..kv.stride).map(move |i| (slot + i) as u32))
            .collect();
        let table = &buffers[&Resource::Pages(0)];
        gpu.queue
            .write_buffer(table, 0, bytemuck::cast_slice(&pages));
        let positions = plan.tokens.next_multiple_of(PAGE);
        let program = Program::new(gpu, &engine.pipelines, &plan.dispatches, &buffers)?;
        gpu.check()?;
        Ok(Self {
            plan,
            kv,
            positions,
            buffers,
            program,
        })
    }

    /// Lets the cache have room for a text of `tokens` tokens. Nothing is in it between steps.
    fn make_room(&mut self, engine: &Engine, tokens: usize) -> Result<()> {
        if tokens <= self.positions {
            return Ok(());
        }
        let full = self.kv.stride * PAGE;
        let positions = tokens.next_power_of_two().next_multiple_of(PAGE).min(full);
        // The old one goes first.
        self.buffers
            .retain(|resource, _| !matches!(resource, Resource::Kv(_)));
        let layers = cache(&engine.hidden, self.kv, positions).into_iter();
        let changed: Buffers = layers
            .map(|(resource, bytes)| {
                let label = format!("embed {resource}");
                (resource, engine.gpu.buffer(&label, bytes as u64))
            })
            .collect();
        self.program = self.program.rebound(&engine.gpu, &changed);
        self.buffers.extend(changed);
        engine.gpu.check()?;
        self.positions = positions;
        Ok(())
    }

    /// Queues a step, and asks for its sums.
    fn submit(&self, engine: &Engine, step: &Step) -> Readback {
        let (gpu, tokens) = (&engine.gpu, self.plan.tokens);
        let mut rows = step.rows.clone();
        rows.resize(tokens, Row::default());
        let mut spans: Vec<[u32; 2]> = Vec::with_capacity(tokens);
        spans.extend(step.sums.iter().map(|s| [s.first as u32, s.count as u32]));
        spans.resize(tokens, [0, 0]);
        let write = |resource: Resource, bytes: &[u8]| {
            gpu.queue.write_buffer(&self.buffers[&resource], 0, bytes);
        };
        write(Resource::Step, bytemuck::cast_slice(&rows));
        write(Resource::Spans, bytemuck::cast_slice(&spans));
        let positions = step.rows.iter().map(|r| r.pos as usize + 1).max();
        let extent = Extent {
            tokens: step.rows.len(),
            positions: positions.unwrap_or(1),
        };
        let launches = self.program.len();
        let pace = engine.state().pace;
        let pieces = pace.chunk_pieces(extent.tokens, launches);
        let mut encoder = encode(engine, &self.program, launches, extent, pieces);
        let bytes = (step.sums.len() * self.plan.shape[1] * 4).max(4) as u64;
        let mut readback = Readback::new(gpu, bytes);
        let from = &self.buffers[&self.plan.output];
        encoder.copy_buffer_to_buffer(from, 0, readback.staging(), 0, bytes);
        readback.start(gpu.submit(encoder));
        readback
    }
}

/// What steps of `plan` need beside its slots and the weights, with keys and values for as many
/// positions as a step has.
pub(super) fn buffers(
    graph: &Graph,
    plan: &Plan,
    kv: KvType,
    context: usize,
) -> Vec<(Resource, usize)> {
    let kv = shape(kv, context);
    let pages = plan.tokens.div_ceil(PAGE) * kv.stride;
    let mut buffers = vec![
        (Resource::Step, plan.tokens * size_of::<Row>()),
        (Resource::Spans, plan.tokens * size_of::<[u32; 2]>()),
        (Resource::Pages(0), pages * 4),
    ];
    buffers.extend(cache(graph, kv, plan.tokens.next_multiple_of(PAGE)));
    buffers
}

/// Bytes of keys and values of so many positions, of every layer that keeps its own.
fn cache(graph: &Graph, kv: KvShape, positions: usize) -> BTreeMap<Resource, usize> {
    let layer = |a: &Attention| {
        let bytes = positions / PAGE * kv.page_bytes(a.kv_heads, a.head_dim);
        (Resource::Kv(a.layer), bytes)
    };
    graph.attentions().map(layer).collect()
}
