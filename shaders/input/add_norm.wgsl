// The input of a mat-vec where the block before was normed: the stream becomes s = x + RMSNorm(b) * post_gain, and
// its RMSNorm is multiplied (a sandwich of norms, as Gemma has) or, where not NORMED, s itself (norms behind blocks
// alone, as OLMo 2 has). One workgroup keeps s. Interface: see plain.wgsl.
import package::reduce::{sum};
override X: u32;
override B: u32;
override S: u32;
override VECTORS: u32;
override NORMED: bool;
@group(0) @binding(X) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(B) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(S) var<storage, read_write> s: array<vec4<f32>>;
const KEEPS: bool = true;

fn begin(lane: u32, lanes: u32, k4: u32, eps: f32, lid: u32) -> f32 {
    var squares = 0.0;
    for (var i = lane; i < k4; i += lanes) {
        squares += dot(b[i], b[i]);
    }
    return inverseSqrt(sum(squares, lid) / f32(4u * k4) + eps);
}

fn raw(i: u32, pre: f32, post_gain: u32) -> vec4<f32> {
    return x[i] + b[i] * vectors[post_gain + i] * pre;
}

fn gained(v: vec4<f32>, i: u32, gain: u32) -> vec4<f32> {
    if NORMED {
        return v * vectors[gain + i];
    }
    return v;
}

fn finish(squares: f32, k: f32, eps: f32) -> f32 {
    if NORMED {
        return inverseSqrt(squares / k + eps);
    }
    return 1.0;
}

fn keep(i: u32, v: vec4<f32>) {
    s[i] = v;
}
