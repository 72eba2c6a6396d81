// Stores the activation of a product plus a bias. Interface: see store.wgsl.
import package::act::{glu};
override Y: u32;
override BIAS: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;
@group(0) @binding(BIAS) var<storage, read> vectors: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = glu(v + vectors[bias], 1.0);
}
