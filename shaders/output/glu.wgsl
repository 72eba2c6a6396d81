// Stores a product gated by another: glu(gate, v). Interface: see store.wgsl.
import package::act::{glu};
override Y: u32;
override GATE: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;
@group(0) @binding(GATE) var<storage, read> gate: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = glu(gate[i], v);
}
