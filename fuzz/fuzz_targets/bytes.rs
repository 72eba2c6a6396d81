//! Bytes as GPT-2's vocabularies write them.

/// How a byte is written.
pub fn written(byte: u8) -> char {
    let plain = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !plain(*b)).count();
    char::from_u32(256 + before as u32).expect("a letter")
}
