// iq4_nl: w = d * VALUES[q]. Planes: 0 nibbles (16 bytes a group), 1 d (f16 a group). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

const VALUES = array<f32, 16>(
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0,
    1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
);

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
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

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(half_at(planes.y, g)), vec2<f32>(0.0), w[planes.x + g]);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    let n = nibbles(q.q, i);
    return vec4<f32>(VALUES[n.x], VALUES[n.y], VALUES[n.z], VALUES[n.w]);
}
