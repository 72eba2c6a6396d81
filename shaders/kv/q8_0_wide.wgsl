// The cache in eight bits, eight elements an item, four items a block: the words of q8_0.wgsl. Interface: see
// f16_wide.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<u32>;

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn kv_load8(i: u32) -> Eight {
    let block = (i >> 2u) * 9u;
    let at = block + (i & 3u) * 2u;
    let scale = bitcast<f32>(kv[block + 8u]);
    return Eight(vec4<f32>(unpack4xI8(kv[at])) * scale, vec4<f32>(unpack4xI8(kv[at + 1u])) * scale);
}

// By the lanes of a block's four items together.
fn scale_of(v: Eight) -> f32 {
    let four = max(abs(v.a), abs(v.b));
    var top = max(max(four.x, four.y), max(four.z, four.w));
    top = max(top, subgroupShuffleXor(top, 1u));
    top = max(top, subgroupShuffleXor(top, 2u));
    return top / 127.0;
}

fn codes(v: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), round(v / scale), scale > 0.0);
}

fn kv_turn8(v: Eight, lane: u32) -> Eight {
    return v;
}

fn kv_store8(i: u32, v: Eight, mine: bool) {
    let scale = scale_of(v);
    let block = (i >> 2u) * 9u;
    let at = block + (i & 3u) * 2u;
    if mine {
        kv[at] = pack4xI8(vec4<i32>(codes(v.a, scale)));
        kv[at + 1u] = pack4xI8(vec4<i32>(codes(v.b, scale)));
        if (i & 3u) == 0u {
            kv[block + 8u] = bitcast<u32>(scale);
        }
    }
}

fn kv_round8(v: Eight, lane: u32) -> Eight {
    let scale = scale_of(v);
    return Eight(codes(v.a, scale) * scale, codes(v.b, scale) * scale);
}
