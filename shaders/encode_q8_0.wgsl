// encode_q8_0: a weight of another type in Q8_0: d = largest / 127, q = x / d.
// bindings  0 params   1 y write u32, planes of Q8_0   then the weight's
// launch    (ceil(total / 2 / WG), 1, 1) workgroups of WG; an invocation makes two groups of 32 elements
// requires  groups from an even one on, and up to an even one or y's end
// why       the scales of two groups share a word
import package::half::{half_bits};
import package::fit::{extreme, over};
import package::source::{read};
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
    if 2u * id.x >= p.total {
        return;
    }
    var scales = 0u;
    for (var g = 2u * id.x; g < min(2u * id.x + 2u, p.total); g++) {
        var x = read(g, vec4<u32>(0u, p.plane1, p.plane2, p.plane3));
        let d = abs(extreme(&x, 0u, 8u)) / 127.0;
        let inverse = over(1.0, d);
        for (var i = 0u; i < 8u; i++) {
            // Of two whole numbers the one away from 0, as everyone has them in this format.
            let v = x[i] * inverse;
            y[(p.first + g) * 8u + i] = pack4xI8(vec4<i32>(sign(v) * floor(abs(v) + 0.5)));
        }
        scales |= half_bits(d) << (16u * (g & 1u));
    }
    y[p.to1 * 4u + p.first / 2u + id.x] = scales;
}
