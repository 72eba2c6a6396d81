// experts_sum: y[T, N] = output(sum over s of weight_s d[t * USED + s, N]) with weight_s of routes[t, s].
// bindings  0 params   1 step read Row [T]   2 d read f32 [T * USED, N]   3 routes read u32 [T, USED, 2]
//           then the output's
// launch    (ceil(N / 64), T, 1) workgroups of 64
import package::output::{store};
override USED: u32;

struct Params {
    rows: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: array<Row>;
@group(0) @binding(2) var<storage, read> d: array<f32>;
@group(0) @binding(3) var<storage, read> routes: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.rows || step[id.y].live == 0u {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < USED; s++) {
        let pair = id.y * USED + s;
        sum += bitcast<f32>(routes[pair].y) * d[pair * p.rows + id.x];
    }
    store(id.y * p.rows + id.x, 0u, sum);
}
