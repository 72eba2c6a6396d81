// The cache in half precision, eight halves an item. Interface of every *_wide file: items of eight elements,
// `kv_load8(i)`, `kv_store8(i, v, mine)`, which stores where `mine`, `kv_round8(v, lane)`, what a stored v is read
// as, and `kv_turn8(v, lane)`, see f16.wgsl. All lanes call the last three together, each with the item after the last
// lane's.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec4<u32>>;

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn halves(p: vec4<u32>) -> Eight {
    return Eight(vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y)),
        vec4<f32>(unpack2x16float(p.z), unpack2x16float(p.w)));
}

fn packed(v: Eight) -> vec4<u32> {
    return vec4<u32>(pack2x16float(v.a.xy), pack2x16float(v.a.zw), pack2x16float(v.b.xy), pack2x16float(v.b.zw));
}

fn kv_load8(i: u32) -> Eight {
    return halves(kv[i]);
}

fn kv_store8(i: u32, v: Eight, mine: bool) {
    if mine {
        kv[i] = packed(v);
    }
}

fn kv_round8(v: Eight, lane: u32) -> Eight {
    return halves(packed(v));
}

fn kv_turn8(v: Eight, lane: u32) -> Eight {
    return v;
}
