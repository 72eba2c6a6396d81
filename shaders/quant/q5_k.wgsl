// q5_k: w = d * s * q - dmin * m, s and m 6 bits a group. Planes: 0 low nibbles (16 bytes a group), 1 header
// as in q4_k, 2 fifth bits (bit e = element e). Interface: see f32.wgsl.
import package::words::{at, word};
import package::codes::{bits, nibbles, scale_min};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
    high: u32,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let head = at(planes.y + (g >> 3u));
    let d = unpack2x16float(head.x);
    let sm = scale_min(head, g & 7u);
    return Group(vec2<f32>(d.x * sm.x), vec2<f32>(-d.y * sm.y), at(planes.x + g), word(planes.z * 4u + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return nibbles(q.q, i) | (bits(q.high >> (4u * i)) << 4u);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
