// Hadamard's matrix, an orthogonal one that is its own inverse: it spreads what one element of a block has over all of
// them, and leaves products of two vectors as they are where both went through it.

// Of four elements, not scaled.
fn spread4(v: vec4<f32>) -> vec4<f32> {
    let a = vec4<f32>(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
    return vec4<f32>(a.xy + a.zw, a.xy - a.zw);
}

// Of 32 elements.
fn spread32(block: array<vec4<f32>, 8>) -> array<vec4<f32>, 8> {
    var v = block;
    for (var j = 0u; j < 8u; j++) {
        v[j] = spread4(v[j]) * inverseSqrt(32.0);
    }
    for (var gap = 1u; gap < 8u; gap *= 2u) {
        for (var j = 0u; j < 4u; j++) {
            // The pairs whose numbers differ in this bit.
            let low = (j / gap) * 2u * gap + j % gap;
            let a = v[low];
            let b = v[low + gap];
            v[low] = a + b;
            v[low + gap] = a - b;
        }
    }
    return v;
}
