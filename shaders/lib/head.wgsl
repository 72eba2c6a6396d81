// One head's vector made ready for attention by a whole workgroup: RMSNorm over the head where NORM, then
// rotation. The vector stays in workgroup memory as scalars; read it after the call, in uniform flow.
import package::rope::{DIMS, partner, rotated};
import package::reduce::{sum};
override WG: u32;
override HD: u32;
override NORM: bool;
override QKV: u32;
override VECTORS: u32;
@group(0) @binding(QKV) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<f32>;
var<workgroup> raw: array<f32, HD>;

// Loads the head at element `from` of qkv, scaled by its norm, into `raw`.
fn load_head(base: u32, gain: u32, eps: f32, lid: u32) {
    workgroupBarrier();
    var scale = 1.0;
    if NORM {
        var squares = 0.0;
        for (var e = lid; e < HD; e += WG) {
            squares += qkv[base + e] * qkv[base + e];
        }
        scale = inverseSqrt(sum(squares, lid) / f32(HD) + eps);
    }
    for (var e = lid; e < HD; e += WG) {
        raw[e] = qkv[base + e] * scale;
        if NORM {
            raw[e] *= vectors[gain + e];
        }
    }
    workgroupBarrier();
}

// Element e of the loaded head, rotated to `pos`.
fn head_at(e: u32, pos: u32) -> f32 {
    if e < DIMS {
        return rotated(pos, e, raw[e], raw[partner(e)]);
    }
    return raw[e];
}

fn head4(i: u32, pos: u32) -> vec4<f32> {
    let e = 4u * i;
    return vec4<f32>(head_at(e, pos), head_at(e + 1u, pos), head_at(e + 2u, pos), head_at(e + 3u, pos));
}

// Element i of the vectors.
fn vector_at(i: u32) -> f32 {
    return vectors[i];
}

// Four elements of qkv as they are.
fn plain4(base: u32) -> vec4<f32> {
    return vec4<f32>(qkv[base], qkv[base + 1u], qkv[base + 2u], qkv[base + 3u]);
}

fn put4(base: u32, v: vec4<f32>) {
    qkv[base] = v.x;
    qkv[base + 1u] = v.y;
    qkv[base + 2u] = v.z;
    qkv[base + 3u] = v.w;
}
