// q5_0: w = d * (q - 16). Planes: 0 low nibbles (16 bytes a group), 1 fifth bits (bit e = element e),
// 2 d (f16 a group). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
    high: u32,
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

// Bits 0..3 of `b`, one to each component.
fn bits(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let d = half_at(planes.z, g);
    return Group(vec2<f32>(d), vec2<f32>(-16.0 * d), w[planes.x + g], word(planes.y * 4u + g));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(q.q, i) | (bits(q.high >> (4u * i)) << vec4<u32>(4u)));
}
