//! Kernels that touch each element about once: embedding, norms, sums.

use super::linear::{WEIGHT, Weight, act_file};
use super::{Access, Dispatch, Kernel, Resource, Team, kernel, u};
use crate::caps::Caps;
use crate::graph::Act;
use crate::shader::Const;

/// Rows of the token table.
pub const EMBED: Kernel = kernel!(
    "embed",
    [
        "groups",
        "first",
        "rows",
        "plane1",
        "plane2",
        "plane3",
        "scale",
        "positions",
        "shift"
    ]
);

/// RMSNorm.
pub const RMS_NORM: Kernel = kernel!("rms_norm", ["rows", "d4", "gain", "eps"]);

/// LayerNorm.
pub const LAYER_NORM: Kernel = kernel!("layer_norm", ["rows", "d4", "gain", "bias", "eps"]);

/// x + RMSNorm(b).
pub const ADD_NORM: Kernel = kernel!("add_norm", ["rows", "d4", "gain", "eps"]);

/// RMSNorm of q and of k, in place.
pub const QK_NORM: Kernel = kernel!(
    "qk_norm",
    ["rows", "stride", "q4", "k4", "q_gain", "k_gain", "eps"]
);

/// A function of two tensors.
pub const BINARY: Kernel = kernel!("binary", ["n4"]);

/// The last live row.
pub const LAST_ROW: Kernel = kernel!("last_row", ["rows", "d4"]);

/// Sums of rows.
pub const POOL: Kernel = kernel!("pool", ["d4"]);

/// What an embedding gets beside its token's row: places among the vectors, in vec4s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plus {
    /// A vector for each position, one after the other.
    pub positions: Option<usize>,
    /// A vector for every row.
    pub shift: Option<usize>,
}

/// y `[tokens, D]` = scale · table`[token]` + `plus`; one launch for each part of the table.
pub fn embed(
    caps: &Caps,
    label: &str,
    table: Weight,
    scale: f32,
    plus: Plus,
    y: Resource,
    tokens: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&EMBED, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(y, Access::Write);
    table.bind(&mut d, caps, WEIGHT);
    if plus == Plus::default() {
        d.module("plus", "lib/plus_none", vec![]);
    } else {
        let consts = vec![
            ("VECTORS", d.bind(Resource::Vectors, Access::Read)),
            ("POSITIONS", Const::B(plus.positions.is_some())),
            ("SHIFT", Const::B(plus.shift.is_some())),
        ];
        d.module("plus", "lib/plus_vectors", consts);
    }
    let wg = 32;
    d.set("WG", Const::U(wg));
    let groups = (table.cols / 32) as u32;
    let [p1, p2, p3] = table.planes();
    d.params = vec![
        Const::U(groups),
        u(table.first),
        u(table.rows),
        p1,
        p2,
        p3,
        Const::F(scale),
        u(plus.positions.unwrap_or(0)),
        u(plus.shift.unwrap_or(0)),
    ];
    d.grid[0] = groups.div_ceil(wg);
    d.along_tokens(1, tokens, 1);
    d
}

/// y `[rows, D]` = RMSNorm(x) · gain; `gain` in vec4s.
pub fn rms_norm(
    caps: &Caps,
    label: &str,
    x: Resource,
    gain: usize,
    eps: f32,
    y: Resource,
    [rows, cols]: [usize; 2],
) -> Dispatch {
    norm(
        caps,
        Dispatch::new(&RMS_NORM, label),
        x,
        gain,
        eps,
        y,
        [rows, cols],
    )
}

/// y `[rows, D]` = LayerNorm(x) · gain + bias; both in vec4s.
pub fn layer_norm(
    caps: &Caps,
    label: &str,
    x: Resource,
    [gain, bias]: [usize; 2],
    eps: f32,
    y: Resource,
    shape: [usize; 2],
) -> Dispatch {
    let d = Dispatch::new(&LAYER_NORM, label);
    let mut d = norm(caps, d, x, gain, eps, y, shape);
    d.params.insert(3, u(bias));
    d
}

/// y `[rows, D]` = x + RMSNorm(b) · gain; `gain` in vec4s.
pub fn add_norm(
    caps: &Caps,
    label: &str,
    [x, b]: [Resource; 2],
    gain: usize,
    eps: f32,
    y: Resource,
    [rows, cols]: [usize; 2],
) -> Dispatch {
    let mut d = norm(
        caps,
        Dispatch::new(&ADD_NORM, label),
        x,
        gain,
        eps,
        y,
        [rows, cols],
    );
    d.bind(b, Access::Read);
    d
}

fn norm(
    caps: &Caps,
    mut d: Dispatch,
    x: Resource,
    gain: usize,
    eps: f32,
    y: Resource,
    [rows, cols]: [usize; 2],
) -> Dispatch {
    let team = Team::sum(caps, cols / 4);
    d.team(team);
    d.bind(x, Access::Read);
    d.bind(Resource::Vectors, Access::Read);
    d.bind(y, Access::Write);
    d.params = vec![u(rows), u(cols / 4), u(gain), Const::F(eps)];
    d.along_tokens(0, rows, team.wg / team.lanes);
    d
}

/// qkv `[rows, stride]`: its first `q` columns and the `k` after them normed in place; gains in vec4s.
pub fn qk_norm(
    caps: &Caps,
    label: &str,
    qkv: Resource,
    [q_gain, k_gain]: [usize; 2],
    eps: f32,
    [rows, stride]: [usize; 2],
    [q, k, _]: [usize; 3],
) -> Dispatch {
    let team = Team::sum(caps, q.max(k) / 4);
    let mut d = Dispatch::new(&QK_NORM, label);
    d.team(team);
    d.bind(qkv, Access::Write);
    d.bind(Resource::Vectors, Access::Read);
    d.params = vec![
        u(rows),
        u(stride / 4),
        u(q / 4),
        u(k / 4),
        u(q_gain),
        u(k_gain),
        Const::F(eps),
    ];
    d.grid[1] = 2;
    d.along_tokens(0, rows, team.wg / team.lanes);
    d
}

/// y = a + b, or act(a) · b, over `n` elements.
pub fn binary(
    caps: &Caps,
    label: &str,
    act: Option<Act>,
    [a, b]: [Resource; 2],
    y: Resource,
    n: usize,
) -> Dispatch {
    let mut d = Dispatch::new(&BINARY, label);
    d.bind(a, Access::Read);
    d.bind(b, Access::Read);
    d.bind(y, Access::Write);
    match act {
        None => d.module("combine", "lib/combine_add", vec![]),
        Some(act) => {
            d.module("combine", "lib/combine_glu", vec![]);
            d.module("act", act_file(act), vec![]);
        }
    }
    let wg = 64;
    d.set("WG", Const::U(wg));
    d.params = vec![u(n / 4)];
    d.grid2((n as u32 / 4).div_ceil(wg), caps);
    d
}

/// y `[D]` = the last live row of x `[tokens, D]`.
pub fn last_row(label: &str, x: Resource, y: Resource, [tokens, cols]: [usize; 2]) -> Dispatch {
    let mut d = Dispatch::new(&LAST_ROW, label);
    d.bind(Resource::Step, Access::Read);
    d.bind(x, Access::Read);
    d.bind(y, Access::Write);
    d.set("WG", Const::U(64));
    d.params = vec![u(tokens), u(cols / 4)];
    d
}

/// y `[spans, D]` = the sums of rows of x `[·, D]`: of `spans` (first, count) each; at most `most` of them.
pub fn pool(label: &str, [x, spans, y]: [Resource; 3], [most, cols]: [usize; 2]) -> Dispatch {
    let mut d = Dispatch::new(&POOL, label);
    d.bind(x, Access::Read);
    d.bind(spans, Access::Read);
    d.bind(y, Access::Write);
    let wg = 32;
    d.set("WG", Const::U(wg));
    d.params = vec![u(cols / 4)];
    d.grid[0] = (cols as u32 / 4).div_ceil(wg);
    // There are no more spans than tokens.
    d.along_tokens(1, most, 1);
    d
}
