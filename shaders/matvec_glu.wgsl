// matvec_glu: y[N] = glu(A[N, K] · input(x), B[N, K] · input(x)), a feed-forward block's gated half. One token.
// bindings  0 params   then those of the input and of the weights a and b, last Y write f32 [N]
// launch    ceil(N / BLOCK) workgroups of WG, over x and y of the grid; the rows module says who makes which
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
import package::rows_a::{Dots as Dots_a, Input as Input_a, ROWS, first_row, owns, rows as rows_a};
import package::rows_b::{Dots as Dots_b, Input as Input_b, rows as rows_b};
import package::input::{KEEPS, begin, finish, keep, raw};
import package::act::{glu};
import package::reduce::{LANES};
override WG: u32;
override Y: u32;

struct Params {
    groups: u32,
    rows: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    b_plane1: u32,
    b_plane2: u32,
    b_plane3: u32,
    gain: u32,
    post_gain: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let group = wid.x + wid.y * grid.x;
    let first = first_row(group, lid);
    let pre = begin(lid % LANES, LANES, p.groups * 8u, p.eps, lid);
    let a = rows_a(first, p.rows, p.groups, vec4<u32>(0u, p.plane1, p.plane2, p.plane3), lid,
        Input_a(pre, p.gain, p.post_gain));
    let b = rows_b(first, p.rows, p.groups, vec4<u32>(0u, p.b_plane1, p.b_plane2, p.b_plane3), lid,
        Input_b(pre, p.gain, p.post_gain));
    let scale = finish(a.squares, f32(p.groups * 32u), p.eps);
    if owns(lid) {
        var gate = a.y;
        var up = b.y;
        for (var r = 0u; r < min(ROWS, p.rows - min(first, p.rows)); r++) {
            y[first + r] = glu(gate[r / 4u][r % 4u] * scale, up[r / 4u][r % 4u] * scale);
        }
    }
    if KEEPS && group == 0u {
        for (var i = lid; i < p.groups * 8u; i += WG) {
            keep(i, raw(i, pre, p.post_gain));
        }
    }
}
