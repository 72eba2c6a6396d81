// Teams of LANES (a power of two, at most the smallest subgroup size) by butterfly shuffles, so that several
// teams may share a subgroup. Interface: see reduce_none.wgsl.
override LANES: u32;

fn sum(v: f32, lid: u32) -> f32 {
    var s = v;
    for (var m = LANES / 2u; m > 0u; m = m / 2u) {
        s += subgroupShuffleXor(s, m);
    }
    return s;
}

fn sum4(v: vec4<f32>, lid: u32) -> vec4<f32> {
    var s = v;
    for (var m = LANES / 2u; m > 0u; m = m / 2u) {
        s += subgroupShuffleXor(s, m);
    }
    return s;
}

// The largest of a team's v, component by component.
fn highest(v: vec4<f32>, lid: u32) -> vec4<f32> {
    var s = v;
    for (var m = LANES / 2u; m > 0u; m = m / 2u) {
        s = max(s, subgroupShuffleXor(s, m));
    }
    return s;
}
