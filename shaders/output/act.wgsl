// Stores the activation of a product. Interface: see store.wgsl.
import package::act::{glu};
override Y: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = glu(v, 1.0);
}
