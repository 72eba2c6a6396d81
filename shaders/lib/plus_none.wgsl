// What an embedding gets beside its token's row: nothing. Interface of every plus_* file: `plus(i, pos, d4, positions,
// shift)` is what is added to item i (of four elements) of the row at `pos`, of rows of d4 items; the last two are
// places among the vectors, in items.
fn plus(i: u32, pos: u32, d4: u32, positions: u32, shift: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}
