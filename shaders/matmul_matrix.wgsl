// matmul_matrix: y[T, N] = x[T, K] · W[N, K]^T, W block-quantised, by the GPU's matrix units.
// bindings  0 params   2 x read f32 [T, K]   then the tokens', the weight's and the output's
// launch    (ceil(N / 64), ceil(T / (4 M)), 1) workgroups of WG, 64 / M subgroups; each makes 64 rows x 4 M tokens
// requires  K % 32 == 0; LANES is the subgroup size; cooperative matrices of M x M, f16 in and f32 out
//           inputs and weights are rounded to f16 and inputs clamped to its range; accumulates f32
// why       a subgroup holds M rows x 4 M tokens in four matrices, so that each left factor read serves four products.
//           Row-major loads alone are used: column-major ones mean different things on different backends
import package::weight::{load, quants};
import package::output::{store};
import package::tokens::{Tile, tile, x_row, y_row};
import package::matrix::{M, Left, Right, Sum};
override LANES: u32;
const TOKENS: u32 = 4u * M;
const WG: u32 = LANES * 64u / M;

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

// [row][k], [k][token], and M x M of each subgroup's results.
var<workgroup> tile_w: array<f16, 2048>;
var<workgroup> tile_x: array<f16, 32u * TOKENS>;
var<workgroup> tile_y: array<f32, 64u * M>;
// Tokens of the tile.
var<workgroup> count: u32;

// A subgroup's results for the tile's tokens `token` on, out of its part of tile_y.
fn put(mine: Tile, band: u32, lane: u32, first: u32, token: u32) {
    for (var i = lane; i < M * M; i += LANES) {
        let row = first + i / M;
        let c = token + i % M;
        if row < p.rows && c < mine.count {
            let to = y_row(mine, c) * p.y_stride + p.y_first + row;
            store(to, p.bias + mine.bias + row, tile_y[band * M * M + i]);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let mine = tile(wid.y, TOKENS, p.tokens, p.rows);
    // naga takes what a function returns for different in each invocation, and matrices are for all at once.
    if lid == 0u {
        count = mine.count;
    }
    if workgroupUniformLoad(&count) == 0u {
        return;
    }
    let first = wid.x * 64u;
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    let band = lid / LANES;
    let lane = lid % LANES;
    var y0: Sum;
    var y1: Sum;
    var y2: Sum;
    var y3: Sum;
    for (var g = 0u; g < p.groups; g++) {
        // A loader of weights takes half a group of a row, one of inputs four elements of a token.
        for (var i = lid; i < 128u; i += WG) {
            let row = i / 2u;
            let h = i % 2u;
            let q = load((min(first + row, p.rows - 1u) + mine.weight) * p.groups + g, planes);
            for (var k = 4u * h; k < 4u * h + 4u; k++) {
                let v = vec4<f16>(quants(q, k) * q.scale[h] + q.offset[h]);
                let to = row * 32u + k * 4u;
                tile_w[to] = v.x;
                tile_w[to + 1u] = v.y;
                tile_w[to + 2u] = v.z;
                tile_w[to + 3u] = v.w;
            }
        }
        for (var i = lid; i < 8u * TOKENS; i += WG) {
            let token = i / 8u;
            let k = i % 8u;
            let r = x[(x_row(mine, token) * p.groups + g) * 8u + k];
            let v = vec4<f16>(clamp(r, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
            tile_x[(4u * k) * TOKENS + token] = v.x;
            tile_x[(4u * k + 1u) * TOKENS + token] = v.y;
            tile_x[(4u * k + 2u) * TOKENS + token] = v.z;
            tile_x[(4u * k + 3u) * TOKENS + token] = v.w;
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += M) {
            let a = coopLoadT<Left>(&tile_w[band * M * 32u + k], 32u);
            let b0 = coopLoadT<Right>(&tile_x[k * TOKENS], TOKENS);
            let b1 = coopLoadT<Right>(&tile_x[k * TOKENS + M], TOKENS);
            let b2 = coopLoadT<Right>(&tile_x[k * TOKENS + 2u * M], TOKENS);
            let b3 = coopLoadT<Right>(&tile_x[k * TOKENS + 3u * M], TOKENS);
            y0 = coopMultiplyAdd(a, b0, y0);
            y1 = coopMultiplyAdd(a, b1, y1);
            y2 = coopMultiplyAdd(a, b2, y2);
            y3 = coopMultiplyAdd(a, b3, y3);
        }
        workgroupBarrier();
    }
    let row = first + band * M;
    coopStoreT(y0, &tile_y[band * M * M], M);
    workgroupBarrier();
    put(mine, band, lane, row, 0u);
    workgroupBarrier();
    coopStoreT(y1, &tile_y[band * M * M], M);
    workgroupBarrier();
    put(mine, band, lane, row, M);
    workgroupBarrier();
    coopStoreT(y2, &tile_y[band * M * M], M);
    workgroupBarrier();
    put(mine, band, lane, row, 2u * M);
    workgroupBarrier();
    coopStoreT(y3, &tile_y[band * M * M], M);
    workgroupBarrier();
    put(mine, band, lane, row, 3u * M);
}
