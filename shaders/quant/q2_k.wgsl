// q2_k: w = d * s * q - dmin * m, s and m 4 bits for 16 elements. Planes: 0 bit pairs (8 bytes a group),
// 1 (s, m) nibbles (16 bytes a super-block of 256), 2 (d, dmin) (two f16 a super-block).
// Interface: see f32.wgsl.
import package::words::{word};
import package::codes::{pairs};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec2<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let start = planes.x * 4u + g * 2u;
    let j = (g & 7u) * 2u;
    let sm = unpack4xU8(word((planes.y + (g >> 3u)) * 4u + (j >> 2u)) >> ((j & 2u) * 8u)).xy;
    let d = unpack2x16float(word(planes.z * 4u + (g >> 3u)));
    return Group(d.x * vec2<f32>(sm & vec2<u32>(15u)), -d.y * vec2<f32>(sm >> vec2<u32>(4u)),
        vec2<u32>(word(start), word(start + 1u)));
}

fn packed(q: Group, i: u32) -> u32 {
    return pairs(q.q[i >> 2u] >> ((i & 3u) * 8u));
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
