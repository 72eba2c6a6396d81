// matmul_lanes: y[T, N] = x[T, K] · W[N, K]^T, W block-quantised. For software drivers whose lanes pass values.
// bindings  0 params   2 x read f32 [T, K]   then the tokens', the weight's and the output's
// launch    (ceil(N / (8 · LANES)), ceil(T / 8), 1) workgroups of LANES; an invocation makes 8 rows x 8 tokens
// requires  K % 32 == 0; LANES is the subgroup size, 4 or a multiple of 8      accumulates f32
// why       there a load costs about a hundred cycles however many lanes want the same word, and a shuffle one: the
//           lanes load a token's 32 elements together and pass them round; 64 sums for 24 loads
import package::weight::{Group, load, quants};
import package::output::{store};
import package::tokens::{Tile, tile, x_row, y_row};
override LANES: u32;
const SPAN: u32 = min(LANES, 8u);

struct Params {
    groups: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    // Row length of y, where row 0 of W goes in it, and the last token.
    y_stride: u32,
    y_first: u32,
    bias: u32,
    tokens: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;

fn four(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(a, v), dot(b, v), dot(c, v), dot(d, v));
}

fn whole(q: Group, i: u32) -> vec4<f32> {
    return quants(q, i) * q.scale[i / 4u] + q.offset[i / 4u];
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = tile(wid.y, 8u, p.tokens, p.rows);
    if mine.count == 0u {
        return;
    }
    let first = (wid.x * LANES + lid) * 8u;
    let last = vec4<u32>(p.rows - 1u);
    let low = (min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), last) + mine.weight) * p.groups;
    let high = (min(vec4<u32>(first) + vec4<u32>(4u, 5u, 6u, 7u), last) + mine.weight) * p.groups;
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    let lane = lid % SPAN;
    // Sums of token c: rows 0 to 3 and 4 to 7.
    var a0 = vec4<f32>(0.0);
    var b0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var b1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var b2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    var b3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0);
    var b4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0);
    var b5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0);
    var b6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0);
    var b7 = vec4<f32>(0.0);
    let at0 = x_row(mine, 0u) * p.groups * 8u + lane;
    let at1 = x_row(mine, 1u) * p.groups * 8u + lane;
    let at2 = x_row(mine, 2u) * p.groups * 8u + lane;
    let at3 = x_row(mine, 3u) * p.groups * 8u + lane;
    let at4 = x_row(mine, 4u) * p.groups * 8u + lane;
    let at5 = x_row(mine, 5u) * p.groups * 8u + lane;
    let at6 = x_row(mine, 6u) * p.groups * 8u + lane;
    let at7 = x_row(mine, 7u) * p.groups * 8u + lane;
    for (var g = 0u; g < p.groups; g++) {
        let q0 = load(low.x + g, planes);
        let q1 = load(low.y + g, planes);
        let q2 = load(low.z + g, planes);
        let q3 = load(low.w + g, planes);
        let q4 = load(high.x + g, planes);
        let q5 = load(high.y + g, planes);
        let q6 = load(high.z + g, planes);
        let q7 = load(high.w + g, planes);
        for (var s = 0u; s < 8u; s += SPAN) {
            let x0 = x[at0 + g * 8u + s];
            let x1 = x[at1 + g * 8u + s];
            let x2 = x[at2 + g * 8u + s];
            let x3 = x[at3 + g * 8u + s];
            let x4 = x[at4 + g * 8u + s];
            let x5 = x[at5 + g * 8u + s];
            let x6 = x[at6 + g * 8u + s];
            let x7 = x[at7 + g * 8u + s];
            for (var i = s; i < s + SPAN; i++) {
                let w0 = whole(q0, i);
                let w1 = whole(q1, i);
                let w2 = whole(q2, i);
                let w3 = whole(q3, i);
                let w4 = whole(q4, i);
                let w5 = whole(q5, i);
                let w6 = whole(q6, i);
                let w7 = whole(q7, i);
                let v0 = subgroupShuffle(x0, i - s);
                a0 += four(w0, w1, w2, w3, v0);
                b0 += four(w4, w5, w6, w7, v0);
                let v1 = subgroupShuffle(x1, i - s);
                a1 += four(w0, w1, w2, w3, v1);
                b1 += four(w4, w5, w6, w7, v1);
                let v2 = subgroupShuffle(x2, i - s);
                a2 += four(w0, w1, w2, w3, v2);
                b2 += four(w4, w5, w6, w7, v2);
                let v3 = subgroupShuffle(x3, i - s);
                a3 += four(w0, w1, w2, w3, v3);
                b3 += four(w4, w5, w6, w7, v3);
                let v4 = subgroupShuffle(x4, i - s);
                a4 += four(w0, w1, w2, w3, v4);
                b4 += four(w4, w5, w6, w7, v4);
                let v5 = subgroupShuffle(x5, i - s);
                a5 += four(w0, w1, w2, w3, v5);
                b5 += four(w4, w5, w6, w7, v5);
                let v6 = subgroupShuffle(x6, i - s);
                a6 += four(w0, w1, w2, w3, v6);
                b6 += four(w4, w5, w6, w7, v6);
                let v7 = subgroupShuffle(x7, i - s);
                a7 += four(w0, w1, w2, w3, v7);
                b7 += four(w4, w5, w6, w7, v7);
            }
        }
    }
    var y = array<vec4<f32>, 16>(a0, b0, a1, b1, a2, b2, a3, b3, a4, b4, a5, b5, a6, b6, a7, b7);
    for (var c = 0u; c < mine.count; c++) {
        for (var r = 0u; r < min(8u, p.rows - min(first, p.rows)); r++) {
            let to = y_row(mine, c) * p.y_stride + p.y_first + first + r;
            store(to, p.bias + mine.bias + first + r, y[2u * c + r / 4u][r % 4u]);
        }
    }
}
