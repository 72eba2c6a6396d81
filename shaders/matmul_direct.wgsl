// matmul_direct: y[T, N] = x[T, K] · W[N, K]^T, W block-quantised. For devices without useful workgroup memory.
// bindings  0 params   2 x read f32 [T, K]   then the tokens', the weight's and the output's
// launch    (ceil(N / (4 · WG)), ceil(T / 4), 1) workgroups of WG; an invocation makes 4 rows of W x 4 tokens
// requires  K % 32 == 0      accumulates f32
// why       16 sums stay in registers, weights are unpacked once for four tokens, inputs are the same for all
//           lanes; on software drivers tiles in workgroup memory are 2 to 25 times slower
import package::weight::{load, quants};
import package::output::{store};
import package::tokens::{Tile, tile, x_row, y_row};
override WG: u32;

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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = tile(wid.y, 4u, p.tokens, p.rows);
    if mine.count == 0u {
        return;
    }
    let first = (wid.x * WG + lid) * 4u;
    let rows = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.rows - 1u));
    let at = (rows + mine.weight) * p.groups;
    let base = vec4<u32>(x_row(mine, 0u), x_row(mine, 1u), x_row(mine, 2u), x_row(mine, 3u)) * (p.groups * 8u);
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    // y0 to y3: the four rows of one token each.
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var y2 = vec4<f32>(0.0);
    var y3 = vec4<f32>(0.0);
    for (var g = 0u; g < p.groups; g++) {
        let q0 = load(at.x + g, planes);
        let q1 = load(at.y + g, planes);
        let q2 = load(at.z + g, planes);
        let q3 = load(at.w + g, planes);
        for (var i = 0u; i < 8u; i++) {
            let h = i / 4u;
            let w0 = quants(q0, i) * q0.scale[h] + q0.offset[h];
            let w1 = quants(q1, i) * q1.scale[h] + q1.offset[h];
            let w2 = quants(q2, i) * q2.scale[h] + q2.offset[h];
            let w3 = quants(q3, i) * q3.scale[h] + q3.offset[h];
            let x0 = x[base.x + g * 8u + i];
            let x1 = x[base.y + g * 8u + i];
            let x2 = x[base.z + g * 8u + i];
            let x3 = x[base.w + g * 8u + i];
            y0 += vec4<f32>(dot(w0, x0), dot(w1, x0), dot(w2, x0), dot(w3, x0));
            y1 += vec4<f32>(dot(w0, x1), dot(w1, x1), dot(w2, x1), dot(w3, x1));
            y2 += vec4<f32>(dot(w0, x2), dot(w1, x2), dot(w2, x2), dot(w3, x2));
            y3 += vec4<f32>(dot(w0, x3), dot(w1, x3), dot(w2, x3), dot(w3, x3));
        }
    }
    for (var r = 0u; r < min(4u, p.rows - min(first, p.rows)); r++) {
        let to = p.y_first + first + r;
        let y = vec4<f32>(y0[r], y1[r], y2[r], y3[r]);
        for (var c = 0u; c < mine.count; c++) {
            store(y_row(mine, c) * p.y_stride + to, p.bias + mine.bias + first + r, y[c]);
        }
    }
}
