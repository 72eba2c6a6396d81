// A weight's buffer in words, by 32 bytes where they are wanted: for software drivers, where a load costs the same
// whatever its width. Interface: see words.wgsl.
// requires  64-bit integers; a buffer of a multiple of 32 bytes
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u64>>;

fn split(p: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(p.x), u32(p.x >> 32u), u32(p.y), u32(p.y >> 32u));
}

fn at(i: u32) -> vec4<u32> {
    let pair = w[i >> 1u];
    return split(select(pair.xy, pair.zw, (i & 1u) == 1u));
}

fn two(i: u32) -> array<vec4<u32>, 2> {
    let pair = w[i >> 1u];
    return array<vec4<u32>, 2>(split(pair.xy), split(pair.zw));
}

fn word(i: u32) -> u32 {
    return u32(w[i >> 3u][(i >> 1u) & 3u] >> ((i & 1u) * 32u));
}

// Half `i` of the plane that starts at `plane`, in units of 16 bytes.
fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(word(plane * 4u + (i >> 1u)) >> ((i & 1u) * 16u)).x;
}
