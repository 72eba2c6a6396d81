// rms_norm: y[T, D] = x[T, D] * gain[D] / sqrt(mean(x^2) + eps), row by row.
// bindings  0 params   1 x read f32 [T, D]   2 vectors read f32   3 y write f32 [T, D]
// launch    (ceil(T / (WG / LANES)), 1, 1) workgroups of WG; a team of LANES makes one row
// requires  D % 4 == 0      accumulates f32
import package::reduce::{LANES, sum};
override WG: u32;

struct Params {
    rows: u32,
    d4: u32,
    gain: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = wid.x * (WG / LANES) + lid / LANES;
    let at = min(row, p.rows - 1u) * p.d4;
    var squares = 0.0;
    for (var i = lid % LANES; i < p.d4; i += LANES) {
        squares += dot(x[at + i], x[at + i]);
    }
    let scale = inverseSqrt(sum(squares, lid) / f32(4u * p.d4) + p.eps);
    if row < p.rows {
        for (var i = lid % LANES; i < p.d4; i += LANES) {
            y[at + i] = x[at + i] * vectors[p.gain + i] * scale;
        }
    }
}
