// The cache in four bits, eight elements an item, four items a block: the words of q4_0.wgsl, spread likewise.
// Interface: see f16_wide.wgsl.
import package::hadamard_lanes::{spread_lanes};
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<u32>;

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn kv_load8(i: u32) -> Eight {
    let block = (i >> 2u) * 5u;
    let word = kv[block + (i & 3u)];
    let scale = bitcast<f32>(kv[block + 4u]);
    return Eight((vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)) - 8.0) * scale,
        (vec4<f32>(unpack4xU8((word >> 4u) & 0x0f0f0f0fu)) - 8.0) * scale);
}

// By the lanes of a block's four items together.
fn scale_of(v: Eight) -> f32 {
    let low = min(v.a, v.b);
    let high = max(v.a, v.b);
    var ends = vec2<f32>(min(min(low.x, low.y), min(low.z, low.w)), -max(max(high.x, high.y), max(high.z, high.w)));
    ends = min(ends, subgroupShuffleXor(ends, 1u));
    ends = min(ends, subgroupShuffleXor(ends, 2u));
    return select(-ends.y, ends.x, ends.x < ends.y) / -8.0;
}

fn codes(v: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), clamp(round(v / scale), vec4<f32>(-8.0), vec4<f32>(7.0)), scale != 0.0);
}

fn kv_turn8(v: Eight, lane: u32) -> Eight {
    let s = spread_lanes(array<vec4<f32>, 2>(v.a, v.b), lane);
    return Eight(s[0], s[1]);
}

fn kv_store8(i: u32, item: Eight, mine: bool) {
    let v = kv_turn8(item, i);
    let scale = scale_of(v);
    let block = (i >> 2u) * 5u;
    if mine {
        let low = pack4xU8(vec4<u32>(codes(v.a, scale) + 8.0));
        let high = pack4xU8(vec4<u32>(codes(v.b, scale) + 8.0));
        kv[block + (i & 3u)] = low | (high << 4u);
        if (i & 3u) == 0u {
            kv[block + 4u] = bitcast<u32>(scale);
        }
    }
}

fn kv_round8(item: Eight, lane: u32) -> Eight {
    let v = kv_turn8(item, lane);
    let scale = scale_of(v);
    return Eight(codes(v.a, scale) * scale, codes(v.b, scale) * scale);
}
