// Where a position of a sequence lies in the paged cache. The cache of a layer is [pages][K, V][KV][PAGE][HD], so
// that one with more pages begins as this one. A row's sequence has `stride` entries of the page table from
// `slot` * stride on; where RING is not 0 they are a ring of so many, which keeps the newest positions.
override PAGES: u32;
override RING: u32;
override ROWS: u32;
override KV: u32;
override HD: u32;
override PAGE: u32;
// Items of four elements from a key to its value.
const VALUES: u32 = KV * PAGE * (HD / 4u);

// A token of this step: its id, its position, and which sequence it belongs to.
struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    // 1 where the row is in use.
    live: u32,
}

@group(0) @binding(ROWS) var<storage, read> step: array<Row>;
@group(0) @binding(PAGES) var<storage, read> pages: array<u32>;

// Rows of the sequence of row `first` from there on, of at most `most`: what follows them is not in use, or of
// another sequence.
fn live_rows(first: u32, most: u32) -> u32 {
    var low = 0u;
    var high = most;
    while low < high {
        let middle = (low + high) / 2u;
        let row = step[first + middle];
        if row.live == 0u || row.slot != step[first].slot {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    return low;
}

// Item (of four elements) of the key of head `h` at `pos`; its value lies VALUES items later.
fn key_at(slot: u32, stride: u32, pos: u32, h: u32) -> u32 {
    var entry = pos / PAGE;
    if RING > 0u {
        entry = entry % max(RING, 1u);
    }
    let page = pages[slot * stride + entry];
    return ((page * 2u * KV + h) * PAGE + pos % PAGE) * (HD / 4u);
}
