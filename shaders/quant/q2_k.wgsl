// q2_k: w = d * s * q - dmin * m, s and m 4 bits for 16 elements. Planes: 0 bit pairs (8 bytes a group),
// 1 (s, m) nibbles (16 bytes a super-block of 256), 2 (d, dmin) (two f16 a super-block).
// Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec2<u32>,
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

// Bit pairs 0..3 of `b`, one to each component.
fn pairs(b: u32) -> vec4<u32> {
    return (vec4<u32>(b) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let at = planes.x * 4u + g * 2u;
    let j = (g & 7u) * 2u;
    let sm = unpack4xU8(w[planes.y + (g >> 3u)][j >> 2u] >> ((j & 2u) * 8u)).xy;
    let d = unpack2x16float(word(planes.z * 4u + (g >> 3u)));
    return Group(d.x * vec2<f32>(sm & vec2<u32>(15u)), -d.y * vec2<f32>(sm >> vec2<u32>(4u)),
        vec2<u32>(word(at), word(at + 1u)));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(pairs(q.q[i >> 2u] >> ((i & 3u) * 8u)));
}
