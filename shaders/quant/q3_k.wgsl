// q3_k: w = d * (s - 32) * (q - 4), s 6 bits for 16 elements. Planes: 0 low bit pairs (8 bytes a group),
// 1 third bits (bit e = element e), 2 s (12 bytes a super-block of 256: 16 low nibbles, then 16 upper
// pairs), 3 d (f16 a super-block). Interface: see f32.wgsl.
import package::words::{half_at, word};
import package::codes::{bits, pairs};
const INTEGERS: bool = true;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    q: vec2<u32>,
    high: u32,
}

// The 6-bit scale j of the twelve bytes that start at word `head`.
fn scale(head: u32, j: u32) -> f32 {
    let low = (word(head + ((j >> 2u) & 1u)) >> ((j & 3u) * 8u + (j >> 3u) * 4u)) & 15u;
    let high = (word(head + 2u) >> ((j & 3u) * 8u + (j >> 2u) * 2u)) & 3u;
    return f32(low | (high << 4u)) - 32.0;
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    let start = planes.x * 4u + g * 2u;
    let j = (g & 7u) * 2u;
    let head = planes.z * 4u + (g >> 3u) * 3u;
    let d = half_at(planes.w, g >> 3u) * vec2<f32>(scale(head, j), scale(head, j + 1u));
    return Group(d, -4.0 * d, vec2<u32>(word(start), word(start + 1u)), word(planes.y * 4u + g));
}

fn packed(q: Group, i: u32) -> u32 {
    return pairs(q.q[i >> 2u] >> ((i & 3u) * 8u)) | (bits(q.high >> (4u * i)) << 2u);
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(packed(q, i)));
}
