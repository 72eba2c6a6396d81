// experts_route: routes[T, USED] = (expert, bits of its weight) of the best scores[T, E], best first; of equals the
// earlier. Weights are the softmax over the chosen scores or, unless RENORMALISE, over all.
// bindings  0 params   1 step read Row [T]   2 scores read f32 [T, E]   3 routes write u32 [T, USED, 2]
// launch    (T, 1, 1) workgroups of 64; an invocation ranks every 64th expert
// requires  USED <= 64, USED <= E
// why       an expert's rank is how many are better: no sorting, and no step waits for another
override USED: u32;
override RENORMALISE: bool;

struct Params {
    experts: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: array<Row>;
@group(0) @binding(2) var<storage, read> scores: array<f32>;
@group(0) @binding(3) var<storage, read_write> routes: array<vec2<u32>>;

// Scores and numbers of the chosen.
var<workgroup> chosen: array<f32, 64>;
var<workgroup> number: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t = wid.x;
    if step[t].live == 0u {
        return;
    }
    let base = t * p.experts;
    for (var e = lid; e < p.experts; e += 64u) {
        let mine = scores[base + e];
        var rank = 0u;
        for (var other = 0u; other < p.experts; other++) {
            let score = scores[base + other];
            rank += u32(score > mine || (score == mine && other < e));
        }
        if rank < USED {
            chosen[rank] = mine;
            number[rank] = e;
        }
    }
    workgroupBarrier();
    if lid < USED {
        let top = chosen[0];
        var total = 0.0;
        if RENORMALISE {
            for (var s = 0u; s < USED; s++) {
                total += exp(chosen[s] - top);
            }
        } else {
            for (var e = 0u; e < p.experts; e++) {
                total += exp(scores[base + e] - top);
            }
        }
        routes[t * USED + lid] = vec2<u32>(number[lid], bitcast<u32>(exp(chosen[lid] - top) / total));
    }
}
