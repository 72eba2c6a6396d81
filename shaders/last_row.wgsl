// last_row: y[D] = x[n - 1, D], the last of the n live rows of this step.
// bindings  0 params   1 step read Row [T]   2 x read f32 [T, D]   3 y write f32 [D]
// launch    (1, 1, 1) workgroups of WG
// why       only a prompt's last token needs logits; live rows come first
override WG: u32;

struct Params {
    rows: u32,
    d4: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: array<Row>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32) {
    var live = 1u;
    while live < p.rows && step[live].live != 0u {
        live++;
    }
    for (var i = lid; i < p.d4; i += WG) {
        y[i] = x[(live - 1u) * p.d4 + i];
    }
}
