// sample_gather: second of three: collects the tokens whose probability is at least 2^-32, in no order.
// bindings  0 params   1 logits read f32 [V]   2 candidates write (key, id) [V]   then those of the sampler module
// launch    (PARTS, 1, 1) workgroups of WG
// why       what is left is a few hundred tokens as a rule, so that the exact cut is cheap
import package::sampler::{PARTS, inverse_temperature, overall, state};
override WG: u32;

struct Params {
    vocab: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> candidates: array<vec2<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if state.temperature <= 0.0 {
        return;
    }
    let part = (p.vocab + PARTS - 1u) / PARTS;
    let end = min(p.vocab, (wid.x + 1u) * part);
    let inv_t = inverse_temperature();
    let best = overall(inv_t);
    for (var i = wid.x * part + lid; i < end; i += WG) {
        // Depth below the best, in nats: a float that is not negative orders as its bits do.
        let depth = max((best.logit - logits[i]) * inv_t, 0.0);
        if exp(-depth) / best.total >= 0x1p-32f {
            candidates[atomicAdd(&state.candidates, 1u)] = vec2<u32>(bitcast<u32>(depth), i);
        }
    }
}
