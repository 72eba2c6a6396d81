// matvec_qkv: y = output([A · input(x), B · input(x), C · input(x)]), three weights of their own formats. One token.
// bindings  0 params   then those of the input, of the weights a, b and c and of the output [rows of a + b + c]
// launch    ceil(rows / BLOCK) workgroups of WG for each weight: those of a, then those of b, then those of c
// requires  K % 32 == 0; WG % LANES == 0      accumulates f32
import package::rows_a::{Dots as Dots_a, Input as Input_a, BLOCK, ROWS, first_row, owns, rows as rows_a};
import package::rows_b::{Dots as Dots_b, Input as Input_b, rows as rows_b};
import package::rows_c::{Dots as Dots_c, Input as Input_c, rows as rows_c};
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
    b_rows: u32,
    b_plane1: u32,
    b_plane2: u32,
    b_plane3: u32,
    c_rows: u32,
    c_plane1: u32,
    c_plane2: u32,
    c_plane3: u32,
    gain: u32,
    post_gain: u32,
    eps: f32,
    bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let a_groups = (p.rows + BLOCK - 1u) / BLOCK;
    let b_groups = (p.b_rows + BLOCK - 1u) / BLOCK;
    let pre = begin(lid % LANES, LANES, p.groups * 8u, p.eps, lid);
    var first = 0u;
    var count = 0u;
    var base = 0u;
    var product = array<vec4<f32>, ROWS / 4u>();
    var squares = 0.0;
    if wid.x < a_groups {
        first = first_row(wid.x, lid);
        count = p.rows;
        let d = rows_a(first, count, p.groups, vec4<u32>(0u, p.plane1, p.plane2, p.plane3), lid,
            Input_a(pre, p.gain, p.post_gain));
        product = d.y;
        squares = d.squares;
    } else if wid.x < a_groups + b_groups {
        first = first_row(wid.x - a_groups, lid);
        count = p.b_rows;
        base = p.rows;
        let d = rows_b(first, count, p.groups, vec4<u32>(0u, p.b_plane1, p.b_plane2, p.b_plane3), lid,
            Input_b(pre, p.gain, p.post_gain));
        product = d.y;
        squares = d.squares;
    } else {
        first = first_row(wid.x - a_groups - b_groups, lid);
        count = p.c_rows;
        base = p.rows + p.b_rows;
        let d = rows_c(first, count, p.groups, vec4<u32>(0u, p.c_plane1, p.c_plane2, p.c_plane3), lid,
            Input_c(pre, p.gain, p.post_gain));
        product = d.y;
        squares = d.squares;
    }
    let scale = finish(squares, f32(p.groups * 32u), p.eps);
    if owns(lid) {
        for (var r = 0u; r < min(ROWS, count - min(first, count)); r++) {
            let to = base + first + r;
            store(to, p.bias + to, product[r / 4u][r % 4u] * scale);
        }
    }
    if KEEPS && wid.x == 0u {
        for (var i = lid; i < p.groups * 8u; i += WG) {
            keep(i, raw(i, pre, p.post_gain));
        }
    }
}
