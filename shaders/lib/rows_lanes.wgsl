// Eight rows of a weight times the input, by each invocation for itself: the inner loop of a mat-vec on a
// software driver. Interface: see rows.wgsl. Accumulates f32.
// requires  LANES is the subgroup size, 4 or a multiple of 8; lanes are numbered by local index
// why       there an invocation is a lane of a vector register. A load costs about a hundred cycles however many
//           lanes want the same word, a shuffle one: so the lanes load the input together and pass it round
import package::weight::{load, quants};
import package::input::{raw, gained};
import package::reduce::{LANES, sum};
override WG: u32;
const ROWS: u32 = 8u;
// Lanes that together hold the eight vectors of a group, or half of them.
const SPAN: u32 = min(LANES, 8u);

struct Dots {
    y: array<vec4<f32>, 2>,
    squares: f32,
}

struct Input {
    pre: f32,
    gain: u32,
    post_gain: u32,
}

const BLOCK: u32 = ROWS * WG;

fn first_row(block: u32, lid: u32) -> u32 {
    return block * BLOCK + lid * ROWS;
}

fn owns(lid: u32) -> bool {
    return true;
}

fn rows(first: u32, count: u32, groups: u32, planes: vec4<u32>, lid: u32, input: Input) -> Dots {
    let low = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u)) * groups;
    let high = min(vec4<u32>(first) + vec4<u32>(4u, 5u, 6u, 7u), vec4<u32>(count - 1u)) * groups;
    let lane = lid % SPAN;
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var squares = 0.0;
    for (var g = 0u; g < groups; g++) {
        let q0 = load(low.x + g, planes);
        let q1 = load(low.y + g, planes);
        let q2 = load(low.z + g, planes);
        let q3 = load(low.w + g, planes);
        let q4 = load(high.x + g, planes);
        let q5 = load(high.y + g, planes);
        let q6 = load(high.z + g, planes);
        let q7 = load(high.w + g, planes);
        var r = raw(g * 8u + lane, input.pre, input.post_gain);
        var x = gained(r, g * 8u + lane, input.gain);
        squares += dot(r, r);
        for (var h = 0u; h < 2u; h++) {
            if SPAN < 8u && h == 1u {
                r = raw(g * 8u + 4u + lane, input.pre, input.post_gain);
                x = gained(r, g * 8u + 4u + lane, input.gain);
                squares += dot(r, r);
            }
            // The sum of this half's sixteen elements, which lie in four lanes.
            var total = dot(x, vec4<f32>(1.0));
            total += subgroupShuffleXor(total, 1u);
            total += subgroupShuffleXor(total, 2u);
            total = subgroupShuffle(total, (4u * h) % SPAN);
            var s0 = vec4<f32>(0.0);
            var s1 = vec4<f32>(0.0);
            for (var i = 4u * h; i < 4u * h + 4u; i++) {
                let v = subgroupShuffle(x, i % SPAN);
                s0 += vec4<f32>(dot(quants(q0, i), v), dot(quants(q1, i), v),
                    dot(quants(q2, i), v), dot(quants(q3, i), v));
                s1 += vec4<f32>(dot(quants(q4, i), v), dot(quants(q5, i), v),
                    dot(quants(q6, i), v), dot(quants(q7, i), v));
            }
            y0 += vec4<f32>(q0.scale[h], q1.scale[h], q2.scale[h], q3.scale[h]) * s0
                + vec4<f32>(q0.offset[h], q1.offset[h], q2.offset[h], q3.offset[h]) * total;
            y1 += vec4<f32>(q4.scale[h], q5.scale[h], q6.scale[h], q7.scale[h]) * s1
                + vec4<f32>(q4.offset[h], q5.offset[h], q6.offset[h], q7.offset[h]) * total;
        }
    }
    // Lanes past the eighth repeat the first ones.
    squares = select(0.0, squares, lid % LANES < SPAN);
    return Dots(array<vec4<f32>, 2>(y0, y1), sum(squares, lid));
}
