// gelu(gate) * up, gelu as it is defined: x/2 (1 + erf(x / sqrt(2))). What erf of |z| lacks of one is a polynomial
// times e^(-z^2), off by 1.5e-7 at most (Abramowitz and Stegun, 7.1.26).
fn glu(gate: f32, up: f32) -> f32 {
    let z = abs(gate) * 0.7071067812;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    // Past this e^(-z^2) is nothing, and some drivers make more of it.
    let lack = 0.5 * poly * exp(-min(z * z, 80.0));
    return gate * select(1.0 - lack, lack, gate < 0.0) * up;
}
