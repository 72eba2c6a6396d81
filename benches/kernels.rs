//! Every kernel in every variant on the adapter at hand, at the sizes of real models: products with
//! weights of 2048 rows, attention over 1024 positions, sampling from 49152 tokens.
//!
//! `cargo bench --bench kernels -- --quick matvec/q4_k` takes seconds; a full run takes minutes. It
//! walks the catalog that `tests/kernels.rs` holds to f64, so that what is timed is what is right.
//! Times are the device's own (timestamps around a pass), or the wall's where it has none. Rates
//! count what a launch must read at least: its weights, else its cache, else its operands.
//! `OMNIMINI_ADAPTER` chooses the adapter. With `-- --test` everything runs once, at small sizes;
//! under `cargo test` only one variant of each kernel, since `tests/kernels.rs` runs all.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a benchmark")]

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use omnimini::gpu::{Buffers, Gpu, Pipelines, Program, Readback};
use omnimini::graph::reference::rope_table;
use omnimini::graph::{Act, RopeSpec};
use omnimini::kernel::attention::PAGE;
use omnimini::kernel::catalog::catalog;
use omnimini::kernel::linear::{self, Columns, Input, Output, Weight};
use omnimini::kernel::probe::probe;
use omnimini::kernel::sample::{ENDS, NONE, PARTS, RING, SamplerState, sample};
use omnimini::kernel::{Dispatch, Resource, pointwise};
use omnimini::quant::testing::{Rng, random_matrix};
use omnimini::quant::{FORMATS, Format, Layout, repack_rows};
use omnimini::shader::{Const, Variant};
use omnimini::tensor::DType;
use pollster::block_on;

#[path = "../tests/common/mod.rs"]
mod common;

/// What is measured.
struct Sizes {
    /// Outputs of a product, and inputs.
    rows: usize,
    cols: usize,
    /// Tokens of a prompt's chunk.
    tokens: usize,
    /// Positions that attention looks back over.
    positions: usize,
    /// Tokens of the vocabulary.
    vocab: usize,
    /// Bytes of weights to go through before the first are read again: more than any cache holds,
    /// since a model's next layer finds nothing of its own there either.
    cold: usize,
}

const REAL: Sizes = Sizes {
    rows: 2048,
    cols: 2048,
    tokens: 64,
    positions: 1024,
    vocab: 49152,
    cold: 128 << 20,
};

/// For tests, which only look whether everything runs.
const SMALL: Sizes = Sizes {
    rows: 64,
    cols: 256,
    tokens: 32,
    positions: 64,
    vocab: 1000,
    cold: 0,
};

/// What a launch's variant says.
struct Reader<'a>(&'a Dispatch);

impl Reader<'_> {
    fn module(&self, name: &str) -> Option<&'static str> {
        let mut modules = self.0.variant.modules.iter();
        modules.find(|(n, ..)| *n == name).map(|(_, file, _)| *file)
    }

    /// A constant of the kernel, or of whichever module has it.
    fn constant(&self, name: &str) -> Option<Const> {
        let v = &self.0.variant;
        let mut all = v.consts.iter().chain(v.modules.iter().flat_map(|m| &m.2));
        all.find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    fn u(&self, name: &str) -> Option<usize> {
        match self.constant(name) {
            Some(Const::U(v)) => Some(v as usize),
            _ => None,
        }
    }

    fn param(&self, name: &str) -> Option<usize> {
        let at = self.0.kernel.params.iter().position(|p| *p == name)?;
        match self.0.params.get(at) {
            Some(Const::U(v)) => Some(*v as usize),
            _ => None,
        }
    }

    fn act(&self) -> Option<Act> {
        match self.module("act")? {
            "lib/silu" => Some(Act::Silu),
            "lib/gelu_tanh" => Some(Act::GeluTanh),
            _ => None,
        }
    }
}

const EPS: f32 = 1e-5;
const X: Resource = Resource::Slot(0);
const Y: Resource = Resource::Slot(1);
const B: Resource = Resource::Slot(2);
const S: Resource = Resource::Slot(3);

fn input(r: &Reader<'_>) -> Option<Input> {
    Some(match r.module("input")? {
        "input/plain" => Input::Plain { x: X },
        "input/norm" => Input::Norm {
            x: X,
            gain: 0,
            eps: EPS,
        },
        "input/add_norm" => Input::AddNorm {
            x: X,
            b: B,
            s: S,
            gain: 0,
            post_gain: 0,
            eps: EPS,
        },
        _ => return None,
    })
}

fn output(r: &Reader<'_>) -> Option<Output> {
    Some(match r.module("output")? {
        "output/store" => Output::Store,
        "output/bias" => Output::Bias(0),
        "output/add" => Output::Add(B),
        "output/glu" => Output::Glu(B, r.act()?),
        "output/softcap" => Output::Softcap(30.0),
        _ => return None,
    })
}

/// A launch of the catalog's variant at real sizes; a variant for narrow matrices keeps its width.
fn sized(gpu: &Gpu, s: &Sizes, d: &Dispatch) -> Option<Dispatch> {
    let own = columns(&Reader(d)).unwrap_or(s.cols);
    let mut widths = [s.cols, own].into_iter();
    widths.find_map(|cols| sized_to(cols, gpu, s, d).filter(|new| new.variant == d.variant))
}

/// A launch like the catalog's, made by the functions that make a plan's.
fn sized_to(cols: usize, gpu: &Gpu, s: &Sizes, d: &Dispatch) -> Option<Dispatch> {
    let (caps, r, label) = (&gpu.caps, Reader(d), d.label.as_str());
    let weight = |id: usize, module: &str| {
        let format = FORMATS.iter().find(|f| Some(f.wgsl) == r.module(module))?;
        Some(Weight {
            resource: Resource::Weight(id, 0),
            dtype: format.dtype,
            rows: s.rows,
            cols,
            first: 0,
            planes: Layout::new(format.dtype, s.rows, cols).planes(),
        })
    };
    let to = |stride| Columns {
        y: Y,
        stride,
        first: 0,
    };
    let mut at = d.clone();
    Some(match d.kernel.name {
        "matvec" => {
            let w = weight(0, "weight")?;
            linear::matvec(caps, label, w, input(&r)?, output(&r)?, to(0))
        }
        "matvec_glu" => {
            let weights = [weight(0, "weight_a")?, weight(1, "weight_b")?];
            linear::matvec_glu(caps, label, weights, input(&r)?, r.act()?, Y)
        }
        "matvec_qkv" => {
            let names = [(0, "weight_a"), (1, "weight_b"), (2, "weight_c")];
            let [a, b, c] = names.map(|(id, name)| weight(id, name));
            linear::matvec_qkv(caps, label, [a?, b?, c?], input(&r)?, Y)
        }
        "matmul_direct" | "matmul_tile" => {
            let w = weight(0, "weight")?;
            linear::matmul(caps, label, w, X, output(&r)?, to(s.rows), s.tokens)
        }
        "embed" => pointwise::embed(label, weight(0, "weight")?, 1.0, Y, s.tokens),
        "rms_norm" => pointwise::rms_norm(caps, label, X, 0, EPS, Y, [s.tokens, cols]),
        "add_norm" => pointwise::add_norm(caps, label, [X, B], 0, EPS, Y, [s.tokens, cols]),
        "binary" => pointwise::binary(caps, label, r.act(), [X, B], Y, s.rows * s.tokens),
        "last_row" => pointwise::last_row(label, X, Y, [s.tokens, cols]),
        "sample_scan" => sample(caps, X, s.vocab, 1)[0].clone(),
        // The catalog's have their contexts; here they get longer chunks and all the pages.
        "attention_decode" | "attention_combine" | "attention_prompt" | "rope_append" => {
            let [_, kv, hd] = heads(&r);
            let pages = reach(s, &r).0.div_ceil(PAGE);
            set(&mut at, "values", pages * PAGE * kv * hd / 4);
            set(&mut at, "tokens", s.tokens);
            match d.kernel.name {
                "attention_prompt" => at.grid[1] = s.tokens.div_ceil(32) as u32,
                "rope_append" => at.grid[1] = s.tokens as u32,
                _ => {}
            }
            at
        }
        _ => return None,
    })
}

fn set(d: &mut Dispatch, name: &str, value: usize) {
    let at = d.kernel.params.iter().position(|p| *p == name);
    if let Some(param) = at.and_then(|i| d.params.get_mut(i)) {
        *param = Const::U(value as u32);
    }
}

/// Where a launch's tokens end, and how many positions the last of them looks back over.
fn reach(s: &Sizes, r: &Reader<'_>) -> (usize, usize) {
    let context = r
        .param("page_stride")
        .map_or(s.positions, |pages| PAGE * pages);
    let end = s.positions.min(context);
    let window = r.u("WINDOW").filter(|w| *w > 0);
    (end, window.unwrap_or(end).min(end))
}

/// Types of the weights that a launch multiplies.
fn formats(d: &Dispatch) -> impl Iterator<Item = &'static Format> {
    let files = d.variant.modules.iter().map(|(_, file, _)| *file);
    files.filter_map(|file| FORMATS.iter().find(|f| f.wgsl == file))
}

/// Elements along K, or of a row.
fn columns(r: &Reader<'_>) -> Option<usize> {
    let groups = r.param("groups").map(|g| 32 * g);
    groups.or(r.param("d4").map(|d4| 4 * d4))
}

/// (heads, heads of keys, elements of a head).
fn heads(r: &Reader<'_>) -> [usize; 3] {
    let hd = r.u("HD").or(r.param("hd4").map(|hd4| 4 * hd4));
    [
        r.u("H").or(r.param("heads")).unwrap_or(1),
        r.u("KV").unwrap_or(1),
        hd.unwrap_or(4),
    ]
}

/// Bytes that a launch must read at least.
fn bytes(s: &Sizes, d: &Dispatch) -> usize {
    let r = Reader(d);
    let (_, seen) = reach(s, &r);
    let [h, kv, hd] = heads(&r);
    let width = columns(&r).unwrap_or(s.rows);
    let position = 2
        * kv
        * hd
        * if r.module("kv") == Some("kv/f16") {
            2
        } else {
            4
        };
    let weights = |rows| {
        formats(d)
            .map(|f| Layout::new(f.dtype, rows, width).bytes)
            .sum()
    };
    match d.kernel.name {
        "embed" => weights(s.tokens),
        "rope_append" => 4 * s.tokens * (h + 2 * kv) * hd,
        "attention_decode" => seen * position,
        "attention_prompt" => (seen + s.tokens - 1) * position,
        "attention_combine" => 4 * h * r.u("SPLITS").unwrap_or(1) * (hd + 4),
        "rms_norm" => 4 * s.tokens * width,
        "add_norm" => 8 * s.tokens * width,
        "binary" => 8 * s.tokens * s.rows,
        "last_row" => 4 * width,
        "sample_scan" => 4 * s.vocab,
        _ => weights(s.rows),
    }
}

/// Launches that are timed as one, with what they bind.
struct Problem {
    dispatches: Vec<Dispatch>,
    /// Words of each buffer.
    buffers: Vec<(Resource, Vec<u32>)>,
    /// Copies of what must be cold.
    copies: usize,
}

impl Problem {
    /// For a kernel that this file does not know: its probe is small, but it runs.
    fn small(d: &Dispatch) -> Self {
        let probe = probe(d, 1);
        Self {
            dispatches: vec![probe.dispatch],
            buffers: probe.buffers,
            copies: 1,
        }
    }

    fn new(gpu: &Gpu, s: &Sizes, d: &Dispatch) -> Self {
        let cold = d.bindings.iter().any(|(r, _)| is_cold(*r));
        let copies = if cold { s.cold / bytes(s, d).max(1) } else { 1 };
        let dispatches = match d.kernel.name {
            // Each of the three needs what the one before it leaves.
            "sample_scan" => sample(&gpu.caps, X, s.vocab, 1).to_vec(),
            _ => vec![d.clone()],
        };
        let mut seen = HashSet::new();
        let mut buffers = Vec::new();
        for d in &dispatches {
            for (resource, words) in contents(s, d) {
                if seen.insert(resource) {
                    buffers.push((resource, words));
                }
            }
        }
        Self {
            dispatches,
            buffers,
            copies: copies.clamp(1, 32),
        }
    }
}

/// What a launch binds.
fn contents(s: &Sizes, d: &Dispatch) -> Vec<(Resource, Vec<u32>)> {
    let r = Reader(d);
    let [h, kv, hd] = heads(&r);
    let width = columns(&r).unwrap_or(s.rows);
    let (end, _) = reach(s, &r);
    let one = d.kernel.name == "attention_decode";
    let tokens = if one { 1 } else { s.tokens };
    let pages = end.div_ceil(PAGE);
    let cache = 2 * pages * PAGE * kv * hd;
    // As many elements as any slot of the launch has.
    let slot = [
        tokens * width.max(3 * s.rows),
        tokens * (h + 2 * kv) * hd,
        h * r.u("SPLITS").unwrap_or(1) * (hd + 4),
        s.vocab,
    ];
    let slot = slot.into_iter().max().unwrap_or_default();
    let mut random = Rng::new(2);
    let some: Vec<f32> = (0..4099).map(|_| 0.5 * random.normal()).collect();
    let floats = |n: usize| {
        let words = some.iter().map(|v| v.to_bits());
        words.cycle().take(n).collect::<Vec<u32>>()
    };
    let halves = |n: usize| {
        let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
        let pairs = some.chunks_exact(2).map(|p| half(p[0]) | half(p[1]) << 16);
        pairs.cycle().take(n / 2).collect()
    };
    let mut weights = formats(d);
    let mut words = |resource| match resource {
        Resource::Slot(_) => floats(slot),
        Resource::Weight(..) => {
            let dtype = weights.next().map_or(DType::F32, |f| f.dtype);
            let blocks = random_matrix(dtype, &mut random, s.rows, width);
            let mut packed = vec![0u8; Layout::new(dtype, s.rows, width).bytes];
            repack_rows(dtype, &blocks, s.rows, width, &mut packed).unwrap();
            bytemuck::pod_collect_to_vec(&packed)
        }
        Resource::Vectors => floats(width.max(s.rows).max(hd)),
        Resource::Kv(_) if r.module("kv") == Some("kv/f16") => halves(cache),
        Resource::Kv(_) => floats(cache),
        // Consecutive rows of the first sequence, the last of which is at the end.
        Resource::Step => (0..tokens)
            .flat_map(|t| [(37 * t % s.rows) as u32, (end - tokens + t) as u32, 0, 1])
            .collect(),
        Resource::Pages => (0..pages as u32).collect(),
        Resource::Rope(_) => {
            let rope = RopeSpec {
                dims: r.u("DIMS").unwrap_or(hd),
                base: 10_000.0,
                scale: 1.0,
                neox: false,
                factors: None,
            };
            let table = rope_table(&rope, None, end);
            table.as_flattened().iter().map(|v| v.to_bits()).collect()
        }
        // Everything is looked at and nothing changes: a repetition that costs nothing.
        Resource::Sampler => {
            let state = SamplerState {
                temperature: 0.8,
                top_p: 0.95,
                min_p: 0.05,
                repetition: 1.0,
                presence: 0.0,
                frequency: 0.0,
                top_k: 40,
                seed: [1, 2],
                flags: 3,
                made: 0,
                limit: u32::MAX,
                ends: [NONE; ENDS],
                candidates: 0,
            };
            bytemuck::pod_collect_to_vec(std::slice::from_ref(&state))
        }
        Resource::Partials => vec![0; 4 * PARTS as usize],
        Resource::Candidates => vec![0; 2 * s.vocab],
        Resource::History | Resource::Bias => vec![0; s.vocab],
        Resource::Out => vec![0; RING as usize],
    };
    d.bindings.iter().map(|(r, _)| (*r, words(*r))).collect()
}

/// What a model finds in no cache when it comes to it.
fn is_cold(resource: Resource) -> bool {
    copy_of(resource, 1) != resource
}

fn copy_of(resource: Resource, copy: usize) -> Resource {
    match resource {
        Resource::Weight(w, part) => Resource::Weight(w + 8 * copy, part),
        Resource::Kv(layer) => Resource::Kv(layer + 8 * copy),
        other => other,
    }
}

/// A problem on the device.
struct Bound<'a> {
    gpu: &'a Gpu,
    program: Program,
    /// Launches that are one.
    unit: usize,
    /// Two timestamps and where they go, where the device has them.
    clock: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    /// Seconds that a unit took last.
    pace: Cell<f64>,
}

impl<'a> Bound<'a> {
    fn new(gpu: &'a Gpu, pipelines: &Pipelines, problem: &Problem) -> Self {
        let mut buffers = Buffers::new();
        let mut dispatches = Vec::new();
        for copy in 0..problem.copies {
            for mut d in problem.dispatches.iter().cloned() {
                d.bindings
                    .iter_mut()
                    .for_each(|(r, _)| *r = copy_of(*r, copy));
                dispatches.push(d);
            }
            for (resource, words) in &problem.buffers {
                buffers.entry(copy_of(*resource, copy)).or_insert_with(|| {
                    let buffer = gpu.buffer("bench", 4 * words.len() as u64);
                    let bytes = bytemuck::cast_slice(words);
                    gpu.queue.write_buffer(&buffer, 0, bytes);
                    buffer
                });
            }
        }
        let program = Program::new(gpu, pipelines, &dispatches, &buffers).unwrap();
        let features = gpu.device.features();
        let clock = features.contains(wgpu::Features::TIMESTAMP_QUERY).then(|| {
            let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("bench"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (set, resolved)
        });
        let bound = Self {
            gpu,
            program,
            unit: problem.dispatches.len(),
            clock,
            pace: Cell::new(1.0),
        };
        // The first brings the buffers to the device.
        bound.run(1);
        bound
    }

    /// The time of `units`, in submissions short enough for any driver's patience.
    fn run(&self, units: u64) -> Duration {
        let (mut done, mut total) = (0, 0.0);
        while done < units {
            let most = (0.2 / self.pace.get()).clamp(1.0, 1024.0) as u64;
            let batch = most.min(units - done);
            let took = self.pass(done, batch);
            self.pace.set(took / batch as f64);
            total += took;
            done += batch;
        }
        Duration::from_secs_f64(total)
    }

    /// Seconds that some units take in one pass.
    fn pass(&self, first: u64, units: u64) -> f64 {
        let gpu = self.gpu;
        let mut encoder = gpu.encoder();
        let timestamps = self.clock.as_ref();
        let timestamps = timestamps.map(|(set, _)| wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("bench"),
            timestamp_writes: timestamps,
        });
        for i in first..first + units {
            let at = i as usize * self.unit % self.program.len();
            self.program.encode_range(at..at + self.unit, &mut pass);
        }
        drop(pass);
        let seconds = if let Some((set, resolved)) = &self.clock {
            let mut readback = Readback::new(gpu, 16);
            encoder.resolve_query_set(set, 0..2, resolved, 0);
            encoder.copy_buffer_to_buffer(resolved, 0, readback.staging(), 0, 16);
            readback.start(gpu.submit(encoder));
            let mut words = Vec::new();
            block_on(readback.finish(gpu, &mut words)).unwrap();
            let at = |i: usize| u64::from(words[2 * i]) | u64::from(words[2 * i + 1]) << 32;
            let ticks = at(1).saturating_sub(at(0)) as f64;
            ticks * f64::from(gpu.queue.get_timestamp_period()) * 1e-9
        } else {
            let start = Instant::now();
            let ticket = gpu.submit(encoder);
            gpu.wait(Some(&ticket)).unwrap();
            start.elapsed().as_secs_f64()
        };
        // Criterion takes no zero.
        seconds.max(1e-9)
    }
}

/// A short name, made of what tells a variant from the others of its kernel.
fn name(d: &Dispatch, s: &Sizes, taken: &mut HashSet<String>) -> String {
    let r = Reader(d);
    let quiet = ["rows", "cache", "head", "rope", "sampler", "reduce"];
    let modules = d.variant.modules.iter();
    let telling = modules.filter(|(n, ..)| !quiet.iter().any(|q| n.starts_with(q)));
    let mut files: Vec<&str> = telling.map(|(_, file, _)| *file).collect();
    // Formats first: one looks for a kernel by them.
    files.sort_by_key(|file| !file.starts_with("quant/"));
    let last = |file: &&str| file.rsplit('/').next().unwrap_or_default().to_string();
    let mut parts: Vec<String> = files.iter().map(last).collect();
    if d.kernel.params.contains(&"page_stride") || d.kernel.name == "attention_combine" {
        let [h, kv, hd] = heads(&r);
        parts.push(format!("{h}x{kv}x{hd}"));
    }
    parts.extend(columns(&r).filter(|n| *n != s.cols).map(|n| n.to_string()));
    for (mark, constant) in [("window", "WINDOW"), ("split", "SPLITS")] {
        let value = r.u(constant).filter(|v| *v > 1);
        parts.extend(value.map(|v| format!("{mark}{v}")));
    }
    let base = parts.join("-");
    let mut names = (1..).map(|n| match (n, base.as_str()) {
        (1, "") => "all".into(),
        (1, base) => base.to_string(),
        (n, base) => format!("{base}.{n}"),
    });
    let free = names.find(|n| taken.insert(format!("{}/{n}", d.kernel.name)));
    free.unwrap_or_default()
}

fn main() {
    let told = |flag: &str| std::env::args().any(|a| a == flag);
    // `cargo test` says neither, `cargo bench -- --test` both.
    let (brief, small) = (!told("--bench"), !told("--bench") || told("--test"));
    let sizes = if small { &SMALL } else { &REAL };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let gpu = common::gpu();
    let pipelines = Pipelines::default();
    let (mut seen, mut taken) = (HashSet::new(), HashSet::new());
    for d in catalog(&gpu.caps) {
        let after_scan = ["sample_gather", "sample_pick"].contains(&d.kernel.name);
        let variant = if brief {
            Variant::default()
        } else {
            d.variant.clone()
        };
        if after_scan || !seen.insert((d.kernel.name, variant)) {
            continue;
        }
        let launch = sized(&gpu, sizes, &d);
        let shown = launch.as_ref().unwrap_or(&d);
        let id = BenchmarkId::from_parameter(name(shown, sizes, &mut taken));
        let new = || match &launch {
            Some(launch) => Problem::new(&gpu, sizes, launch),
            None => Problem::small(&d),
        };
        let bound = OnceCell::new();
        let mut group = criterion.benchmark_group(d.kernel.name);
        group.throughput(Throughput::BytesDecimal(bytes(sizes, shown) as u64));
        group.bench_function(id, |b| {
            let bound = bound.get_or_init(|| Bound::new(&gpu, &pipelines, &new()));
            b.iter_custom(|units| bound.run(units));
        });
        group.finish();
    }
    eprintln!("on {}", gpu.info);
    gpu.check().unwrap();
    criterion.final_summary();
}
