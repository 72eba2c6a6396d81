// sample_pick: last of three: cuts the candidates by top-k, top-p and min-p, draws one, and makes it the next
// step's input. Temperature 0 takes the best.
// bindings  0 params   1 candidates read (depth, id) [V]   2 step read_write Row [T]   3 out write u32 [RING]
//           4 history read_write u32 [V]   then those of the sampler module
// launch    (1, 1, 1) workgroup of WG
// why       a draw from a softmax is the largest of (logit + Gumbel noise), which needs no order and no prefix
//           sums; the noise is a hash of (seed, tokens made, id), so a seed gives the same text on every device
//           that gives the same logits. Cuts are found by radix selection on the depth's bits, with integer
//           masses, so that they do not depend on the order of the candidates.
import package::sampler::{NONE, inverse_temperature, overall, state};
override WG: u32;
override RING: u32;

struct Params {
    // Rows of this step; the last live one was sampled, and row 0 becomes the next step's.
    rows: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> step: array<Row>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read_write> history: array<u32>;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> cut: u32;
var<workgroup> left: u32;
var<workgroup> share: array<vec2<f32>, WG>;

// Probability in units of 2^-30.
fn mass(depth: u32, total: f32) -> u32 {
    return u32(exp(-bitcast<f32>(depth)) / total * 1073741824.0 + 0.5);
}

fn mix(h: u32) -> u32 {
    var x = h;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

fn gumbel(id: u32) -> f32 {
    let h = mix(id ^ mix(state.made ^ mix(state.seed_low ^ mix(state.seed_high ^ 0x9e3779b9u))));
    let u = (f32(h >> 9u) + 0.5) / 8388608.0;
    return -log(-log(u));
}

// The largest depth that must stay so that depths up to it make `goal`, counting tokens (BY_MASS false) or mass.
fn select_depth(n: u32, goal: u32, by_mass: bool, total: f32, lid: u32) -> u32 {
    var prefix = 0u;
    var wanted = goal;
    for (var shift = 24i; shift >= 0i; shift -= 8i) {
        let s = u32(shift);
        for (var i = lid; i < 256u; i += WG) {
            atomicStore(&bins[i], 0u);
        }
        workgroupBarrier();
        for (var i = lid; i < n; i += WG) {
            let depth = candidates[i].x;
            if s == 24u || (depth >> min(s + 8u, 31u)) == (prefix >> min(s + 8u, 31u)) {
                atomicAdd(&bins[(depth >> s) & 255u], select(1u, mass(depth, total), by_mass));
            }
        }
        workgroupBarrier();
        if lid == 0u {
            var bin = 0u;
            var sum = atomicLoad(&bins[0]);
            while sum < wanted && bin < 255u {
                wanted -= sum;
                bin++;
                sum = atomicLoad(&bins[bin]);
            }
            cut = bin;
            left = wanted;
        }
        prefix |= workgroupUniformLoad(&cut) << s;
        wanted = workgroupUniformLoad(&left);
    }
    return prefix;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32) {
    let inv_t = inverse_temperature();
    let best = overall(inv_t);
    var id = best.id;
    // Every invocation reads the same state, but only the read of a workgroup variable tells compilers so.
    if lid == 0u {
        cut = select(0u, atomicLoad(&state.candidates), state.temperature > 0.0);
    }
    let n = workgroupUniformLoad(&cut);
    if n > 0u {
        var limit = 0x7f800000u;
        if lid == 0u {
            cut = select(0u, state.top_k, state.top_k < n);
        }
        let top_k = workgroupUniformLoad(&cut);
        if top_k > 0u {
            limit = select_depth(n, top_k, false, best.total, lid);
        }
        if lid == 0u {
            cut = select(0u, 1u, state.top_p < 1.0);
        }
        if workgroupUniformLoad(&cut) != 0u {
            // The share of the tokens that top-k left.
            if lid == 0u {
                atomicStore(&bins[0], 0u);
            }
            workgroupBarrier();
            for (var i = lid; i < n; i += WG) {
                if candidates[i].x <= limit {
                    atomicAdd(&bins[0], mass(candidates[i].x, best.total));
                }
            }
            workgroupBarrier();
            if lid == 0u {
                left = max(u32(f32(atomicLoad(&bins[0])) * state.top_p), 1u);
            }
            let goal = workgroupUniformLoad(&left);
            limit = min(limit, select_depth(n, goal, true, best.total, lid));
        }
        if state.min_p > 0.0 {
            limit = min(limit, bitcast<u32>(max(-log(state.min_p), 0.0)));
        }
        var top = vec2<f32>(-3.0e38, bitcast<f32>(best.id));
        for (var i = lid; i < n; i += WG) {
            let c = candidates[i];
            if c.x <= limit {
                let score = gumbel(c.y) - bitcast<f32>(c.x);
                if score > top.x || (score == top.x && c.y < bitcast<u32>(top.y)) {
                    top = vec2<f32>(score, bitcast<f32>(c.y));
                }
            }
        }
        share[lid] = top;
        workgroupBarrier();
        if lid == 0u {
            for (var i = 1u; i < WG; i++) {
                let o = share[i];
                if o.x > top.x || (o.x == top.x && bitcast<u32>(o.y) < bitcast<u32>(top.y)) {
                    top = o;
                }
            }
            id = bitcast<u32>(top.y);
        }
    }
    if lid == 0u && step[0].live != 0u {
        var row = step[0];
        for (var i = 1u; i < p.rows && step[i].live != 0u; i++) {
            row = step[i];
        }
        out[state.made % RING] = id;
        state.made++;
        history[id] = history[id] + 1u;
        var live = state.made < state.limit;
        for (var i = 0u; i < 8u; i++) {
            live = live && state.ends[i] != id;
        }
        step[0] = Row(id, row.pos + 1u, row.slot, select(0u, 1u, live));
    }
}
