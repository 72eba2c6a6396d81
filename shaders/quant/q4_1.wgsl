// q4_1: w = d * q + m. Planes: 0 nibbles (16 bytes a group), 1 (d, m) (two f16 a group). Interface: see f32.wgsl.
import package::words::{at, word};
import package::codes::{nibbles};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let dm = unpack2x16float(word(planes.y * 4u + g));
    return Group(vec2<f32>(dm.x), vec2<f32>(dm.y), at(planes.x + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return nibbles(q.q, i);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
