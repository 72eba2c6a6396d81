// gelu(gate) * up, gelu by its tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). The argument is
// clamped: some drivers make tanh from exp and overflow.
fn glu(gate: f32, up: f32) -> f32 {
    let t = 0.7978845608 * (gate + 0.044715 * gate * gate * gate);
    return 0.5 * gate * (1.0 + tanh(clamp(t, -15.0, 15.0))) * up;
}
