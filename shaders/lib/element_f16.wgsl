// Tiles in workgroup memory in half precision: half the traffic; sums stay in single. Interface: see element_f32.wgsl.
enable f16;
alias E = vec4<f16>;

fn narrow(v: vec4<f32>) -> E {
    return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn wide(e: E) -> vec4<f32> {
    return vec4<f32>(e);
}
