// attention_decode_lanes: one token's attention over its sequence's cache, with everything that comes before it, for
// software drivers: q and k are normed and rotated, k and v go into the cache. One workgroup takes four query heads
// that share a key head, and one part of SPLIT positions; where SPLITS > 1 it leaves (sums [HD], maximum, total) for
// attention_combine.
// bindings  0 params   1 out write f32 [T, H, HD], or where SPLITS > 1 [T, H, SPLITS, HD + 4]
//           then those of the head, rope, cache and kv modules
// launch    (KV · ceil(H / KV / 4), SPLITS, T) workgroups of LANES
// requires  HD % 8 == 0, DIMS % 8 == 0; LANES is the subgroup size; every row is the newest token of a sequence of its
//           own      accumulates f32
// why       see attention_prompt_lanes; the newest key is used from registers, so that no other launch has to put it
//           into the cache first
import package::head::{head4, head_scale, plain4, vector_at};
import package::sharpen::{sharpened};
import package::cache::{KV, HD, VALUES, Row, step, key_at};
import package::kv::{Eight, kv_load8, kv_round8, kv_store8, kv_turn8};
import package::reduce::{LANES, highest, sum};
import package::scores::{all4, capped, dot8, four, largest, weighted};
override H: u32;
override SPLIT: u32;
override SPLITS: u32;
override WINDOW: u32;
override SINKS: bool;
const HD4: u32 = HD / 4u;
const HD8: u32 = HD / 8u;
// Query heads that share a key head, and workgroups for them.
const SHARE: u32 = H / KV;
const BLOCKS: u32 = (SHARE + 3u) / 4u;
const TILE: u32 = 4u * LANES;
// Items of eight elements that a lane keeps of a head.
const N: u32 = (HD8 + LANES - 1u) / LANES;

struct Params {
    q_gain: u32,
    k_gain: u32,
    // Place of the sinks among the vectors, one for each query head.
    sinks: u32,
    eps: f32,
    page_stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

// Both [head][n][lane].
var<workgroup> q: array<Eight, 4u * N * LANES>;
var<workgroup> acc: array<Eight, 4u * N * LANES>;

// Scores of the keys at `key`, where they are of this part.
fn seen(s: vec4<f32>, key: vec4<u32>, end: u32) -> vec4<f32> {
    return select(vec4<f32>(-1e30), capped(s * p.scale), key < vec4<u32>(end));
}

fn head8(base: u32, gain: u32, scale: f32, i: u32, pos: u32) -> Eight {
    return Eight(head4(base, gain, scale, 2u * i, pos), head4(base, gain, scale, 2u * i + 1u, pos));
}

fn plain8(base: u32, i: u32) -> Eight {
    return Eight(plain4(base + 2u * i), plain4(base + 2u * i + 1u));
}

fn faded(t: u32, n: u32, lid: u32, fade: f32) -> Eight {
    let s = acc[(t * N + n) * LANES + lid];
    return Eight(s.a * fade, s.b * fade);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = step[wid.z];
    let kv_head = wid.x / BLOCKS;
    let h0 = kv_head * SHARE + (wid.x % BLOCKS) * 4u;
    let heads = min(4u, (kv_head + 1u) * SHARE - h0);
    let oldest = select(0u, row.pos + 1u - WINDOW, WINDOW > 0u && row.pos >= WINDOW);
    let first = oldest + wid.y * SPLIT;
    let stride = HD4 + select(0u, 1u, SPLITS > 1u);
    let to = ((wid.z * H + h0) * SPLITS + wid.y) * stride;
    if row.live == 0u || first > row.pos {
        return;
    }
    let newest = row.pos - first < SPLIT;
    // The cache holds the positions of this part before `end`.
    let end = min(first + SPLIT, row.pos);
    let base = wid.z * (H + 2u * KV) * HD4;
    let k_base = base + (H + kv_head) * HD4;
    let v_base = k_base + KV * HD4;

    for (var t = 0u; t < heads; t++) {
        let at = base + (h0 + t) * HD4;
        let scale = head_scale(at, p.eps, lid);
        let factor = sharpened(row.pos);
        for (var n = 0u; n < N; n++) {
            let i = n * LANES + lid;
            let v = kv_turn8(head8(at, p.q_gain, scale, min(i, HD8 - 1u), row.pos), lid);
            let share = select(0.0, factor, i < HD8);
            q[(t * N + n) * LANES + lid] = Eight(v.a * share, v.b * share);
        }
    }
    // What one lane counts for all: the sink, which is a score without a value and is the first part's, and the newest.
    let once = select(vec4<f32>(0.0), vec4<f32>(1.0), lid == 0u);
    var top = vec4<f32>(-1e30);
    var total = vec4<f32>(0.0);
    if SINKS && wid.y == 0u {
        for (var t = 0u; t < heads; t++) {
            top[t] = vector_at(p.sinks + h0 + t);
        }
        total = once;
    }
    // The newest position's share of each head.
    var share = vec4<f32>(0.0);
    if newest {
        let scale = head_scale(k_base, p.eps, lid);
        let key = key_at(row.slot, p.page_stride, row.pos, kv_head) / 2u;
        var s = vec4<f32>(0.0);
        for (var n = 0u; n < N; n++) {
            let i = n * LANES + lid;
            let k = head8(k_base, p.k_gain, scale, min(i, HD8 - 1u), row.pos);
            let mine = wid.x % BLOCKS == 0u && i < HD8;
            kv_store8(key + i, k, mine);
            kv_store8(key + VALUES / 2u + i, plain8(v_base, min(i, HD8 - 1u)), mine);
            let r = kv_round8(k, lid);
            s += vec4<f32>(dot8(q[n * LANES + lid], r), dot8(q[(N + n) * LANES + lid], r),
                dot8(q[(2u * N + n) * LANES + lid], r), dot8(q[(3u * N + n) * LANES + lid], r));
        }
        s = capped(vec4<f32>(sum(s.x, lid), sum(s.y, lid), sum(s.z, lid), sum(s.w, lid)) * p.scale);
        let now = max(top, s);
        share = exp(s - now);
        total = total * exp(top - now) + share * once;
        top = now;
    }
    for (var n = 0u; n < N; n++) {
        var v = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
        if newest {
            v = kv_round8(plain8(v_base, min(n * LANES + lid, HD8 - 1u)), lid);
        }
        for (var t = 0u; t < heads; t++) {
            acc[(t * N + n) * LANES + lid] = Eight(v.a * share[t], v.b * share[t]);
        }
    }

    for (var tile = first; tile < end; tile += TILE) {
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
        for (var n = 0u; n < N; n++) {
            let q0 = q[(0u * N + n) * LANES + lid];
            let q1 = q[(1u * N + n) * LANES + lid];
            let q2 = q[(2u * N + n) * LANES + lid];
            let q3 = q[(3u * N + n) * LANES + lid];
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
            }
        }
        s0 = seen(s0, key, end);
        s1 = seen(s1, key, end);
        s2 = seen(s2, key, end);
        s3 = seen(s3, key, end);
        let now = max(top, highest(vec4<f32>(largest(s0), largest(s1), largest(s2), largest(s3)), lid));
        s0 = exp(s0 - now.x);
        s1 = exp(s1 - now.y);
        s2 = exp(s2 - now.z);
        s3 = exp(s3 - now.w);
        let fade = exp(top - now);
        top = now;
        total = total * fade + vec4<f32>(all4(s0), all4(s1), all4(s2), all4(s3));
        for (var n = 0u; n < N; n++) {
            let column = min(n * LANES + lid, HD8 - 1u);
            var a0 = faded(0u, n, lid, fade.x);
            var a1 = faded(1u, n, lid, fade.y);
            var a2 = faded(2u, n, lid, fade.z);
            var a3 = faded(3u, n, lid, fade.w);
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
            }
            acc[(0u * N + n) * LANES + lid] = a0;
            acc[(1u * N + n) * LANES + lid] = a1;
            acc[(2u * N + n) * LANES + lid] = a2;
            acc[(3u * N + n) * LANES + lid] = a3;
        }
    }
    var tops = top;
    var totals = vec4<f32>(sum(total.x, lid), sum(total.y, lid), sum(total.z, lid), sum(total.w, lid));
    for (var t = 0u; t < heads; t++) {
        let at = to + t * SPLITS * stride;
        let share = select(1.0 / totals[t], 1.0, SPLITS > 1u);
        for (var n = 0u; n < N; n++) {
            let column = n * LANES + lid;
            let s = kv_turn8(acc[(t * N + n) * LANES + lid], lid);
            if column < HD8 {
                out[at + 2u * column] = s.a * share;
                out[at + 2u * column + 1u] = s.b * share;
            }
        }
        if SPLITS > 1u && lid == 0u {
            out[at + HD4] = vec4<f32>(tops[t], totals[t], 0.0, 0.0);
        }
    }
}
