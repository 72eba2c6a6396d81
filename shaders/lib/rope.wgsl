// Rotary positions. The angle of position 256 h + l is the sum of two that are tabled in f64's precision
// (GPU sines lose 1e-2 at position 100,000): table = 256 rows for l, then one for each h, of DIMS / 2
// (cos, sin) pairs. Element e turns with its partner: e + DIMS / 2 (NEOX) or its neighbour. Where a model's q and k
// are to be multiplied by a factor besides (YaRN, LongRoPE), the rows for h have it and those for l do not: the sum of
// two angles is a product, in which it then stands once.
override BINDING: u32;
override DIMS: u32;
override NEOX: bool;
@group(0) @binding(BINDING) var<storage, read> table: array<vec2<f32>>;

fn turn(pos: u32, i: u32) -> vec2<f32> {
    let l = table[(pos & 255u) * (DIMS / 2u) + i];
    let h = table[(256u + (pos >> 8u)) * (DIMS / 2u) + i];
    return vec2<f32>(h.x * l.x - h.y * l.y, h.y * l.x + h.x * l.y);
}

// The partner of element e < DIMS.
fn partner(e: u32) -> u32 {
    if NEOX {
        return select(e - DIMS / 2u, e + DIMS / 2u, e < DIMS / 2u);
    }
    return e ^ 1u;
}

// Element e < DIMS after rotation, from itself and its partner.
fn rotated(pos: u32, e: u32, own: f32, other: f32) -> f32 {
    if NEOX {
        let cs = turn(pos, e % (DIMS / 2u));
        return own * cs.x + select(other, -other, e < DIMS / 2u) * cs.y;
    }
    let cs = turn(pos, e / 2u);
    return own * cs.x + select(other, -other, (e & 1u) == 0u) * cs.y;
}
