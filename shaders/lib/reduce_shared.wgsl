// Teams of LANES (a power of two) by a tree in workgroup memory; WG is the whole workgroup.
// Interface: see reduce_none.wgsl.
override LANES: u32;
override WG: u32;
var<workgroup> tree: array<vec4<f32>, WG>;

fn sum(v: f32, lid: u32) -> f32 {
    return sum4(vec4<f32>(v, 0.0, 0.0, 0.0), lid).x;
}

fn sum4(v: vec4<f32>, lid: u32) -> vec4<f32> {
    tree[lid] = v;
    workgroupBarrier();
    for (var m = LANES / 2u; m > 0u; m = m / 2u) {
        if (lid % LANES) < m {
            tree[lid] += tree[lid + m];
        }
        workgroupBarrier();
    }
    let s = tree[lid - lid % LANES];
    workgroupBarrier();
    return s;
}
