// q5_k: w = d * s * q - dmin * m, s and m 6 bits a group. Planes: 0 low nibbles (16 bytes a group), 1 header
// as in q4_k, 2 fifth bits (bit e = element e). Interface: see f32.wgsl.
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

// The 6-bit scale and minimum of sub-block j, out of 12 bytes in which the upper two bits of the last
// four lie apart. Returned as (scale, minimum).
fn scale_min(head: vec4<u32>, j: u32) -> vec2<f32> {
    let at = (j & 3u) * 8u;
    let a = (head.y >> at) & 0xffu;
    let b = (head.z >> at) & 0xffu;
    let c = (head.w >> at) & 0xffu;
    let low = vec2<u32>(a & 63u, b & 63u);
    let high = vec2<u32>((c & 15u) | ((a >> 6u) << 4u), (c >> 4u) | ((b >> 6u) << 4u));
    return vec2<f32>(select(low, high, j >= 4u));
}

fn nibbles(q: vec4<u32>, i: u32) -> vec4<u32> {
    return unpack4xU8((q[i >> 1u] >> ((i & 1u) * 4u)) & 0x0f0f0f0fu);
}

// Bits 0..3 of `b`, one to each component.
fn bits(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let head = w[planes.y + (g >> 3u)];
    let d = unpack2x16float(head.x);
    let sm = scale_min(head, g & 7u);
    return Group(vec2<f32>(d.x * sm.x), vec2<f32>(-d.y * sm.y), w[planes.x + g], word(planes.z * 4u + g));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(q.q, i) | (bits(q.high >> (4u * i)) << vec4<u32>(4u)));
}
