// gpt-oss's gated unit: g / (1 + exp(-1.702 g)) * (u + 1), g = min(gate, 7), u = clamp(up, -7, 7).
fn glu(gate: f32, up: f32) -> f32 {
    let g = min(gate, 7.0);
    return g / (1.0 + exp(-1.702 * g)) * (clamp(up, -7.0, 7.0) + 1.0);
}
