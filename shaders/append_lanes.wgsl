// append_lanes: of each token's [q heads, k heads, v heads], k is normed, rotated and put into the cache, v is put
// there. For software drivers; q is left to attention_prompt_lanes.
// bindings  0 params   then those of the head, rope, cache and kv modules
// launch    (2 KV, T, 1) workgroups of LANES; each takes one head of one token
// requires  HD % 8 == 0, DIMS % 8 == 0
import package::head::{head4, head_scale, plain4};
import package::cache::{KV, HD, VALUES, Row, step, key_at};
import package::kv::{Eight, kv_store8};
import package::reduce::{LANES};
override H: u32;

struct Params {
    k_gain: u32,
    eps: f32,
    // Entries of the page table that a sequence has.
    page_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = step[wid.y];
    if row.live == 0u {
        return;
    }
    let base = (wid.y * (H + 2u * KV) + H + wid.x) * (HD / 4u);
    if wid.x < KV {
        let scale = head_scale(base, p.eps, lid);
        let to = key_at(row.slot, p.page_stride, row.pos, wid.x) / 2u;
        for (var i = lid; i < HD / 8u; i += LANES) {
            kv_store8(to + i, Eight(head4(base, p.k_gain, scale, 2u * i, row.pos),
                head4(base, p.k_gain, scale, 2u * i + 1u, row.pos)));
        }
    } else {
        let to = (key_at(row.slot, p.page_stride, row.pos, wid.x - KV) + VALUES) / 2u;
        for (var i = lid; i < HD / 8u; i += LANES) {
            kv_store8(to + i, Eight(plain4(base + 2u * i), plain4(base + 2u * i + 1u)));
        }
    }
}
