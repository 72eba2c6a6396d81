// The input of a mat-vec as it is: x [K], from vec4 `post_gain` on (there is no such gain here, and an expert's input
// is one of several side by side).
// Interface of every file here, K in vec4s: `begin` gives what `raw` needs; `raw` is the residual stream's
// element i; `gained` is what is multiplied; `finish` scales the product, given the sum of raw squares;
// `keep` stores the stream where KEEPS.
override X: u32;
@group(0) @binding(X) var<storage, read> x: array<vec4<f32>>;
const KEEPS: bool = false;

fn begin(lane: u32, lanes: u32, k4: u32, eps: f32, lid: u32) -> f32 {
    return 0.0;
}

fn raw(i: u32, pre: f32, post_gain: u32) -> vec4<f32> {
    return x[post_gain + i];
}

fn gained(v: vec4<f32>, i: u32, gain: u32) -> vec4<f32> {
    return v;
}

fn finish(squares: f32, k: f32, eps: f32) -> f32 {
    return 1.0;
}

fn keep(i: u32, v: vec4<f32>) {
}
