// Four rows of a weight times the input in eight bits, by a team: rows.wgsl with packed bytes. The input is rounded to
// 127 steps of the largest of each 16 elements on its way in; sums of products are exact. Interface: see rows.wgsl.
// requires  a weight with INTEGERS
import package::weight::{Group, load, packed};
import package::input::{raw, gained};
import package::reduce::{LANES, sum, sum4};
import package::eight::{ONES, codes, largest, steps};
override WG: u32;
const ROWS: u32 = 4u;

struct Dots {
    y: array<vec4<f32>, 1>,
    squares: f32,
}

struct Input {
    pre: f32,
    gain: u32,
    post_gain: u32,
}

const BLOCK: u32 = ROWS * (WG / LANES);

fn first_row(block: u32, lid: u32) -> u32 {
    return block * BLOCK + (lid / LANES) * ROWS;
}

fn owns(lid: u32) -> bool {
    return lid % LANES == 0u;
}

// Sixteen products.
fn products(q: Group, h: u32, c: vec4<u32>) -> i32 {
    return dot4I8Packed(packed(q, 4u * h), c.x) + dot4I8Packed(packed(q, 4u * h + 1u), c.y)
        + dot4I8Packed(packed(q, 4u * h + 2u), c.z) + dot4I8Packed(packed(q, 4u * h + 3u), c.w);
}

fn rows(first: u32, count: u32, groups: u32, planes: vec4<u32>, lid: u32, input: Input) -> Dots {
    let at = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u)) * groups;
    var y = vec4<f32>(0.0);
    var squares = 0.0;
    for (var g = lid % LANES; g < groups; g += LANES) {
        let q0 = load(at.x + g, planes);
        let q1 = load(at.y + g, planes);
        let q2 = load(at.z + g, planes);
        let q3 = load(at.w + g, planes);
        for (var h = 0u; h < 2u; h++) {
            let i = g * 8u + 4u * h;
            let r0 = raw(i, input.pre, input.post_gain);
            let r1 = raw(i + 1u, input.pre, input.post_gain);
            let r2 = raw(i + 2u, input.pre, input.post_gain);
            let r3 = raw(i + 3u, input.pre, input.post_gain);
            squares += dot(r0, r0) + dot(r1, r1) + dot(r2, r2) + dot(r3, r3);
            let x0 = gained(r0, i, input.gain);
            let x1 = gained(r1, i + 1u, input.gain);
            let x2 = gained(r2, i + 2u, input.gain);
            let x3 = gained(r3, i + 3u, input.gain);
            let top = max(max(largest(x0), largest(x1)), max(largest(x2), largest(x3)));
            let s = steps(top);
            let c = vec4<u32>(codes(x0, s), codes(x1, s), codes(x2, s), codes(x3, s));
            let total = dot4I8Packed(c.x, ONES) + dot4I8Packed(c.y, ONES)
                + dot4I8Packed(c.z, ONES) + dot4I8Packed(c.w, ONES);
            let sums = vec4<i32>(products(q0, h, c), products(q1, h, c), products(q2, h, c), products(q3, h, c));
            y += (vec4<f32>(q0.scale[h], q1.scale[h], q2.scale[h], q3.scale[h]) * vec4<f32>(sums)
                + vec4<f32>(q0.offset[h], q1.offset[h], q2.offset[h], q3.offset[h]) * f32(total)) * (top / 127.0);
        }
    }
    return Dots(array<vec4<f32>, 1>(sum4(y, lid)), sum(squares, lid));
}
