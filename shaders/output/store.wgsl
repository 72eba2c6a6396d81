// Stores a product. Interface of every file here: `store(i, bias, v)` puts v at element i; `bias` is its place
// among the model's vectors.
override Y: u32;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;

fn store(i: u32, bias: u32, v: f32) {
    y[i] = v;
}
