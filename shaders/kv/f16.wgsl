// The cache in half precision, four halves an item. Interface of every file here: items of four elements,
// `kv_load(i)`, `kv_store(i, v)` and `kv_round(v)`, what a stored v comes back as.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec2<u32>>;

fn kv_load(i: u32) -> vec4<f32> {
    let pair = kv[i];
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}

fn kv_store(i: u32, v: vec4<f32>) {
    kv[i] = vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}

fn kv_round(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(pack2x16float(v.xy)), unpack2x16float(pack2x16float(v.zw)));
}
