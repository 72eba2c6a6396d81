// The cache in half precision, four halves an item. Interface of every file here: items of four elements, BLOCK of
// which are stored together; `kv_load(i)` reads one, `kv_store(i, v)` writes a block from item i on, and
// `kv_round(v)` is what a stored block is read as. Where TURNS, keys and values are kept through an orthogonal matrix
// that is its own inverse, `kv_turn(v)`: queries go through it to meet the keys, and sums of values to come back.
override BINDING: u32;
const TURNS: bool = false;
const BLOCK: u32 = 1u;
alias Block = array<vec4<f32>, 1>;
@group(0) @binding(BINDING) var<storage, read_write> kv: array<vec2<u32>>;

fn kv_load(i: u32) -> vec4<f32> {
    let pair = kv[i];
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}

fn kv_store(i: u32, v: Block) {
    kv[i] = vec2<u32>(pack2x16float(v[0].xy), pack2x16float(v[0].zw));
}

fn kv_round(v: Block) -> Block {
    return Block(vec4<f32>(unpack2x16float(pack2x16float(v[0].xy)), unpack2x16float(pack2x16float(v[0].zw))));
}

fn kv_turn(v: Block) -> Block {
    return v;
}
