// experts_sort: lists of the (token, choice) pairs of each expert, cut into tiles, out of routes[T, USED]: see
// lib/tokens_routed.wgsl. In an expert's list pairs are in order.
// bindings  0 params   1 step read Row [T]   2 routes read u32 [T, USED, 2]   3 lists write u32
// launch    (1, 1, 1) workgroups of 64; an invocation lists every 64th expert
// requires  E = EXPERTS; TILES tiles are enough
// why       each expert's pairs are found by reading all of them twice: no atomics, so that lists are always the same
override USED: u32;
override EXPERTS: u32;
override TILES: u32;
// Pairs of a tile.
override SIZE: u32;

struct Params {
    tokens: u32,
}

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: array<Row>;
@group(0) @binding(2) var<storage, read> routes: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> lists: array<u32>;

var<workgroup> counts: array<u32, EXPERTS>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
    // Live rows come first.
    var low = 0u;
    var high = p.tokens;
    while low < high {
        let middle = (low + high) / 2u;
        if step[middle].live != 0u {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    let pairs = low * USED;
    for (var e = lid; e < EXPERTS; e += 64u) {
        var count = 0u;
        for (var i = 0u; i < pairs; i++) {
            count += u32(routes[i].x == e);
        }
        counts[e] = count;
    }
    workgroupBarrier();
    for (var e = lid; e < EXPERTS; e += 64u) {
        var first = 0u;
        var tile = 0u;
        for (var before = 0u; before < e; before++) {
            first += counts[before];
            tile += (counts[before] + SIZE - 1u) / SIZE;
        }
        let last = first + counts[e];
        var at = first;
        for (var i = 0u; i < pairs; i++) {
            if routes[i].x == e {
                lists[4u + 3u * TILES + at] = i;
                at++;
            }
        }
        for (var start = first; start < last; start += SIZE) {
            lists[4u + 3u * tile] = e;
            lists[5u + 3u * tile] = start;
            lists[6u + 3u * tile] = min(SIZE, last - start);
            tile++;
        }
        if e == EXPERTS - 1u {
            lists[0] = tile;
        }
    }
}
