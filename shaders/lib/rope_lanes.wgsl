// Rotary positions, four elements at a time: the same table and the same turns as rope.wgsl, in wide reads.
// requires  DIMS % 8 == 0
override BINDING: u32;
override DIMS: u32;
override NEOX: bool;
@group(0) @binding(BINDING) var<storage, read> table: array<vec4<f32>>;

// Two turns (cos, sin, cos, sin): the sum of angle `l` of the low part of a position and `h` of the high one.
fn both(l: vec4<f32>, h: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(h.x * l.x - h.y * l.y, h.y * l.x + h.x * l.y, h.z * l.z - h.w * l.w, h.w * l.z + h.z * l.w);
}

// Turns 2 i and 2 i + 1 of a position.
fn turns(pos: u32, i: u32) -> vec4<f32> {
    return both(table[(pos & 255u) * (DIMS / 4u) + i], table[(256u + (pos >> 8u)) * (DIMS / 4u) + i]);
}

// Where the partner of vector i < DIMS / 4 is: itself where neighbours turn together.
fn partner4(i: u32) -> u32 {
    if NEOX {
        return select(i - DIMS / 8u, i + DIMS / 8u, i < DIMS / 8u);
    }
    return i;
}

// Vector i < DIMS / 4 of a head after rotation, from itself and its partner.
fn rotated4(pos: u32, i: u32, own: vec4<f32>, other: vec4<f32>) -> vec4<f32> {
    if NEOX {
        let at = 2u * select(i - DIMS / 8u, i, i < DIMS / 8u);
        let a = turns(pos, at);
        let b = turns(pos, at + 1u);
        return own * vec4<f32>(a.xz, b.xz) + select(other, -other, i < DIMS / 8u) * vec4<f32>(a.yw, b.yw);
    }
    let a = turns(pos, i);
    return own * a.xxzz + vec4<f32>(-own.y, own.x, -own.w, own.z) * a.yyww;
}
