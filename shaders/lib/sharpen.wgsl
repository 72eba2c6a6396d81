// What the scores of late tokens are multiplied by: 1 + BETA ln(1 + floor(pos / ORIGINAL)). BETA is 0 for nothing.
override BETA: f32;
override ORIGINAL: u32;

fn sharpened(pos: u32) -> f32 {
    if BETA == 0.0 {
        return 1.0;
    }
    return 1.0 + BETA * log(f32(1u + pos / ORIGINAL));
}
