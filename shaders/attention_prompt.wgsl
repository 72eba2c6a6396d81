// attention_prompt: attention of a chunk of consecutive tokens of one sequence over its cache, which already holds
// them: of each over those before it (CAUSAL), or over all of the chunk. Online softmax over tiles of 32 positions
// (Dao et al., arXiv 2205.14135).
// One workgroup takes SPLIT positions; where SPLITS > 1 it leaves (sums [HD], maximum, total) for attention_combine.
// bindings  0 params   1 q read f32 [T, (H + 2 KV), HD] (rotated)
//           2 out write f32 [T, H, HD], or where SPLITS > 1 [T, H, SPLITS, HD + 4]
//           3 vectors read f32   then those of the cache and kv modules
// launch    (H, ceil(T / 32), SPLITS) workgroups of 64; each takes one head of 32 tokens
// requires  HD % 4 == 0; rows live from the first on, positions consecutive      accumulates f32
// why       an invocation makes 4 x 4 scores, then 4 tokens by every eighth vector of the values
import package::cache::{KV, HD, VALUES, Row, step, key_at, live_rows};
import package::kv::{BLOCK, Block, TURNS, kv_load, kv_turn};
override H: u32;
override WINDOW: u32;
override CAP: f32;
override SINKS: bool;
override CAUSAL: bool;
override SPLIT: u32;
override SPLITS: u32;
const HD4: u32 = HD / 4u;
// Vectors of a value that one of the eight invocations of a token takes.
const NC: u32 = (HD4 + 7u) / 8u;

struct Params {
    tokens: u32,
    // Place of the sinks among the vectors, one for each query head.
    sinks: u32,
    page_stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<f32>;

// Weights [key][token / 4], and a value for each token and each of its eight invocations.
var<workgroup> weight: array<vec4<f32>, 256>;
var<workgroup> shares: array<vec4<f32>, 64>;

fn capped(s: vec4<f32>) -> vec4<f32> {
    if CAP > 0.0 {
        return CAP * tanh(clamp(s / CAP, vec4<f32>(-15.0), vec4<f32>(15.0)));
    }
    return s;
}

// Scores of the token at t_pos and the keys at pos.. + 3, where seen: those before `end`, and within the window.
fn seen(s: vec4<f32>, t_pos: u32, pos: u32, end: u32) -> vec4<f32> {
    let key = vec4<u32>(pos) + vec4<u32>(0u, 1u, 2u, 3u);
    var ok = key < vec4<u32>(select(end, t_pos + 1u, CAUSAL));
    if WINDOW > 0u {
        ok = ok & (key + vec4<u32>(WINDOW) > vec4<u32>(t_pos)) & (key < vec4<u32>(t_pos + WINDOW));
    }
    return select(vec4<f32>(-1e30), capped(s), ok);
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t0 = wid.y * 32u;
    let row = step[t0];
    if row.live == 0u {
        return;
    }
    let h = wid.x;
    let kv_head = h / (H / KV);
    let tq = lid / 8u;
    let tk = lid % 8u;
    let token = vec4<u32>(t0 + tq * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let base = (min(token, vec4<u32>(p.tokens - 1u)) * (H + 2u * KV) + h) * HD4;
    let pos = vec4<u32>(row.pos + tq * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    // Positions from the first that any of these tokens sees to the last live one.
    let live = live_rows(t0, min(32u, p.tokens - t0));
    var end = row.pos + live;
    if !CAUSAL {
        end = row.pos + live_rows(t0, p.tokens - t0);
    }
    var oldest = select(0u, row.pos + 1u - WINDOW, WINDOW > 0u && row.pos >= WINDOW);
    if SPLITS > 1u {
        oldest = wid.z * SPLIT;
        if oldest >= end {
            return;
        }
        end = min(end, oldest + SPLIT);
    }

    var acc: array<vec4<f32>, 4 * NC>;
    // A sink is a score without a value.
    var top = vec4<f32>(-1e30);
    var total = vec4<f32>(0.0);
    if SINKS && wid.z == 0u {
        top = vec4<f32>(vectors[p.sinks + h]);
        total = vec4<f32>(select(0.0, 1.0, tk == 0u));
    }
    for (var tile = oldest & ~31u; tile < end; tile += 32u) {
        let key = tile + tk * 4u;
        // Keys past the end stand in for the last: their scores are masked below.
        let k0 = key_at(row.slot, p.page_stride, min(key, end - 1u), kv_head);
        let k1 = key_at(row.slot, p.page_stride, min(key + 1u, end - 1u), kv_head);
        let k2 = key_at(row.slot, p.page_stride, min(key + 2u, end - 1u), kv_head);
        let k3 = key_at(row.slot, p.page_stride, min(key + 3u, end - 1u), kv_head);
        var s0 = vec4<f32>(0.0);
        var s1 = vec4<f32>(0.0);
        var s2 = vec4<f32>(0.0);
        var s3 = vec4<f32>(0.0);
        for (var i = 0u; i < HD4; i++) {
            let a = kv_load(k0 + i);
            let b = kv_load(k1 + i);
            let c = kv_load(k2 + i);
            let d = kv_load(k3 + i);
            let q0 = q[base.x + i];
            let q1 = q[base.y + i];
            let q2 = q[base.z + i];
            let q3 = q[base.w + i];
            s0 += vec4<f32>(dot(q0, a), dot(q0, b), dot(q0, c), dot(q0, d));
            s1 += vec4<f32>(dot(q1, a), dot(q1, b), dot(q1, c), dot(q1, d));
            s2 += vec4<f32>(dot(q2, a), dot(q2, b), dot(q2, c), dot(q2, d));
            s3 += vec4<f32>(dot(q3, a), dot(q3, b), dot(q3, c), dot(q3, d));
        }
        s0 = seen(s0 * p.scale, pos.x, key, end);
        s1 = seen(s1 * p.scale, pos.y, key, end);
        s2 = seen(s2 * p.scale, pos.z, key, end);
        s3 = seen(s3 * p.scale, pos.w, key, end);
        shares[lid] = vec4<f32>(largest(s0), largest(s1), largest(s2), largest(s3));
        workgroupBarrier();
        var now = top;
        for (var i = 0u; i < 8u; i++) {
            now = max(now, shares[tq * 8u + i]);
        }
        // A token that has seen nothing yet keeps weights of zero, not of e^0.
        let floor = max(now, vec4<f32>(-1e29));
        s0 = exp(s0 - floor.x);
        s1 = exp(s1 - floor.y);
        s2 = exp(s2 - floor.z);
        s3 = exp(s3 - floor.w);
        let fade = exp(top - floor);
        top = now;
        total = total * fade + vec4<f32>(dot(s0, vec4<f32>(1.0)), dot(s1, vec4<f32>(1.0)),
            dot(s2, vec4<f32>(1.0)), dot(s3, vec4<f32>(1.0)));
        for (var c = 0u; c < 4u; c++) {
            weight[(tk * 4u + c) * 8u + tq] = vec4<f32>(s0[c], s1[c], s2[c], s3[c]);
        }
        workgroupBarrier();
        let keys = min(32u, end - tile);
        for (var c = 0u; c < NC; c++) {
            let column = min(tk + 8u * c, HD4 - 1u);
            var a0 = acc[4u * c] * fade.x;
            var a1 = acc[4u * c + 1u] * fade.y;
            var a2 = acc[4u * c + 2u] * fade.z;
            var a3 = acc[4u * c + 3u] * fade.w;
            for (var j = 0u; j < keys; j++) {
                let w = weight[j * 8u + tq];
                let v = kv_load(key_at(row.slot, p.page_stride, tile + j, kv_head) + VALUES + column);
                a0 += w.x * v;
                a1 += w.y * v;
                a2 += w.z * v;
                a3 += w.w * v;
            }
            acc[4u * c] = a0;
            acc[4u * c + 1u] = a1;
            acc[4u * c + 2u] = a2;
            acc[4u * c + 3u] = a3;
        }
        workgroupBarrier();
    }
    shares[lid] = total;
    workgroupBarrier();
    total = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        total += shares[tq * 8u + i];
    }
    for (var c = 0u; c < NC; c++) {
        let column = tk + 8u * c;
        if TURNS {
            // The eight invocations of a token have a block of the sums.
            workgroupBarrier();
            for (var r = 0u; r < 4u; r++) {
                weight[4u * lid + r] = acc[4u * c + r];
            }
            workgroupBarrier();
            for (var r = 0u; r < 4u; r++) {
                var v: Block;
                for (var j = 0u; j < BLOCK; j++) {
                    v[j] = weight[4u * (tq * 8u + j) + r];
                }
                v = kv_turn(v);
                acc[4u * c + r] = v[tk % BLOCK];
            }
        }
        if column < HD4 {
            for (var r = 0u; r < 4u; r++) {
                if token[r] < t0 + live {
                    let part = (token[r] * H + h) * SPLITS + wid.z;
                    let share = select(1.0 / total[r], 1.0, SPLITS > 1u);
                    out[part * (HD4 + select(0u, 1u, SPLITS > 1u)) + column] = acc[4u * c + r] * share;
                }
            }
        }
    }
    if SPLITS > 1u && tk == 0u {
        for (var r = 0u; r < 4u; r++) {
            if token[r] < t0 + live {
                let part = (token[r] * H + h) * SPLITS + wid.z;
                out[part * (HD4 + 1u) + HD4] = vec4<f32>(top[r], total[r], 0.0, 0.0);
            }
        }
    }
}
