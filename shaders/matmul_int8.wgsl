// matmul_int8: y[T, N] = x[T, K] · W[N, K]^T, W block-quantised, x in eight bits as `quantize` leaves it.
// bindings  0 params   2 codes read u32 [T, K / 4]   3 scales read f32 [T, K / 16, 2]
//           then the tokens', the weight's and the output's
// launch    (ceil(N / 64), ceil(T / 32), 1) workgroups of 128; each makes 64 rows of W x 32 tokens
// requires  K % 32 == 0; a weight with INTEGERS      sums of 16 products are exact, the rest f32
// why       four products are one instruction where a GPU has it; see matmul_tile for the tiles
import package::weight::{load, packed};
import package::output::{store};
import package::tokens::{Tile, tile, x_row, y_row};

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
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>;

// Codes [k / 4][row] and [k / 4][token]; (scales, offsets) of a row's halves, (step, total) of a token's two halves.
var<workgroup> tile_w: array<u32, 512>;
var<workgroup> tile_x: array<u32, 256>;
var<workgroup> scale_w: array<vec4<f32>, 64>;
var<workgroup> scale_x: array<vec4<f32>, 32>;

// Products of four rows' codes and one token's.
fn four(at: u32, v: u32) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(tile_w[at], v), dot4I8Packed(tile_w[at + 1u], v), dot4I8Packed(tile_w[at + 2u], v),
        dot4I8Packed(tile_w[at + 3u], v));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = tile(wid.y, 32u, p.tokens, p.rows);
    if mine.count == 0u {
        return;
    }
    let first = wid.x * 64u;
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    // As a loader of weights: half a group of a row. Of inputs: two words of a token.
    let w_row = lid / 2u;
    let w_half = lid % 2u;
    let w_at = (min(first + w_row, p.rows - 1u) + mine.weight) * p.groups;
    let x_token = lid / 4u;
    let x_word = 2u * (lid % 4u);
    let x_at = x_row(mine, x_token) * p.groups;
    // As a maker of sums: rows 4 mr.. and tokens 4 mt.. of the tile.
    let mr = 4u * (lid % 16u);
    let mt = 4u * (lid / 16u);
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var y2 = vec4<f32>(0.0);
    var y3 = vec4<f32>(0.0);
    for (var g = 0u; g < p.groups; g++) {
        let q = load(w_at + g, planes);
        for (var i = 4u * w_half; i < 4u * w_half + 4u; i++) {
            tile_w[i * 64u + w_row] = packed(q, i);
        }
        if w_half == 0u {
            scale_w[w_row] = vec4<f32>(q.scale, q.offset);
        }
        tile_x[x_word * 32u + x_token] = codes[(x_at + g) * 8u + x_word];
        tile_x[(x_word + 1u) * 32u + x_token] = codes[(x_at + g) * 8u + x_word + 1u];
        if x_word == 0u {
            scale_x[x_token] = scales[x_at + g];
        }
        workgroupBarrier();
        for (var h = 0u; h < 2u; h++) {
            var s0 = vec4<i32>(0);
            var s1 = vec4<i32>(0);
            var s2 = vec4<i32>(0);
            var s3 = vec4<i32>(0);
            for (var i = 4u * h; i < 4u * h + 4u; i++) {
                let at = i * 64u + mr;
                s0 += four(at, tile_x[i * 32u + mt]);
                s1 += four(at, tile_x[i * 32u + mt + 1u]);
                s2 += four(at, tile_x[i * 32u + mt + 2u]);
                s3 += four(at, tile_x[i * 32u + mt + 3u]);
            }
            let a = scale_w[mr];
            let b = scale_w[mr + 1u];
            let c = scale_w[mr + 2u];
            let d = scale_w[mr + 3u];
            let scale = vec4<f32>(a[h], b[h], c[h], d[h]);
            let offset = vec4<f32>(a[h + 2u], b[h + 2u], c[h + 2u], d[h + 2u]);
            let x0 = scale_x[mt];
            let x1 = scale_x[mt + 1u];
            let x2 = scale_x[mt + 2u];
            let x3 = scale_x[mt + 3u];
            y0 += (scale * vec4<f32>(s0) + offset * x0[2u * h + 1u]) * x0[2u * h];
            y1 += (scale * vec4<f32>(s1) + offset * x1[2u * h + 1u]) * x1[2u * h];
            y2 += (scale * vec4<f32>(s2) + offset * x2[2u * h + 1u]) * x2[2u * h];
            y3 += (scale * vec4<f32>(s3) + offset * x3[2u * h + 1u]) * x3[2u * h];
        }
        workgroupBarrier();
    }
    let row = first + mr;
    let token = mt;
    for (var r = 0u; r < min(4u, p.rows - min(row, p.rows)); r++) {
        let to = p.y_first + row + r;
        let y = vec4<f32>(y0[r], y1[r], y2[r], y3[r]);
        for (var c = 0u; c < min(4u, mine.count - min(token, mine.count)); c++) {
            store(y_row(mine, token + c) * p.y_stride + to, p.bias + mine.bias + row + r, y[c]);
        }
    }
}
