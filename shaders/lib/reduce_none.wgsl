// A team of one: nothing to add. Interface of every reduce_* file: `sum(v, lid)` and `sum4(v, lid)` over the
// LANES invocations of a team, given to all of them; call in uniform control flow only.
override LANES: u32 = 1;

fn sum(v: f32, lid: u32) -> f32 {
    return v;
}

fn sum4(v: vec4<f32>, lid: u32) -> vec4<f32> {
    return v;
}
