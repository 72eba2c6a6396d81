//! The kernels we ship: one row each in [`KERNELS`], and the functions that launch them.
//!
//! A launch is a [`Dispatch`]: which kernel and variant, what it binds, its parameters and its
//! grid. Everything here is data; nothing names a device.

use std::fmt;

use crate::caps::{Caps, DeviceKind};
use crate::shader::{ComposeError, Const, Consts, Dialect, Variant, compose};

pub mod attention;
pub mod catalog;
pub mod encode;
pub mod experts;
pub mod kv;
pub mod linear;
pub mod pointwise;
pub mod probe;
pub mod sample;

/// A kernel: its file under `shaders/` and the parameters it takes.
#[derive(Debug)]
pub struct Kernel {
    /// Name of its file, of its pipelines and of its tests.
    pub name: &'static str,
    /// Its WGSL.
    pub source: &'static str,
    /// Fields of its `Params`, in order: each a `u32` or an `f32`.
    pub params: &'static [&'static str],
}

/// Declares a kernel's row from its name and parameters.
macro_rules! kernel {
    ($name:literal, [$($param:literal),*]) => {
        Kernel {
            name: $name,
            source: include_str!(concat!("../../shaders/", $name, ".wgsl")),
            params: &[$($param),*],
        }
    };
}
use kernel;

/// Every kernel.
pub const KERNELS: &[&Kernel] = &[
    &attention::APPEND_LANES,
    &attention::COMBINE,
    &attention::DECODE,
    &attention::DECODE_LANES,
    &attention::PROMPT,
    &attention::PROMPT_LANES,
    &attention::ROPE_APPEND,
    &encode::F16,
    &encode::Q4_0,
    &encode::Q4_K,
    &encode::Q5_0,
    &encode::Q6_K,
    &encode::Q8_0,
    &linear::MATMUL_DIRECT,
    &linear::MATMUL_INT8,
    &linear::MATMUL_LANES,
    &linear::MATMUL_MATRIX,
    &linear::MATMUL_TILE,
    &linear::MATVEC,
    &linear::MATVEC_GLU,
    &linear::MATVEC_QKV,
    &linear::QUANTIZE,
    &pointwise::ADD_NORM,
    &pointwise::BINARY,
    &pointwise::EMBED,
    &pointwise::LAST_ROW,
    &pointwise::LAYER_NORM,
    &pointwise::POOL,
    &experts::DOWN,
    &experts::GLU,
    &experts::ROUTE,
    &experts::SORT,
    &experts::SUM,
    &pointwise::QK_NORM,
    &pointwise::RMS_NORM,
    &sample::GATHER,
    &sample::PICK,
    &sample::SCAN,
];

impl Kernel {
    /// Its WGSL for one variant.
    pub fn compose(&self, variant: &Variant, dialect: Dialect) -> Result<String, ComposeError> {
        compose(self.name, self.source, variant, dialect)
    }
}

/// What a binding refers to; the executor knows the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// An activation buffer of the plan.
    Slot(usize),
    /// A part of a weight matrix: (weight, part).
    Weight(usize, usize),
    /// All weight vectors, f32.
    Vectors,
    /// The cache of a layer.
    Kv(usize),
    /// This step's rows.
    Step,
    /// Which of them are summed: first and count of each.
    Spans,
    /// The page tables: of layers that keep everything (0), or a ring of so many pages.
    Pages(usize),
    /// A rotary table.
    Rope(usize),
    /// The sampler's state.
    Sampler,
    /// The sampler's partial results.
    Partials,
    /// The sampler's candidates.
    Candidates,
    /// Which tokens were seen, for penalties.
    History,
    /// Logit bias.
    Bias,
    /// Tokens made.
    Out,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(i) => write!(f, "s{i}"),
            Self::Weight(w, part) => write!(f, "w{w}.{part}"),
            Self::Kv(layer) => write!(f, "kv{layer}"),
            Self::Rope(i) => write!(f, "rope{i}"),
            Self::Pages(0) => write!(f, "pages"),
            Self::Pages(ring) => write!(f, "ring{ring}"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

/// Whether a kernel may write what it binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What it computes, such as `blk.3.attn_q`.
    pub label: String,
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Its constants and modules.
    pub variant: Variant,
    /// Bindings 1, 2, …; binding 0 is the parameters.
    pub bindings: Vec<(Resource, Access)>,
    /// Parameters, by the kernel's `params`.
    pub params: Vec<Const>,
    /// Workgroups, for as many tokens as the plan is for.
    pub grid: [u32; 3],
    /// Which axis of the grid goes along the step's tokens, and how many a workgroup takes: a step
    /// with fewer tokens launches fewer workgroups.
    pub tokens: Option<(usize, u32)>,
    /// Which axis goes along the positions that a token sees, and how many a workgroup takes.
    pub positions: Option<(usize, u32)>,
}

impl Dispatch {
    /// A launch of `kernel` with nothing bound yet.
    pub fn new(kernel: &'static Kernel, label: &str) -> Self {
        Self {
            label: label.into(),
            kernel,
            variant: Variant::default(),
            bindings: Vec::new(),
            params: Vec::new(),
            grid: [1, 1, 1],
            tokens: None,
            positions: None,
        }
    }

    /// Binds a resource and returns its binding's number, as a constant.
    pub fn bind(&mut self, resource: Resource, access: Access) -> Const {
        self.bindings.push((resource, access));
        Const::U(self.bindings.len() as u32)
    }

    /// Sets a constant of the kernel itself.
    pub fn set(&mut self, name: &'static str, value: Const) {
        self.variant.consts.push((name, value));
    }

    /// Says which file an import means.
    pub fn module(&mut self, name: &'static str, file: &'static str, consts: Consts) {
        self.variant.modules.push((name, file, consts));
    }

    /// Sets the reduction of a team, and the size of the workgroup.
    pub fn team(&mut self, team: Team) {
        self.reduce(team);
        self.set("WG", Const::U(team.wg));
    }

    /// Sets the reduction of a team that is the whole workgroup.
    pub fn reduce(&mut self, team: Team) {
        let lanes = ("LANES", Const::U(team.lanes));
        let consts = if team.file == REDUCE_SHARED {
            vec![lanes, ("WG", Const::U(team.wg))]
        } else {
            vec![lanes]
        };
        self.module("reduce", team.file, consts);
    }

    /// A `u32` constant of the kernel itself.
    pub fn constant(&self, name: &str) -> Option<u32> {
        let consts = &self.variant.consts;
        match consts.iter().find(|(n, _)| *n == name)?.1 {
            Const::U(v) => Some(v),
            _ => None,
        }
    }

    /// Lets axis `axis` of the grid go along `tokens` tokens, `each` of them to a workgroup.
    pub fn along_tokens(&mut self, axis: usize, tokens: usize, each: u32) {
        self.grid[axis] = (tokens as u32).div_ceil(each);
        self.tokens = Some((axis, each));
    }

    /// Spreads `groups` workgroups over x and y within the adapter's limit.
    pub fn grid2(&mut self, groups: u32, caps: &Caps) {
        let y = groups.div_ceil(caps.max_groups);
        self.grid = [groups.div_ceil(y.max(1)), y, 1];
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{} = {} [{x} {y} {z}]", self.label, self.kernel.name)?;
        for (resource, access) in &self.bindings {
            let mark = if *access == Access::Write { "=" } else { "" };
            write!(f, " {mark}{resource}")?;
        }
        for (name, value) in self.kernel.params.iter().zip(&self.params) {
            write!(f, " {name}={value}")?;
        }
        write!(f, " | {}", self.variant)
    }
}

const REDUCE_NONE: &str = "lib/reduce_none";
const REDUCE_SUBGROUP: &str = "lib/reduce_subgroup";
const REDUCE_SHARED: &str = "lib/reduce_shared";

/// How invocations work together on one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Team {
    /// Reduction module.
    pub file: &'static str,
    /// Invocations of a team.
    pub lanes: u32,
    /// Invocations of a workgroup.
    pub wg: u32,
}

impl Team {
    /// A team for sums over `items` items, as a norm takes them.
    pub fn sum(caps: &Caps, items: usize) -> Self {
        let most = (items as u32).next_power_of_two();
        match (caps.kind, caps.subgroups) {
            (DeviceKind::Cpu, Some((least, _))) => Self {
                file: REDUCE_SUBGROUP,
                lanes: least.min(most),
                wg: least.max(8),
            },
            (_, Some((least, _))) => Self {
                file: REDUCE_SUBGROUP,
                lanes: least.min(most),
                wg: 64.max(least),
            },
            _ => Self {
                file: REDUCE_SHARED,
                lanes: most.min(64),
                wg: 64,
            },
        }
    }

    /// A team for the rows of a mat-vec of `groups` groups of 32 inputs.
    ///
    /// On a software driver an invocation is a vector lane and makes whole rows by itself; where
    /// lanes can pass each other values, the team is what shares the input. On a GPU a team strides
    /// over the groups, as wide as still keeps most of its lanes busy.
    pub fn rows(caps: &Caps, groups: usize) -> Self {
        if let Some(lanes) = caps.software_lanes() {
            return Self {
                file: REDUCE_SUBGROUP,
                lanes,
                wg: lanes,
            };
        }
        if caps.kind == DeviceKind::Cpu {
            return Self {
                file: REDUCE_NONE,
                lanes: 1,
                wg: 16,
            };
        }
        let busy = |lanes: u32| {
            let rounds = (groups as u32).div_ceil(lanes);
            groups as f32 / (rounds * lanes) as f32
        };
        let most = caps.subgroups.map_or(32, |(least, _)| least.min(32));
        let lanes = [32, 16, 8, 4]
            .into_iter()
            .filter(|l| *l <= most)
            .find(|l| busy(*l) >= 0.75)
            .unwrap_or(most.min(4));
        Self {
            file: if caps.subgroups.is_some() {
                REDUCE_SUBGROUP
            } else {
                REDUCE_SHARED
            },
            lanes,
            wg: 64,
        }
    }
}

/// `u32` constants by value.
pub(crate) fn u(v: usize) -> Const {
    Const::U(v as u32)
}
