//! Every variant we ship, as launches: what the tests and the benches walk.

use super::attention::{self, KvShape, KvType, Parts, Site};
use super::encode::{self, ENCODERS};
use super::experts::{self, Choice};
use super::linear::{self, Columns, Input, Inputs, Lists, Output, Tokens, Weight};
use super::pointwise::{self, Plus};
use super::{Dispatch, Resource, sample};
use crate::caps::{Caps, Precision};
use crate::graph::{Act, Attention, NodeId, Sharpen, VectorId};
use crate::quant::{FORMATS, Format, Layout};
use crate::tensor::DType;

/// How large the launches are where no variant depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Outputs of a product.
    pub rows: usize,
    /// Tokens of a prompt's chunk.
    pub tokens: usize,
    /// Positions that the cache has room for.
    pub positions: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            rows: 64,
            tokens: 32,
            positions: 128,
            vocab: 1000,
        }
    }
}

/// Inputs of most products: two rounds of a full team, so that the team's width is that of a large
/// model.
pub const COLS: usize = 2048;

/// What an attention is like.
struct Shape {
    /// Query heads, key heads, elements of a head.
    heads: [usize; 3],
    /// Elements that turn, and whether their pairs are NeoX's.
    rope: Option<(usize, bool)>,
    norm: bool,
    window: Option<u32>,
    softcap: Option<f32>,
    sharpen: Option<Sharpen>,
    sinks: bool,
    causal: bool,
    dtype: KvType,
    context: usize,
}

/// The plain one, which the others differ from.
const PLAIN: Shape = Shape {
    heads: [9, 3, 64],
    rope: Some((64, false)),
    norm: false,
    window: None,
    softcap: None,
    sharpen: None,
    sinks: false,
    causal: true,
    dtype: KvType::F16,
    context: 1024,
};

/// Every kind of head, of what is done to scores, and of cache, in contexts of one part and of many.
const ATTENTIONS: &[Shape] = &[
    PLAIN,
    Shape {
        heads: [4, 1, 256],
        rope: Some((256, true)),
        norm: true,
        window: Some(512),
        context: 4096,
        ..PLAIN
    },
    Shape {
        heads: [4, 1, 256],
        rope: Some((256, true)),
        norm: true,
        context: 32768,
        ..PLAIN
    },
    Shape {
        heads: [3, 3, 128],
        rope: Some((128, true)),
        window: Some(40),
        softcap: Some(50.0),
        dtype: KvType::F32,
        ..PLAIN
    },
    Shape {
        heads: [8, 2, 80],
        rope: Some((32, true)),
        context: 8192,
        ..PLAIN
    },
    Shape {
        heads: [2, 1, 96],
        rope: Some((48, false)),
        norm: true,
        softcap: Some(20.0),
        dtype: KvType::F32,
        context: 512,
        ..PLAIN
    },
    // Fewer elements turn than two vectors have: no kernel of lanes.
    Shape {
        heads: [4, 2, 80],
        rope: Some((20, true)),
        ..PLAIN
    },
    // Three quarters of a head turn.
    Shape {
        heads: [6, 2, 128],
        rope: Some((96, true)),
        sharpen: Some(Sharpen {
            beta: 0.3,
            original: 24,
        }),
        context: 8192,
        ..PLAIN
    },
    // Sinks, in one part with a window and in many without.
    Shape {
        heads: [8, 1, 64],
        rope: Some((64, true)),
        window: Some(64),
        sinks: true,
        ..PLAIN
    },
    Shape {
        heads: [10, 2, 64],
        rope: Some((64, true)),
        sinks: true,
        dtype: KvType::F32,
        context: 8192,
        ..PLAIN
    },
    // A cache in blocks, in one part and in many, with heads of one block and of several.
    Shape {
        dtype: KvType::Q8_0,
        ..PLAIN
    },
    Shape {
        heads: [6, 2, 96],
        rope: Some((96, true)),
        norm: true,
        dtype: KvType::Q8_0,
        context: 8192,
        ..PLAIN
    },
    Shape {
        heads: [8, 2, 128],
        rope: Some((128, true)),
        dtype: KvType::Q4_0,
        ..PLAIN
    },
    Shape {
        heads: [5, 1, 256],
        rope: Some((256, true)),
        norm: true,
        window: Some(40),
        dtype: KvType::Q4_0,
        context: 8192,
        ..PLAIN
    },
    Shape {
        heads: [4, 4, 32],
        rope: Some((20, true)),
        dtype: KvType::Q4_0,
        ..PLAIN
    },
    // As long as contexts get.
    Shape {
        heads: [6, 2, 64],
        rope: Some((64, true)),
        sinks: true,
        context: 131_072,
        ..PLAIN
    },
    Shape {
        heads: [2, 1, 256],
        rope: Some((256, false)),
        dtype: KvType::Q4_0,
        context: 131_072,
        ..PLAIN
    },
    // Layers without positions.
    Shape {
        heads: [4, 2, 128],
        rope: None,
        norm: true,
        sharpen: Some(Sharpen {
            beta: 0.1,
            original: 40,
        }),
        ..PLAIN
    },
    // Encoders, with and without a window.
    Shape {
        heads: [12, 12, 32],
        rope: None,
        causal: false,
        context: 512,
        ..PLAIN
    },
    Shape {
        heads: [3, 1, 64],
        rope: Some((64, true)),
        window: Some(9),
        causal: false,
        dtype: KvType::F32,
        ..PLAIN
    },
];

impl Shape {
    fn attention(&self) -> Attention {
        let [heads, kv_heads, head_dim] = self.heads;
        Attention {
            q: NodeId(0),
            k: NodeId(0),
            v: NodeId(0),
            layer: 0,
            heads,
            kv_heads,
            head_dim,
            scale: 1.0,
            sharpen: self.sharpen,
            causal: self.causal,
            window: self.window,
            softcap: self.softcap,
            sinks: self.sinks.then_some(VectorId(2)),
            rope: self.rope.map(|_| 0),
            qk_norm: self.norm.then_some((VectorId(0), VectorId(1))),
            eps: 1e-5,
        }
    }
}

/// Launches that cover every kernel, format, module and constant, for one adapter's abilities.
pub fn catalog(caps: &Caps) -> Vec<Dispatch> {
    sized(caps, Sizes::default())
}

/// The same variants, in launches of these sizes.
pub fn sized(caps: &Caps, sizes: Sizes) -> Vec<Dispatch> {
    let Sizes { rows, tokens, .. } = sizes;
    let weight_of = |dtype, id, cols| Weight {
        resource: Resource::Weight(id, 0),
        dtype,
        rows,
        cols,
        first: 0,
        planes: Layout::new(dtype, rows, cols).planes(),
    };
    let weight = |dtype, id| weight_of(dtype, id, COLS);
    let mut all = Vec::new();
    let [x, y, b, s] = [0, 1, 2, 3].map(Resource::Slot);
    let inputs = [
        Input::Plain { x },
        Input::Norm {
            x,
            gain: 0,
            eps: 1e-5,
        },
        Input::AddNorm {
            x,
            b,
            s,
            gain: Some(0),
            post_gain: 0,
            eps: 1e-5,
        },
        Input::AddNorm {
            x,
            b,
            s,
            gain: None,
            post_gain: 0,
            eps: 1e-5,
        },
    ];
    let columns = |stride| Columns {
        y,
        stride,
        first: 0,
    };
    let (row, to) = (columns(0), columns(rows));
    let outputs = [
        Output::Store,
        Output::Bias(0),
        Output::Add(b, None),
        Output::Add(b, Some(0)),
        Output::Glu(b, Act::Silu),
        Output::Glu(b, Act::GeluTanh),
        Output::Glu(b, Act::Gelu),
        Output::Glu(b, Act::SiluClamped),
        Output::Act(Act::Silu, None),
        Output::Act(Act::Gelu, Some(0)),
        Output::Act(Act::GeluTanh, Some(0)),
        Output::Softcap(30.0),
    ];
    let inputs_of = |w: &Weight| {
        if linear::wants_eight(caps, w) {
            Inputs::Eight(x, s)
        } else {
            Inputs::Plain(x)
        }
    };
    if caps.precision == Precision::Int8 {
        all.push(linear::quantize("quantize", x, [y, s], [tokens, COLS]));
    }
    for (i, format) in FORMATS.iter().enumerate() {
        let w = weight(format.dtype, 0);
        // A second and a third format, different for each row.
        let other = |n: usize, id| weight(FORMATS[(i + n) % FORMATS.len()].dtype, id);
        let label = format.name;
        // What is added to a row has nothing to do with its format.
        let plus = [
            Plus::default(),
            Plus {
                positions: Some(0),
                shift: Some(0),
            },
            Plus {
                positions: Some(0),
                shift: None,
            },
            Plus {
                positions: None,
                shift: Some(0),
            },
        ];
        for plus in &plus[..if i < 3 { 4 } else { 1 }] {
            all.push(pointwise::embed(caps, label, w, 1.0, *plus, y, tokens));
        }
        for input in inputs {
            all.push(linear::matvec(caps, label, w, input, Output::Store, row));
        }
        let mixed = [w, other(3, 1)];
        all.push(linear::matvec_glu(
            caps,
            label,
            mixed,
            inputs[i % 4],
            Act::Silu,
            y,
        ));
        let mixed = [w, other(5, 1), other(9, 2)];
        all.push(linear::matvec_qkv(
            caps,
            label,
            mixed,
            inputs[(i + 1) % 4],
            // Another input leaves no binding for a bias.
            [Output::Store, Output::Bias(0)][usize::from(i % 4 < 1)],
            y,
        ));
        all.push(linear::matmul(
            caps,
            label,
            w,
            inputs_of(&w),
            Output::Store,
            to,
            Tokens::All(tokens),
        ));
    }
    // Weights as they come in folders and files, into every type that they are quantised to.
    for (dtype, ..) in ENCODERS {
        for source in [DType::F32, DType::F16, DType::BF16, DType::Q8_0] {
            let to = Layout::new(*dtype, rows, COLS);
            let source = Weight {
                resource: x,
                ..weight(source, 0)
            };
            let label = Format::of(*dtype).name;
            all.extend(encode::encode(caps, label, source, y, &to, 0));
        }
    }
    for output in &outputs[1..] {
        for dtype in [DType::Q4_1, DType::Q6_K] {
            let w = weight(dtype, 0);
            all.push(linear::matvec(caps, "output", w, inputs[0], *output, row));
            all.push(linear::matmul(
                caps,
                "output",
                w,
                inputs_of(&w),
                *output,
                to,
                Tokens::All(tokens),
            ));
        }
    }
    // Teams of every width: fewer groups than lanes, and odd numbers of them.
    for cols in [COLS, 64, 96, 160, 288, 576] {
        let w = weight_of(DType::Q8_0, 0, cols);
        for input in inputs {
            all.push(linear::matvec(caps, "width", w, input, Output::Store, row));
        }
        let weights = [w, weight_of(DType::Q4_0, 1, cols)];
        all.push(linear::matvec_glu(
            caps,
            "width",
            weights,
            inputs[2],
            Act::GeluTanh,
            y,
        ));
        all.push(pointwise::rms_norm(
            caps,
            "width",
            x,
            0,
            1e-5,
            y,
            [tokens, cols],
        ));
        let d = pointwise::layer_norm(caps, "width", x, [0, 0], 1e-5, y, [tokens, cols]);
        all.push(d);
        let parts = [cols, 64, 64];
        let shape = [tokens, cols + 128];
        all.push(pointwise::qk_norm(
            caps,
            "width",
            y,
            [0, 0],
            1e-5,
            shape,
            parts,
        ));
        all.push(pointwise::add_norm(
            caps,
            "width",
            [x, b],
            0,
            1e-5,
            y,
            [tokens, cols],
        ));
    }
    for act in [
        None,
        Some(Act::Silu),
        Some(Act::Gelu),
        Some(Act::GeluTanh),
        Some(Act::SiluClamped),
    ] {
        all.push(pointwise::binary(
            caps,
            "binary",
            act,
            [x, b],
            y,
            rows * tokens,
        ));
    }
    all.extend(mixture(caps, tokens));
    all.push(pointwise::last_row("last_row", x, y, [tokens, COLS]));
    all.push(pointwise::pool(
        "pool",
        [x, Resource::Spans, y],
        [tokens, COLS],
    ));
    for shape in ATTENTIONS {
        let kv = KvShape {
            dtype: shape.dtype,
            stride: shape.context / attention::PAGE,
            ahead: 64,
        };
        let a = shape.attention();
        let site = Site {
            a: &a,
            kv,
            rope: shape.rope,
            vectors: [0; 3],
        };
        all.push(attention::decode(caps, "decode", &site, [x, y], 1));
        for parts in [
            Parts::decode(caps, &a, shape.context),
            Parts::prompt(&a, shape.context),
        ] {
            if parts.count > 1 {
                all.push(attention::combine("combine", &a, parts, [x, y], 1));
            }
        }
        all.extend(attention::prompt(caps, "prompt", &site, [x, y], tokens));
    }
    all.extend(sample::sample(caps, x, sizes.vocab, 1));
    all
}

/// Launches of mixtures of experts: formats as these come in, all experts or some in the middle.
fn mixture(caps: &Caps, tokens: usize) -> Vec<Dispatch> {
    const ROWS: usize = 64;
    let [x, y, b, s] = [0, 1, 2, 3].map(Resource::Slot);
    let weight = |dtype, id, experts: usize, first: usize| Weight {
        resource: Resource::Weight(id, 0),
        dtype,
        rows: experts * ROWS,
        cols: COLS,
        first: first * ROWS,
        planes: Layout::new(dtype, experts * ROWS, COLS).planes(),
    };
    let norm = Input::Norm {
        x,
        gain: 0,
        eps: 1e-5,
    };
    let size = linear::tile(caps);
    let mut all = Vec::new();
    for (count, used, renormalise) in [(5, 2, true), (70, 4, false)] {
        let choice = Choice {
            count,
            used,
            renormalise,
        };
        let tiles = experts::tiles(choice, tokens, size);
        let lists = Lists {
            resource: s,
            tiles,
            share: used,
            rows: ROWS,
        };
        all.push(experts::route("route", x, choice, y, tokens));
        let shape = [tokens, size];
        all.push(experts::sort("sort", x, choice, lists, shape));
        let output = [Output::Store, Output::Add(b, None)][usize::from(renormalise)];
        let shape = [tokens, ROWS];
        all.push(experts::sum("sum", [x, s, y], used, output, shape));
    }
    for (dtype, other, act, biased, experts_, first) in [
        (DType::MXFP4, DType::MXFP4, Act::SiluClamped, true, 4, 0),
        (DType::Q4_K, DType::Q6_K, Act::Silu, false, 3, 2),
        (DType::BF16, DType::Q8_0, Act::GeluTanh, false, 5, 0),
    ] {
        let w = weight(dtype, 0, experts_, first);
        let pair = [w, weight(other, 1, experts_, first)];
        let input = if biased { norm } else { Input::Plain { x } };
        let biases = biased.then_some([0, 0]);
        all.push(experts::glu(
            caps, "glu", pair, input, s, 3, ROWS, biases, act, y,
        ));
        let output = if biased {
            Output::Store
        } else {
            Output::Add(b, None)
        };
        let slots = [x, s, y];
        let bias = biased.then_some(0);
        all.push(experts::down(caps, "down", w, slots, 3, ROWS, bias, output));
        let to = Columns {
            y,
            stride: ROWS,
            first: 0,
        };
        let output = if biased {
            Output::Bias(0)
        } else {
            Output::Glu(b, act)
        };
        for share in [1, 2] {
            let lists = Lists {
                resource: s,
                tiles: 12,
                share,
                rows: ROWS,
            };
            let tokens = Tokens::Routed(lists);
            let x = Inputs::Plain(x);
            all.push(linear::matmul(caps, "matmul", w, x, output, to, tokens));
        }
    }
    all
}

/// Abilities that differ in every way the launches look at: a software driver, a browser without
/// options, GPUs with subgroups of 4, 8, 32 and 64.
pub fn caps() -> Vec<(&'static str, Caps)> {
    use crate::caps::DeviceKind::{Cpu, Discrete, Integrated, Other};
    let base = Caps::webgpu_default();
    let with = |kind, subgroups, f16| Caps {
        kind,
        f16,
        int64: f16 && kind == Cpu,
        subgroups,
        precision: Precision::Auto.resolve(kind, f16),
        ..base.clone()
    };
    let int8 = |kind, subgroups| Caps {
        precision: Precision::Int8,
        ..with(kind, subgroups, false)
    };
    let matrix = |lanes, side| Caps {
        coop_matrix: Some(side),
        workgroup_memory: 32 << 10,
        ..with(Discrete, Some((lanes, lanes)), true)
    };
    vec![
        ("webgpu", base.clone()),
        ("software", with(Cpu, Some((8, 8)), true)),
        ("software-4", with(Cpu, Some((4, 4)), false)),
        ("software-plain", with(Cpu, None, false)),
        ("subgroups-4", with(Integrated, Some((4, 4)), false)),
        ("subgroups-8-32", with(Integrated, Some((8, 32)), true)),
        ("subgroups-32", with(Discrete, Some((32, 32)), true)),
        ("subgroups-64", with(Discrete, Some((64, 64)), true)),
        ("int8", int8(Discrete, Some((32, 32)))),
        ("int8-plain", int8(Other, None)),
        ("matrix-8", matrix(8, 8)),
        ("matrix-16", matrix(32, 16)),
    ]
}
