//! Small problems for any launch, with answers by plain f64 arithmetic.
//!
//! A probe keeps a launch's kernel and variant and gives it small shapes, fresh inputs and buffers
//! that are poisoned where it must write. The tests run probes of every variant; the engine runs
//! those of the variants it is about to use, so that a driver that computes wrongly is found
//! before a model runs on it.

use crate::graph::reference::{self, rotate};
use crate::graph::{Act, Attention, NodeId, RopeSpec};
use crate::kernel::attention::PAGE;
use crate::kernel::{Dispatch, Resource, u};
use crate::quant::testing::{Rng, random_matrix};
use crate::quant::{self, Format, Layout};
use crate::shader::Const;
use crate::tensor::DType;

/// A launch with its inputs and the answer.
#[derive(Debug)]
pub struct Probe {
    /// The launch, on small shapes.
    pub dispatch: Dispatch,
    /// Contents of every buffer it binds, as words.
    pub buffers: Vec<(Resource, Vec<u32>)>,
    /// What must stand in some of them afterwards: (buffer, first element, values). Every other
    /// word of a buffer it may write must be as it was.
    pub expect: Vec<Expected>,
    /// Largest error allowed, as a share of the largest expected magnitude.
    pub tolerance: f64,
}

/// Values that must stand in a buffer.
#[derive(Debug)]
pub struct Expected {
    /// The buffer.
    pub resource: Resource,
    /// Index of the first.
    pub first: usize,
    /// The values.
    pub values: Vec<f64>,
    /// How they are stored.
    pub kind: Kind,
    /// Errors are shares of the largest value, or of this where that is less: what a sum of
    /// products comes to when its terms don't happen to cancel.
    pub floor: f64,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A float in a word.
    Float,
    /// Halves, two to a word.
    Half,
    /// Signed bytes, four to a word.
    Byte,
}

impl Kind {
    /// Values in a word.
    pub fn per_word(self) -> usize {
        match self {
            Self::Float => 1,
            Self::Half => 2,
            Self::Byte => 4,
        }
    }

    /// Value `i` of a buffer of such values.
    pub fn read(self, words: &[u32], i: usize) -> Option<f64> {
        let word = *words.get(i / self.per_word())?;
        Some(match self {
            Self::Float => f64::from(f32::from_bits(word)),
            Self::Half => half::f16::from_bits((word >> (16 * (i % 2))) as u16).to_f64(),
            Self::Byte => f64::from((word >> (8 * (i % 4))) as i8),
        })
    }
}

/// The word that buffers are filled with where a kernel must write (a NaN as f32).
pub const POISON: u32 = 0x7fc0_dead;

fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Looks up what a launch's variant says.
struct Reader<'a>(&'a Dispatch);

impl Reader<'_> {
    fn module(&self, name: &str) -> Option<&'static str> {
        let modules = &self.0.variant.modules;
        modules
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, f, _)| *f)
    }

    fn constant(&self, module: &str, name: &str) -> Option<Const> {
        let consts = if module.is_empty() {
            &self.0.variant.consts
        } else {
            let modules = &self.0.variant.modules;
            &modules.iter().find(|(n, ..)| *n == module)?.2
        };
        consts.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn u(&self, module: &str, name: &str) -> usize {
        match self.constant(module, name) {
            Some(Const::U(v)) => v as usize,
            _ => 0,
        }
    }

    fn f(&self, module: &str, name: &str) -> f64 {
        match self.constant(module, name) {
            Some(Const::F(v)) => f64::from(v),
            _ => 0.0,
        }
    }

    fn b(&self, module: &str, name: &str) -> bool {
        self.constant(module, name) == Some(Const::B(true))
    }

    /// The resource of a weight, which its words bind where it has any.
    fn weight(&self, module: &str) -> Resource {
        let words = module.replace("weight", "words");
        let words = self.module(&words).map(|_| words);
        self.bound(words.as_deref().unwrap_or(module), "BINDING")
    }

    /// The resource bound as `name` of `module`.
    fn bound(&self, module: &str, name: &str) -> Resource {
        self.0.bindings[self.u(module, name) - 1].0
    }

    fn act(&self) -> Act {
        match self.module("act") {
            Some("lib/gelu_tanh") => Act::GeluTanh,
            _ => Act::Silu,
        }
    }
}

/// A random weight [rows, cols]: its planes as words, starts of planes 1 to 3, and its values.
fn weight(
    random: &mut Rng,
    file: &str,
    rows: usize,
    cols: usize,
) -> (Vec<u32>, [u32; 3], Vec<f32>) {
    let dtype = quant::FORMATS
        .iter()
        .find(|f| f.wgsl == file)
        .map_or(DType::F32, |f| f.dtype);
    let format = Format::of(dtype);
    let blocks = random_matrix(dtype, random, rows, cols);
    let mut values = vec![0f32; rows * cols];
    (format.dequantize)(&blocks, &mut values);
    let layout = Layout::new(dtype, rows, cols);
    let mut packed = vec![0u8; layout.bytes];
    let packing = quant::repack_rows(dtype, &blocks, rows, cols, &mut packed);
    debug_assert!(packing.is_ok(), "the shape is made of whole blocks");
    (
        bytemuck::pod_collect_to_vec(&packed),
        layout.planes(),
        values,
    )
}

fn normals(random: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.normal()).collect()
}

/// Columns of a small problem for these weight files: whole blocks of each.
fn columns(random: &mut Rng, files: &[&str]) -> usize {
    let block = |file: &&str| {
        let format = quant::FORMATS.iter().find(|f| f.wgsl == *file);
        format.map_or(32, |f| f.block.max(32))
    };
    let block = files.iter().map(block).max().unwrap_or(32);
    block * (1 + random.below(if block > 32 { 3 } else { 7 }))
}

fn poison(n: usize) -> Vec<u32> {
    vec![POISON; n]
}

fn done(
    mut dispatch: Dispatch,
    params: Vec<Const>,
    grid: [usize; 3],
    buffers: Vec<(Resource, Vec<u32>)>,
    expect: Vec<Expected>,
) -> Probe {
    dispatch.params = params;
    dispatch.grid = grid.map(|g| g as u32);
    Probe {
        dispatch,
        buffers,
        expect,
        tolerance: 2e-5,
    }
}

fn floats(resource: Resource, first: usize, values: Vec<f64>) -> Expected {
    Expected {
        resource,
        first,
        values,
        kind: Kind::Float,
        floor: 1e-3,
    }
}

/// What a product of `x` `[k]` with random rows `w` `[rows, k]` comes to, as a rule.
fn usual(x: &[f64], w: &[f32]) -> f64 {
    let squares = |sum: f64, v: f64| sum + v * v;
    let rows = w.len() / x.len();
    let x2 = x.iter().copied().fold(0.0, squares);
    let w2 = w.iter().map(|v| f64::from(*v)).fold(0.0, squares);
    (x2 * w2 / (x.len() * rows) as f64).sqrt()
}

/// A small problem for `dispatch`, different for every seed. The sampling kernels have none: they
/// are checked together, by [`crate::kernel::sample`]'s own tests.
pub fn probe(dispatch: &Dispatch, seed: u64) -> Probe {
    let mut random = Rng::new(seed);
    let r = Reader(dispatch);
    match dispatch.kernel.name {
        "matvec" | "matvec_glu" | "matvec_qkv" => matvec(dispatch, &r, &mut random),
        "quantize" => quantize(dispatch, &r, &mut random),
        name if name.starts_with("matmul_") => matmul(dispatch, &r, &mut random),
        "embed" => embed(dispatch, &r, &mut random),
        "rms_norm" | "add_norm" => norm(dispatch, &r, &mut random),
        "append_lanes"
        | "attention_decode"
        | "attention_decode_lanes"
        | "attention_prompt"
        | "attention_prompt_lanes"
        | "rope_append" => attention(dispatch, &r, &mut random),
        "attention_combine" => combine(dispatch, &r, &mut random),
        "last_row" => last_row(dispatch, &mut random),
        "binary" => binary(dispatch, &r, &mut random),
        other => unreachable!("kernel `{other}` has no probe"),
    }
}

const EPS: f32 = 1e-5;

fn matvec(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let names: &[(&str, &str)] = match dispatch.kernel.name {
        "matvec" => &[("", "weight")],
        "matvec_glu" => &[("a", "weight_a"), ("b", "weight_b")],
        _ => &[("a", "weight_a"), ("b", "weight_b"), ("c", "weight_c")],
    };
    let files: Vec<_> = names.iter().filter_map(|(_, m)| r.module(m)).collect();
    let k = columns(random, &files);
    let mut buffers = Vec::new();
    let mut expect = Vec::new();
    // The input, and what it is after its norms.
    let (gain_at, post_at) = (8, 8 + k);
    let vectors = normals(random, post_at + k + 64);
    let (gain, post) = (
        &vectors[gain_at..gain_at + k],
        &vectors[post_at..post_at + k],
    );
    let x = normals(random, k);
    buffers.push((r.bound("input", "X"), words(&x)));
    let mut input = wide(&x);
    match r.module("input") {
        Some("input/plain") => {}
        Some("input/norm") => input = reference::rms_norm(&input, gain, f64::from(EPS)),
        _ => {
            let b = normals(random, k);
            buffers.push((r.bound("input", "B"), words(&b)));
            let normed = reference::rms_norm(&wide(&b), post, f64::from(EPS));
            input = input.iter().zip(normed).map(|(x, b)| x + b).collect();
            let s = r.bound("input", "S");
            buffers.push((s, poison(k)));
            expect.push(floats(s, 0, input.clone()));
            input = reference::rms_norm(&input, gain, f64::from(EPS));
        }
    }
    // Rows: the two halves of a gated pair have the same number.
    let mut rows: Vec<usize> = names.iter().map(|_| 1 + random.below(70)).collect();
    if dispatch.kernel.name == "matvec_glu" {
        rows[1] = rows[0];
    }
    let mut products = Vec::new();
    let (mut planes, mut floor) = (Vec::new(), 0f64);
    for ((_, module), rows) in names.iter().zip(&rows) {
        let (packed, p, values) = weight(random, r.module(module).unwrap_or(""), *rows, k);
        buffers.push((r.weight(module), packed));
        planes.push(p.map(Const::U));
        let rows_module = module.replace("weight", "rows");
        if r.module(&rows_module) == Some("lib/rows_int8") {
            products.push(reference::linear(&eight(&input).2, &values, k));
        } else {
            products.push(reference::linear(&input, &values, k));
        }
        floor = usual(&input, &values).max(floor);
    }
    let total: usize = rows.iter().sum();
    let (groups, eps) = (u(k / 32), Const::F(EPS));
    let (gain, post) = (u(gain_at / 4), u(post_at / 4));
    let mut params = vec![groups];
    let (y, first, values) = match dispatch.kernel.name {
        "matvec" => {
            let first = random.below(9);
            let bias = 8;
            params.push(u(rows[0]));
            params.extend(planes[0]);
            params.extend([gain, post, eps, u(first), u(bias)]);
            let mut y = products.remove(0);
            finish(r, random, &mut buffers, &mut y, first, bias, &vectors);
            (r.bound("output", "Y"), first, y)
        }
        "matvec_glu" => {
            params.push(u(rows[0]));
            params.extend(planes.concat());
            params.extend([gain, post, eps]);
            let y = products[0].iter().zip(&products[1]);
            let y = y.map(|(a, b)| reference::act(r.act(), *a) * b).collect();
            (r.bound("", "Y"), 0, y)
        }
        _ => {
            for (rows, planes) in rows.iter().zip(&planes) {
                params.push(u(*rows));
                params.extend(planes);
            }
            params.extend([gain, post, eps]);
            (r.bound("", "Y"), 0, products.concat())
        }
    };
    if dispatch
        .bindings
        .iter()
        .any(|(b, _)| *b == Resource::Vectors)
    {
        buffers.push((Resource::Vectors, words(&vectors)));
    }
    buffers.push((y, poison(first + total + 5)));
    let mut answer = floats(y, first, values);
    answer.floor = floor;
    expect.push(answer);
    let teams = match r.module("rows").or(r.module("rows_a")) {
        Some("lib/rows_lanes") => 8 * r.u("", "WG"),
        _ => 4 * (r.u("", "WG") / r.u("reduce", "LANES")),
    };
    let grid = match dispatch.kernel.name {
        "matvec_qkv" => [rows.iter().map(|n| n.div_ceil(teams)).sum(), 1, 1],
        // Two dimensions, as a large vocabulary takes them.
        _ => [rows[0].div_ceil(teams).div_ceil(2), 2, 1],
    };
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    let modules = &dispatch.variant.modules;
    if modules.iter().any(|(_, file, _)| *file == "lib/rows_int8") {
        // A code that lies between two may be rounded either way.
        probe.tolerance = 5e-3;
    }
    probe
}

/// x in eight bits as `shaders/lib/eight.wgsl` has it: codes, scales as (step, sum of the codes) of
/// each 16, and what they stand for.
fn eight(x: &[f64]) -> (Vec<i8>, Vec<[f64; 2]>, Vec<f64>) {
    let (mut codes, mut scales, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for half in x.chunks_exact(16) {
        let top = half.iter().fold(0f64, |top, v| top.max(v.abs()));
        let steps = if top > 0.0 { 127.0 / top } else { 0.0 };
        let q: Vec<f64> = half.iter().map(|v| (v * steps).round_ties_even()).collect();
        scales.push([top / 127.0, q.iter().sum()]);
        values.extend(q.iter().map(|q| q * top / 127.0));
        codes.extend(q.iter().map(|q| *q as i8));
    }
    (codes, scales, values)
}

fn quantize(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let k = 16 * (1 + random.below(40));
    let rows = 1 + random.below(6);
    let live = 1 + random.below(rows);
    let mut x = normals(random, rows * k);
    // Sixteen zeros have codes, too.
    x[..16].fill(0.0);
    let (codes, scales, _) = eight(&wide(&x[..live * k]));
    let [from, to, scale] = [1, 2, 3].map(|i| dispatch.bindings[i].0);
    let buffers = vec![
        (Resource::Step, step(rows, live, 0, 0)),
        (from, words(&x)),
        (to, poison(rows * k / 4 + 3)),
        (scale, poison(rows * k / 8 + 3)),
    ];
    let codes = Expected {
        kind: Kind::Byte,
        ..floats(to, 0, codes.into_iter().map(f64::from).collect())
    };
    let scales = floats(scale, 0, scales.concat());
    let grid = [(k / 16).div_ceil(r.u("", "WG")), rows, 1];
    let params = vec![u(k / 16)];
    let mut probe = done(dispatch.clone(), params, grid, buffers, vec![codes, scales]);
    // A code that lies between two may be rounded either way.
    probe.tolerance = 0.01;
    probe
}

/// What an output module makes of `y`, at elements `first` on; rows of bias from `bias` on.
fn finish(
    r: &Reader<'_>,
    random: &mut Rng,
    buffers: &mut Vec<(Resource, Vec<u32>)>,
    y: &mut [f64],
    first: usize,
    bias: usize,
    vectors: &[f32],
) {
    let n = first + y.len();
    let mut other = |name: &str| {
        let values = normals(random, n);
        buffers.push((r.bound("output", name), words(&values)));
        values[first..].to_vec()
    };
    match r.module("output") {
        Some("output/bias") => {
            for (y, b) in y.iter_mut().zip(&vectors[bias..]) {
                *y += f64::from(*b);
            }
        }
        Some("output/add") => {
            for (y, b) in y.iter_mut().zip(other("RESIDUAL")) {
                *y += f64::from(b);
            }
        }
        Some("output/glu") => {
            for (y, g) in y.iter_mut().zip(other("GATE")) {
                *y *= reference::act(r.act(), f64::from(g));
            }
        }
        Some("output/softcap") => {
            for y in y {
                *y = reference::softcap(*y, r.f("output", "CAP"));
            }
        }
        _ => {}
    }
}

/// `live` rows of a step of `rows`, at consecutive positions from `pos` on.
fn step(rows: usize, live: usize, pos: usize, slot: usize) -> Vec<u32> {
    (0..rows)
        .flat_map(|i| [7, (pos + i) as u32, slot as u32, u32::from(i < live)])
        .collect()
}

fn matmul(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let file = r.module("weight").unwrap_or("");
    let k = columns(random, &[file]);
    let rows = 1 + random.below(150);
    // Rows past the live ones may be computed or not, but only in the tile of the last live one.
    let tokens = 1 + random.below(70);
    let (packed, planes, values) = weight(random, file, rows, k);
    let input = normals(random, tokens * k);
    let mut x = wide(&input);
    let mut buffers = vec![
        (Resource::Step, step(tokens, tokens, 3, 0)),
        (r.weight("weight"), packed),
    ];
    let inputs = [1, 2].map(|i| dispatch.bindings[i].0);
    if dispatch.kernel.name == "matmul_int8" {
        let (codes, scales, rounded) = eight(&x);
        let scales: Vec<f32> = scales.as_flattened().iter().map(|s| *s as f32).collect();
        let codes: Vec<u8> = codes.into_iter().map(|c| c as u8).collect();
        buffers.push((inputs[0], bytemuck::pod_collect_to_vec(&codes)));
        buffers.push((inputs[1], words(&scales)));
        x = rounded;
    } else {
        buffers.push((inputs[0], words(&input)));
    }
    let mut y = reference::linear(&x, &values, k);
    let vectors = normals(random, rows + 16);
    // With a bias the result is a matrix of its own width; otherwise it is as wide, too, so that
    // the residual and the gate have its shape.
    if r.module("output") == Some("output/bias") {
        for row in y.chunks_exact_mut(rows) {
            finish(r, random, &mut buffers, row, 0, 8, &vectors);
        }
        buffers.push((Resource::Vectors, words(&vectors)));
    } else {
        finish(r, random, &mut buffers, &mut y, 0, 0, &vectors);
    }
    let to = r.bound("output", "Y");
    let (mut stride, mut first) = (rows, 0);
    if r.module("output") == Some("output/store") {
        (stride, first) = (rows + random.below(9), random.below(5));
        stride += first;
    }
    let expect = y
        .chunks_exact(rows)
        .enumerate()
        .map(|(t, row)| Expected {
            floor: usual(&x[t * k..][..k], &values),
            ..floats(to, t * stride + first, row.to_vec())
        })
        .collect();
    buffers.push((to, poison(tokens * stride + 7)));
    let mut params = vec![u(k / 32), u(rows)];
    params.extend(planes.map(Const::U));
    params.extend([u(stride), u(first), u(8), u(tokens)]);
    let grid = match dispatch.kernel.name {
        "matmul_direct" => [rows.div_ceil(4 * r.u("", "WG")), tokens.div_ceil(4), 1],
        "matmul_lanes" => [rows.div_ceil(8 * r.u("", "LANES")), tokens.div_ceil(8), 1],
        "matmul_matrix" if r.module("matrix") == Some("lib/matrix_16") => {
            [rows.div_ceil(64), tokens.div_ceil(64), 1]
        }
        _ => [rows.div_ceil(64), tokens.div_ceil(32), 1],
    };
    let mut probe = done(dispatch.clone(), params, grid, buffers, expect);
    if r.module("matrix").is_some() || r.module("element") == Some("lib/element_f16") {
        // Both factors are rounded to 2^-12 of themselves.
        probe.tolerance = 2e-3;
    }
    probe
}

fn embed(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let file = r.module("weight").unwrap_or("");
    let k = columns(random, &[file]);
    let rows = 4 + random.below(40);
    let first = random.below(20);
    let tokens = 1 + random.below(9);
    let (packed, planes, values) = weight(random, file, rows, k);
    let scale = 1.0 + random.uniform(0.0, 8.0);
    let mut rows_of = step(tokens, tokens, 0, 0);
    let mut expect = Vec::new();
    let to = dispatch.bindings[1].0;
    for t in 0..tokens {
        // Some tokens are in another part of the table, and one row is not live.
        let token = first + random.below(rows + 6);
        rows_of[4 * t] = token as u32;
        let dead = tokens > 2 && t == 1;
        rows_of[4 * t + 3] = u32::from(!dead);
        if token - first < rows && !dead {
            let row = &values[(token - first) * k..][..k];
            let row = row.iter().map(|v| f64::from(*v) * f64::from(scale));
            expect.push(floats(to, t * k, row.collect()));
        }
    }
    let mut params = vec![u(k / 32), u(first), u(rows)];
    params.extend(planes.map(Const::U));
    params.push(Const::F(scale));
    let buffers = vec![
        (Resource::Step, rows_of),
        (to, poison(tokens * k)),
        (r.weight("weight"), packed),
    ];
    let grid = [(k / 32).div_ceil(r.u("", "WG")), tokens, 1];
    done(dispatch.clone(), params, grid, buffers, expect)
}

fn norm(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let (rows, d) = (1 + random.below(20), 4 * (1 + random.below(100)));
    let vectors = normals(random, d + 8);
    let x = normals(random, rows * d);
    let (from, to) = (dispatch.bindings[0].0, dispatch.bindings[2].0);
    let mut buffers = vec![
        (from, words(&x)),
        (Resource::Vectors, words(&vectors)),
        (to, poison(rows * d + 4)),
    ];
    let gain = &vectors[8..];
    let y = if dispatch.kernel.name == "add_norm" {
        let b = normals(random, rows * d);
        buffers.push((dispatch.bindings[3].0, words(&b)));
        let normed = reference::rms_norm(&wide(&b), gain, f64::from(EPS));
        wide(&x).iter().zip(normed).map(|(x, b)| x + b).collect()
    } else {
        reference::rms_norm(&wide(&x), gain, f64::from(EPS))
    };
    let params = vec![u(rows), u(d / 4), u(2), Const::F(EPS)];
    let grid = [rows.div_ceil(r.u("", "WG") / r.u("reduce", "LANES")), 1, 1];
    done(
        dispatch.clone(),
        params,
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}

fn binary(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let n = 4 * (1 + random.below(300));
    let (a, b) = (normals(random, n), normals(random, n));
    let pairs = wide(&a).into_iter().zip(wide(&b));
    let y = if r.module("combine") == Some("lib/combine_add") {
        pairs.map(|(a, b)| a + b).collect()
    } else {
        pairs.map(|(a, b)| reference::act(r.act(), a) * b).collect()
    };
    let to = dispatch.bindings[2].0;
    let buffers = vec![
        (dispatch.bindings[0].0, words(&a)),
        (dispatch.bindings[1].0, words(&b)),
        (to, poison(n + 4)),
    ];
    let grid = [(n / 4).div_ceil(r.u("", "WG")), 1, 1];
    done(
        dispatch.clone(),
        vec![u(n / 4)],
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}

fn last_row(dispatch: &Dispatch, random: &mut Rng) -> Probe {
    let (rows, d) = (1 + random.below(12), 4 * (1 + random.below(100)));
    let live = 1 + random.below(rows);
    let x = normals(random, rows * d);
    let to = dispatch.bindings[2].0;
    let y = wide(&x[(live - 1) * d..live * d]);
    let buffers = vec![
        (Resource::Step, step(rows, live, 0, 0)),
        (dispatch.bindings[1].0, words(&x)),
        (to, poison(d + 4)),
    ];
    done(
        dispatch.clone(),
        vec![u(rows), u(d / 4)],
        [1, 1, 1],
        buffers,
        vec![floats(to, 0, y)],
    )
}

fn combine(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let splits = r.u("", "SPLITS");
    let (tokens, heads, hd) = (
        1 + random.below(3),
        1 + random.below(5),
        4 * (1 + random.below(20)),
    );
    let mut parts = normals(random, tokens * heads * splits * (hd + 4));
    let mut y = Vec::new();
    for head in parts.chunks_exact_mut(splits * (hd + 4)) {
        let used = 1 + random.below(splits);
        for (s, part) in head.chunks_exact_mut(hd + 4).enumerate() {
            // An unused part has left its sums as they were.
            part[hd + 1] = if s < used {
                part[hd + 1].abs() + 0.1
            } else {
                0.0
            };
            part[hd] = if s < used { part[hd] * 3.0 } else { -1e30 };
            if s >= used {
                part[..hd].fill(f32::NAN);
            }
        }
        let live: Vec<_> = head.chunks_exact(hd + 4).take(used).collect();
        let weight = |p: &[f32]| f64::from(p[hd]).exp();
        let total: f64 = live.iter().map(|p| weight(p) * f64::from(p[hd + 1])).sum();
        y.extend((0..hd).map(|e| {
            let sum: f64 = live.iter().map(|p| weight(p) * f64::from(p[e])).sum();
            sum / total
        }));
    }
    let to = dispatch.bindings[1].0;
    let buffers = vec![
        (dispatch.bindings[0].0, words(&parts)),
        (to, poison(tokens * heads * hd + 4)),
    ];
    let grid = [(heads * hd / 4).div_ceil(r.u("", "WG")), tokens, 1];
    done(
        dispatch.clone(),
        vec![u(heads), u(hd / 4)],
        grid,
        buffers,
        vec![floats(to, 0, y)],
    )
}

/// A cache of `positions` positions in pages out of order, behind attention of any kind.
fn attention(dispatch: &Dispatch, r: &Reader<'_>, random: &mut Rng) -> Probe {
    let name = dispatch.kernel.name;
    let (h, kv, hd) = (r.u("", "H"), r.u("cache", "KV"), r.u("cache", "HD"));
    let half = matches!(r.module("kv"), Some("kv/f16" | "kv/f16_wide"));
    let kind = if half { Kind::Half } else { Kind::Float };
    let decode = matches!(name, "attention_decode" | "attention_decode_lanes");
    let attends = decode || matches!(name, "attention_prompt" | "attention_prompt_lanes");
    let appends = matches!(name, "append_lanes" | "rope_append") || decode;
    let lanes = r.module("head") == Some("lib/head_lanes");
    let round = |v: f64| {
        if half {
            f64::from(half::f16::from_f64(v))
        } else {
            v
        }
    };
    let window = r.u("", "WINDOW");
    let cap = r.f("", "CAP");
    let a = Attention {
        q: NodeId(0),
        k: NodeId(0),
        v: NodeId(0),
        layer: 0,
        heads: h,
        kv_heads: kv,
        head_dim: hd,
        scale: 1.0 / (hd as f32).sqrt(),
        window: (window > 0).then_some(window as u32),
        softcap: (cap > 0.0).then_some(cap as f32),
        rope: 0,
        qk_norm: None,
        eps: EPS,
    };
    let rope = RopeSpec {
        dims: r.u("rope", "DIMS").max(2),
        base: 10_000.0,
        scale: 1.0,
        neox: r.b("rope", "NEOX"),
        factors: None,
    };
    let frequencies = reference::frequencies(&rope, None);

    // Where the tokens stand: past a window or a split now and then, else near the start.
    let reach = match (random.below(3), r.u("", "SPLIT")) {
        (0, split) if split > 0 => split + 40,
        _ => 90,
    };
    let reach = reach.max(if window > 0 {
        (window + 40).min(700)
    } else {
        0
    });
    let pos = random.below(reach);
    let rows = if decode { 1 } else { 1 + random.below(40) };
    let live = 1 + random.below(rows);
    let positions = pos + rows;
    let stride = positions.div_ceil(PAGE) + 1;
    let slots = 2;
    let pages = slots * stride + 1;
    let slot = random.below(slots);
    let mut order: Vec<u32> = (0..pages as u32).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    order.truncate(slots * stride);
    let values_at = pages * PAGE * kv * hd;
    let at = |p: usize, head: usize| {
        let page = order[slot * stride + p / PAGE] as usize;
        ((page * kv + head) * PAGE + p % PAGE) * hd
    };

    // The cache before: everything poisoned but the positions that are there.
    let cached = if appends { pos } else { pos + live };
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut cache = vec![f32::NAN; 2 * values_at];
    for p in 0..cached {
        for head in 0..kv {
            for (to, store) in [(0, &mut keys), (values_at, &mut values)] {
                for e in 0..hd {
                    let v = round(f64::from(random.normal()));
                    cache[to + at(p, head) + e] = v as f32;
                    store.push(v);
                }
            }
        }
    }

    // q, k and v of this step, and what they become.
    let width = (h + 2 * kv) * hd;
    let qkv = normals(random, rows * width);
    let norm = r.b("head", "NORM");
    let vectors = normals(random, 2 * hd + 4);
    let gains = [4, 4 + hd];
    let ready = |t: usize, head: usize, gain: usize| {
        let from = t * width + head * hd;
        let mut x = wide(&qkv[from..from + hd]);
        if norm {
            x = reference::rms_norm(&x, &vectors[gain..gain + hd], f64::from(EPS));
        }
        rotate(&mut x, &rope, &frequencies, (pos + t) as u32);
        x
    };
    let mut expect = Vec::new();
    let kv_resource = r.bound("kv", "BINDING");
    let mut put = |to: usize, values: Vec<f64>| {
        expect.push(Expected {
            resource: kv_resource,
            first: to,
            values,
            kind,
            floor: 1e-3,
        });
    };
    if appends {
        for t in 0..live {
            for head in 0..kv {
                let key = ready(t, h + head, gains[1]);
                put(at(pos + t, head), key.clone());
                keys.extend(key.into_iter().map(round));
                let from = t * width + (h + kv + head) * hd;
                let value = wide(&qkv[from..from + hd]);
                put(values_at + at(pos + t, head), value.clone());
                values.extend(value.into_iter().map(round));
            }
        }
    }
    let mut buffers = vec![
        (Resource::Step, step(rows, live, pos, slot)),
        (Resource::Pages, order.clone()),
        (kv_resource, if half { pack(&cache) } else { words(&cache) }),
    ];
    let scale = Const::F(a.scale);
    let page = [u(stride), u(values_at / 4)];
    let unit = if lanes { 4 } else { 1 };
    let [q_gain, k_gain] = gains.map(|g| u(g / unit));
    let eps = Const::F(EPS);
    // Where q is read, and whether the kernel is what makes it ready.
    let has_head = r.module("head").is_some();
    let from = if has_head {
        r.bound("head", "QKV")
    } else {
        dispatch.bindings[0].0
    };
    buffers.push((from, words(&qkv)));
    if attends {
        let to = match name {
            "attention_decode" => r.bound("", "OUT"),
            "attention_prompt" => dispatch.bindings[1].0,
            _ => dispatch.bindings[0].0,
        };
        let splits = r.u("", "SPLITS").max(1);
        for t in 0..live {
            let q: Vec<f64> = if has_head {
                (0..h).flat_map(|head| ready(t, head, gains[0])).collect()
            } else {
                wide(&qkv[t * width..][..h * hd])
            };
            let y = reference::attend(&a, &q, &keys, &values, (pos + t) as u32);
            // Parts are checked by joining them, as `attention_combine` would.
            let first = if splits > 1 { usize::MAX } else { t * h * hd };
            expect.push(floats(to, first, y));
        }
        let size = if splits > 1 { splits * (hd + 4) } else { hd };
        buffers.push((to, poison(rows * h * size + 4)));
    }
    let (params, grid) = match name {
        "append_lanes" => ([&[k_gain, eps], &page[..]].concat(), [2 * kv, rows, 1]),
        "rope_append" => {
            for t in 0..live {
                for head in 0..h {
                    let q = ready(t, head, gains[0]);
                    expect.push(floats(from, t * width + head * hd, q));
                }
            }
            (
                [&[q_gain, k_gain, eps], &page[..]].concat(),
                [h + 2 * kv, rows, 1],
            )
        }
        "attention_decode" | "attention_decode_lanes" => {
            let heads = if lanes { kv * (h / kv).div_ceil(4) } else { h };
            (
                [&[q_gain, k_gain, eps], &page[..], &[scale]].concat(),
                [heads, r.u("", "SPLITS"), 1],
            )
        }
        "attention_prompt" => (
            [&[u(rows)], &page[..], &[scale]].concat(),
            [h, rows.div_ceil(32), 1],
        ),
        _ => (
            [&[q_gain, eps, u(rows)], &page[..], &[scale]].concat(),
            [h, rows.div_ceil(8), 1],
        ),
    };
    if has_head {
        let table = reference::rope_table(&rope, None, positions);
        buffers.push((Resource::Rope(0), words(table.as_flattened())));
        buffers.push((Resource::Vectors, words(&vectors)));
    }
    let mut dispatch = dispatch.clone();
    for (resource, _) in &mut dispatch.bindings {
        if let Resource::Rope(i) = resource {
            *i = 0;
        }
    }
    let mut probe = done(dispatch, params, grid, buffers, expect);
    // Angles come from f32 tables, and a half rounds to 2^-11.
    probe.tolerance = if half { 1.2e-3 } else { 1e-4 };
    probe
}

/// Pairs of halves.
fn pack(values: &[f32]) -> Vec<u32> {
    let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
    values
        .chunks_exact(2)
        .map(|p| half(p[0]) | half(p[1]) << 16)
        .collect()
}
