// f16: w = x. Plane 0: 32 halves a group, two a word. Interface: see f32.wgsl.
override BINDING: u32;
@group(0) @binding(BINDING) var<storage, read> w: array<vec2<u32>>;
const INTEGERS: bool = false;

struct Group {
    scale: vec2<f32>,
    offset: vec2<f32>,
    at: u32,
}

fn load(g: u32, planes: vec4<u32>) -> Group {
    return Group(vec2<f32>(1.0), vec2<f32>(0.0), planes.x * 2u + g * 8u);
}

fn packed(q: Group, i: u32) -> u32 {
    return 0u;
}

fn quants(q: Group, i: u32) -> vec4<f32> {
    let pair = w[q.at + i];
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
