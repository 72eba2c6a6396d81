// The tokens that go through one expert, for a mat-mul with all experts' rows one after the other. They are pairs
// of a token and one of its USED choices, pair t * USED + s; `experts_sort` listed them: the number of tiles, TILES
// tiles of (expert, first place in the list, how many), the list. Interface: see tokens_all.wgsl.
override LISTS: u32;
override TILES: u32;
// Pairs that share a row of x.
override SHARE: u32;
// The experts that this weight has.
override FIRST: u32;
override COUNT: u32;

struct Tile {
    first: u32,
    count: u32,
    weight: u32,
    bias: u32,
}

@group(0) @binding(LISTS) var<storage, read> lists: array<u32>;

fn tile(i: u32, size: u32, tokens: u32, rows: u32) -> Tile {
    let at = 4u + 3u * i;
    let expert = lists[at];
    // An expert before the first wraps round and is past the last.
    let mine = i < lists[0] && expert - FIRST < COUNT;
    let own = select(0u, expert - FIRST, mine);
    return Tile(lists[at + 1u], select(0u, lists[at + 2u], mine), own * rows, expert * rows);
}

fn pair(t: Tile, c: u32) -> u32 {
    return lists[4u + 3u * TILES + t.first + min(c, t.count - 1u)];
}

fn x_row(t: Tile, c: u32) -> u32 {
    return pair(t, c) / SHARE;
}

fn y_row(t: Tile, c: u32) -> u32 {
    return pair(t, c);
}
