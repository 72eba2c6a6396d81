//! A device with a model loaded: weights, KV cache, the step loop, and the sequences on it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::gpu::{Buffers, Checks, DeviceOptions, Gpu, Pipelines, Program};
use crate::graph::Graph;
use crate::kernel::attention::{KvShape, KvType, PAGE};
use crate::kernel::sample::{self, PARTS, RING, SamplerState};
use crate::kernel::{Dispatch, Resource};
use crate::model::{Description, Head};
use crate::plan::{self, Plan};
use crate::tensor::DType;

mod cache;
mod fill;
mod generate;
mod pace;
mod profile;
mod sampling;
mod score;
mod settle;
mod upload;

use cache::Cache;
use pace::{MOST_STEPS, Pace};
use upload::Encoders;

pub use generate::{Generation, Sequence, Step, TokenLogprob};
pub use profile::{LaunchTime, Timed, by_operation};
pub use sampling::Sampling;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which adapter, and how.
    pub device: DeviceOptions,
    /// Tokens of context that the cache may hold for one sequence; 4096 or the model's own, whichever
    /// is smaller, when `None`. Memory is taken as it fills.
    pub context: Option<usize>,
    /// Lets the context be longer than the model was made for: to measure, not to talk.
    pub stretch: bool,
    /// Position of a sequence's first token: zero, but for who wants to see what becomes of far ones.
    pub first: usize,
    /// Contexts' worth of cache shared by all sequences.
    pub contexts: usize,
    /// Sequences that may be open at once.
    pub sequences: usize,
    /// Element type of the cache.
    pub kv: KvType,
    /// Bytes that the cache may grow to; as many as the device has when `None`.
    pub cache: Option<u64>,
    /// Tokens of a prompt that are computed at once, at most.
    pub chunk: usize,
    /// Matrices that have more bits are quantised to this type as they are loaded, on the device
    /// where there is a kernel for it; see [`crate::graph::Graph::shrink`].
    pub quant: Option<DType>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: DeviceOptions::default(),
            context: None,
            first: 0,
            stretch: false,
            contexts: 1,
            sequences: 16,
            kv: KvType::F16,
            cache: None,
            chunk: 128,
            quant: None,
        }
    }
}

/// Context where none is asked for.
const DEFAULT_CONTEXT: usize = 4096;

/// A row of a step as the shaders see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Row {
    pub(crate) token: u32,
    pub(crate) pos: u32,
    pub(crate) slot: u32,
    pub(crate) live: u32,
}

/// What the device's single set of step buffers holds right now, and what changes as it works.
#[derive(Debug)]
struct State {
    /// The generation whose sampler and row are on the device.
    current: u64,
    /// The last number given to a generation.
    generations: u64,
    free_slots: Vec<u32>,
    cache: Cache,
    /// Of a decode step and of a prompt's chunk, on the cache's buffers as they are now.
    programs: [Arc<Program>; 2],
    /// What the device took so far.
    pace: Pace,
}

/// A device with a model loaded. Shared by its sequences.
#[derive(Debug)]
pub struct Engine {
    gpu: Gpu,
    pipelines: Pipelines,
    buffers: Buffers,
    model: Description,
    kv: KvShape,
    context: usize,
    chunk: usize,
    sample_decode: Program,
    sample_prompt: Program,
    /// Where the logits `[vocabulary]` of decode and of prompts lie.
    logits: [wgpu::Buffer; 2],
    plans: [Plan; 2],
    /// The graph that gives logits to every token.
    score: Graph,
    options: LoadOptions,
    checks: Mutex<Checks>,
    state: Mutex<State>,
}

/// Loading, as it goes on: bytes of weights uploaded, and all of them.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

impl Engine {
    /// Loads `checkpoint` on an adapter of this machine.
    ///
    /// # Errors
    /// Where no adapter fits, the model is not supported, or memory does not suffice.
    pub async fn load(
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Self>> {
        let gpu = Gpu::open(&options.device).await?;
        Self::load_on(gpu, checkpoint, options, progress).await
    }

    /// Loads `checkpoint` on a device that is open already. Kernels that this adapter was not seen
    /// to compute rightly are checked first; what it computes wrongly is not used.
    ///
    /// # Errors
    /// Where the model is not supported, memory does not suffice, or the adapter computes wrongly
    /// ([`Error::BrokenDriver`]).
    pub async fn load_on(
        mut gpu: Gpu,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Self>> {
        let model = Description::new(checkpoint)?;
        let context = options
            .context
            .unwrap_or(DEFAULT_CONTEXT.min(model.config.context))
            .max(1);
        if context > model.config.context && !options.stretch {
            return Err(Error::Context {
                wanted: context,
                limit: model.config.context,
            });
        }
        let mut graph = model.graph(checkpoint, Head::Last, options.first + context)?;
        let mut score = model.graph(checkpoint, Head::All, options.first + context)?;
        if let Some(dtype) = options.quant {
            graph.shrink(dtype);
            score.shrink(dtype);
        }
        let chunk = options.chunk.clamp(2, 512);
        let kv = KvShape {
            dtype: options.kv,
            stride: context.div_ceil(PAGE),
            // Two submissions of steps may turn out to be past the end.
            ahead: chunk.max(2 * MOST_STEPS),
        };
        // What cannot be is said before anything is uploaded.
        let cache = Cache::new(&gpu, &graph, kv, options)?;
        let pipelines = Pipelines::new(&gpu);
        let mut checks = Checks::open(&gpu);
        let encoders = Encoders::check(&gpu, &pipelines, &mut checks, checkpoint, &graph).await?;
        let (plans, caps, mut buffers) = settle::settle(
            &gpu,
            &pipelines,
            &mut checks,
            true,
            |caps| {
                let decode = plan::plan(&graph, caps, kv, 1)?;
                Ok(vec![decode, plan::longest(&graph, caps, kv, chunk)?])
            },
            || upload::weights(&gpu, &pipelines, &encoders, checkpoint, &graph, progress),
        )
        .await?;
        gpu.caps = caps;
        let [decode, mut prompt]: [Plan; 2] = plans.try_into().map_err(|_| Error::Unplannable {
            label: "the model".into(),
        })?;
        log::debug!("decode plan: {decode}");
        log::debug!("prompt plan: {prompt}");

        let vocab = model.config.vocab;
        let rows = chunk.max(score::ROWS);
        fixed_buffers(
            &gpu,
            &mut buffers,
            &graph,
            &cache,
            options,
            options.first..options.first + context,
            [rows, vocab],
        );
        buffers.extend(cache.buffers());
        let slots = |plan: &Plan, buffers: &mut Buffers| {
            for (i, bytes) in plan.slots.iter().enumerate() {
                let buffer = gpu.buffer(&format!("slot {i}"), *bytes as u64);
                buffers.insert(Resource::Slot(i), buffer);
            }
            buffers[&plan.output].clone()
        };
        let program = |dispatches: &[Dispatch], buffers: &Buffers| {
            Program::new(&gpu, &pipelines, dispatches, buffers)
        };
        pipelines.prepare(&gpu, decode.dispatches.iter().chain(&prompt.dispatches))?;
        // Where memory does not suffice for a long chunk, it may for a shorter one.
        let prompt_logits = loop {
            let logits = slots(&prompt, &mut buffers);
            match gpu.check() {
                Err(Error::DeviceMemory) if prompt.tokens > plan::FEW => {
                    prompt = plan::plan(&graph, &gpu.caps, kv, prompt.tokens / 2)?;
                }
                done => break done.map(|()| logits)?,
            }
        };
        let chunk = prompt.tokens;
        let prompt_program = program(&prompt.dispatches, &buffers)?;
        let sampler = sample::sample(&gpu.caps, prompt.output, vocab, chunk);
        let sample_prompt = program(&sampler, &buffers)?;
        let decode_logits = slots(&decode, &mut buffers);
        let decode_program = program(&decode.dispatches, &buffers)?;
        let sampler = sample::sample(&gpu.caps, decode.output, vocab, 1);
        let sample_decode = program(&sampler, &buffers)?;
        gpu.check()?;
        pipelines.save();
        // The cache has its own, since they change.
        buffers.retain(|resource, _| !matches!(resource, Resource::Kv(_)));

        Ok(Arc::new(Self {
            state: Mutex::new(State {
                current: 0,
                generations: 0,
                free_slots: (0..options.sequences as u32).rev().collect(),
                cache,
                programs: [Arc::new(decode_program), Arc::new(prompt_program)],
                pace: Pace::default(),
            }),
            options: options.clone(),
            checks: Mutex::new(checks),
            gpu,
            pipelines,
            buffers,
            model,
            kv,
            context,
            chunk,
            sample_decode,
            sample_prompt,
            logits: [decode_logits, prompt_logits],
            plans: [decode, prompt],
            score,
        }))
    }

    /// The model's description.
    pub fn model(&self) -> &Description {
        &self.model
    }

    /// The device it runs on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Tokens a sequence may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The plans of a decode step and of a prompt chunk.
    pub fn plans(&self) -> &[Plan; 2] {
        &self.plans
    }

    /// How it was loaded.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Kernels that were run against their answers since this engine was loaded: none where all
    /// were known already.
    pub fn checked(&self) -> usize {
        self.checks().ran
    }

    /// Bytes that the KV cache takes now.
    pub fn kv_bytes(&self) -> usize {
        self.state().cache.bytes() as usize
    }

    /// Bytes that it takes with one sequence of the whole context.
    pub fn kv_bytes_full(&self) -> usize {
        self.kv.bytes(self.score.attentions())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&self, resource: Resource) -> &wgpu::Buffer {
        &self.buffers[&resource]
    }
}

/// Buffers whose size does not depend on a plan.
fn fixed_buffers(
    gpu: &Gpu,
    buffers: &mut Buffers,
    graph: &Graph,
    cache: &Cache,
    options: &LoadOptions,
    positions: Range<usize>,
    [rows, vocab]: [usize; 2],
) {
    let mut add = |resource: Resource, bytes: usize| {
        buffers.insert(resource, gpu.buffer(&resource.to_string(), bytes as u64));
    };
    add(Resource::Step, rows * size_of::<Row>());
    for pool in &cache.pools {
        let entries = options.sequences * pool.entries;
        add(Resource::Pages(pool.ring), entries * 4);
    }
    add(Resource::Sampler, size_of::<SamplerState>());
    add(Resource::Partials, PARTS as usize * 16);
    add(Resource::Candidates, vocab * 8);
    add(Resource::History, vocab * 4);
    add(Resource::Bias, vocab * 4);
    add(Resource::Out, RING as usize * 4);
    for (i, rope) in graph.ropes.iter().enumerate() {
        let table = rope.table(positions.clone());
        let buffer = gpu.buffer("rope", size_of_val(&table[..]) as u64);
        gpu.queue
            .write_buffer(&buffer, 0, bytemuck::cast_slice(&table));
        buffers.insert(Resource::Rope(i), buffer);
    }
}
