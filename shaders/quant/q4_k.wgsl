// q4_k: w = d * s * q - dmin * m, s and m 6 bits a group. Planes: 0 nibbles (16 bytes a group), 1 header
// (16 bytes a super-block of 256: d, dmin as f16, then 12 bytes of s and m). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
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

fn load(g: u32, planes: vec4<u32>) -> Group {
    let head = w[planes.y + (g >> 3u)];
    let d = unpack2x16float(head.x);
    let sm = scale_min(head, g & 7u);
    return Group(vec2<f32>(d.x * sm.x), vec2<f32>(-d.y * sm.y), w[planes.x + g]);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(q.q, i));
}
