// Scores and sums of attention by lanes: what attention_prompt_lanes and attention_decode_lanes share. A lane has four
// keys, then eight columns of four values.
import package::kv::{Eight};
// Cap of the scores, 0 for none.
override CAP: f32;

// Eight elements of a query times those of four keys.
fn four(qa: vec4<f32>, qb: vec4<f32>, a: Eight, b: Eight, c: Eight, d: Eight) -> vec4<f32> {
    return vec4<f32>(dot(qa, a.a) + dot(qb, a.b), dot(qa, b.a) + dot(qb, b.b), dot(qa, c.a) + dot(qb, c.b),
        dot(qa, d.a) + dot(qb, d.b));
}

fn dot8(x: Eight, y: Eight) -> f32 {
    return dot(x.a, y.a) + dot(x.b, y.b);
}

fn capped(s: vec4<f32>) -> vec4<f32> {
    if CAP > 0.0 {
        return CAP * tanh(clamp(s / CAP, vec4<f32>(-15.0), vec4<f32>(15.0)));
    }
    return s;
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn all4(v: vec4<f32>) -> f32 {
    return dot(v, vec4<f32>(1.0));
}

// Four weighted values on top of what is there.
fn weighted(s: Eight, w: vec4<f32>, a: Eight, b: Eight, c: Eight, d: Eight) -> Eight {
    return Eight(s.a + w.x * a.a + w.y * b.a + w.z * c.a + w.w * d.a,
        s.b + w.x * a.b + w.y * b.b + w.z * c.b + w.w * d.b);
}
