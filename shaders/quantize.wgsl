// quantize: x[T, K] in eight bits: codes[T, K] as bytes, and for each 16 of them (largest / 127, sum of the codes).
// bindings  0 params   1 step read Row [T]   2 x read f32 [T, K]   3 codes write u32 [T, K / 4]
//           4 scales write f32 [T, K / 16, 2]
// launch    (ceil(K / 16 / WG), T, 1) workgroups of WG; an invocation makes 16 elements
// requires  K % 16 == 0
import package::eight::{ONES, codes as code, largest, steps};
override WG: u32;

struct Params {
    // K / 16.
    halves: u32,
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
@group(0) @binding(3) var<storage, read_write> codes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> scales: array<vec2<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.halves || step[id.y].live == 0u {
        return;
    }
    let at = id.y * p.halves + id.x;
    let a = x[4u * at];
    let b = x[4u * at + 1u];
    let c = x[4u * at + 2u];
    let d = x[4u * at + 3u];
    let top = max(max(largest(a), largest(b)), max(largest(c), largest(d)));
    let s = steps(top);
    let q = vec4<u32>(code(a, s), code(b, s), code(c, s), code(d, s));
    let total = dot4I8Packed(q.x, ONES) + dot4I8Packed(q.y, ONES) + dot4I8Packed(q.z, ONES) + dot4I8Packed(q.w, ONES);
    codes[at] = q;
    scales[at] = vec2<f32>(top / 127.0, f32(total));
}
