// matvec: y[N] = W[N, K] · input(x[K]), W block-quantised. One token.
// bindings  0 params   then those of the input, weight and output modules
// launch    ceil(N / BLOCK) workgroups of WG, over x and y of the grid; the rows module says who makes which
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
// why       the input's norm costs no dispatch of its own: its squares are summed beside the product
import package::rows::{Dots, Input, ROWS, first_row, owns, rows};
import package::input::{KEEPS, begin, finish, keep, raw};
import package::output::{store};
import package::reduce::{LANES};
override WG: u32;

struct Params {
    groups: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    gain: u32,
    post_gain: u32,
    eps: f32,
    // Where row 0 goes in y.
    y_first: u32,
    bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let group = wid.x + wid.y * grid.x;
    let first = first_row(group, lid);
    let pre = begin(lid % LANES, LANES, p.groups * 8u, p.eps, lid);
    let planes = vec4<u32>(0u, p.plane1, p.plane2, p.plane3);
    let dots = rows(first, p.rows, p.groups, planes, lid, Input(pre, p.gain, p.post_gain));
    let scale = finish(dots.squares, f32(p.groups * 32u), p.eps);
    if owns(lid) {
        var y = dots.y;
        for (var r = 0u; r < min(ROWS, p.rows - min(first, p.rows)); r++) {
            store(p.y_first + first + r, p.bias + first + r, y[r / 4u][r % 4u] * scale);
        }
    }
    if KEEPS && group == 0u {
        for (var i = lid; i < p.groups * 8u; i += WG) {
            keep(i, raw(i, pre, p.post_gain));
        }
    }
}
