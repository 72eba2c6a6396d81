// sample_scan: first of three that sample a token from logits [V]: applies penalties and bias in place, and
// leaves each part's best and its sum of exponentials.
// bindings  0 params   1 logits read_write f32 [V]   2 history read u32 [V] (bit 31: in the prompt; below: times
//           generated)   3 bias read f32 [V]   then those of the sampler module
// launch    (PARTS, 1, 1) workgroups of WG
import package::sampler::{Best, PARTS, join, inverse_temperature, partials, state};
override WG: u32;

struct Params {
    vocab: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read> history: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

var<workgroup> share: array<Best, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let part = (p.vocab + PARTS - 1u) / PARTS;
    let end = min(p.vocab, (wid.x + 1u) * part);
    let inv_t = inverse_temperature();
    var best = Best(-3.0e38, 0xffffffffu, 0.0);
    for (var i = wid.x * part + lid; i < end; i += WG) {
        var l = logits[i];
        // A logit that is no number is never chosen.
        l = select(-3.0e38, l, l > -3.0e38);
        if (state.flags & 1u) != 0u && history[i] != 0u {
            l = select(l * state.repetition, l / state.repetition, l > 0.0);
            let times = history[i] & 0x7fffffffu;
            if times > 0u {
                l -= state.presence + state.frequency * f32(times);
            }
        }
        if (state.flags & 2u) != 0u {
            l += bias[i];
        }
        logits[i] = l;
        best = join(best, Best(l, i, 1.0), inv_t);
    }
    share[lid] = best;
    workgroupBarrier();
    if lid == 0u {
        for (var i = 1u; i < WG; i++) {
            best = join(best, share[i], inv_t);
        }
        partials[wid.x] = vec4<f32>(best.logit, bitcast<f32>(best.id), best.total, 0.0);
        if wid.x == 0u {
            atomicStore(&state.candidates, 0u);
        }
    }
}
