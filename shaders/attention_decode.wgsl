// attention_decode: one token's attention over its sequence's cache, with everything that comes before it: q and
// k are normed and rotated, k and v go into the cache. One workgroup takes one head and one part of SPLIT
// positions; where SPLITS > 1 it leaves (sums [HD], maximum, total) for attention_combine.
// bindings  0 params   then those of the head, rope, cache and kv modules, last OUT
//           OUT write f32 [T, H, HD], or where SPLITS > 1 [T, H, SPLITS, HD + 4]
// launch    (H, SPLITS, T) workgroups of WG
// requires  HD % 4 == 0; WG >= HD / 4; the cache's blocks divide a head; every row is the newest token of a sequence
//           of its own
// why       the newest key is used from registers, so no other dispatch has to put it into the cache first
import package::head::{load_head, head4, plain4, vector_at};
import package::sharpen::{sharpened};
import package::cache::{KV, HD, VALUES, Row, step, key_at};
import package::kv::{BLOCK, Block, TURNS, kv_load, kv_store, kv_round, kv_turn};
override WG: u32;
override H: u32;
override OUT: u32;
override SPLIT: u32;
override SPLITS: u32;
// Sliding window in positions, 0 for none; cap of the scores, 0 for none.
override WINDOW: u32;
override CAP: f32;
override SINKS: bool;
const HD4: u32 = HD / 4u;
const PARTS: u32 = WG / HD4;

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
@group(0) @binding(OUT) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> q: array<vec4<f32>, HD4>;
var<workgroup> k_new: array<vec4<f32>, HD4>;
var<workgroup> v_new: array<vec4<f32>, HD4>;
var<workgroup> score: array<f32, SPLIT>;
var<workgroup> partial: array<vec4<f32>, WG>;

fn capped(s: f32) -> f32 {
    if CAP > 0.0 {
        return CAP * tanh(clamp(s / CAP, -15.0, 15.0));
    }
    return s;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = step[wid.z];
    let h = wid.x;
    let kv_head = h / (H / KV);
    let oldest = select(0u, row.pos + 1u - WINDOW, WINDOW > 0u && row.pos >= WINDOW);
    let first = oldest + wid.y * SPLIT;
    let to = ((wid.z * H + h) * SPLITS + wid.y) * (HD4 + select(0u, 1u, SPLITS > 1u));
    if row.live == 0u || first > row.pos {
        return;
    }
    let count = min(SPLIT, row.pos + 1u - first);
    let newest = first + count == row.pos + 1u;
    let base = wid.z * (H + 2u * KV) * HD;

    load_head(base + h * HD, p.q_gain, p.eps, lid);
    for (var i = lid * BLOCK; i < HD4; i += WG * BLOCK) {
        var v: Block;
        for (var j = 0u; j < BLOCK; j++) {
            v[j] = head4(i + j, row.pos) * (p.scale * sharpened(row.pos));
        }
        v = kv_turn(v);
        for (var j = 0u; j < BLOCK; j++) {
            q[i + j] = v[j];
        }
    }
    if newest {
        load_head(base + (H + kv_head) * HD, p.k_gain, p.eps, lid);
        let value = base + (H + KV + kv_head) * HD;
        for (var i = lid * BLOCK; i < HD4; i += WG * BLOCK) {
            var k: Block;
            var v: Block;
            for (var j = 0u; j < BLOCK; j++) {
                k[j] = head4(i + j, row.pos);
                v[j] = plain4(value + 4u * (i + j));
            }
            if wid.x % (H / KV) == 0u {
                let key = key_at(row.slot, p.page_stride, row.pos, kv_head) + i;
                kv_store(key, k);
                kv_store(key + VALUES, v);
            }
            k = kv_round(k);
            v = kv_round(v);
            for (var j = 0u; j < BLOCK; j++) {
                k_new[i + j] = k[j];
                v_new[i + j] = v[j];
            }
        }
    }
    workgroupBarrier();

    // Scores, and this invocation's maximum of them. A sink is a score without a value: the first part has it.
    var sink = -1e30;
    if SINKS && wid.y == 0u {
        sink = vector_at(p.sinks + h);
    }
    var top = sink;
    for (var j = lid; j < count; j += WG) {
        var s = 0.0;
        if first + j == row.pos {
            for (var i = 0u; i < HD4; i++) {
                s += dot(q[i], k_new[i]);
            }
        } else {
            let key = key_at(row.slot, p.page_stride, first + j, kv_head);
            for (var i = 0u; i < HD4; i++) {
                s += dot(q[i], kv_load(key + i));
            }
        }
        s = capped(s);
        score[j] = s;
        top = max(top, s);
    }
    partial[lid] = vec4<f32>(top, 0.0, 0.0, 0.0);
    workgroupBarrier();
    for (var i = 0u; i < WG; i++) {
        top = max(top, partial[i].x);
    }
    workgroupBarrier();
    var total = 0.0;
    for (var j = lid; j < count; j += WG) {
        let e = exp(score[j] - top);
        score[j] = e;
        total += e;
    }
    partial[lid] = vec4<f32>(total, 0.0, 0.0, 0.0);
    workgroupBarrier();
    total = exp(sink - top);
    for (var i = 0u; i < WG; i++) {
        total += partial[i].x;
    }
    workgroupBarrier();

    // Values: HD / 4 columns by PARTS shares of the positions.
    let column = lid % HD4;
    let cached = count - select(0u, 1u, newest);
    var sums = vec4<f32>(0.0);
    if lid < PARTS * HD4 {
        for (var j = lid / HD4; j < cached; j += PARTS) {
            sums += score[j] * kv_load(key_at(row.slot, p.page_stride, first + j, kv_head) + VALUES + column);
        }
        if newest && lid < HD4 {
            sums += score[count - 1u] * v_new[column];
        }
    }
    partial[lid] = sums;
    workgroupBarrier();
    if lid < HD4 {
        for (var i = 1u; i < PARTS; i++) {
            sums += partial[lid + i * HD4];
        }
    }
    if TURNS {
        workgroupBarrier();
        partial[lid] = sums;
        workgroupBarrier();
        var v: Block;
        for (var j = 0u; j < BLOCK; j++) {
            v[j] = partial[lid / BLOCK * BLOCK + j];
        }
        v = kv_turn(v);
        sums = v[lid % BLOCK];
    }
    if lid < HD4 {
        if SPLITS > 1u {
            out[to + lid] = sums;
        } else {
            out[to + lid] = sums / total;
        }
    }
    if SPLITS > 1u && lid == 0u {
        out[to + HD4] = vec4<f32>(top, total, 0.0, 0.0);
    }
}
