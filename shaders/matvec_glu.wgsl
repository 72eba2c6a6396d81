// matvec_glu: y[N] = act(A[N, K] · input(x)) * (B[N, K] · input(x)), the gated half of a feed-forward block. One token.
// bindings  0 params   then those of the input and of the weights a and b, last Y write f32 [N]
// launch    ceil(N / (4 · WG / LANES)) workgroups of WG, over x and y of the grid; a team of LANES makes 4 rows
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
import package::rows_a::{Dots as Dots_a, Input as Input_a, rows as rows_a};
import package::rows_b::{Dots as Dots_b, Input as Input_b, rows as rows_b};
import package::input::{KEEPS, begin, finish, keep, raw};
import package::act::{act};
import package::reduce::{LANES, sum, sum4};
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
    let lane = lid % LANES;
    let first = (group * (WG / LANES) + lid / LANES) * 4u;
    let pre = begin(lane, LANES, p.groups * 8u, p.eps, lid);
    let a = rows_a(first, p.rows, p.groups, vec4<u32>(0u, p.plane1, p.plane2, p.plane3), lane, LANES,
        Input_a(pre, p.gain, p.post_gain));
    let b = rows_b(first, p.rows, p.groups, vec4<u32>(0u, p.b_plane1, p.b_plane2, p.b_plane3), lane, LANES,
        Input_b(pre, p.gain, p.post_gain));
    let scale = finish(sum(a.squares, lid), f32(p.groups * 32u), p.eps);
    let gate = sum4(a.y, lid) * scale;
    let up = sum4(b.y, lid) * scale;
    if lane == 0u {
        for (var r = 0u; r < min(4u, p.rows - min(first, p.rows)); r++) {
            y[first + r] = act(gate[r]) * up[r];
        }
    }
    if KEEPS && group == 0u {
        for (var i = lid; i < p.groups * 8u; i += WG) {
            keep(i, raw(i, pre, p.post_gain));
        }
    }
}
