// Stores a product plus the residual stream and a bias. Interface: see store.wgsl.
override Y: u32;
override RESIDUAL: u32;
override BIAS: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;
@group(0) @binding(RESIDUAL) var<storage, read> residual: array<f32>;
@group(0) @binding(BIAS) var<storage, read> vectors: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = residual[i] + v + vectors[bias];
}
