// iq4_nl: w = d * VALUES[q]. Planes: 0 nibbles (16 bytes a group), 1 d (f16 a group). Interface: see f32.wgsl.
import package::words::{at, half_at};
import package::codes::{nibbles, values};
const INTEGERS: bool = true;
// VALUES as signed bytes: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.
const VALUES = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(half_at(planes.y, g)), vec2<f32>(0.0), at(planes.x + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return values(VALUES, nibbles(q.q, i));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(packed(q, i)));
}
