// q8_0: w = d * q. Planes: 0 signed bytes (32 a group), 1 d (f16 a group). Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    low: vec4<u32>,
    high: vec4<u32>,
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

// Half `i` of the plane that starts at vector `plane`.
fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(word(plane * 4u + (i >> 1u)) >> ((i & 1u) * 16u)).x;
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let at = planes.x + g * 2u;
    return Group(vec2<f32>(half_at(planes.y, g)), vec2<f32>(0.0), w[at], w[at + 1u]);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(select(q.low, q.high, i >= 4u)[i & 3u]));
}
