// mxfp4: w = 2^(e - 128) * VALUES[q], VALUES twice the e2m1 numbers. Planes: 0 nibbles (16 bytes a group),
// 1 e (a byte a group). Source: OCP Microscaling Formats 1.0. Interface: see f32.wgsl.
import package::words::{at, word};
import package::codes::{nibbles, values};
const INTEGERS: bool = true;
// VALUES as signed bytes: 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12.
const VALUES = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let e = (word(planes.y * 4u + (g >> 2u)) >> ((g & 3u) * 8u)) & 0xffu;
    // 2^(e - 128); the two smallest are subnormal and may be flushed to zero.
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    return Group(vec2<f32>(d), vec2<f32>(0.0), at(planes.x + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return values(VALUES, nibbles(q.q, i));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(packed(q, i)));
}
