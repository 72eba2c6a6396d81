// embed: y[T, D] = scale * W[token[T], D] + plus, rows of a block-quantised table and what comes beside them.
// bindings  0 params   1 step read Row [T]   2 y write f32 [T, D]   then the weight's and plus's
// launch    (ceil(D / 32 / WG), T, 1) workgroups of WG; an invocation makes one group of 32 elements
// why       a table larger than a binding is split by rows: each part writes only the tokens that it holds
import package::weight::{load, quants};
import package::plus::{plus};
override WG: u32;

struct Params {
    groups: u32,
    // Rows of the table that lie in this part.
    first: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    scale: f32,
    // Places among the vectors, in vec4s: of the first position's, and of the one that every row gets.
    positions: u32,
    shift: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: array<Row>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = step[id.y];
    if id.x >= p.groups || row.live == 0u || row.token < p.first || row.token - p.first >= p.rows {
        return;
    }
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    let g = (row.token - p.first) * p.groups + id.x;
    let q = load(g, planes);
    for (var i = 0u; i < 8u; i++) {
        let half = i / 4u;
        let c = id.x * 8u + i;
        y[id.y * p.groups * 8u + c] = (quants(q, i) * q.scale[half] + q.offset[half]) * p.scale
            + plus(c, row.pos, p.groups * 8u, p.positions, p.shift);
    }
}
