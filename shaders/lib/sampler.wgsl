// The state of one sequence's sampler, and what scan leaves for those after it.
override STATE: u32;
override PARTIALS: u32;
override PARTS: u32;

struct Sampler {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    // Divides (or, below zero, multiplies) logits of tokens seen anywhere in the context; 1 for none.
    repetition: f32,
    // Taken from logits of tokens generated already: once, and for each time.
    presence: f32,
    frequency: f32,
    top_k: u32,
    seed_low: u32,
    seed_high: u32,
    // 1: penalties are set, 2: a bias is set.
    flags: u32,
    // Tokens made so far, and how many may be.
    made: u32,
    limit: u32,
    // Tokens that end the answer; unused entries are NONE.
    ends: array<u32, 8>,
    // Candidates that gather found.
    candidates: atomic<u32>,
}

const NONE: u32 = 0xffffffffu;

@group(0) @binding(STATE) var<storage, read_write> state: Sampler;
// For each part of the vocabulary: (largest logit, its id, sum of e^((l - largest) / t)).
@group(0) @binding(PARTIALS) var<storage, read_write> partials: array<vec4<f32>, PARTS>;

struct Best {
    logit: f32,
    id: u32,
    total: f32,
}

// Joins two parts; equal logits go to the smaller id.
fn join(a: Best, b: Best, inv_t: f32) -> Best {
    let total = a.total * exp(min(a.logit - b.logit, 0.0) * inv_t) + b.total * exp(min(b.logit - a.logit, 0.0) * inv_t);
    if b.logit > a.logit || (b.logit == a.logit && b.id < a.id) {
        return Best(b.logit, b.id, total);
    }
    return Best(a.logit, a.id, total);
}

fn inverse_temperature() -> f32 {
    if state.temperature > 0.0 {
        return 1.0 / state.temperature;
    }
    return 1.0;
}

// The whole vocabulary's best, from the parts.
fn overall(inv_t: f32) -> Best {
    var best = Best(-3.0e38, NONE, 0.0);
    for (var i = 0u; i < PARTS; i++) {
        best = join(best, Best(partials[i].x, bitcast<u32>(partials[i].y), partials[i].z), inv_t);
    }
    return best;
}
