// The input of a mat-vec through RMSNorm: x * gain / sqrt(mean(x^2) + eps). The product is linear, so the
// root is applied to its result and the squares are summed on the way. Interface: see plain.wgsl.
override X: u32;
override VECTORS: u32;
@group(0) @binding(X) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<vec4<f32>>;
const KEEPS: bool = false;

fn begin(lane: u32, lanes: u32, k4: u32, eps: f32, lid: u32) -> f32 {
    return 0.0;
}

fn raw(i: u32, pre: f32, post_gain: u32) -> vec4<f32> {
    return x[i];
}

fn gained(v: vec4<f32>, i: u32, gain: u32) -> vec4<f32> {
    return v * vectors[gain + i];
}

fn finish(squares: f32, k: f32, eps: f32) -> f32 {
    return inverseSqrt(squares / k + eps);
}

fn keep(i: u32, v: vec4<f32>) {
}
