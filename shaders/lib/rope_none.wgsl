// No rotation: the interface of rope.wgsl and of rope_lanes.wgsl, for heads that stay as they are.
const DIMS: u32 = 0u;

fn partner(e: u32) -> u32 {
    return e;
}

fn rotated(pos: u32, e: u32, own: f32, other: f32) -> f32 {
    return own;
}

fn partner4(i: u32) -> u32 {
    return i;
}

fn rotated4(pos: u32, i: u32, own: vec4<f32>, other: vec4<f32>) -> vec4<f32> {
    return own;
}
