// attention_prompt_lanes: attention of a chunk of consecutive tokens of one sequence over its cache, which already
// holds their keys and values, for software drivers: of each over those before it (CAUSAL), or over all of the chunk.
// Online softmax over tiles of 4 LANES positions (Dao et al., arXiv 2205.14135); q is normed, rotated and sharpened on
// the way in.
// One workgroup takes SPLIT positions; where SPLITS > 1 it leaves (sums [HD], maximum, total) for attention_combine.
// bindings  0 params   1 out write f32 [T, H, HD], or where SPLITS > 1 [T, H, SPLITS, HD + 4]
//           then those of the head, rope, cache and kv modules
// launch    (H, ceil(T / 8), SPLITS) workgroups of LANES; each takes one head of 8 tokens
// requires  HD % 8 == 0, DIMS % 8 == 0; LANES is the subgroup size; rows live from the first on, positions
//           consecutive      accumulates f32
// why       a lane makes the scores of four keys of its own, then sums eight columns of the values; what another lane
//           has comes by a shuffle. Workgroup memory holds what a lane keeps for itself, so that nothing waits
import package::head::{head4, head_scale, vector_at};
import package::sharpen::{sharpened};
import package::cache::{KV, HD, VALUES, Row, step, key_at, live_rows};
import package::kv::{Eight, kv_load8, kv_turn8};
import package::reduce::{LANES, highest, sum};
import package::scores::{all4, capped, four, largest, weighted};
override H: u32;
override WINDOW: u32;
override SINKS: bool;
override CAUSAL: bool;
override SPLIT: u32;
override SPLITS: u32;
const HD4: u32 = HD / 4u;
const HD8: u32 = HD / 8u;
const TILE: u32 = 4u * LANES;
// Items of eight elements that a lane keeps of a head.
const N: u32 = (HD8 + LANES - 1u) / LANES;

struct Params {
    q_gain: u32,
    // Place of the sinks among the vectors, one for each query head.
    sinks: u32,
    eps: f32,
    tokens: u32,
    page_stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

// Both [token][n][lane].
var<workgroup> q: array<Eight, 8u * N * LANES>;
var<workgroup> acc: array<Eight, 8u * N * LANES>;

// Scores of the token at t_pos and the keys at `key`, where seen: those before `end`, and within the window.
fn seen(s: vec4<f32>, t_pos: u32, key: vec4<u32>, end: u32) -> vec4<f32> {
    var ok = key < vec4<u32>(select(end, t_pos + 1u, CAUSAL));
    if WINDOW > 0u {
        ok = ok & (key + vec4<u32>(WINDOW) > vec4<u32>(t_pos)) & (key < vec4<u32>(t_pos + WINDOW));
    }
    return select(vec4<f32>(-1e30), capped(s * p.scale), ok);
}

fn faded(t: u32, n: u32, lid: u32, fade: f32) -> Eight {
    let s = acc[(t * N + n) * LANES + lid];
    return Eight(s.a * fade, s.b * fade);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t0 = wid.y * 8u;
    let row = step[t0];
    if row.live == 0u {
        return;
    }
    let h = wid.x;
    let kv_head = h / (H / KV);
    // Positions from the first that any of these tokens sees to the last live one.
    let live = live_rows(t0, min(8u, p.tokens - t0));
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

    for (var t = 0u; t < live; t++) {
        let base = ((t0 + t) * (H + 2u * KV) + h) * HD4;
        let scale = head_scale(base, p.eps, lid);
        let factor = sharpened(row.pos + t);
        for (var n = 0u; n < N; n++) {
            let i = 2u * min(n * LANES + lid, HD8 - 1u);
            let v = Eight(head4(base, p.q_gain, scale, i, row.pos + t) * factor,
                head4(base, p.q_gain, scale, i + 1u, row.pos + t) * factor);
            q[(t * N + n) * LANES + lid] = kv_turn8(v, lid);
        }
    }
    for (var i = 0u; i < 8u * N; i++) {
        acc[i * LANES + lid] = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    }

    // A sink is a score without a value; each lane sums what it makes, and one counts the sink.
    var top0 = vec4<f32>(-1e30);
    var total0 = vec4<f32>(0.0);
    if SINKS && wid.z == 0u {
        top0 = vec4<f32>(vector_at(p.sinks + h));
        total0 = vec4<f32>(select(0.0, 1.0, lid == 0u));
    }
    var top1 = top0;
    var total1 = total0;
    for (var tile = oldest - oldest % TILE; tile < end; tile += TILE) {
        // Keys past the end stand in for the last: their scores are masked below.
        let key = vec4<u32>(tile + lid) + vec4<u32>(0u, LANES, 2u * LANES, 3u * LANES);
        let at = min(key, vec4<u32>(end - 1u));
        let items = vec4<u32>(
            key_at(row.slot, p.page_stride, at.x, kv_head), key_at(row.slot, p.page_stride, at.y, kv_head),
            key_at(row.slot, p.page_stride, at.z, kv_head), key_at(row.slot, p.page_stride, at.w, kv_head)) / 2u;
        var s0 = vec4<f32>(0.0);
        var s1 = vec4<f32>(0.0);
        var s2 = vec4<f32>(0.0);
        var s3 = vec4<f32>(0.0);
        var s4 = vec4<f32>(0.0);
        var s5 = vec4<f32>(0.0);
        var s6 = vec4<f32>(0.0);
        var s7 = vec4<f32>(0.0);
        for (var n = 0u; n < N; n++) {
            let q0 = q[(0u * N + n) * LANES + lid];
            let q1 = q[(1u * N + n) * LANES + lid];
            let q2 = q[(2u * N + n) * LANES + lid];
            let q3 = q[(3u * N + n) * LANES + lid];
            let q4 = q[(4u * N + n) * LANES + lid];
            let q5 = q[(5u * N + n) * LANES + lid];
            let q6 = q[(6u * N + n) * LANES + lid];
            let q7 = q[(7u * N + n) * LANES + lid];
            for (var i = 0u; i < min(LANES, HD8 - n * LANES); i++) {
                let item = items + vec4<u32>(n * LANES + i);
                let a = kv_load8(item.x);
                let b = kv_load8(item.y);
                let c = kv_load8(item.z);
                let d = kv_load8(item.w);
                s0 += four(subgroupShuffle(q0.a, i), subgroupShuffle(q0.b, i), a, b, c, d);
                s1 += four(subgroupShuffle(q1.a, i), subgroupShuffle(q1.b, i), a, b, c, d);
                s2 += four(subgroupShuffle(q2.a, i), subgroupShuffle(q2.b, i), a, b, c, d);
                s3 += four(subgroupShuffle(q3.a, i), subgroupShuffle(q3.b, i), a, b, c, d);
                s4 += four(subgroupShuffle(q4.a, i), subgroupShuffle(q4.b, i), a, b, c, d);
                s5 += four(subgroupShuffle(q5.a, i), subgroupShuffle(q5.b, i), a, b, c, d);
                s6 += four(subgroupShuffle(q6.a, i), subgroupShuffle(q6.b, i), a, b, c, d);
                s7 += four(subgroupShuffle(q7.a, i), subgroupShuffle(q7.b, i), a, b, c, d);
            }
        }
        s0 = seen(s0, row.pos + 0u, key, end);
        s1 = seen(s1, row.pos + 1u, key, end);
        s2 = seen(s2, row.pos + 2u, key, end);
        s3 = seen(s3, row.pos + 3u, key, end);
        s4 = seen(s4, row.pos + 4u, key, end);
        s5 = seen(s5, row.pos + 5u, key, end);
        s6 = seen(s6, row.pos + 6u, key, end);
        s7 = seen(s7, row.pos + 7u, key, end);
        let now0 = max(top0, highest(vec4<f32>(largest(s0), largest(s1), largest(s2), largest(s3)), lid));
        let now1 = max(top1, highest(vec4<f32>(largest(s4), largest(s5), largest(s6), largest(s7)), lid));
        // A token that has seen nothing yet keeps weights of zero, not of e^0.
        let floor0 = max(now0, vec4<f32>(-1e29));
        let floor1 = max(now1, vec4<f32>(-1e29));
        s0 = exp(s0 - floor0.x);
        s1 = exp(s1 - floor0.y);
        s2 = exp(s2 - floor0.z);
        s3 = exp(s3 - floor0.w);
        s4 = exp(s4 - floor1.x);
        s5 = exp(s5 - floor1.y);
        s6 = exp(s6 - floor1.z);
        s7 = exp(s7 - floor1.w);
        let fade0 = exp(top0 - floor0);
        let fade1 = exp(top1 - floor1);
        top0 = now0;
        top1 = now1;
        total0 = total0 * fade0 + vec4<f32>(all4(s0), all4(s1), all4(s2), all4(s3));
        total1 = total1 * fade1 + vec4<f32>(all4(s4), all4(s5), all4(s6), all4(s7));
        for (var n = 0u; n < N; n++) {
            let column = min(n * LANES + lid, HD8 - 1u);
            var a0 = faded(0u, n, lid, fade0.x);
            var a1 = faded(1u, n, lid, fade0.y);
            var a2 = faded(2u, n, lid, fade0.z);
            var a3 = faded(3u, n, lid, fade0.w);
            var a4 = faded(4u, n, lid, fade1.x);
            var a5 = faded(5u, n, lid, fade1.y);
            var a6 = faded(6u, n, lid, fade1.z);
            var a7 = faded(7u, n, lid, fade1.w);
            for (var j = 0u; j < LANES; j++) {
                let item = subgroupShuffle(items, j) + vec4<u32>(VALUES / 2u + column);
                let a = kv_load8(item.x);
                let b = kv_load8(item.y);
                let c = kv_load8(item.z);
                let d = kv_load8(item.w);
                a0 = weighted(a0, subgroupShuffle(s0, j), a, b, c, d);
                a1 = weighted(a1, subgroupShuffle(s1, j), a, b, c, d);
                a2 = weighted(a2, subgroupShuffle(s2, j), a, b, c, d);
                a3 = weighted(a3, subgroupShuffle(s3, j), a, b, c, d);
                a4 = weighted(a4, subgroupShuffle(s4, j), a, b, c, d);
                a5 = weighted(a5, subgroupShuffle(s5, j), a, b, c, d);
                a6 = weighted(a6, subgroupShuffle(s6, j), a, b, c, d);
                a7 = weighted(a7, subgroupShuffle(s7, j), a, b, c, d);
            }
            acc[(0u * N + n) * LANES + lid] = a0;
            acc[(1u * N + n) * LANES + lid] = a1;
            acc[(2u * N + n) * LANES + lid] = a2;
            acc[(3u * N + n) * LANES + lid] = a3;
            acc[(4u * N + n) * LANES + lid] = a4;
            acc[(5u * N + n) * LANES + lid] = a5;
            acc[(6u * N + n) * LANES + lid] = a6;
            acc[(7u * N + n) * LANES + lid] = a7;
        }
    }
    var tops = array<f32, 8>(top0.x, top0.y, top0.z, top0.w, top1.x, top1.y, top1.z, top1.w);
    var totals = array<f32, 8>(total0.x, total0.y, total0.z, total0.w, total1.x, total1.y, total1.z, total1.w);
    for (var t = 0u; t < live; t++) {
        let total = sum(totals[t], lid);
        let share = select(1.0 / total, 1.0, SPLITS > 1u);
        let to = (((t0 + t) * H + h) * SPLITS + wid.z) * (HD4 + select(0u, 1u, SPLITS > 1u));
        if SPLITS > 1u && lid == 0u {
            out[to + HD4] = vec4<f32>(tops[t], total, 0.0, 0.0);
        }
        for (var n = 0u; n < N; n++) {
            let column = n * LANES + lid;
            let s = kv_turn8(acc[(t * N + n) * LANES + lid], lid);
            if column < HD8 {
                out[to + 2u * column] = s.a * share;
                out[to + 2u * column + 1u] = s.b * share;
            }
        }
    }
}
