// The cache in single precision, eight elements an item. Interface: see f16_wide.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec4<f32>>;

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn kv_load8(i: u32) -> Eight {
    return Eight(kv[2u * i], kv[2u * i + 1u]);
}

fn kv_store8(i: u32, v: Eight, mine: bool) {
    if mine {
        kv[2u * i] = v.a;
        kv[2u * i + 1u] = v.b;
    }
}

fn kv_round8(v: Eight, lane: u32) -> Eight {
    return v;
}

fn kv_turn8(v: Eight, lane: u32) -> Eight {
    return v;
}
