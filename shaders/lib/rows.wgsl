// Four rows of a weight times the input: the inner loop of every mat-vec.
// A team of `lanes` strides over the groups of 32 elements, so that each scale is read once and each input
// vector serves four rows. Scales are applied to a group's sum, not to its elements. Accumulates f32.
import package::weight::{Group, load, quants};
import package::input::{raw, gained};

struct Dots {
    // Products of the four rows.
    y: vec4<f32>,
    // Sum of the input's squares, for a norm that is applied afterwards.
    squares: f32,
}

struct Input {
    pre: f32,
    gain: u32,
    post_gain: u32,
}

fn half_group(q: Group, i: u32, x0: vec4<f32>, x1: vec4<f32>, x2: vec4<f32>, x3: vec4<f32>) -> f32 {
    return dot(quants(q, i), x0) + dot(quants(q, i + 1u), x1)
        + dot(quants(q, i + 2u), x2) + dot(quants(q, i + 3u), x3);
}

// Rows `first` to `first` + 3 of `count`, clamped to the last; `groups` = K / 32.
fn rows(first: u32, count: u32, groups: u32, planes: vec4<u32>, lane: u32, lanes: u32, input: Input) -> Dots {
    let at = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u)) * groups;
    var y = vec4<f32>(0.0);
    var squares = 0.0;
    for (var g = lane; g < groups; g += lanes) {
        let q0 = load(at.x + g, planes);
        let q1 = load(at.y + g, planes);
        let q2 = load(at.z + g, planes);
        let q3 = load(at.w + g, planes);
        var i = g * 8u;
        var r0 = raw(i, input.pre, input.post_gain);
        var r1 = raw(i + 1u, input.pre, input.post_gain);
        var r2 = raw(i + 2u, input.pre, input.post_gain);
        var r3 = raw(i + 3u, input.pre, input.post_gain);
        squares += dot(r0, r0) + dot(r1, r1) + dot(r2, r2) + dot(r3, r3);
        var x0 = gained(r0, i, input.gain);
        var x1 = gained(r1, i + 1u, input.gain);
        var x2 = gained(r2, i + 2u, input.gain);
        var x3 = gained(r3, i + 3u, input.gain);
        var total = dot(x0 + x1 + x2 + x3, vec4<f32>(1.0));
        y += vec4<f32>(q0.scale.x, q1.scale.x, q2.scale.x, q3.scale.x) * vec4<f32>(
            half_group(q0, 0u, x0, x1, x2, x3), half_group(q1, 0u, x0, x1, x2, x3),
            half_group(q2, 0u, x0, x1, x2, x3), half_group(q3, 0u, x0, x1, x2, x3))
            + vec4<f32>(q0.offset.x, q1.offset.x, q2.offset.x, q3.offset.x) * total;
        i += 4u;
        r0 = raw(i, input.pre, input.post_gain);
        r1 = raw(i + 1u, input.pre, input.post_gain);
        r2 = raw(i + 2u, input.pre, input.post_gain);
        r3 = raw(i + 3u, input.pre, input.post_gain);
        squares += dot(r0, r0) + dot(r1, r1) + dot(r2, r2) + dot(r3, r3);
        x0 = gained(r0, i, input.gain);
        x1 = gained(r1, i + 1u, input.gain);
        x2 = gained(r2, i + 2u, input.gain);
        x3 = gained(r3, i + 3u, input.gain);
        total = dot(x0 + x1 + x2 + x3, vec4<f32>(1.0));
        y += vec4<f32>(q0.scale.y, q1.scale.y, q2.scale.y, q3.scale.y) * vec4<f32>(
            half_group(q0, 4u, x0, x1, x2, x3), half_group(q1, 4u, x0, x1, x2, x3),
            half_group(q2, 4u, x0, x1, x2, x3), half_group(q3, 4u, x0, x1, x2, x3))
            + vec4<f32>(q0.offset.y, q1.offset.y, q2.offset.y, q3.offset.y) * total;
    }
    return Dots(y, squares);
}
