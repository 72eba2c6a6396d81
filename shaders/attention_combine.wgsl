// attention_combine: joins the parts that attention_decode left: y = sum_s e^(m_s - m) a_s / sum_s e^(m_s - m) l_s.
// bindings  0 params   1 parts read f32 [T, H, SPLITS, HD + 4]   2 y write f32 [T, H, HD]   3 step read u32 [T, 4]
// launch    (ceil(H · HD / 4 / WG), T, 1) workgroups of WG
// why       a token has as many parts as its position wants, which may be far fewer than there is room for
override WG: u32;
override SPLIT: u32;
override SPLITS: u32;
override WINDOW: u32;

struct Params {
    heads: u32,
    hd4: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
// As lib/cache.wgsl has it: token, position, sequence, and whether the row is in use.
@group(0) @binding(3) var<storage, read> step: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = step[id.y];
    if id.x >= p.heads * p.hd4 || row.w == 0u {
        return;
    }
    let head = id.y * p.heads + id.x / p.hd4;
    let column = id.x % p.hd4;
    let base = head * SPLITS * (p.hd4 + 1u);
    let seen = select(row.y + 1u, min(row.y + 1u, WINDOW), WINDOW > 0u);
    let used = (seen + SPLIT - 1u) / SPLIT;
    var top = -1e30;
    for (var s = 0u; s < used; s++) {
        top = max(top, parts[base + s * (p.hd4 + 1u) + p.hd4].x);
    }
    var sums = vec4<f32>(0.0);
    var total = 0.0;
    for (var s = 0u; s < used; s++) {
        let part = base + s * (p.hd4 + 1u);
        let state = parts[part + p.hd4];
        let weight = exp(state.x - top);
        sums += weight * parts[part + column];
        total += weight * state.y;
    }
    y[head * p.hd4 + column] = sums / total;
}
