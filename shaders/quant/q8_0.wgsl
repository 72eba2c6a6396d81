// q8_0: w = d * q. Planes: 0 signed bytes (32 a group), 1 d (f16 a group). Interface: see f32.wgsl.
import package::words::{half_at, two};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: array<vec4<u32>, 2>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(half_at(planes.y, g)), vec2<f32>(0.0), two(planes.x + g * 2u));
}

fn packed(q: Group, i: u32) -> u32 {
    return select(q.q[0], q.q[1], i >= 4u)[i & 3u];
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(packed(q, i)));
}
