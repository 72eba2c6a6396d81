// The cache in four bits: a block of 32 elements is five words, four with eight codes each and one with the scale, an
// f32: element = (code - 8) · scale, scale = the element of largest magnitude / -8. A word has its first four elements
// in the low halves of its bytes, the next four in the high ones. What is kept is spread over its block first: keys
// have elements far larger than the rest, which would leave the rest no codes. Interface: see f16.wgsl.
import package::hadamard::{spread32};
override BINDING: u32;
const TURNS: bool = true;
const BLOCK: u32 = 8u;
alias Block = array<vec4<f32>, 8>;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<u32>;

fn kv_load(i: u32) -> vec4<f32> {
    let block = (i >> 3u) * 5u;
    let word = kv[block + ((i & 7u) >> 1u)] >> ((i & 1u) * 4u);
    return (vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)) - 8.0) * bitcast<f32>(kv[block + 4u]);
}

fn scale_of(v: Block) -> f32 {
    var block = v;
    var low = vec4<f32>(0.0);
    var high = vec4<f32>(0.0);
    for (var j = 0u; j < 8u; j++) {
        low = min(low, block[j]);
        high = max(high, block[j]);
    }
    let least = min(min(low.x, low.y), min(low.z, low.w));
    let most = max(max(high.x, high.y), max(high.z, high.w));
    return select(most, least, -least > most) / -8.0;
}

fn codes(v: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), clamp(round(v / scale), vec4<f32>(-8.0), vec4<f32>(7.0)), scale != 0.0);
}

fn kv_turn(v: Block) -> Block {
    return spread32(v);
}

fn kv_store(i: u32, v: Block) {
    var block = spread32(v);
    let scale = scale_of(block);
    let to = (i >> 3u) * 5u;
    for (var j = 0u; j < 4u; j++) {
        let low = pack4xU8(vec4<u32>(codes(block[2u * j], scale) + 8.0));
        let high = pack4xU8(vec4<u32>(codes(block[2u * j + 1u], scale) + 8.0));
        kv[to + j] = low | (high << 4u);
    }
    kv[to + 4u] = bitcast<u32>(scale);
}

fn kv_round(v: Block) -> Block {
    var block = spread32(v);
    let scale = scale_of(block);
    for (var j = 0u; j < 8u; j++) {
        block[j] = codes(block[j], scale) * scale;
    }
    return block;
}
