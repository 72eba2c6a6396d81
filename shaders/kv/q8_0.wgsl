// The cache in eight bits: a block of 32 elements is nine words, eight with a signed byte an element and one with the
// scale, an f32: element = byte · scale, scale = largest magnitude / 127. Interface: see f16.wgsl.
override BINDING: u32;
const TURNS: bool = false;
const BLOCK: u32 = 8u;
alias Block = array<vec4<f32>, 8>;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<u32>;

fn kv_load(i: u32) -> vec4<f32> {
    let block = (i >> 3u) * 9u;
    return vec4<f32>(unpack4xI8(kv[block + (i & 7u)])) * bitcast<f32>(kv[block + 8u]);
}

fn scale_of(v: Block) -> f32 {
    var block = v;
    var top = vec4<f32>(0.0);
    for (var j = 0u; j < 8u; j++) {
        top = max(top, abs(block[j]));
    }
    return max(max(top.x, top.y), max(top.z, top.w)) / 127.0;
}

fn codes(v: vec4<f32>, scale: f32) -> vec4<f32> {
    return select(vec4<f32>(0.0), round(v / scale), scale > 0.0);
}

fn kv_turn(v: Block) -> Block {
    return v;
}

fn kv_store(i: u32, v: Block) {
    var block = v;
    let scale = scale_of(v);
    let to = (i >> 3u) * 9u;
    for (var j = 0u; j < 8u; j++) {
        kv[to + j] = pack4xI8(vec4<i32>(codes(block[j], scale)));
    }
    kv[to + 8u] = bitcast<u32>(scale);
}

fn kv_round(v: Block) -> Block {
    var block = v;
    let scale = scale_of(v);
    for (var j = 0u; j < 8u; j++) {
        block[j] = codes(block[j], scale) * scale;
    }
    return block;
}
