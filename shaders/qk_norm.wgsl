// qk_norm: q and k of qkv[T, S], each as a whole, in place: x * gain / sqrt(mean(x^2) + eps). v stays.
// bindings  0 params   1 qkv write f32 [T, S]   2 vectors read f32
// launch    (ceil(T / (WG / LANES)), 2, 1) workgroups of WG, for q and for k; a team of LANES makes one row
// requires  S, q and k are multiples of 4 long      accumulates f32
import package::reduce::{LANES, sum};
override WG: u32;

struct Params {
    rows: u32,
    // A row, its q and its k, in vec4s.
    stride: u32,
    q4: u32,
    k4: u32,
    q_gain: u32,
    k_gain: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = wid.x * (WG / LANES) + lid / LANES;
    let is_k = wid.y == 1u;
    let at = min(row, p.rows - 1u) * p.stride + select(0u, p.q4, is_k);
    let n = select(p.q4, p.k4, is_k);
    let gain = select(p.q_gain, p.k_gain, is_k);
    var squares = 0.0;
    for (var i = lid % LANES; i < n; i += LANES) {
        squares += dot(qkv[at + i], qkv[at + i]);
    }
    let scale = inverseSqrt(sum(squares, lid) / f32(4u * n) + p.eps);
    if row < p.rows {
        for (var i = lid % LANES; i < n; i += LANES) {
            qkv[at + i] = qkv[at + i] * vectors[gain + i] * scale;
        }
    }
}
