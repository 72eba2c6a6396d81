// q4_1: w = d * q + m. Planes: 0 nibbles (16 bytes a group), 1 (d, m) (two f16 a group). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

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
    let dm = unpack2x16float(word(planes.y * 4u + g));
    return Group(vec2<f32>(dm.x), vec2<f32>(dm.y), w[planes.x + g]);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(q.q, i));
}
