//! Small problems for any launch, with answers by plain f64 arithmetic.
//!
//! A probe keeps a launch's kernel and variant and gives it small shapes, fresh inputs and buffers
//! that are poisoned where it must write. The tests run probes of every variant; the engine runs
//! those of the variants it is about to use, so that a driver that computes wrongly is found
//! before a model runs on it.

use crate::graph::Act;
use crate::kernel::kv::KvType;
use crate::kernel::{Dispatch, Resource};
use crate::quant::testing::{Rng, random_matrix};
use crate::quant::{self, Format, Layout};
use crate::shader::Const;
use crate::tensor::DType;

mod attention;
mod encode;
mod experts;
mod linear;
mod pointwise;

/// What problems and answers are made by: what was found of a variant holds as long as it is the same.
pub(crate) const SOURCES: [&str; 6] = [
    include_str!("mod.rs"),
    include_str!("attention.rs"),
    include_str!("encode.rs"),
    include_str!("experts.rs"),
    include_str!("linear.rs"),
    include_str!("pointwise.rs"),
];

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
    /// Rows of planes that must stand in a buffer, for kernels that make weights.
    pub rows: Option<Rows>,
    /// Largest error allowed, as a share of the largest expected magnitude.
    pub tolerance: f64,
}

/// The last rows of a weight in its planes; every other word must be as it was.
#[derive(Debug)]
pub struct Rows {
    /// The buffer.
    pub resource: Resource,
    /// How the weight lies there.
    pub layout: Layout,
    /// The first of the rows.
    pub first: usize,
    /// The numbers that were quantised.
    pub source: Vec<f32>,
    /// What the processor makes of them.
    pub values: Vec<f32>,
}

/// Values that must stand in a buffer.
#[derive(Debug)]
pub struct Expected {
    /// The buffer.
    pub resource: Resource,
    /// Index of the first.
    pub first: usize,
    /// They are what comes of joining the parts of this token, which the buffer has in their place.
    pub parts_of: Option<usize>,
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
    /// As the cache has it.
    Cache(KvType),
    /// Signed bytes, four to a word.
    Byte,
    /// An unsigned word.
    Word,
}

impl Kind {
    /// The words that value `i` of a buffer of such values lies in: its own, and that of its scale.
    pub fn places(self, i: usize) -> [usize; 2] {
        match self {
            Self::Float | Self::Word => [i; 2],
            Self::Byte => [i / 4; 2],
            Self::Cache(dtype) => {
                let (word, scale, _) = dtype.place(i);
                [word, scale]
            }
        }
    }

    /// Value `i` of a buffer of such values.
    pub fn read(self, words: &[u32], i: usize) -> Option<f64> {
        let word = *words.get(self.places(i)[0])?;
        match self {
            Self::Float => Some(f64::from(f32::from_bits(word))),
            Self::Word => Some(f64::from(word)),
            Self::Byte => Some(f64::from((word >> (8 * (i % 4))) as i8)),
            Self::Cache(dtype) => dtype.value(words, i),
        }
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

    /// Whether the launch reads the model's vectors.
    fn has_vectors(&self) -> bool {
        let bindings = &self.0.bindings;
        bindings.iter().any(|(r, _)| *r == Resource::Vectors)
    }

    fn act(&self) -> Act {
        match self.module("act") {
            Some("lib/gelu") => Act::Gelu,
            Some("lib/gelu_tanh") => Act::GeluTanh,
            Some("lib/silu_clamped") => Act::SiluClamped,
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

/// `live` rows of a step of `rows`, at consecutive positions from `pos` on.
fn step(rows: usize, live: usize, pos: usize, slot: usize) -> Vec<u32> {
    (0..rows)
        .flat_map(|i| [7, (pos + i) as u32, slot as u32, u32::from(i < live)])
        .collect()
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
        rows: None,
        tolerance: 2e-5,
    }
}

fn floats(resource: Resource, first: usize, values: Vec<f64>) -> Expected {
    Expected {
        resource,
        first,
        parts_of: None,
        values,
        kind: Kind::Float,
        floor: 1e-3,
    }
}

/// A small problem for `dispatch`, different for every seed. The sampling kernels have none: they
/// are checked together, by [`crate::kernel::sample`]'s own tests.
pub fn probe(dispatch: &Dispatch, seed: u64) -> Probe {
    let mut random = Rng::new(seed);
    let r = Reader(dispatch);
    match dispatch.kernel.name {
        "matvec" | "matvec_glu" | "matvec_qkv" => linear::matvec(dispatch, &r, &mut random),
        "quantize" => linear::quantize(dispatch, &r, &mut random),
        "experts_route" => experts::route(dispatch, &r, &mut random),
        "experts_sort" => experts::sort(dispatch, &r, &mut random),
        "experts_sum" => experts::sum(dispatch, &r, &mut random),
        "experts_glu" | "experts_down" => experts::matvec(dispatch, &r, &mut random),
        name if name.starts_with("matmul_") && r.module("tokens") == Some("lib/tokens_routed") => {
            experts::matmul(dispatch, &r, &mut random)
        }
        name if name.starts_with("matmul_") => linear::matmul(dispatch, &r, &mut random),
        name if name.starts_with("encode_") => encode::encode(dispatch, &r, &mut random),
        "embed" => pointwise::embed(dispatch, &r, &mut random),
        "rms_norm" | "add_norm" | "layer_norm" => pointwise::norm(dispatch, &r, &mut random),
        "pool" => pointwise::pool(dispatch, &r, &mut random),
        "qk_norm" => pointwise::qk_norm(dispatch, &r, &mut random),
        "append_lanes"
        | "attention_decode"
        | "attention_decode_lanes"
        | "attention_prompt"
        | "attention_prompt_lanes"
        | "rope_append" => attention::attention(dispatch, &r, &mut random),
        "attention_combine" => attention::combine(dispatch, &r, &mut random),
        "last_row" => pointwise::last_row(dispatch, &mut random),
        "binary" => pointwise::binary(dispatch, &r, &mut random),
        other => unreachable!("kernel `{other}` has no probe"),
    }
}

const EPS: f32 = 1e-5;
