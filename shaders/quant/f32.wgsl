// f32: w = x. Plane 0: 32 floats a group.
// Interface of every file here: a group is 32 elements along K, g = row * K/32 + i; planes start at `planes`, in units
// of 16 bytes. `load` reads a group; element e of it is scale[e / 16] * quants(q, e / 4)[e % 4] + offset[e / 16].
// Where it has INTEGERS, `packed(q, e / 4)` are four codes as signed bytes, and quants their values.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec4<f32>>;
const INTEGERS: bool = false;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    at: u32,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(1.0), vec2<f32>(0.0), planes.x + g * 8u);
}

fn packed(q: Group, i: u32) -> u32 {
    return 0u;
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    return w[q.at + i];
}
