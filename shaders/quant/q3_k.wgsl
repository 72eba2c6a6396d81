// q3_k: w = d * (s - 32) * (q - 4), s 6 bits for 16 elements. Planes: 0 low bit pairs (8 bytes a group),
// 1 third bits (bit e = element e), 2 s (12 bytes a super-block of 256: 16 low nibbles, then 16 upper
// pairs), 3 d (f16 a super-block). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec2<u32>,
    high: u32,
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

// Half `i` of the plane that starts at vector `plane`.
fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(word(plane * 4u + (i >> 1u)) >> ((i & 1u) * 16u)).x;
}

// Bits 0..3 of `b`, one to each component.
fn bits(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
}

// Bit pairs 0..3 of `b`, one to each component.
fn pairs(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
}

// The 6-bit scale j of the twelve bytes that start at word `at`.
fn scale(at: u32, j: u32) -> f32 {
    let low = (word(at + ((j >> 2u) & 1u)) >> ((j & 3u) * 8u + (j >> 3u) * 4u)) & 15u;
    let high = (word(at + 2u) >> ((j & 3u) * 8u + (j >> 2u) * 2u)) & 3u;
    return f32(low | (high << 4u)) - 32.0;
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let at = planes.x * 4u + g * 2u;
    let s = planes.z * 4u + (g >> 3u) * 3u;
    let j = (g & 7u) * 2u;
    let d = half_at(planes.w, g >> 3u) * vec2<f32>(scale(s, j), scale(s, j + 1u));
    return Group(d, -4.0 * d, vec2<u32>(word(at), word(at + 1u)), word(planes.y * 4u + g));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    let low = pairs(q.q[i >> 2u] >> ((i & 3u) * 8u));
    return vec4<f32>(low | (bits(q.high >> (4u * i)) << vec4<u32>(2u)));
}
