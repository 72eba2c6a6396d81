// What an embedding gets beside its token's row: a vector for its position, one for every row, or both. Interface: see
// plus_none.wgsl.
override VECTORS: u32;
override POSITIONS: bool;
override SHIFT: bool;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<vec4<f32>>;

fn plus(i: u32, pos: u32, d4: u32, positions: u32, shift: u32) -> vec4<f32> {
    var v = vec4<f32>(0.0);
    if POSITIONS {
        v += vectors[positions + pos * d4 + i];
    }
    if SHIFT {
        v += vectors[shift + i];
    }
    return v;
}
