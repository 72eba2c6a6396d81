// q6_k: w = d * s * (q - 32), s a signed byte for 16 elements. Planes: 0 low nibbles (16 bytes a group),
// 1 upper bit pairs (8 bytes a group), 2 s (16 bytes a super-block of 256), 3 d (f16 a super-block).
// Interface: see f32.wgsl.
import package::words::{at, half_at, word};
import package::codes::{nibbles, pairs};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec4<u32>,
    high: vec2<u32>,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let start = planes.y * 4u + g * 2u;
    let j = (g & 7u) * 2u;
    let s = unpack4xI8(word((planes.z + (g >> 3u)) * 4u + (j >> 2u)) >> ((j & 2u) * 8u));
    let scale = half_at(planes.w, g >> 3u) * vec2<f32>(s.xy);
    return Group(scale, -32.0 * scale, at(planes.x + g), vec2<u32>(word(start), word(start + 1u)));
}

fn packed(q: Group, i: u32) -> u32 {
    return nibbles(q.q, i) | (pairs(q.high[i >> 2u] >> ((i & 3u) * 8u)) << 4u);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
