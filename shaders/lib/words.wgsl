// A weight's buffer, read in words. Interface of every words* file: `at(i)` is the 16 bytes at i, in units of 16;
// `two(i)` those and the next, i even; `word(i)` the 4 bytes at i, in units of 4; `half_at(p, i)` half i of the
// plane at p.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<u32>>;

fn at(i: u32) -> vec4<u32> {
    return w[i];
}

fn two(i: u32) -> array<vec4<u32>, 2> {
    return array<vec4<u32>, 2>(w[i], w[i + 1u]);
}

fn word(i: u32) -> u32 {
    return w[i >> 2u][i & 3u];
}

// Half `i` of the plane that starts at `plane`, in units of 16 bytes.
fn half_at(plane: u32, i: u32) -> f32 {
    return unpack2x16float(word(plane * 4u + (i >> 1u)) >> ((i & 1u) * 16u)).x;
}
