// experts_glu: h[s, N] = glu(A_e · input(x) + bias, B_e · input(x) + bias) with e = routes[s], the chosen experts'
// first halves. A and B have all experts' rows one after the other. One token.
// bindings  0 params   then those of the input and of the weights a and b
//           ROUTES read u32 [USED, 2]   VECTORS read f32   Y write f32 [USED, N]
// launch    (ceil(N / BLOCK), USED, 1) workgroups of WG; the rows module says who makes which
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
import package::rows_a::{Dots as Dots_a, Input as Input_a, ROWS, first_row, owns, rows as rows_a};
import package::rows_b::{Dots as Dots_b, Input as Input_b, rows as rows_b};
import package::input::{KEEPS, begin, finish, keep, raw};
import package::act::{glu};
import package::reduce::{LANES};
override WG: u32;
override ROUTES: u32;
override VECTORS: u32;
override Y: u32;
// The experts that these weights have.
override FIRST: u32;
override COUNT: u32;
override BIASED: bool;

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
    // Places of expert 0's biases.
    bias: u32,
    b_bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(ROUTES) var<storage, read> routes: array<vec2<u32>>;
@group(0) @binding(VECTORS) var<storage, read> vectors: array<f32>;
@group(0) @binding(Y) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let expert = routes[wid.y].x;
    // An expert before the first wraps round and is past the last.
    if expert - FIRST >= COUNT {
        return;
    }
    let first = first_row(wid.x, lid);
    let base = (expert - FIRST) * p.rows;
    let pre = begin(lid % LANES, LANES, p.groups * 8u, p.eps, lid);
    let a = rows_a(base + first, base + p.rows, p.groups, vec4<u32>(0u, p.plane1, p.plane2, p.plane3), lid,
        Input_a(pre, p.gain, p.post_gain));
    let b = rows_b(base + first, base + p.rows, p.groups, vec4<u32>(0u, p.b_plane1, p.b_plane2, p.b_plane3), lid,
        Input_b(pre, p.gain, p.post_gain));
    let scale = finish(a.squares, f32(p.groups * 32u), p.eps);
    if owns(lid) {
        var gate = a.y;
        var up = b.y;
        for (var r = 0u; r < min(ROWS, p.rows - min(first, p.rows)); r++) {
            var biases = vec2<f32>(0.0);
            if BIASED {
                let at = expert * p.rows + first + r;
                biases = vec2<f32>(vectors[p.bias + at], vectors[p.b_bias + at]);
            }
            y[wid.y * p.rows + first + r] = glu(gate[r / 4u][r % 4u] * scale + biases.x,
                up[r / 4u][r % 4u] * scale + biases.y);
        }
    }
    if KEEPS && wid.x == 0u && wid.y == 0u {
        for (var i = lid; i < p.groups * 8u; i += WG) {
            keep(i, raw(i, pre, p.post_gain));
        }
    }
}
