// Stores a product plus a bias. Interface: see store.wgsl.
override Y: u32;
override BIAS: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;
@group(0) @binding(BIAS) var<storage, read> vectors: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = v + vectors[bias];
}
