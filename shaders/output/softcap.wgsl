// Stores a product through a soft cap: CAP * tanh(v / CAP). Interface: see store.wgsl.
override Y: u32;
override CAP: f32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = CAP * tanh(clamp(v / CAP, -15.0, 15.0));
}
