// Which tokens a mat-mul's workgroup takes, and where their rows are: those of a step, in order.
// Interface of every tokens_* file: `tile` gives the workgroup's tokens, none where it has nothing to do;
// `x_row` and `y_row` the rows of its token c, of which `x_row` is good for any c. `weight` is the first row of
// the weight, and `bias` how much further its bias is.
override STEP: u32;

struct Row {
    token: u32,
    pos: u32,
    slot: u32,
    live: u32,
}

struct Tile {
    first: u32,
    count: u32,
    weight: u32,
    bias: u32,
}

@group(0) @binding(STEP) var<storage, read> step: array<Row>;

// Tile `i` of those of `size` tokens, of `tokens` in all.
fn tile(i: u32, size: u32, tokens: u32, rows: u32) -> Tile {
    let first = i * size;
    let count = min(size, tokens - min(first, tokens));
    return Tile(first, select(count, 0u, step[first].live == 0u), 0u, 0u);
}

fn x_row(t: Tile, c: u32) -> u32 {
    return t.first + min(c, t.count - 1u);
}

fn y_row(t: Tile, c: u32) -> u32 {
    return t.first + c;
}
