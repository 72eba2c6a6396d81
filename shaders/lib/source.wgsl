// What an encoder reads: a group of 32 elements of a weight in any format, as floats.
import package::weight::{load, quants};

// No block reaches as far, and cubes of it do not overflow.
const FAR: f32 = 1e9;

fn plain(g: u32, planes: vec4<u32>) -> array<vec4<f32>, 8> {
    let q = load(g, planes);
    var x: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        let half = i / 4u;
        x[i] = quants(q, i) * q.scale[half] + q.offset[half];
    }
    return x;
}

// The same for blocks: NaN counts as 0, and what is too large is cut.
fn read(g: u32, planes: vec4<u32>) -> array<vec4<f32>, 8> {
    var x = plain(g, planes);
    for (var i = 0u; i < 8u; i++) {
        let magnitude = bitcast<vec4<u32>>(x[i]) & vec4<u32>(0x7fffffffu);
        let is_nan = magnitude > vec4<u32>(0x7f800000u);
        x[i] = select(clamp(x[i], vec4<f32>(-FAR), vec4<f32>(FAR)), vec4<f32>(0.0), is_nan);
    }
    return x;
}
