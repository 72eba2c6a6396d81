// experts_down: y[N] = output(sum over s of weight_s (W_e · h[s, K] + bias)) with (e, weight_s) = routes[s], the chosen
// experts' second halves. W has all experts' rows one after the other. One token.
// bindings  0 params   then those of the input and weight   ROUTES read u32 [USED, 2]   VECTORS read f32
//           then the output's
// launch    ceil(N / BLOCK) workgroups of WG, over x and y of the grid; the rows module says who makes which
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
import package::rows::{Dots, Input, ROWS, first_row, owns, rows};
import package::output::{store};
override WG: u32;
override USED: u32;
override ROUTES: u32;
override VECTORS: u32;
// The experts that this weight has.
override FIRST: u32;
override COUNT: u32;
override BIASED: bool;

struct Params {
    groups: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    // Place of expert 0's bias.
    bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(ROUTES) var<storage, read> routes: array<vec2<u32>>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let first = first_row(wid.x + wid.y * grid.x, lid);
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    var y = array<vec4<f32>, ROWS / 4u>();
    for (var s = 0u; s < USED; s++) {
        let expert = routes[s].x;
        let weight = bitcast<f32>(routes[s].y);
        if expert - FIRST < COUNT {
            let base = (expert - FIRST) * p.rows;
            var d = rows(base + first, base + p.rows, p.groups, planes, lid, Input(0.0, 0u, s * p.groups * 8u));
            for (var r = 0u; r < ROWS; r++) {
                var bias = 0.0;
                if BIASED {
                    bias = vectors[p.bias + expert * p.rows + min(first + r, p.rows - 1u)];
                }
                y[r / 4u][r % 4u] += weight * (d.y[r / 4u][r % 4u] + bias);
            }
        }
    }
    if owns(lid) {
        for (var r = 0u; r < min(ROWS, p.rows - min(first, p.rows)); r++) {
            store(first + r, 0u, y[r / 4u][r % 4u]);
        }
    }
}
