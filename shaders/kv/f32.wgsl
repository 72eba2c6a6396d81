// The cache in single precision. Interface: see f16.wgsl.
override BINDING: u32;
const TURNS: bool = false;
const BLOCK: u32 = 1u;
alias Block = array<vec4<f32>, 1>;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec4<f32>>;

fn kv_load(i: u32) -> vec4<f32> {
    return kv[i];
}

fn kv_store(i: u32, v: Block) {
    kv[i] = v[0];
}

fn kv_round(v: Block) -> Block {
    return v;
}

fn kv_turn(v: Block) -> Block {
    return v;
}
