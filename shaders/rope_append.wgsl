// rope_append: of each token's [q heads, k heads, v heads], q is normed, rotated and sharpened in place, k is normed,
// rotated and put into the cache, v is put into the cache.
// bindings  0 params   then those of the head, rope, cache and kv modules
// launch    (H + 2 KV, T, 1) workgroups of WG; each takes one head of one token
// requires  HD % 4 == 0; the cache's blocks divide a head
import package::head::{load_head, head4, plain4, put4};
import package::sharpen::{sharpened};
import package::cache::{KV, HD, VALUES, Row, step, key_at};
import package::kv::{BLOCK, Block, kv_store, kv_turn};
override WG: u32;
override H: u32;

struct Params {
    q_gain: u32,
    k_gain: u32,
    eps: f32,
    // Entries of the page table that a sequence has.
    page_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = step[wid.y];
    if row.live == 0u {
        return;
    }
    let base = wid.y * (H + 2u * KV) * HD + wid.x * HD;
    if wid.x < H {
        load_head(base, p.q_gain, p.eps, lid);
        for (var i = lid * BLOCK; i < HD / 4u; i += WG * BLOCK) {
            var q: Block;
            for (var j = 0u; j < BLOCK; j++) {
                q[j] = head4(i + j, row.pos) * sharpened(row.pos);
            }
            q = kv_turn(q);
            for (var j = 0u; j < BLOCK; j++) {
                put4(base + 4u * (i + j), q[j]);
            }
        }
    } else if wid.x < H + KV {
        load_head(base, p.k_gain, p.eps, lid);
        let to = key_at(row.slot, p.page_stride, row.pos, wid.x - H);
        for (var i = lid * BLOCK; i < HD / 4u; i += WG * BLOCK) {
            var v: Block;
            for (var j = 0u; j < BLOCK; j++) {
                v[j] = head4(i + j, row.pos);
            }
            kv_store(to + i, v);
        }
    } else {
        let to = key_at(row.slot, p.page_stride, row.pos, wid.x - H - KV) + VALUES;
        for (var i = lid * BLOCK; i < HD / 4u; i += WG * BLOCK) {
            var v: Block;
            for (var j = 0u; j < BLOCK; j++) {
                v[j] = plain4(base + 4u * (i + j));
            }
            kv_store(to + i, v);
        }
    }
}
