// matmul_tile: y[T, N] = x[T, K] · W[N, K]^T, W block-quantised. The general GPU kernel for prompts.
// bindings  0 params   2 x read f32 [T, K]   then the tokens', the weight's and the output's
// launch    (ceil(N / 64), ceil(T / 32), 1) workgroups of 128; each makes 64 rows of W x 32 tokens
// requires  K % 32 == 0      accumulates f32      12 KiB of workgroup memory, or 6 in half precision
// why       each group of 32 weights is unpacked once for 32 tokens; an invocation holds 4 x 4 sums
import package::weight::{load, quants};
import package::output::{store};
import package::tokens::{Tile, tile, x_row, y_row};
import package::element::{E, narrow, wide};

struct Params {
    groups: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    y_stride: u32,
    y_first: u32,
    bias: u32,
    tokens: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;

// [k][row / 4] and [k][token / 4]: four neighbours along the output are one read.
var<workgroup> tile_w: array<E, 512>;
var<workgroup> tile_x: array<E, 256>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = tile(wid.y, 32u, p.tokens, p.rows);
    if mine.count == 0u {
        return;
    }
    let first = wid.x * 64u;
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    // As a loader of weights: one vector of four elements of four rows. Of inputs: the same of two tokens.
    let w_row = first + (lid % 16u) * 4u;
    let k4 = lid / 16u;
    let w_rows = min(vec4<u32>(w_row) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.rows - 1u));
    let w_at = (w_rows + mine.weight) * p.groups;
    let c = (lid % 8u) * 4u;
    let x_rows = vec4<u32>(x_row(mine, c), x_row(mine, c + 1u), x_row(mine, c + 2u), x_row(mine, c + 3u));
    let x_at = x_rows * (p.groups * 8u);
    let x_k4 = lid / 8u;
    // As a maker of sums: rows 4 mr.. and tokens 4 mt.. of the tile.
    let mr = lid % 16u;
    let mt = lid / 16u;
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var y2 = vec4<f32>(0.0);
    var y3 = vec4<f32>(0.0);
    for (var g = 0u; g < p.groups; g++) {
        let q0 = load(w_at.x + g, planes);
        let q1 = load(w_at.y + g, planes);
        let q2 = load(w_at.z + g, planes);
        let q3 = load(w_at.w + g, planes);
        let h = k4 / 4u;
        let w0 = quants(q0, k4) * q0.scale[h] + q0.offset[h];
        let w1 = quants(q1, k4) * q1.scale[h] + q1.offset[h];
        let w2 = quants(q2, k4) * q2.scale[h] + q2.offset[h];
        let w3 = quants(q3, k4) * q3.scale[h] + q3.offset[h];
        tile_w[(k4 * 4u) * 16u + lid % 16u] = narrow(vec4<f32>(w0.x, w1.x, w2.x, w3.x));
        tile_w[(k4 * 4u + 1u) * 16u + lid % 16u] = narrow(vec4<f32>(w0.y, w1.y, w2.y, w3.y));
        tile_w[(k4 * 4u + 2u) * 16u + lid % 16u] = narrow(vec4<f32>(w0.z, w1.z, w2.z, w3.z));
        tile_w[(k4 * 4u + 3u) * 16u + lid % 16u] = narrow(vec4<f32>(w0.w, w1.w, w2.w, w3.w));
        if lid < 64u {
            let i = g * 8u + x_k4;
            let x0 = x[x_at.x + i];
            let x1 = x[x_at.y + i];
            let x2 = x[x_at.z + i];
            let x3 = x[x_at.w + i];
            tile_x[(x_k4 * 4u) * 8u + lid % 8u] = narrow(vec4<f32>(x0.x, x1.x, x2.x, x3.x));
            tile_x[(x_k4 * 4u + 1u) * 8u + lid % 8u] = narrow(vec4<f32>(x0.y, x1.y, x2.y, x3.y));
            tile_x[(x_k4 * 4u + 2u) * 8u + lid % 8u] = narrow(vec4<f32>(x0.z, x1.z, x2.z, x3.z));
            tile_x[(x_k4 * 4u + 3u) * 8u + lid % 8u] = narrow(vec4<f32>(x0.w, x1.w, x2.w, x3.w));
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k++) {
            let w = wide(tile_w[k * 16u + mr]);
            let v = wide(tile_x[k * 8u + mt]);
            y0 += w * v.x;
            y1 += w * v.y;
            y2 += w * v.z;
            y3 += w * v.w;
        }
        workgroupBarrier();
    }
    let row = first + mr * 4u;
    let token = mt * 4u;
    for (var r = 0u; r < min(4u, p.rows - min(row, p.rows)); r++) {
        let to = p.y_first + row + r;
        let y = vec4<f32>(y0[r], y1[r], y2[r], y3[r]);
        for (var c = 0u; c < min(4u, mine.count - min(token, mine.count)); c++) {
            store(y_row(mine, token + c) * p.y_stride + to, p.bias + mine.bias + row + r, y[c]);
        }
    }
}
