// The cache in single precision. Interface: see f16.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec4<f32>>;

fn kv_load(i: u32) -> vec4<f32> {
    return kv[i];
}

fn kv_store(i: u32, v: vec4<f32>) {
    kv[i] = v;
}

fn kv_round(v: vec4<f32>) -> vec4<f32> {
    return v;
}
