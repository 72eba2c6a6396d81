// Pieces of words that hold an element's code, four elements at a time.

// Elements 4 i to 4 i + 3 of 32 nibbles: word i / 2 has them in the low or the high halves of its bytes.
fn nibbles(q: vec4<u32>, i: u32) -> u32 {
    return (q[i >> 1u] >> ((i & 1u) * 4u)) & 0x0f0f0f0fu;
}

// Bit pairs 0 to 3 of `b`, one to each byte.
fn pairs(b: u32) -> u32 {
    return (b & 3u) | ((b & 0xcu) << 6u) | ((b & 0x30u) << 12u) | ((b & 0xc0u) << 18u);
}

// Bits 0 to 3 of `b`, one to each byte.
fn bits(b: u32) -> u32 {
    return (b & 1u) | ((b & 2u) << 7u) | ((b & 4u) << 14u) | ((b & 8u) << 21u);
}

// The 6-bit scale and minimum j of the twelve bytes of a Q4_K or Q5_K super-block in words 1 to 3 of `head`, in
// which the upper two bits of the last four lie apart.
fn scale_min(head: vec4<u32>, j: u32) -> vec2<f32> {
    let at = (j & 3u) * 8u;
    let a = (head.y >> at) & 0xffu;
    let b = (head.z >> at) & 0xffu;
    let c = (head.w >> at) & 0xffu;
    let low = vec2<u32>(a & 63u, b & 63u);
    let high = vec2<u32>((c & 15u) | ((a >> 6u) << 4u), (c >> 4u) | ((b >> 6u) << 4u));
    return vec2<f32>(select(low, high, j >= 4u));
}

// Byte `code` of a table of 16. The word is selected, not indexed: an index that differs from lane to lane ended Mesa
// 26.1.6's software driver in kernels with barriers.
fn value(table: vec4<u32>, code: u32) -> u32 {
    let odd = (code & 4u) != 0u;
    let word = select(select(table.x, table.y, odd), select(table.z, table.w, odd), code >= 8u);
    return (word >> ((code & 3u) * 8u)) & 0xffu;
}

// Four bytes of a table of 16, by four codes.
fn values(table: vec4<u32>, n: u32) -> u32 {
    return value(table, n & 15u) | (value(table, (n >> 8u) & 15u) << 8u) | (value(table, (n >> 16u) & 15u) << 16u)
        | (value(table, (n >> 24u) & 15u) << 24u);
}
