//! Products with quantised weights: mat-vecs for one token, mat-muls for many.

use super::{Access, Dispatch, Kernel, Resource, Team, kernel, u};
use crate::caps::{Caps, DeviceKind, Precision};
use crate::graph::Act;
use crate::quant::Format;
use crate::shader::Const;
use crate::tensor::DType;

/// One product, one token.
pub const MATVEC: Kernel = kernel!(
    "matvec",
    [
        "groups",
        "rows",
        "plane1",
        "plane2",
        "plane3",
        "gain",
        "post_gain",
        "eps",
        "y_first",
        "bias"
    ]
);

/// act(gate) · up, one token.
pub const MATVEC_GLU: Kernel = kernel!(
    "matvec_glu",
    [
        "groups",
        "rows",
        "plane1",
        "plane2",
        "plane3",
        "b_plane1",
        "b_plane2",
        "b_plane3",
        "gain",
        "post_gain",
        "eps"
    ]
);

/// Three products of one input, one token.
pub const MATVEC_QKV: Kernel = kernel!(
    "matvec_qkv",
    [
        "groups",
        "rows",
        "plane1",
        "plane2",
        "plane3",
        "b_rows",
        "b_plane1",
        "b_plane2",
        "b_plane3",
        "c_rows",
        "c_plane1",
        "c_plane2",
        "c_plane3",
        "gain",
        "post_gain",
        "eps",
        "bias"
    ]
);

/// One product, many tokens, in registers alone.
pub const MATMUL_DIRECT: Kernel = kernel!(
    "matmul_direct",
    [
        "groups", "rows", "plane1", "plane2", "plane3", "y_stride", "y_first", "bias", "tokens"
    ]
);

/// One product, many tokens, by the lanes of a software driver.
pub const MATMUL_LANES: Kernel = kernel!(
    "matmul_lanes",
    [
        "groups", "rows", "plane1", "plane2", "plane3", "y_stride", "y_first", "bias", "tokens"
    ]
);

/// One product, many tokens, by tiles in workgroup memory.
pub const MATMUL_TILE: Kernel = kernel!(
    "matmul_tile",
    [
        "groups", "rows", "plane1", "plane2", "plane3", "y_stride", "y_first", "bias", "tokens"
    ]
);

/// One product, many tokens, of activations in eight bits.
pub const MATMUL_INT8: Kernel = kernel!(
    "matmul_int8",
    [
        "groups", "rows", "plane1", "plane2", "plane3", "y_stride", "y_first", "bias", "tokens"
    ]
);

/// Activations in eight bits, for [`MATMUL_INT8`].
pub const QUANTIZE: Kernel = kernel!("quantize", ["halves"]);

/// One product, many tokens, by matrix units.
pub const MATMUL_MATRIX: Kernel = kernel!(
    "matmul_matrix",
    [
        "groups", "rows", "plane1", "plane2", "plane3", "y_stride", "y_first", "bias", "tokens"
    ]
);

/// A part of a weight as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Its buffer.
    pub resource: Resource,
    /// Element type.
    pub dtype: DType,
    /// Outputs in this part.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its first row among the whole weight's.
    pub first: usize,
    /// Starts of planes 1 to 3, in units of 16 bytes.
    pub planes: [u32; 3],
}

/// Import names of a weight, and of its buffer in words.
pub(super) const WEIGHT: [&str; 2] = ["weight", "words"];
pub(super) const WEIGHT_A: [&str; 2] = ["weight_a", "words_a"];
pub(super) const WEIGHT_B: [&str; 2] = ["weight_b", "words_b"];
const WEIGHT_C: [&str; 2] = ["weight_c", "words_c"];

impl Weight {
    /// Binds it, and says which modules read it.
    pub(super) fn bind(&self, d: &mut Dispatch, caps: &Caps, [name, words]: [&'static str; 2]) {
        let binding = vec![("BINDING", d.bind(self.resource, Access::Read))];
        let format = Format::of(self.dtype);
        if format.block == 1 {
            // Plain numbers have no words.
            d.module(name, format.wgsl, binding);
            return;
        }
        // 32 bytes at once pay where a group has them side by side; elsewhere half would go to waste.
        let wide = caps.software_lanes().is_some() && caps.int64 && format.planes[0].bytes == 32;
        d.module(name, format.wgsl, vec![]);
        let file = if wide { "lib/words_wide" } else { "lib/words" };
        d.module(words, file, binding);
    }

    /// Whether its elements are integers under their scales.
    fn has_integers(&self) -> bool {
        Format::of(self.dtype).integers
    }

    pub(super) fn planes(&self) -> [Const; 3] {
        self.planes.map(Const::U)
    }
}

/// What a mat-vec multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// x as it is.
    Plain {
        /// x `[K]`.
        x: Resource,
    },
    /// RMSNorm(x) · gain.
    Norm {
        /// x `[K]`.
        x: Resource,
        /// Place of the gain among the vectors, in vec4s.
        gain: usize,
        /// Epsilon.
        eps: f32,
    },
    /// s = x + RMSNorm(b) · post_gain, which is kept, or RMSNorm(s) · gain.
    AddNorm {
        /// x `[K]`.
        x: Resource,
        /// b `[K]`.
        b: Resource,
        /// Where s `[K]` goes.
        s: Resource,
        /// Place of the outer gain, in vec4s, where there is that norm.
        gain: Option<usize>,
        /// Place of b's gain, in vec4s.
        post_gain: usize,
        /// Epsilon of both norms.
        eps: f32,
    },
}

impl Input {
    /// Binds the input's module; returns (gain, post_gain, eps).
    pub(super) fn bind(self, d: &mut Dispatch) -> [Const; 3] {
        match self {
            Self::Plain { x } => {
                let x = d.bind(x, Access::Read);
                d.module("input", "input/plain", vec![("X", x)]);
                [Const::U(0), Const::U(0), Const::F(0.0)]
            }
            Self::Norm { x, gain, eps } => {
                let x = d.bind(x, Access::Read);
                let vectors = d.bind(Resource::Vectors, Access::Read);
                d.module("input", "input/norm", vec![("X", x), ("VECTORS", vectors)]);
                [u(gain), Const::U(0), Const::F(eps)]
            }
            Self::AddNorm {
                x,
                b,
                s,
                gain,
                post_gain,
                eps,
            } => {
                let x = d.bind(x, Access::Read);
                let vectors = d.bind(Resource::Vectors, Access::Read);
                let b = d.bind(b, Access::Read);
                let s = d.bind(s, Access::Write);
                let normed = ("NORMED", Const::B(gain.is_some()));
                let consts = vec![("X", x), ("B", b), ("S", s), ("VECTORS", vectors), normed];
                d.module("input", "input/add_norm", consts);
                [u(gain.unwrap_or(0)), u(post_gain), Const::F(eps)]
            }
        }
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// Stored.
    Store,
    /// Plus a bias: its place among the vectors, in elements.
    Bias(usize),
    /// Plus the residual stream, of y's own shape, and maybe a bias.
    Add(Resource, Option<usize>),
    /// Times act(gate), of y's own shape.
    Glu(Resource, Act),
    /// act(y), or of y plus a bias.
    Act(Act, Option<usize>),
    /// cap · tanh(y / cap).
    Softcap(f32),
}

impl Output {
    pub(super) fn bind(self, d: &mut Dispatch, y: Resource) {
        let y = ("Y", d.bind(y, Access::Write));
        match self {
            Self::Store => d.module("output", "output/store", vec![y]),
            Self::Bias(_) => {
                let vectors = d.bind(Resource::Vectors, Access::Read);
                d.module("output", "output/bias", vec![y, ("BIAS", vectors)]);
            }
            Self::Add(residual, bias) => {
                let residual = ("RESIDUAL", d.bind(residual, Access::Read));
                if bias.is_some() {
                    let vectors = ("BIAS", d.bind(Resource::Vectors, Access::Read));
                    d.module("output", "output/add_bias", vec![y, residual, vectors]);
                } else {
                    d.module("output", "output/add", vec![y, residual]);
                }
            }
            Self::Glu(gate, act) => {
                let gate = d.bind(gate, Access::Read);
                d.module("output", "output/glu", vec![y, ("GATE", gate)]);
                d.module("act", act_file(act), vec![]);
            }
            Self::Act(act, bias) => {
                if bias.is_some() {
                    let vectors = ("BIAS", d.bind(Resource::Vectors, Access::Read));
                    d.module("output", "output/act_bias", vec![y, vectors]);
                } else {
                    d.module("output", "output/act", vec![y]);
                }
                d.module("act", act_file(act), vec![]);
            }
            Self::Softcap(cap) => {
                d.module("output", "output/softcap", vec![y, ("CAP", Const::F(cap))]);
            }
        }
    }

    fn bias(self) -> usize {
        match self {
            Self::Bias(at) | Self::Add(_, Some(at)) | Self::Act(_, Some(at)) => at,
            _ => 0,
        }
    }
}

/// The module of an activation.
pub(super) fn act_file(act: Act) -> &'static str {
    match act {
        Act::Silu => "lib/silu",
        Act::Gelu => "lib/gelu",
        Act::GeluTanh => "lib/gelu_tanh",
        Act::SiluClamped => "lib/silu_clamped",
    }
}

/// How a mat-vec's rows are made: by which team, and how many each workgroup makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) team: Team,
    /// By lanes of a software driver, each for itself.
    lanes: bool,
    /// Of an input in eight bits.
    eight: bool,
    block: u32,
}

impl Rows {
    pub(super) fn new(caps: &Caps, cols: usize) -> Self {
        let team = Team::rows(caps, cols / 32);
        let eight = caps.precision == Precision::Int8;
        let lanes = caps.software_lanes().is_some();
        let block = if lanes {
            8 * team.wg
        } else {
            4 * (team.wg / team.lanes)
        };
        Self {
            team,
            lanes,
            eight,
            block,
        }
    }

    pub(super) fn bind(
        self,
        d: &mut Dispatch,
        caps: &Caps,
        rows: &'static str,
        names: [&'static str; 2],
        w: Weight,
    ) {
        let file = match (self.lanes, self.eight && w.has_integers()) {
            (true, _) => "lib/rows_lanes",
            (false, true) => "lib/rows_int8",
            (false, false) => "lib/rows",
        };
        d.module(rows, file, vec![("WG", Const::U(self.team.wg))]);
        w.bind(d, caps, names);
    }

    pub(super) fn groups(self, rows: usize) -> u32 {
        (rows as u32).div_ceil(self.block)
    }
}

/// y`[first ..]` = output(W · input), one row.
pub fn matvec(
    caps: &Caps,
    label: &str,
    w: Weight,
    input: Input,
    output: Output,
    to: Columns,
) -> Dispatch {
    let rows = Rows::new(caps, w.cols);
    let mut d = Dispatch::new(&MATVEC, label);
    d.team(rows.team);
    let [gain, post_gain, eps] = input.bind(&mut d);
    rows.bind(&mut d, caps, "rows", WEIGHT, w);
    output.bind(&mut d, to.y);
    let [p1, p2, p3] = w.planes();
    let bias = u(output.bias() + w.first);
    d.params = vec![
        u(w.cols / 32),
        u(w.rows),
        p1,
        p2,
        p3,
        gain,
        post_gain,
        eps,
        u(to.first + w.first),
        bias,
    ];
    d.grid2(rows.groups(w.rows), caps);
    d
}

/// y = act(A · input) · (B · input).
pub fn matvec_glu(
    caps: &Caps,
    label: &str,
    [a, b]: [Weight; 2],
    input: Input,
    act: Act,
    y: Resource,
) -> Dispatch {
    let rows = Rows::new(caps, a.cols);
    let mut d = Dispatch::new(&MATVEC_GLU, label);
    d.team(rows.team);
    let [gain, post_gain, eps] = input.bind(&mut d);
    rows.bind(&mut d, caps, "rows_a", WEIGHT_A, a);
    rows.bind(&mut d, caps, "rows_b", WEIGHT_B, b);
    d.module("act", act_file(act), vec![]);
    let y = d.bind(y, Access::Write);
    d.set("Y", y);
    let [a1, a2, a3] = a.planes();
    let [b1, b2, b3] = b.planes();
    d.params = vec![
        u(a.cols / 32),
        u(a.rows),
        a1,
        a2,
        a3,
        b1,
        b2,
        b3,
        gain,
        post_gain,
        eps,
    ];
    d.grid2(rows.groups(a.rows), caps);
    d
}

/// y = output(`[A · input, B · input, C · input]`).
pub fn matvec_qkv(
    caps: &Caps,
    label: &str,
    weights: [Weight; 3],
    input: Input,
    output: Output,
    y: Resource,
) -> Dispatch {
    let rows = Rows::new(caps, weights[0].cols);
    let mut d = Dispatch::new(&MATVEC_QKV, label);
    d.team(rows.team);
    let [gain, post_gain, eps] = input.bind(&mut d);
    d.params.push(u(weights[0].cols / 32));
    let names = [
        ("rows_a", WEIGHT_A),
        ("rows_b", WEIGHT_B),
        ("rows_c", WEIGHT_C),
    ];
    for (w, (module, names)) in weights.iter().zip(names) {
        rows.bind(&mut d, caps, module, names, *w);
        d.params.push(u(w.rows));
        d.params.extend(w.planes());
    }
    d.params.extend([gain, post_gain, eps, u(output.bias())]);
    output.bind(&mut d, y);
    d.grid = [weights.iter().map(|w| rows.groups(w.rows)).sum(), 1, 1];
    d
}

/// Where a mat-mul puts its result: rows of `stride` elements, from element `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The buffer `[T, stride]`.
    pub y: Resource,
    /// Elements of one of its rows.
    pub stride: usize,
    /// The first element of the result in a row.
    pub first: usize,
}

/// What a mat-mul multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// x `[T, K]`.
    Plain(Resource),
    /// x in eight bits: codes `[T, K]` and scales `[T, K / 16]`, as [`quantize`] leaves them.
    Eight(Resource, Resource),
}

/// Whether a mat-mul with `w` wants its input in eight bits.
pub fn wants_eight(caps: &Caps, w: &Weight) -> bool {
    caps.precision == Precision::Int8 && w.has_integers()
}

/// codes `[T, K]` and scales `[T, K / 16]` = x`[T, K]` in eight bits, T = `tokens`, K = `cols`.
pub fn quantize(
    label: &str,
    x: Resource,
    [codes, scales]: [Resource; 2],
    [tokens, cols]: [usize; 2],
) -> Dispatch {
    let mut d = Dispatch::new(&QUANTIZE, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(x, Access::Read);
    d.bind(codes, Access::Write);
    d.bind(scales, Access::Write);
    let wg = 32;
    d.set("WG", Const::U(wg));
    d.params = vec![u(cols / 16)];
    d.grid[0] = (cols as u32 / 16).div_ceil(wg);
    d.along_tokens(1, tokens, 1);
    d
}

/// Which tokens a mat-mul multiplies.
#[derive(Clone, Copy, Debug)]
pub enum Tokens {
    /// All of a step, which has so many at most.
    All(usize),
    /// Those of each expert in turn.
    Routed(Lists),
}

/// Lists of the pairs of a token and an expert, as [`super::experts::sort`] leaves them.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// The lists.
    pub resource: Resource,
    /// Tiles at most.
    pub tiles: usize,
    /// Pairs that share a row of the input: a token's, or one each.
    pub share: usize,
    /// Rows of one expert.
    pub rows: usize,
}

impl Tokens {
    /// Binds them; returns how many there are, and the rows of one product.
    fn bind(self, d: &mut Dispatch, w: &Weight) -> (usize, usize) {
        match self {
            Self::All(tokens) => {
                let step = d.bind(Resource::Step, Access::Read);
                d.module("tokens", "lib/tokens_all", vec![("STEP", step)]);
                (tokens, w.rows)
            }
            Self::Routed(lists) => {
                let binding = d.bind(lists.resource, Access::Read);
                let consts = vec![
                    ("LISTS", binding),
                    ("TILES", u(lists.tiles)),
                    ("SHARE", u(lists.share)),
                    ("FIRST", u(w.first / lists.rows)),
                    ("COUNT", u(w.rows / lists.rows)),
                ];
                d.module("tokens", "lib/tokens_routed", consts);
                (0, lists.rows)
            }
        }
    }
}

/// Tokens of a tile of the mat-muls with experts.
pub fn tile(caps: &Caps) -> usize {
    let mut scratch = Dispatch::new(&MATMUL_TILE, "");
    Matmul::of(caps).tile(&mut scratch).1 as usize
}

/// y`[T, first ..]` = output(x`[T, K]` · Wᵀ), T = `tokens`.
pub fn matmul(
    caps: &Caps,
    label: &str,
    w: Weight,
    x: Inputs,
    output: Output,
    to: Columns,
    tokens: Tokens,
) -> Dispatch {
    let way = match x {
        Inputs::Plain(_) => Matmul::of(caps),
        Inputs::Eight(..) => Matmul::Int8,
    };
    let mut d = Dispatch::new(way.kernel(), label);
    let (count, rows) = tokens.bind(&mut d, &w);
    match x {
        Inputs::Plain(x) => drop(d.bind(x, Access::Read)),
        Inputs::Eight(codes, scales) => {
            d.bind(codes, Access::Read);
            d.bind(scales, Access::Read);
        }
    }
    w.bind(&mut d, caps, WEIGHT);
    output.bind(&mut d, to.y);
    let [p1, p2, p3] = w.planes();
    // Experts' rows are counted by the tokens.
    let skipped = match tokens {
        Tokens::All(_) => w.first,
        Tokens::Routed(_) => 0,
    };
    d.params = vec![
        u(w.cols / 32),
        u(rows),
        p1,
        p2,
        p3,
        u(to.stride),
        u(to.first + skipped),
        u(output.bias() + skipped),
        u(count),
    ];
    let (block, tile) = way.tile(&mut d);
    d.grid[0] = (rows as u32).div_ceil(block);
    match tokens {
        Tokens::All(tokens) => d.along_tokens(1, tokens, tile),
        Tokens::Routed(lists) => d.grid[1] = lists.tiles as u32,
    }
    d
}

/// How a mat-mul is made on an adapter.
#[derive(Clone, Copy, Debug)]
enum Matmul {
    /// By matrix units of this side, in subgroups of so many lanes.
    Matrix(u32, u32),
    /// By so many lanes of a software driver.
    Lanes(u32),
    /// In registers alone.
    Direct,
    /// By tiles of bytes in workgroup memory.
    Int8,
    /// By tiles in workgroup memory, in half precision or single.
    Tile(bool),
}

impl Matmul {
    fn of(caps: &Caps) -> Self {
        match (caps.matrix_units(), caps.software_lanes(), caps.kind) {
            (Some((side, lanes)), ..) => Self::Matrix(side, lanes),
            (_, Some(lanes), _) => Self::Lanes(lanes),
            (.., DeviceKind::Cpu) => Self::Direct,
            _ => Self::Tile(caps.uses_f16()),
        }
    }

    fn kernel(self) -> &'static Kernel {
        match self {
            Self::Matrix(..) => &MATMUL_MATRIX,
            Self::Lanes(_) => &MATMUL_LANES,
            Self::Direct => &MATMUL_DIRECT,
            Self::Int8 => &MATMUL_INT8,
            Self::Tile(_) => &MATMUL_TILE,
        }
    }

    /// Says how in a launch; returns the rows and tokens of a workgroup.
    fn tile(self, d: &mut Dispatch) -> (u32, u32) {
        match self {
            Self::Matrix(side, lanes) => {
                d.set("LANES", Const::U(lanes));
                let file = if side == 8 {
                    "lib/matrix_8"
                } else {
                    "lib/matrix_16"
                };
                d.module("matrix", file, vec![]);
                (64, 4 * side)
            }
            Self::Lanes(lanes) => {
                d.set("LANES", Const::U(lanes));
                (8 * lanes, 8)
            }
            Self::Direct => {
                let wg = 16;
                d.set("WG", Const::U(wg));
                (4 * wg, 4)
            }
            Self::Int8 => (64, 32),
            Self::Tile(half) => {
                let file = if half {
                    "lib/element_f16"
                } else {
                    "lib/element_f32"
                };
                d.module("element", file, vec![]);
                (64, 32)
            }
        }
    }
}
