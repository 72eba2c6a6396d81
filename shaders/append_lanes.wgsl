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
    var to = key_at(row.slot, p.page_stride, row.pos, wid.x % KV) / 2u;
    var scale = 1.0;
    if wid.x < KV {
        scale = head_scale(base, p.eps, lid);
    } else {
        to += VALUES / 2u;
    }
    for (var n = 0u; n < HD / 8u; n += LANES) {
        let i = min(n + lid, HD / 8u - 1u);
        var v = Eight(plain4(base + 2u * i), plain4(base + 2u * i + 1u));
        if wid.x < KV {
            v = Eight(head4(base, p.k_gain, scale, 2u * i, row.pos),
                head4(base, p.k_gain, scale, 2u * i + 1u, row.pos));
        }
        kv_store8(to + i, v, n + lid < HD / 8u);
    }
}
