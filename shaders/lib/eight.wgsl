// Sixteen elements of an activation in eight bits each: x = code * largest / 127.
const ONES: u32 = 0x01010101u;

// Steps of the code in one; none where all is zero.
fn steps(largest: f32) -> f32 {
    return select(0.0, 127.0 / largest, largest > 0.0);
}

// Codes of four elements, as signed bytes.
fn codes(v: vec4<f32>, steps: f32) -> u32 {
    return pack4xI8(vec4<i32>(round(v * steps)));
}

fn largest(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}
