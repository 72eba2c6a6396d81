// One head's vector made ready for attention by the lanes of one subgroup, each for its own elements: RMSNorm over
// the head where NORM, then rotation. Nothing goes through workgroup memory, so that nothing waits.
// requires  HD % 4 == 0, DIMS % 8 == 0; LANES is the subgroup size
import package::rope::{DIMS, partner4, rotated4};
import package::reduce::{LANES, sum};
override HD: u32;
override NORM: bool;
override QKV: u32;
override VECTORS: u32;
@group(0) @binding(QKV) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<vec4<f32>>;

// What the norm multiplies the head at vector `base` by.
fn head_scale(base: u32, eps: f32, lane: u32) -> f32 {
    if !NORM {
        return 1.0;
    }
    var squares = 0.0;
    for (var i = lane; i < HD / 4u; i += LANES) {
        let v = qkv[base + i];
        squares += dot(v, v);
    }
    return inverseSqrt(sum(squares, lane) / f32(HD) + eps);
}

fn normed(base: u32, gain: u32, scale: f32, i: u32) -> vec4<f32> {
    if NORM {
        return qkv[base + i] * vectors[gain + i] * scale;
    }
    return qkv[base + i];
}

// Vector i of the head at vector `base`, normed and rotated to `pos`; `gain` in vectors.
fn head4(base: u32, gain: u32, scale: f32, i: u32, pos: u32) -> vec4<f32> {
    let own = normed(base, gain, scale, i);
    if 4u * i >= DIMS {
        return own;
    }
    if partner4(i) == i {
        return rotated4(pos, i, own, own);
    }
    return rotated4(pos, i, own, normed(base, gain, scale, partner4(i)));
}

// Element i of the vectors.
fn vector_at(i: u32) -> f32 {
    return vectors[i / 4u][i % 4u];
}

fn plain4(i: u32) -> vec4<f32> {
    return qkv[i];
}
