//! Every variant we ship, as launches: what the tests and the benches walk.

use super::attention::{self, Gains, KvShape, KvType, Site};
use super::linear::{self, Columns, Input, Inputs, Output, Weight};
use super::{Dispatch, Resource, pointwise, sample};
use crate::caps::{Caps, Precision};
use crate::graph::{Act, Attention, NodeId};
use crate::quant::FORMATS;
use crate::tensor::DType;

fn weight(dtype: DType, id: usize) -> Weight {
    Weight {
        resource: Resource::Weight(id, 0),
        dtype,
        rows: 64,
        // Two rounds of a full team, so that the team's width is that of a large model.
        cols: 2048,
        first: 0,
        planes: [0; 3],
    }
}

/// Launches that cover every kernel, format, module and constant, for one adapter's abilities.
pub fn catalog(caps: &Caps) -> Vec<Dispatch> {
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
            gain: 0,
            post_gain: 0,
            eps: 1e-5,
        },
    ];
    let row = Columns {
        y,
        stride: 0,
        first: 0,
    };
    let outputs = [
        Output::Store,
        Output::Bias(0),
        Output::Add(b),
        Output::Glu(b, Act::Silu),
        Output::Glu(b, Act::GeluTanh),
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
        all.push(linear::quantize("quantize", x, [y, s], [4, 64]));
    }
    for (i, format) in FORMATS.iter().enumerate() {
        let w = weight(format.dtype, 0);
        // A second and a third format, different for each row.
        let other = |n: usize, id| weight(FORMATS[(i + n) % FORMATS.len()].dtype, id);
        let label = format.name;
        all.push(pointwise::embed(caps, label, w, 1.0, y, 1));
        for input in inputs {
            all.push(linear::matvec(caps, label, w, input, Output::Store, row));
        }
        let mixed = [w, other(3, 1)];
        all.push(linear::matvec_glu(
            caps,
            label,
            mixed,
            inputs[i % 3],
            Act::Silu,
            y,
        ));
        let mixed = [w, other(5, 1), other(9, 2)];
        all.push(linear::matvec_qkv(
            caps,
            label,
            mixed,
            inputs[(i + 1) % 3],
            y,
        ));
        let to = Columns {
            y,
            stride: 64,
            first: 0,
        };
        all.push(linear::matmul(
            caps,
            label,
            w,
            inputs_of(&w),
            Output::Store,
            to,
            32,
        ));
    }
    for output in &outputs[1..] {
        for dtype in [DType::Q4_1, DType::Q6_K] {
            let w = weight(dtype, 0);
            let to = Columns {
                y,
                stride: 64,
                first: 0,
            };
            all.push(linear::matvec(caps, "output", w, inputs[0], *output, row));
            all.push(linear::matmul(
                caps,
                "output",
                w,
                inputs_of(&w),
                *output,
                to,
                32,
            ));
        }
    }
    // Teams of every width: fewer groups than lanes, and odd numbers of them.
    for cols in [64, 96, 160, 288, 576] {
        let w = Weight {
            cols,
            ..weight(DType::Q8_0, 0)
        };
        for input in inputs {
            all.push(linear::matvec(caps, "narrow", w, input, Output::Store, row));
        }
        let weights = [w, weight(DType::Q4_0, 1)].map(|w| Weight { cols, ..w });
        all.push(linear::matvec_glu(
            caps,
            "narrow",
            weights,
            inputs[2],
            Act::GeluTanh,
            y,
        ));
        all.push(pointwise::rms_norm(
            caps,
            "narrow",
            x,
            0,
            1e-5,
            y,
            [4, cols],
        ));
        all.push(pointwise::add_norm(
            caps,
            "narrow",
            [x, b],
            0,
            1e-5,
            y,
            [4, cols],
        ));
    }
    for act in [None, Some(Act::Silu), Some(Act::GeluTanh)] {
        all.push(pointwise::binary(caps, "binary", act, [x, b], y, 64));
    }
    all.push(pointwise::last_row("last_row", x, y, [4, 64]));
    for (heads, kv_heads, head_dim, dims, neox, window, softcap, norm, dtype, context) in [
        (9, 3, 64, 64, false, None, None, false, KvType::F16, 1024),
        (
            4,
            1,
            256,
            256,
            true,
            Some(512),
            None,
            true,
            KvType::F16,
            4096,
        ),
        (4, 1, 256, 256, true, None, None, true, KvType::F16, 32768),
        (
            3,
            3,
            128,
            128,
            true,
            Some(40),
            Some(50.0),
            false,
            KvType::F32,
            1024,
        ),
        (8, 2, 80, 32, true, None, None, false, KvType::F16, 8192),
        (
            2,
            1,
            96,
            48,
            false,
            None,
            Some(20.0),
            true,
            KvType::F32,
            512,
        ),
    ] {
        let kv = KvShape {
            dtype,
            pages: 4,
            stride: context / attention::PAGE,
        };
        let a = Attention {
            q: NodeId(0),
            k: NodeId(0),
            v: NodeId(0),
            layer: 0,
            heads,
            kv_heads,
            head_dim,
            scale: 1.0,
            window,
            softcap,
            rope: 0,
            qk_norm: norm.then_some((crate::graph::VectorId(0), crate::graph::VectorId(1))),
            eps: 1e-5,
        };
        let site = Site {
            a: &a,
            kv,
            rope: (dims, neox),
            gains: Gains { q: 0, k: 0 },
        };
        all.push(attention::decode(caps, "decode", &site, [x, y], 1));
        if attention::splits(caps, &a, context) > 1 {
            all.push(attention::combine(caps, "combine", &site, [x, y], 1));
        }
        all.extend(attention::prompt(caps, "prompt", &site, [x, y], 4));
    }
    all.extend(sample::sample(caps, x, 1000, 1));
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
