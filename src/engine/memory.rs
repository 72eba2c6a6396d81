//! What a model takes on a device, known before anything is loaded, and what of it fits.

use std::ops::Range;

use super::{DEFAULT_CONTEXT, LoadOptions, MOST_STEPS, Row, cache, embed, score};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::gpu::{AdapterInfo, Gpu};
use crate::graph::{Attention, Graph};
use crate::kernel::Resource;
use crate::kernel::encode::ENCODERS;
use crate::kernel::kv::{KvShape, KvType, PAGE};
use crate::kernel::sample::{PARTS, RING, SamplerState};
use crate::model::{Description, Head};
use crate::plan::{self, Plan};
use crate::quant::{Format, Layout};
use crate::tensor::DType;

/// Bytes on a device, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Weights as they lie there: quantised, where that is asked for.
    pub weights: u64,
    /// The KV cache, filled to the end of the context.
    pub cache: u64,
    /// Activations, logits, rotary tables, and what sampling needs.
    pub buffers: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.buffers
    }
}

/// A model as options want it loaded, before any adapter has to do with it.
pub(super) struct Outline {
    pub(super) model: Description,
    pub(super) context: usize,
    /// The graph that gives logits to the last token, or an encoder's.
    pub(super) graph: Graph,
    /// Tokens of a chunk at most.
    pub(super) chunk: usize,
    pub(super) kv: KvShape,
}

impl Outline {
    /// # Errors
    /// Where the model is not supported, or knows no context that long.
    pub(super) fn new(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let model = Description::new(checkpoint)?;
        let context = context(&model, options);
        if context > model.config.context && !options.stretch {
            return Err(Error::Context {
                wanted: context,
                limit: model.config.context,
            });
        }
        let head = if model.is_encoder() {
            Head::Hidden
        } else {
            Head::Last
        };
        let graph = graph(&model, checkpoint, options, head)?;
        let chunk = options.chunk.clamp(2, 512);
        let kv = KvShape {
            dtype: options.kv,
            stride: context.div_ceil(PAGE),
            // Two submissions of steps may turn out to be past the end.
            ahead: chunk.max(2 * MOST_STEPS),
        };
        Ok(Self {
            model,
            context,
            graph,
            chunk,
            kv,
        })
    }

    /// The plans of a decode step and of a prompt's chunk, or the one of an encoder.
    pub(super) fn plans(&self, caps: &Caps) -> Result<Vec<Plan>> {
        let (graph, kv) = (&self.graph, self.kv);
        if self.model.is_encoder() {
            return Ok(vec![embed::plan(graph, caps, kv.dtype, self.context)?]);
        }
        let decode = plan::plan(graph, caps, kv, 1)?;
        Ok(vec![decode, plan::longest(graph, caps, kv, self.chunk)?])
    }

    /// Buffers whose size does not depend on a plan.
    pub(super) fn fixed(&self, options: &LoadOptions) -> Vec<(Resource, usize)> {
        let vocab = self.model.config.vocab;
        let rows = self.chunk.max(score::ROWS);
        let mut fixed = vec![
            (Resource::Step, rows * size_of::<Row>()),
            (Resource::Sampler, size_of::<SamplerState>()),
            (Resource::Partials, PARTS as usize * 16),
            (Resource::Candidates, vocab * 8),
            (Resource::History, vocab * 4),
            (Resource::Bias, vocab * 4),
            (Resource::Out, RING as usize * 4),
        ];
        if self.model.is_encoder() {
            fixed.clear();
        }
        for a in self.decoding() {
            let pages = Resource::Pages(self.kv.ring(a.window).unwrap_or(0));
            if fixed.iter().all(|(known, _)| *known != pages) {
                let entries = options.sequences * self.kv.entries(a.window);
                fixed.push((pages, entries * 4));
            }
        }
        for (i, rope) in self.graph.ropes.iter().enumerate() {
            let entries = rope.table_len(&self.positions(options));
            fixed.push((Resource::Rope(i), entries * 8));
        }
        fixed
    }

    /// Attentions that remember: those of an encoder do not.
    pub(super) fn decoding(&self) -> impl Iterator<Item = &Attention> {
        let decodes = !self.model.is_encoder();
        self.graph.attentions().filter(move |_| decodes)
    }

    /// Positions there are.
    pub(super) fn positions(&self, options: &LoadOptions) -> Range<usize> {
        options.first..options.first + self.context
    }

    /// What it takes on an adapter, in buffers of these plans.
    pub(super) fn memory(&self, caps: &Caps, options: &LoadOptions) -> Result<Memory> {
        for a in self.decoding() {
            cache::most(caps, a, self.kv, options)?;
        }
        let size = |bytes: usize| Gpu::buffer_bytes(bytes as u64);
        let mut weights = size(4 * self.graph.vector_elements());
        for spec in &self.graph.weights {
            let parts = plan::parts(spec, caps)?;
            weights += parts.iter().map(|p| size(p.layout.bytes)).sum::<u64>();
        }
        let cache = self.kv.bytes(self.decoding()) * options.contexts.max(1);
        let fixed = self
            .fixed(options)
            .into_iter()
            .map(|(_, bytes)| size(bytes));
        let plans = self.plans(caps)?;
        let slots = plans.iter().flat_map(|p| &p.slots).map(|b| size(*b));
        let mut memory = Memory {
            weights,
            cache: (cache as u64).min(options.cache.unwrap_or(u64::MAX)),
            buffers: fixed.chain(slots).sum(),
        };
        for plan in plans.iter().filter(|_| self.model.is_encoder()) {
            for (resource, bytes) in embed::buffers(&self.graph, plan, self.kv.dtype, self.context)
            {
                let of = match resource {
                    Resource::Kv(_) => &mut memory.cache,
                    _ => &mut memory.buffers,
                };
                *of += size(bytes);
            }
        }
        Ok(memory)
    }
}

/// The context that options come to for a model.
fn context(model: &Description, options: &LoadOptions) -> usize {
    let context = options.context;
    let context = context.unwrap_or(DEFAULT_CONTEXT.min(model.config.longest_text));
    context.max(1)
}

/// A model's graph with its weights in the type that is asked for.
pub(super) fn graph(
    model: &Description,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    head: Head,
) -> Result<Graph> {
    let positions = options.first + context(model, options);
    let mut graph = model.graph(checkpoint, head, positions)?;
    if let Some(dtype) = options.quant {
        graph.shrink(dtype);
    }
    Ok(graph)
}

/// What a model takes on an adapter where it is loaded so: exactly the buffers that
/// [`super::Engine::load`] makes, with the cache as large as the context lets it grow.
///
/// # Errors
/// Where the model is not supported, or does not fit the adapter's limits.
pub fn estimate(checkpoint: &Checkpoint, caps: &Caps, options: &LoadOptions) -> Result<Memory> {
    Outline::new(checkpoint, options)?.memory(caps, options)
}

/// Bytes of a graph's matrices on a device without limits.
fn weight_bytes(graph: &Graph) -> usize {
    let weights = graph.weights.iter();
    weights
        .map(|w| Layout::new(w.dtype, w.rows, w.cols).bytes)
        .sum()
}

/// Every way to keep a model's weights and its cache in no more than these options want, the best
/// first: the weights as they are, then in ever fewer bits, each with the cache as it is and in
/// eight bits; a cache of four bits comes after all of these, since it costs more than four bits of
/// weights do. What options say of `quant` is kept.
///
/// # Errors
/// Where the model is not supported.
pub fn ways(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Vec<LoadOptions>> {
    let outline = Outline::new(checkpoint, options)?;
    let bits = |dtype: DType| {
        let format = Format::of(dtype);
        8.0 * format.block_bytes as f64 / format.block as f64
    };
    let mut quants = vec![options.quant];
    if options.quant.is_none() {
        // Of as many bits, super-blocks lose less than blocks; they stand behind them.
        let mut dtypes: Vec<_> = ENCODERS.iter().rev().map(|e| e.0).collect();
        dtypes.sort_by(|a, b| bits(*b).total_cmp(&bits(*a)));
        // Only what makes it smaller.
        let mut least = weight_bytes(&outline.graph);
        for dtype in dtypes {
            let mut graph = outline.graph.clone();
            graph.shrink(dtype);
            if weight_bytes(&graph) < least {
                least = weight_bytes(&graph);
                quants.push(Some(dtype));
            }
        }
    }
    let kvs = KvType::ALL.into_iter().skip_while(|kv| *kv != options.kv);
    let mut ways: Vec<_> = quants
        .iter()
        .flat_map(|quant| kvs.clone().map(|kv| (*quant, kv)))
        .collect();
    ways.sort_by_key(|(_, kv)| *kv == KvType::Q4_0 && *kv != options.kv);
    let way = |(quant, kv)| LoadOptions {
        kv,
        quant,
        ..options.clone()
    };
    Ok(ways.into_iter().map(way).collect())
}

/// The least context that is chosen where none is asked for.
const LEAST_CONTEXT: usize = 512;

/// The best way to load a model that fits `limit` bytes, and what it takes: the first of [`ways`] that
/// fits with the context of `options`. Where they say nothing of the context, it is then made as long as
/// fits, in doublings as far as the model's own; and where nothing fits 4096 tokens, shorter ones are
/// tried.
///
/// # Errors
/// [`Error::Memory`] where nothing fits, and as [`estimate`].
pub fn fit(
    checkpoint: &Checkpoint,
    caps: &Caps,
    options: &LoadOptions,
    limit: u64,
) -> Result<(LoadOptions, Memory)> {
    let ways = ways(checkpoint, options)?;
    if let Some(found) = search(checkpoint, caps, options, &ways, limit)? {
        return Ok(found);
    }
    let smallest = ways.last().unwrap_or(options);
    Err(refusal(checkpoint, caps, smallest, Some(limit))?)
}

/// The first of `ways` that fits.
fn search(
    checkpoint: &Checkpoint,
    caps: &Caps,
    options: &LoadOptions,
    ways: &[LoadOptions],
    limit: u64,
) -> Result<Option<(LoadOptions, Memory)>> {
    let model = Description::new(checkpoint)?;
    let at = |way: &LoadOptions, context: usize| {
        let way = LoadOptions {
            context: Some(context),
            ..way.clone()
        };
        match estimate(checkpoint, caps, &way) {
            Ok(memory) if memory.total() <= limit => Ok(Some((way, memory))),
            // Too much, or beyond a limit of this adapter.
            Ok(_)
            | Err(
                Error::TooLarge { .. } | Error::CacheTooLarge { .. } | Error::CacheBlocks { .. },
            ) => Ok(None),
            Err(e) => Err(e),
        }
    };
    let wanted = context(&model, options);
    let open = options.context.is_none();
    let shorter = std::iter::successors(Some(wanted), |c| Some(c / 2));
    let shorter = shorter.take_while(|c| *c == wanted || open && *c >= LEAST_CONTEXT);
    for context in shorter {
        for way in ways {
            let Some(mut best) = at(way, context)? else {
                continue;
            };
            let most = model.config.context;
            let mut longer = context;
            while open && context == wanted && longer < most {
                longer = (2 * longer).min(most);
                match at(way, longer)? {
                    Some(found) => best = found,
                    None => break,
                }
            }
            return Ok(Some(best));
        }
    }
    Ok(None)
}

/// Bytes that may be planned with on an adapter: those of the options, or nine tenths of what there
/// are, which leaves some to the driver and to others.
pub fn budget(info: &AdapterInfo, options: &LoadOptions) -> Option<u64> {
    options.memory.or(info.memory.map(|bytes| bytes / 10 * 9))
}

/// Bytes that a model may take on a device, where that is known.
pub(super) fn limit(gpu: &Gpu, options: &LoadOptions) -> Option<u64> {
    options.memory.or(gpu.info.memory)
}

/// The refusal of what needs more than there is, with what would do where it is known what there is.
pub(super) fn refusal(
    checkpoint: &Checkpoint,
    caps: &Caps,
    options: &LoadOptions,
    limit: Option<u64>,
) -> Result<Error> {
    let outline = Outline::new(checkpoint, options)?;
    let need = outline.memory(caps, options)?;
    let fits = match limit {
        Some(limit) => remedies(checkpoint, caps, options, outline.context, limit)?,
        None => Vec::new(),
    };
    Ok(Error::Memory {
        weights: need.weights,
        buffers: need.buffers,
        cache: need.cache,
        context: outline.context,
        limit,
        fits,
    })
}

/// Changes of which each alone makes a model fit, as options of the program; where none does, several
/// together.
fn remedies(
    checkpoint: &Checkpoint,
    caps: &Caps,
    options: &LoadOptions,
    context: usize,
    limit: u64,
) -> Result<Vec<String>> {
    let fixed = LoadOptions {
        context: Some(context),
        ..options.clone()
    };
    let said = |way: &LoadOptions| {
        let mut said = Vec::new();
        if let Some(dtype) = way.quant.filter(|_| way.quant != options.quant) {
            said.push(format!("--quant {}", dtype.to_string().to_lowercase()));
        }
        if way.kv != options.kv {
            said.push(format!("--kv {}", way.kv));
        }
        if let Some(shorter) = way.context.filter(|c| *c != context) {
            said.push(format!("--ctx {shorter}"));
        }
        said
    };
    let fits = |way: &LoadOptions| {
        let need = estimate(checkpoint, caps, way);
        need.is_ok_and(|need| need.total() <= limit)
    };
    let mut found = Vec::new();
    let alone = |way: &&LoadOptions| said(way).len() == 1 && fits(way);
    let ways = ways(checkpoint, &fixed)?;
    let (kept, fewer): (Vec<_>, Vec<_>) = ways.iter().partition(|w| w.quant == options.quant);
    for group in [fewer, kept] {
        found.extend(
            group
                .into_iter()
                .find(alone)
                .map(said)
                .into_iter()
                .flatten(),
        );
    }
    let halves = std::iter::successors(Some(context.next_power_of_two() / 2), |c| Some(c / 2));
    let mut shorter = halves
        .take_while(|c| *c >= LEAST_CONTEXT)
        .map(|context| LoadOptions {
            context: Some(context),
            ..options.clone()
        });
    found.extend(
        shorter
            .find(|way| fits(way))
            .map(|w| said(&w))
            .into_iter()
            .flatten(),
    );
    if found.is_empty() {
        let open = LoadOptions {
            context: None,
            ..options.clone()
        };
        let ways = self::ways(checkpoint, &open)?;
        if let Some((way, _)) = search(checkpoint, caps, &open, &ways, limit)? {
            found.push(said(&way).join(" "));
        }
    }
    Ok(found)
}
