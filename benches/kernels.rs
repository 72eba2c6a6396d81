//! Every kernel in every variant that the adapter at hand would run, in any precision, at the sizes
//! of real models: products with 2048 rows of weights, chunks of 64 tokens, attention over 1024
//! positions, sampling from 49152 tokens.
//!
//! `cargo bench --bench kernels -- --quick matvec/q4_k` takes seconds; a full run takes minutes. It
//! walks the catalog that `tests/kernels.rs` holds to f64, so that what is timed is what is right.
//! Times are the device's own (timestamps around a pass), or the wall's where it has none. Rates
//! count what a launch must read at least: its weights, else its cache, else its operands.
//! `OMNIMINI_ADAPTER` chooses the adapter. With `-- --test` everything runs once, at small sizes;
//! under `cargo test` only one variant of each kernel, since `tests/kernels.rs` runs all.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a benchmark")]

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use omnimini::caps::{Caps, Precision};
use omnimini::gpu::{Buffers, Extent, Gpu, Pipelines, Program, Readback};
use omnimini::graph::RopeSpec;
use omnimini::kernel::attention::PAGE;
use omnimini::kernel::catalog::{COLS, Sizes, sized};
use omnimini::kernel::sample::{ENDS, NONE, PARTS, RING, SamplerState};
use omnimini::kernel::{Dispatch, Resource};
use omnimini::quant::testing::{Rng, random_matrix};
use omnimini::quant::{FORMATS, Format, Layout, repack_rows};
use omnimini::shader::{Const, Variant};
use omnimini::tensor::DType;
use pollster::block_on;

#[path = "../tests/common/mod.rs"]
mod common;

const REAL: Sizes = Sizes {
    rows: 2048,
    tokens: 64,
    positions: 1024,
    vocab: 49152,
};

/// Bytes of weights to go through before the first are read again: more than any cache holds, since a
/// model's next layer finds nothing of its own there either.
const COLD: usize = 128 << 20;

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

    /// Whether the cache is kept in halves.
    fn halves(&self) -> bool {
        self.module("kv").is_some_and(|f| f.starts_with("kv/f16"))
    }

    /// Tokens that it is for.
    fn tokens(&self, s: Sizes) -> usize {
        let name = self.0.kernel.name;
        let one = ["matvec", "attention_decode", "attention_combine"];
        if one.iter().any(|of| name.starts_with(of)) {
            1
        } else {
            s.tokens
        }
    }
}

/// Launches to time, each with those that it makes no sense without.
fn units(caps: &Caps, s: Sizes) -> Vec<Vec<Dispatch>> {
    let mut units: Vec<Vec<Dispatch>> = Vec::new();
    let mut seen = HashSet::new();
    for wanted in [Precision::F32, Precision::F16, Precision::Int8] {
        let caps = Caps {
            precision: wanted.resolve(caps.kind, caps.f16),
            ..caps.clone()
        };
        for d in sized(&caps, s) {
            if !seen.insert((d.kernel.name, d.variant.clone())) {
                continue;
            }
            // Each of the sampler's three needs what the one before it leaves.
            let sampler = |d: &Dispatch| d.kernel.name.starts_with("sample_");
            match units.last_mut() {
                Some(unit) if sampler(&d) && sampler(&unit[0]) => unit.push(d),
                _ => units.push(vec![d]),
            }
        }
    }
    units
}

/// Where a launch's tokens end, and how many positions the last of them looks back over.
fn reach(s: Sizes, r: &Reader<'_>) -> (usize, usize) {
    let context = r.param("page_stride").map_or(s.positions, |n| PAGE * n);
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
    let units = [("groups", 32), ("halves", 16), ("d4", 4)];
    units.iter().find_map(|(name, n)| Some(n * r.param(name)?))
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
fn bytes(s: Sizes, d: &Dispatch) -> usize {
    let r = Reader(d);
    let (_, seen) = reach(s, &r);
    let [h, kv, hd] = heads(&r);
    let (tokens, width) = (r.tokens(s), columns(&r).unwrap_or(s.rows));
    let position = 2 * kv * hd * if r.halves() { 2 } else { 4 };
    let weights = |rows| formats(d).map(move |f| Layout::new(f.dtype, rows, width).bytes);
    match d.kernel.name {
        "embed" => weights(tokens).sum(),
        "append_lanes" => 8 * tokens * kv * hd,
        "rope_append" => 4 * tokens * (h + 2 * kv) * hd,
        "attention_combine" => 4 * h * r.u("SPLITS").unwrap_or(1) * (hd + 4),
        name if name.starts_with("attention_") => (seen + tokens - 1) * position,
        "rms_norm" | "quantize" => 4 * tokens * width,
        "add_norm" | "binary" => 8 * tokens * width,
        "last_row" => 4 * width,
        "sample_scan" => 4 * s.vocab,
        _ => weights(s.rows).sum(),
    }
}

/// What launches bind, in words.
fn contents(s: Sizes, unit: &[Dispatch]) -> BTreeMap<Resource, Vec<u32>> {
    let mut all = BTreeMap::new();
    for d in unit {
        let mut weights = formats(d);
        for (resource, _) in &d.bindings {
            let dtype = match resource {
                Resource::Weight(..) => weights.next().map_or(DType::F32, |f| f.dtype),
                _ => DType::F32,
            };
            all.entry(*resource)
                .or_insert_with(|| words(s, &Reader(d), *resource, dtype));
        }
    }
    all
}

/// What stands in a buffer that a launch binds; `dtype` is a weight's.
fn words(s: Sizes, r: &Reader<'_>, resource: Resource, dtype: DType) -> Vec<u32> {
    let [h, kv, hd] = heads(r);
    let (tokens, width) = (r.tokens(s), columns(r).unwrap_or(s.rows));
    let (end, _) = reach(s, r);
    let pages = s.positions.div_ceil(PAGE);
    let cache = 2 * pages * PAGE * kv * hd;
    let mut random = Rng::new(2);
    let some: Vec<f32> = (0..4099).map(|_| 0.5 * random.normal()).collect();
    let floats = |n: usize| {
        let words = some.iter().map(|v| v.to_bits());
        words.cycle().take(n).collect::<Vec<u32>>()
    };
    match resource {
        // As many as any of the launch's has.
        Resource::Slot(_) => {
            let product = tokens * width.max(3 * s.rows);
            let heads = tokens * (h + 2 * kv) * hd;
            let parts = h * r.u("SPLITS").unwrap_or(1) * (hd + 4);
            // An encoder's source as floats, and what it makes of it.
            let made = 32 * r.param("total").unwrap_or(0);
            floats(product.max(heads).max(parts).max(s.vocab).max(made))
        }
        Resource::Weight(..) => {
            let blocks = random_matrix(dtype, &mut random, s.rows, width);
            let mut packed = vec![0u8; Layout::new(dtype, s.rows, width).bytes];
            repack_rows(dtype, &blocks, s.rows, width, &mut packed).unwrap();
            bytemuck::pod_collect_to_vec(&packed)
        }
        Resource::Vectors => {
            // An embedding may have a vector for each position.
            let positions = if r.0.kernel.name == "embed" { end } else { 1 };
            floats(width.max(s.rows).max(hd) * positions)
        }
        Resource::Spans => (0..tokens as u32).flat_map(|t| [t, 1]).collect(),
        Resource::Kv(_) if r.halves() => {
            let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
            let pairs = some.chunks_exact(2).map(|p| half(p[0]) | half(p[1]) << 16);
            pairs.cycle().take(cache / 2).collect()
        }
        Resource::Kv(_) => floats(cache),
        // Consecutive rows of the first sequence, the last of which is at the end.
        Resource::Step => (0..tokens)
            .flat_map(|t| [(37 * t % s.rows) as u32, (end - tokens + t) as u32, 0, 1])
            .collect(),
        Resource::Pages(_) => (0..pages as u32).collect(),
        Resource::Rope(_) => {
            let rope = RopeSpec::plain(r.u("DIMS").unwrap_or(hd), false, 10_000.0);
            let table = rope.table(0..end);
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
    }
}

/// Copies of what a model finds in no cache when it comes to it: its weights, its keys and values.
fn copies(s: Sizes, unit: &[Dispatch], cold: usize) -> usize {
    let mut bound = unit.iter().flat_map(|d| &d.bindings);
    if bound.any(|(r, _)| copy_of(*r, 1) != *r) {
        (cold / bytes(s, &unit[0]).max(1)).clamp(1, 32)
    } else {
        1
    }
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
    fn new(
        gpu: &'a Gpu,
        pipelines: &Pipelines,
        unit: &[Dispatch],
        contents: &BTreeMap<Resource, Vec<u32>>,
        copies: usize,
    ) -> Self {
        let mut buffers = Buffers::new();
        let mut dispatches = Vec::new();
        for copy in 0..copies {
            for mut d in unit.iter().cloned() {
                for (resource, _) in &mut d.bindings {
                    *resource = copy_of(*resource, copy);
                }
                dispatches.push(d);
            }
            for (resource, words) in contents {
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
            unit: unit.len(),
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
            self.program
                .encode_range(at..at + self.unit, Extent::ALL, &mut pass);
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
fn name(d: &Dispatch, taken: &mut HashSet<String>) -> String {
    let r = Reader(d);
    let quiet = ["words", "cache", "head", "rope", "sampler", "reduce"];
    let modules = d.variant.modules.iter();
    let telling = modules
        .filter(|(n, file, _)| *file != "lib/rows" && !quiet.iter().any(|q| n.starts_with(q)));
    let mut files: Vec<&str> = telling.map(|(_, file, _)| *file).collect();
    // Formats first: one looks for a kernel by them.
    files.sort_by_key(|file| !file.starts_with("quant/"));
    let last = |file: &&str| file.rsplit('/').next().unwrap_or_default().to_string();
    let mut parts: Vec<String> = files.iter().map(last).collect();
    // Weights that are read alike.
    parts.dedup();
    if d.kernel.params.contains(&"page_stride") || d.kernel.name == "attention_combine" {
        let [h, kv, hd] = heads(&r);
        parts.push(format!("{h}x{kv}x{hd}"));
    }
    parts.extend(columns(&r).filter(|n| *n != COLS).map(|n| n.to_string()));
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
    let (sizes, cold) = if small {
        (Sizes::default(), 0)
    } else {
        (REAL, COLD)
    };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let gpu = common::gpu();
    let pipelines = Pipelines::default();
    let (mut seen, mut taken) = (HashSet::new(), HashSet::new());
    for unit in units(&gpu.caps, sizes) {
        let d = &unit[0];
        let variant = if brief {
            Variant::default()
        } else {
            d.variant.clone()
        };
        if !seen.insert((d.kernel.name, variant)) {
            continue;
        }
        let id = BenchmarkId::from_parameter(name(d, &mut taken));
        let new = || {
            let contents = contents(sizes, &unit);
            Bound::new(
                &gpu,
                &pipelines,
                &unit,
                &contents,
                copies(sizes, &unit, cold),
            )
        };
        let bound = OnceCell::new();
        let mut group = criterion.benchmark_group(d.kernel.name);
        group.throughput(Throughput::BytesDecimal(bytes(sizes, d) as u64));
        group.bench_function(id, |b| {
            let bound = bound.get_or_init(new);
            b.iter_custom(|units| bound.run(units));
        });
        group.finish();
    }
    eprintln!("on {}", gpu.info);
    gpu.check().unwrap();
    criterion.final_summary();
}
