// iq4_xs: w = d * (s - 32) * VALUES[q], s 6 bits a group. Planes: 0 nibbles (16 bytes a group), 1 header
// (8 bytes a super-block of 256: d as f16, 8 upper pairs of s, 8 low nibbles of s). Interface: see f32.wgsl.
import package::words::{at, word};
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
    let j = g & 7u;
    let start = planes.y * 4u + (g >> 3u) * 2u;
    let head = word(start);
    let s = ((word(start + 1u) >> (4u * j)) & 15u) | (((head >> (16u + 2u * j)) & 3u) << 4u);
    return Group(vec2<f32>(unpack2x16float(head).x * (f32(s) - 32.0)), vec2<f32>(0.0), at(planes.x + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return values(VALUES, nibbles(q.q, i));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(packed(q, i)));
}
