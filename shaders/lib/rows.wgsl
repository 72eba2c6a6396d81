// Four rows of a weight times the input, by a team: the inner loop of every mat-vec on a GPU.
// A team of LANES strides over the groups of 32 elements, so that each scale is read once and each input
// vector serves four rows. Scales are applied to a group's sum, not to its elements. Accumulates f32.
// Interface of every rows_* file: `rows` gives this invocation's ROWS rows from `first_row` on, summed over
// its team; where `owns`, it stores them. Call in uniform control flow only.
import package::weight::{load, quants};
import package::input::{raw, gained};
import package::reduce::{LANES, sum, sum4};
override WG: u32;
const ROWS: u32 = 4u;

struct Dots {
    // Products of the rows.
    y: array<vec4<f32>, 1>,
    // Sum of the input's squares, for a norm that is applied afterwards.
    squares: f32,
}

struct Input {
    pre: f32,
    gain: u32,
    post_gain: u32,
}

// Rows that a workgroup makes with all its invocations: WG / LANES teams.
const BLOCK: u32 = ROWS * (WG / LANES);

fn first_row(block: u32, lid: u32) -> u32 {
    return block * BLOCK + (lid / LANES) * ROWS;
}

fn owns(lid: u32) -> bool {
    return lid % LANES == 0u;
}

// Rows `first` to `first` + 3 of `count`, clamped to the last; `groups` = K / 32.
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
            var sums = vec4<f32>(0.0);
            var total = 0.0;
            for (var i = 4u * h; i < 4u * h + 4u; i++) {
                let r = raw(g * 8u + i, input.pre, input.post_gain);
                let x = gained(r, g * 8u + i, input.gain);
                squares += dot(r, r);
                total += dot(x, vec4<f32>(1.0));
                sums += vec4<f32>(dot(quants(q0, i), x), dot(quants(q1, i), x), dot(quants(q2, i), x),
                    dot(quants(q3, i), x));
            }
            y += vec4<f32>(q0.scale[h], q1.scale[h], q2.scale[h], q3.scale[h]) * sums
                + vec4<f32>(q0.offset[h], q1.offset[h], q2.offset[h], q3.offset[h]) * total;
        }
    }
    return Dots(array<vec4<f32>, 1>(sum4(y, lid)), sum(squares, lid));
}
