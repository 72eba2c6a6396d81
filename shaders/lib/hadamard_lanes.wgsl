// Hadamard's matrix of 32 elements by four neighbouring lanes, eight each: the same as spread32 of hadamard.wgsl.
import package::hadamard::{spread4};

fn spread_lanes(v: array<vec4<f32>, 2>, lane: u32) -> array<vec4<f32>, 2> {
    let a = spread4(v[0]) * inverseSqrt(32.0);
    let b = spread4(v[1]) * inverseSqrt(32.0);
    let s = across(array<vec4<f32>, 2>(a + b, a - b), lane, 1u);
    return across(s, lane, 2u);
}

// Sums in lanes without this bit, differences in those with it.
fn across(v: array<vec4<f32>, 2>, lane: u32, bit: u32) -> array<vec4<f32>, 2> {
    let sign = select(1.0, -1.0, (lane & bit) != 0u);
    return array<vec4<f32>, 2>(sign * v[0] + subgroupShuffleXor(v[0], bit),
        sign * v[1] + subgroupShuffleXor(v[1], bit));
}
