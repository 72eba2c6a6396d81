// attention_combine: joins the parts that attention_decode left: y = sum_s e^(m_s - m) a_s / sum_s e^(m_s - m) l_s.
// bindings  0 params   1 parts read f32 [T, H, SPLITS, HD + 4]   2 y write f32 [T, H, HD]
// launch    (ceil(H · HD / 4 / WG), T, 1) workgroups of WG
override WG: u32;
override SPLITS: u32;

struct Params {
    heads: u32,
    hd4: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.heads * p.hd4 {
        return;
    }
    let head = id.y * p.heads + id.x / p.hd4;
    let column = id.x % p.hd4;
    let base = head * SPLITS * (p.hd4 + 1u);
    var top = -1e30;
    for (var s = 0u; s < SPLITS; s++) {
        top = max(top, parts[base + s * (p.hd4 + 1u) + p.hd4].x);
    }
    var sums = vec4<f32>(0.0);
    var total = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        let part = base + s * (p.hd4 + 1u);
        let state = parts[part + p.hd4];
        if state.y > 0.0 {
            let weight = exp(state.x - top);
            sums += weight * parts[part + column];
            total += weight * state.y;
        }
    }
    y[head * p.hd4 + column] = sums / total;
}
