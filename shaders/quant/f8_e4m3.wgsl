// f8_e4m3: w = d * q, q a float of 4 bits of exponent (bias 7) and 3 of mantissa. Planes: 0 bytes (32 a group),
// 1 d (f32 a group). Interface: see f32.wgsl.
import package::words::{two, word};
const INTEGERS: bool = false;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: array<vec4<u32>, 2>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(bitcast<f32>(word(planes.y * 4u + g))), vec2<f32>(0.0), two(planes.x + g * 2u));
}

fn packed(q: Group, i: u32) -> u32 {
    return select(q.q[0], q.q[1], i >= 4u)[i & 3u];
}

// A normal number's exponent and mantissa are those of an f32, moved; a subnormal one is so many times 2^-9.
fn quants(q: Group, i: u32) -> vec4<f32> {
    let codes = vec4<u32>(packed(q, i)) >> vec4<u32>(0u, 8u, 16u, 24u);
    let size = codes & vec4<u32>(127u);
    let normal = bitcast<vec4<f32>>((size << vec4<u32>(20u)) + vec4<u32>(120u << 23u));
    let value = select(normal, vec4<f32>(size) * 0.001953125, size < vec4<u32>(8u));
    return select(value, -value, (codes & vec4<u32>(128u)) != vec4<u32>(0u));
}
