// encode_q4_k: a weight of another type in Q4_K: x = d * s * q - dmin * m, s and m searched for each group.
// bindings  0 params   1 y write u32, planes of Q4_K   then the weight's
// launch    (ceil(total / WG), 1, 1) workgroups of WG; an invocation makes a group of 32 elements, eight a super-block
// requires  groups from a multiple of 8 on; WG % 8 == 0
import package::half::{half_bits, half_value};
import package::fit::{affine, over, whole};
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

// s and m of every group here, before rounding.
var<workgroup> fits: array<vec2<f32>, WG>;

// What s and m of a group are as six bits, where one is `unit`.
fn six_bits(fit: vec2<f32>, unit: vec2<f32>) -> vec2<u32> {
    let scaled = vec4<f32>(fit.x * unit.x, fit.y * unit.y, 0.0, 0.0);
    return vec2<u32>(whole(scaled, 0.0, 63.0).xy);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let g = wid.x * WG + lid;
    var x = read(min(g, p.total - 1u), vec4<u32>(0u, p.plane1, p.plane2, p.plane3));
    fits[lid] = affine(&x, 15.0, -1.0, 20u);
    workgroupBarrier();
    if g >= p.total {
        return;
    }
    let start = lid & ~7u;
    var top = vec2<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        top = max(top, fits[start + i]);
    }
    let unit = vec2<f32>(over(63.0, top.x), over(63.0, top.y));
    let halves = vec2<u32>(half_bits(top.x / 63.0), half_bits(top.y / 63.0));
    // By the factors as they are stored.
    let own = vec2<f32>(six_bits(fits[lid], unit));
    let d = half_value(halves.x) * own.x;
    let m = half_value(halves.y) * own.y;
    let inverse = over(1.0, d);
    for (var i = 0u; i < 4u; i++) {
        let low = vec4<u32>(whole((x[2u * i] + m) * inverse, 0.0, 15.0));
        let high = vec4<u32>(whole((x[2u * i + 1u] + m) * inverse, 0.0, 15.0));
        y[(p.first + g) * 4u + i] = pack4xU8(low) | (pack4xU8(high) << 4u);
    }
    if lid == start {
        var bytes = vec3<u32>(0u);
        for (var i = 0u; i < 4u; i++) {
            let a = six_bits(fits[start + i], unit);
            let b = six_bits(fits[start + 4u + i], unit);
            let high = a | ((b >> vec2<u32>(4u)) << vec2<u32>(6u));
            bytes |= vec3<u32>(high, (b.x & 15u) | ((b.y & 15u) << 4u)) << vec3<u32>(8u * i);
        }
        let at = p.to1 * 4u + (p.first + g) / 2u;
        y[at] = halves.x | (halves.y << 16u);
        y[at + 1u] = bytes.x;
        y[at + 2u] = bytes.y;
        y[at + 3u] = bytes.z;
    }
}
