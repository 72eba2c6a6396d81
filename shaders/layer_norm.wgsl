// layer_norm: y[T, D] = (x[T, D] - mean(x)) * gain[D] / sqrt(variance(x) + eps) + bias[D], row by row.
// bindings  0 params   1 x read f32 [T, D]   2 vectors read f32   3 y write f32 [T, D]
// launch    (ceil(T / (WG / LANES)), 1, 1) workgroups of WG; a team of LANES makes one row
// requires  D % 4 == 0      accumulates f32
// why       the variance is that of what is left once the mean is known: a mean of squares less a squared mean
//           loses all digits where the mean is large
import package::reduce::{LANES, sum};
override WG: u32;

struct Params {
    rows: u32,
    d4: u32,
    gain: u32,
    bias: u32,
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
    let d = f32(4u * p.d4);
    var total = 0.0;
    for (var i = lid % LANES; i < p.d4; i += LANES) {
        total += dot(x[at + i], vec4<f32>(1.0));
    }
    let mean = sum(total, lid) / d;
    var squares = 0.0;
    for (var i = lid % LANES; i < p.d4; i += LANES) {
        let v = x[at + i] - mean;
        squares += dot(v, v);
    }
    let scale = inverseSqrt(sum(squares, lid) / d + p.eps);
    if row < p.rows {
        for (var i = lid % LANES; i < p.d4; i += LANES) {
            y[at + i] = (x[at + i] - mean) * scale * vectors[p.gain + i] + vectors[p.bias + i];
        }
    }
}
