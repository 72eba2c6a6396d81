// q5_1: w = d * q + m. Planes: 0 low nibbles (16 bytes a group), 1 fifth bits (bit e = element e),
// 2 (d, m) (two f16 a group). Interface: see f32.wgsl.
import package::words::{at, word};
import package::codes::{bits, nibbles};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
    high: u32,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let dm = unpack2x16float(word(planes.z * 4u + g));
    return Group(vec2<f32>(dm.x), vec2<f32>(dm.y), at(planes.x + g), word(planes.y * 4u + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return nibbles(q.q, i) | (bits(q.high >> (4u * i)) << 4u);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
