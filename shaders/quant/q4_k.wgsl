// q4_k: w = d * s * q - dmin * m, s and m 6 bits a group. Planes: 0 nibbles (16 bytes a group), 1 header
// (16 bytes a super-block of 256: d, dmin as f16, then 12 bytes of s and m). Interface: see f32.wgsl.
import package::words::{at};
import package::codes::{nibbles, scale_min};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let head = at(planes.y + (g >> 3u));
    let d = unpack2x16float(head.x);
    let sm = scale_min(head, g & 7u);
    return Group(vec2<f32>(d.x * sm.x), vec2<f32>(-d.y * sm.y), at(planes.x + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return nibbles(q.q, i);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
