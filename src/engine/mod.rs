//! A device with a model loaded: weights, KV cache, the step loop, and the sequences on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::gpu::{Buffers, Checks, DeviceOptions, Gpu, Pipelines, Program};
use crate::graph::Graph;
use crate::kernel::attention::{KvShape, KvType};
use crate::kernel::sample;
use crate::kernel::{Dispatch, Resource};
use crate::model::{Description, Head};
use crate::plan::{self, Plan};
use crate::tensor::DType;

mod cache;
mod embed;
mod fill;
mod generate;
mod memory;
mod pace;
mod profile;
mod sampling;
mod score;
mod settle;
mod upload;

use cache::Cache;
use embed::Embedder;
use memory::Outline;
use pace::{MOST_STEPS, Pace};
use upload::Encoders;

pub use generate::{Generation, Sequence, Step, TokenLogprob};
pub use memory::{Memory, budget, estimate, fit, ways};
pub use profile::{LaunchTime, Timed, by_operation};
pub use sampling::Sampling;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which adapter, and how.
    pub device: DeviceOptions,
    /// Tokens of context that the cache may hold for one sequence; when `None`, 4096, the model's own
    /// or the longest text that its makers give it, whichever is smallest. Memory is taken as it fills.
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
    /// Bytes that the model may take of the device, its cache filled; as many as there are, where the
    /// device says, when `None`. What takes more is refused.
    pub memory: Option<u64>,
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
            memory: None,
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
    /// Of a decode step and of a prompt's chunk, on the cache's buffers as they are now; none in an
    /// encoder.
    programs: Vec<Arc<Program>>,
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
    /// What makes text, in all models but encoders.
    decoder: Option<Decoder>,
    /// The graph that gives every token's last hidden state.
    hidden: Graph,
    /// What makes embeddings: from the start in encoders, elsewhere once it was wanted.
    embedder: Mutex<Option<Embedder>>,
    /// Tokens of the longest text that can have one.
    longest: usize,
    options: LoadOptions,
    checks: Mutex<Checks>,
    state: Mutex<State>,
}

/// What a model makes text with, beside its weights and its cache.
#[derive(Debug)]
struct Decoder {
    /// Sampling after a decode step and after a prompt's chunk.
    sample: [Program; 2],
    /// Where the logits `[vocabulary]` of each lie.
    logits: [wgpu::Buffer; 2],
    plans: [Plan; 2],
    /// The graph that gives logits to every token.
    score: Graph,
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
        gpu: Gpu,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Self>> {
        // What cannot be is said before anything is uploaded.
        let outline = Outline::new(checkpoint, options)?;
        let cache = Cache::new(&gpu, outline.decoding(), outline.kv, options)?;
        let refuse = |caps: &Caps, limit| match memory::refusal(checkpoint, caps, options, limit) {
            Ok(e) | Err(e) => e,
        };
        let (need, limit) = (
            outline.memory(&gpu.caps, options)?,
            memory::limit(&gpu, options),
        );
        if let Some(limit) = limit.filter(|limit| need.total() > *limit) {
            return Err(refuse(&gpu.caps, Some(limit)));
        }
        let caps = gpu.caps.clone();
        let built = Self::build(gpu, checkpoint, options, outline, cache, progress).await;
        built.map_err(|e| match e {
            Error::DeviceMemory => refuse(&caps, None),
            e => e,
        })
    }

    /// Uploads what there is an outline of, and makes what runs it.
    async fn build(
        mut gpu: Gpu,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        outline: Outline,
        cache: Cache,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Self>> {
        let of = |head| memory::graph(&outline.model, checkpoint, options, head);
        let encodes = outline.model.is_encoder();
        // Each names its weights as the one before it does, which may have more.
        let hidden = of(Head::Hidden)?;
        let score = if encodes {
            Graph::new()
        } else {
            of(Head::All)?
        };
        let pipelines = Pipelines::new(&gpu);
        let mut checks = Checks::open(&gpu);
        let encoders =
            Encoders::check(&gpu, &pipelines, &mut checks, checkpoint, &outline.graph).await?;
        let (plans, caps, mut buffers) = settle::settle(
            &gpu,
            &pipelines,
            &mut checks,
            !encodes,
            |caps| outline.plans(caps),
            || {
                upload::weights(
                    &gpu,
                    &pipelines,
                    &encoders,
                    checkpoint,
                    &outline.graph,
                    progress,
                )
            },
        )
        .await?;
        gpu.caps = caps;
        for (resource, bytes) in outline.fixed(options) {
            let buffer = gpu.buffer(&resource.to_string(), bytes as u64);
            if let Resource::Rope(i) = resource {
                let table = outline.graph.ropes[i].table(outline.positions(options));
                gpu.queue
                    .write_buffer(&buffer, 0, bytemuck::cast_slice(&table));
            }
            buffers.insert(resource, buffer);
        }
        let Outline {
            model,
            context,
            graph,
            chunk,
            kv,
        } = outline;
        let mut engine = Self {
            state: Mutex::new(State {
                current: 0,
                generations: 0,
                free_slots: (0..options.sequences as u32).rev().collect(),
                cache,
                programs: Vec::new(),
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
            decoder: None,
            hidden,
            embedder: Mutex::new(None),
            longest: context,
        };
        match <[Plan; 2]>::try_from(plans) {
            Ok(plans) => engine.decode_with(plans, &graph, score)?,
            Err(plans) => engine.embed_with(plans)?,
        }
        engine.gpu.check()?;
        engine.pipelines.save();
        Ok(Arc::new(engine))
    }

    /// Makes what text is made with.
    fn decode_with(&mut self, plans: [Plan; 2], graph: &Graph, score: Graph) -> Result<()> {
        let [decode, mut prompt] = plans;
        log::debug!("decode plan: {decode}");
        log::debug!("prompt plan: {prompt}");
        let (gpu, pipelines) = (&self.gpu, &self.pipelines);
        let vocab = self.model.config.vocab;
        let cache = &self
            .state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .cache;
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.extend(cache.buffers());
        let slots = |plan: &Plan, buffers: &mut Buffers| {
            for (i, bytes) in plan.slots.iter().enumerate() {
                let buffer = gpu.buffer(&format!("slot {i}"), *bytes as u64);
                buffers.insert(Resource::Slot(i), buffer);
            }
            buffers[&plan.output].clone()
        };
        let program = |dispatches: &[Dispatch], buffers: &Buffers| {
            Program::new(gpu, pipelines, dispatches, buffers)
        };
        pipelines.prepare(gpu, decode.dispatches.iter().chain(&prompt.dispatches))?;
        // Where memory does not suffice for a long chunk, it may for a shorter one.
        let prompt_logits = loop {
            let logits = slots(&prompt, &mut buffers);
            match gpu.check() {
                Err(Error::DeviceMemory) if prompt.tokens > plan::FEW => {
                    prompt = plan::plan(graph, &gpu.caps, self.kv, prompt.tokens / 2)?;
                }
                done => break done.map(|()| logits)?,
            }
        };
        let prompt_program = program(&prompt.dispatches, &buffers)?;
        let sampler = sample::sample(&gpu.caps, prompt.output, vocab, prompt.tokens);
        let sample_prompt = program(&sampler, &buffers)?;
        let decode_logits = slots(&decode, &mut buffers);
        let decode_program = program(&decode.dispatches, &buffers)?;
        let sampler = sample::sample(&gpu.caps, decode.output, vocab, 1);
        let sample_decode = program(&sampler, &buffers)?;
        // The cache has its own, since they change.
        buffers.retain(|resource, _| !matches!(resource, Resource::Kv(_)));
        self.buffers = buffers;
        self.chunk = prompt.tokens;
        self.state().programs = vec![Arc::new(decode_program), Arc::new(prompt_program)];
        self.decoder = Some(Decoder {
            sample: [sample_decode, sample_prompt],
            logits: [decode_logits, prompt_logits],
            plans: [decode, prompt],
            score,
        });
        Ok(())
    }

    /// What it makes text with.
    ///
    /// # Errors
    /// [`Error::Encoder`] where it makes none.
    fn decoder(&self) -> Result<&Decoder> {
        self.decoder.as_ref().ok_or_else(|| Error::Encoder {
            name: self.model.config.name.clone(),
        })
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

    /// The plans of a decode step and of a prompt chunk; an encoder has none.
    pub fn plans(&self) -> &[Plan] {
        self.decoder.as_ref().map_or(&[], |d| &d.plans)
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
        let decoder = self.decoder.iter();
        self.kv.bytes(decoder.flat_map(|d| d.score.attentions()))
    }

    /// Bytes that it takes on the device now, by its own buffers; [`estimate`] said as much before, with
    /// the cache filled.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            cache: self.kv_bytes() as u64,
            ..Memory::default()
        };
        for (resource, buffer) in &self.buffers {
            match resource {
                Resource::Weight(..) | Resource::Vectors => memory.weights += buffer.size(),
                // Those of one plan are here; both have their own.
                Resource::Slot(_) => {}
                _ => memory.buffers += buffer.size(),
            }
        }
        let slots = self.plans().iter().flat_map(|p| &p.slots);
        memory.buffers += slots.map(|b| Gpu::buffer_bytes(*b as u64)).sum::<u64>();
        let embedder = self.embedder.lock();
        let embedder = embedder.unwrap_or_else(PoisonError::into_inner);
        for (resource, buffer) in embedder.iter().flat_map(|e| &e.buffers) {
            // The others are shared.
            if self.buffers.get(resource) != Some(buffer) {
                let of = match resource {
                    Resource::Kv(_) => &mut memory.cache,
                    _ => &mut memory.buffers,
                };
                *of += buffer.size();
            }
        }
        memory
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
