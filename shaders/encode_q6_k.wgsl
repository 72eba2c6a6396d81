// encode_q6_k: a weight of another type in Q6_K: x = d * s * (q - 32), s searched for each 16 elements.
// bindings  0 params   1 y write u32, planes of Q6_K   then the weight's
// launch    (ceil(total / WG), 1, 1) workgroups of WG; an invocation makes a group of 32 elements, eight a super-block
// requires  groups from a multiple of 16 on, and up to one or y's end; WG % 16 == 0
import package::half::{half_bits, half_value};
import package::fit::{larger, over, symmetric, whole};
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

// Factors of both halves of every group here, before rounding.
var<workgroup> fits: array<vec2<f32>, WG>;

// The extreme factor of the super-block whose first group is `start`.
fn extreme_of(start: u32) -> f32 {
    var top = 0.0;
    for (var i = 0u; i < 8u; i++) {
        top = larger(larger(top, fits[start + i].x), fits[start + i].y);
    }
    return top;
}

// Factors as signed bytes; the extreme one is at -128.
fn bytes(fit: vec2<f32>, top: f32) -> vec2<f32> {
    return whole(vec4<f32>(fit, 0.0, 0.0) * over(-128.0, top), -128.0, 127.0).xy;
}

// The bits of d.
fn scale(top: f32) -> u32 {
    return half_bits(over(1.0, over(-128.0, top)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let g = wid.x * WG + lid;
    var x = read(min(g, p.total - 1u), vec4<u32>(0u, p.plane1, p.plane2, p.plane3));
    fits[lid] = vec2<f32>(symmetric(&x, 0u, 32.0), symmetric(&x, 1u, 32.0));
    workgroupBarrier();
    if g >= p.total {
        return;
    }
    let start = lid & ~7u;
    let extreme = extreme_of(start);
    // By the factors as they are stored.
    let d = half_value(scale(extreme)) * bytes(fits[lid], extreme);
    let inverse = vec2<f32>(over(1.0, d.x), over(1.0, d.y));
    var pairs = vec2<u32>(0u);
    for (var i = 0u; i < 4u; i++) {
        let half = i / 2u;
        let low = vec4<u32>(whole(x[2u * i] * inverse[half] + 32.0, 0.0, 63.0));
        let high = vec4<u32>(whole(x[2u * i + 1u] * inverse[half] + 32.0, 0.0, 63.0));
        y[(p.first + g) * 4u + i] = pack4xU8(low & vec4<u32>(15u)) | (pack4xU8(high & vec4<u32>(15u)) << 4u);
        let upper = dot(low >> vec4<u32>(4u), vec4<u32>(1u, 4u, 16u, 64u))
            | (dot(high >> vec4<u32>(4u), vec4<u32>(1u, 4u, 16u, 64u)) << 8u);
        pairs[half] |= upper << (16u * (i & 1u));
    }
    y[p.to1 * 4u + (p.first + g) * 2u] = pairs.x;
    y[p.to1 * 4u + (p.first + g) * 2u + 1u] = pairs.y;
    if lid == start {
        for (var i = 0u; i < 4u; i++) {
            let a = vec4<f32>(bytes(fits[start + 2u * i], extreme), bytes(fits[start + 2u * i + 1u], extreme));
            y[p.to2 * 4u + (p.first + g) / 2u + i] = pack4xI8(vec4<i32>(a));
        }
    }
    // Two super-blocks share a word.
    if (lid & 15u) == 0u {
        var word = scale(extreme);
        if g + 8u < p.total {
            word |= scale(extreme_of(start + 8u)) << 16u;
        }
        y[p.to3 * 4u + (p.first + g) / 16u] = word;
    }
}
