// q6_k: w = d * s * (q - 32), s a signed byte for 16 elements. Planes: 0 low nibbles (16 bytes a group),
// 1 upper bit pairs (8 bytes a group), 2 s (16 bytes a super-block of 256), 3 d (f16 a super-block).
// Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
    high: vec2<u32>,
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

// Half `i` of the plane that starts at vector `plane`.
fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(word(plane * 4u + (i >> 1u)) >> ((i & 1u) * 16u)).x;
}

fn nibbles(q: vec4<u32>, i: u32) -> vec4<u32> {
    return unpack4xU8((q[i >> 1u] >> ((i & 1u) * 4u)) & 0x0f0f0f0fu);
}

// Bit pairs 0..3 of `b`, one to each component.
fn pairs(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let at = planes.y * 4u + g * 2u;
    let j = (g & 7u) * 2u;
    let s = unpack4xI8(w[planes.z + (g >> 3u)][j >> 2u] >> ((j & 2u) * 8u));
    let scale = half_at(planes.w, g >> 3u) * vec2<f32>(s.xy);
    return Group(scale, -32.0 * scale, w[planes.x + g], vec2<u32>(word(at), word(at + 1u)));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    let high = pairs(q.high[i >> 2u] >> ((i & 3u) * 8u));
    return vec4<f32>(nibbles(q.q, i) | (high << vec4<u32>(4u)));
}
