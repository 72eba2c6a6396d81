// pool: y[S, D], of which row s is the sum of rows of x[T, D]: `count` of them from `first` on, as spans[s] says.
// bindings  0 params   1 x read f32 [T, D]   2 spans read u32 [S, 2]   3 y write f32 [S, D]
// launch    (ceil(D / 4 / WG), S, 1) workgroups of WG; an invocation sums four columns
// requires  D % 4 == 0      accumulates f32
// why       a text's vector leaves the device, not its every token's; a span without rows is not written
override WG: u32;

struct Params {
    d4: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let span = spans[id.y];
    if id.x >= p.d4 || span.y == 0u {
        return;
    }
    var total = vec4<f32>(0.0);
    for (var row = span.x; row < span.x + span.y; row++) {
        total += x[row * p.d4 + id.x];
    }
    y[id.y * p.d4 + id.x] = total;
}
