// mxfp4: w = 2^(e - 128) * VALUES[q], VALUES twice the e2m1 numbers. Planes: 0 nibbles (16 bytes a group),
// 1 e (a byte a group). Source: OCP Microscaling Formats 1.0. Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

const VALUES = array<f32, 16>(
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0,
    0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
);

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

fn nibbles(q: vec4<u32>, i: u32) -> vec4<u32> {
    return unpack4xU8((q[i >> 1u] >> ((i & 1u) * 4u)) & 0x0f0f0f0fu);
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let e = (word(planes.y * 4u + (g >> 2u)) >> ((g & 3u) * 8u)) & 0xffu;
    // 2^(e - 128); the two smallest are subnormal and may be flushed to zero.
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    return Group(vec2<f32>(d), vec2<f32>(0.0), w[planes.x + g]);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    let n = nibbles(q.q, i);
    return vec4<f32>(VALUES[n.x], VALUES[n.y], VALUES[n.z], VALUES[n.w]);
}
