// binary: y[n] = combine(a[n], b[n]) element by element: a sum, or glu(a, b).
// bindings  0 params   1 a read f32 [n]   2 b read f32 [n]   3 y write f32 [n]
// launch    ceil(n / 4 / WG) workgroups of WG, over x and y of the grid
// requires  n % 4 == 0
import package::combine::{combine};
override WG: u32;

struct Params {
    n4: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = (wid.x + wid.y * grid.x) * WG + lid;
    if i < p.n4 {
        y[i] = combine(a[i], b[i]);
    }
}
