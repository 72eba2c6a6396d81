// encode_f16: a weight of another type as halves.
// bindings  0 params   1 y write u32, planes of F16   then the weight's
// launch    (ceil(total / WG), 1, 1) workgroups of WG; an invocation makes a group of 32 elements
import package::half::{half_bits};
import package::source::{plain};
override WG: u32;

struct Params {
    // Groups of 32 to make, and the first of them among those of y.
    total: u32,
    first: u32,
    // Planes 1 to 3 of the weight and of y, in units of 16 bytes.
    plane1: u32,
    plane2: u32,
    plane3: u32,
    to1: u32,
    to2: u32,
    to3: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.total {
        return;
    }
    var x = plain(id.x, vec4<u32>(0u, p.plane1, p.plane2, p.plane3));
    let at = (p.first + id.x) * 16u;
    for (var i = 0u; i < 8u; i++) {
        let v = x[i];
        y[at + 2u * i] = half_bits(v.x) | (half_bits(v.y) << 16u);
        y[at + 2u * i + 1u] = half_bits(v.z) | (half_bits(v.w) << 16u);
    }
}
