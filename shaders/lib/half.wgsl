// Halves by whole numbers: WGSL leaves open which way its own conversion rounds.

// The bits of the half nearest to x, of two the even one. What is too large becomes the largest; infinity and NaN stay.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude >= 0x7f800000u {
        return sign | select(0x7c00u, 0x7e00u, magnitude > 0x7f800000u);
    }
    // Below 2^-14 halves are whole multiples of 2^-24.
    if magnitude < 0x38800000u {
        return sign | u32(round(bitcast<f32>(magnitude) * 16777216.0));
    }
    let within = min(magnitude, 0x477fe000u);
    return sign | ((within + 0xfffu + ((within >> 13u) & 1u) - 0x38000000u) >> 13u);
}

// The number of such bits.
fn half_value(bits: u32) -> f32 {
    return unpack2x16float(bits).x;
}
