//! What each block format provides, and the loops that every format shares.
//!
//! A format gathers its integer codes from wherever its file layout keeps their bits, and turns
//! codes and scales into floats; packing codes into planes and back is the same for all.

use super::testing::Rng;
use super::{MAX_PLANES, Part, Plane, Planes};
use crate::tensor::DType;
use bytemuck::Pod;

/// Instead of a number: GGUF has no such type.
pub(super) const NO_ID: u32 = u32::MAX;

/// Elements of the largest block.
pub(super) const MAX_ELEMENTS: usize = 256;

/// The integer codes of one block, in the order of its elements.
pub(super) type Codes = [u8; MAX_ELEMENTS];

/// A block as it lies in a file: alignment 1, little-endian.
pub(super) trait Block: Pod {
    /// The type it belongs to.
    const DTYPE: DType;
    /// The type's number in GGUF files.
    const ID: u32;
    /// Elements it holds.
    const ELEMENTS: usize;
    /// Elements are integers under their scales.
    const INTEGERS: bool = Self::ELEMENTS > 1;
    /// Its GPU layout.
    const PLANES: &'static [Plane];

    /// Gathers the codes; formats that store plain numbers have none.
    fn codes(&self, _codes: &mut Codes) {}

    /// The elements' values from their codes and this block's scales, in ggml's order of
    /// operations, so that every bit agrees.
    fn values(&self, codes: &Codes, out: &mut [f32]);

    /// The block that stands for these values, which are finite unless [`Self::ELEMENTS`] is 1, and
    /// far from overflow.
    fn encode(x: &[f32]) -> Self;

    /// Whether it stands for numbers alone: floats are none of NaN and the infinities, and neither are
    /// a block's scales.
    fn is_finite(&self) -> bool;

    /// Makes a block of random bits stand for weights of about N(0, 0.05).
    fn make_sane(&mut self, rng: &mut Rng);
}

/// A half-precision number as it lies in a file.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct F16([u8; 2]);

impl F16 {
    pub(super) fn get(self) -> f32 {
        half::f16::from_le_bytes(self.0).to_f32()
    }

    pub(super) fn is_finite(self) -> bool {
        half::f16::from_le_bytes(self.0).is_finite()
    }

    /// The nearest half; numbers beyond the largest become that.
    pub(super) fn new(value: f32) -> Self {
        let most = half::f16::MAX.to_f32();
        let within = if value.is_finite() {
            value.clamp(-most, most)
        } else {
            value
        };
        Self(half::f16::from_f32(within).to_le_bytes())
    }
}

/// Splits bytes that hold element `i` in the low and `i + HALF` in the high nibble.
pub(super) fn split_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((&byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Adds bit `i` of the little-endian word `bits`, times 16, to code `i`.
pub(super) fn add_fifth_bits(bits: [u8; 4], codes: &mut [u8]) {
    let bits = u32::from_le_bytes(bits);
    for (i, code) in codes.iter_mut().take(32).enumerate() {
        *code |= ((bits >> i & 1) as u8) << 4;
    }
}

/// Makes bytes that hold code `i` in the low and `i + HALF` in the high nibble.
pub(super) fn join_nibbles<const N: usize>(codes: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + N] << 4)
}

/// Gathers the fifth bits of 32 codes in a little-endian word.
pub(super) fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes.iter().rev();
    let word = bits.fold(0u32, |word, code| word << 1 | u32::from(code >> 4 & 1));
    word.to_le_bytes()
}

/// Past this, numbers are cut on their way into blocks: cubes and their sums must not overflow, and
/// no block reaches as far.
const FAR: f32 = 1e9;

pub(super) fn quantize_blocks<B: Block>(values: &[f32], bytes: &mut [u8]) {
    assert_eq!(
        bytes.len() / size_of::<B>() * B::ELEMENTS,
        values.len(),
        "whole blocks"
    );
    let blocks = bytemuck::cast_slice_mut::<u8, B>(bytes);
    let mut sane = [0.0; MAX_ELEMENTS];
    for (values, block) in values.chunks_exact(B::ELEMENTS).zip(blocks) {
        // Plain floats can be anything.
        if B::ELEMENTS == 1 {
            *block = B::encode(values);
            continue;
        }
        let sane = &mut sane[..B::ELEMENTS];
        for (sane, value) in sane.iter_mut().zip(values) {
            *sane = if value.is_nan() {
                0.0
            } else {
                value.clamp(-FAR, FAR)
            };
        }
        *block = B::encode(sane);
    }
}

pub(super) fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len() / size_of::<B>() * B::ELEMENTS, out.len());
    let mut codes = [0; MAX_ELEMENTS];
    for (block, out) in bytemuck::cast_slice::<u8, B>(bytes)
        .iter()
        .zip(out.chunks_exact_mut(B::ELEMENTS))
    {
        block.codes(&mut codes);
        block.values(&codes, out);
    }
}

/// Blocks that are looked at together, without a branch for each.
const RUN: usize = 256;

/// The first block that does not stand for numbers.
pub(super) fn not_finite_block<B: Block>(bytes: &[u8]) -> Option<usize> {
    let blocks = bytemuck::cast_slice::<u8, B>(bytes);
    let sound = |run: &[B]| run.iter().fold(true, |all, block| all & block.is_finite());
    let first = RUN * blocks.chunks(RUN).position(|run| !sound(run))?;
    let within = blocks[first..].iter().position(|block| !block.is_finite());
    within.map(|i| first + i)
}

pub(super) fn repack_blocks<B: Block>(bytes: &[u8], planes: &mut Planes<'_>) {
    // Plain floats lie on the GPU as they do in the file.
    if let [plane] = B::PLANES
        && plane.bytes == size_of::<B>()
    {
        planes.0[0].copy_from_slice(bytes);
        return;
    }
    let mut codes = [0; MAX_ELEMENTS];
    for (i, block) in bytemuck::cast_slice::<u8, B>(bytes).iter().enumerate() {
        block.codes(&mut codes);
        for (plane, items) in B::PLANES.iter().zip(&mut planes.0) {
            let n = B::ELEMENTS / plane.per * plane.bytes;
            let items = &mut items[i * n..][..n];
            match plane.part {
                Part::Copy { at } => items.copy_from_slice(&bytemuck::bytes_of(block)[at..][..n]),
                Part::Nibbles => pack_nibbles(&codes, items),
                Part::Pairs { shift } => pack_pairs(shift, &codes, items),
                Part::Bits { shift } => pack_bits(shift, &codes, items),
            }
        }
    }
}

pub(super) fn unpack_blocks<B: Block>(planes: &[&[u8]; MAX_PLANES], out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(B::ELEMENTS).enumerate() {
        let mut block = B::zeroed();
        let mut codes = [0; MAX_ELEMENTS];
        for (plane, items) in B::PLANES.iter().zip(planes) {
            let n = B::ELEMENTS / plane.per * plane.bytes;
            let items = &items[i * n..][..n];
            match plane.part {
                Part::Copy { at } => {
                    bytemuck::bytes_of_mut(&mut block)[at..][..n].copy_from_slice(items);
                }
                Part::Nibbles => unpack_nibbles(items, &mut codes),
                Part::Pairs { shift } => unpack_bits::<2>(shift, items, &mut codes),
                Part::Bits { shift } => unpack_bits::<1>(shift, items, &mut codes),
            }
        }
        block.values(&codes, out);
    }
}

pub(super) fn random_blocks<B: Block>(rng: &mut Rng, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n * size_of::<B>()];
    for bytes in bytes.chunks_exact_mut(size_of::<B>()) {
        rng.fill(bytes);
        bytemuck::from_bytes_mut::<B>(bytes).make_sane(rng);
    }
    bytes
}

fn pack_nibbles(codes: &Codes, items: &mut [u8]) {
    for (codes, word) in codes.chunks_exact(8).zip(items.chunks_exact_mut(4)) {
        let (low, high) = codes.split_at(4);
        for ((byte, low), high) in word.iter_mut().zip(low).zip(high) {
            *byte = low & 15 | high << 4;
        }
    }
}

fn unpack_nibbles(items: &[u8], codes: &mut Codes) {
    for (codes, word) in codes.chunks_exact_mut(8).zip(items.chunks_exact(4)) {
        let (low, high) = codes.split_at_mut(4);
        for ((byte, low), high) in word.iter().zip(low).zip(high) {
            *low |= byte & 15;
            *high |= byte >> 4;
        }
    }
}

/// Packs two bits of every code, from bit `shift` on, four codes to a byte.
///
/// The product brings the pairs of a word's bytes side by side in its top byte; no two of its
/// terms meet in a bit, so nothing carries.
fn pack_pairs(shift: u32, codes: &Codes, items: &mut [u8]) {
    let (words, _) = codes.as_chunks::<4>();
    for (word, byte) in words.iter().zip(items) {
        let pairs = u32::from_le_bytes(*word) >> shift & 0x0303_0303;
        *byte = (pairs.wrapping_mul(0x0104_1040) >> 24) as u8;
    }
}

/// Packs bit `shift` of every code, eight codes to a byte, in the same way.
fn pack_bits(shift: u32, codes: &Codes, items: &mut [u8]) {
    let (words, _) = codes.as_chunks::<8>();
    for (word, byte) in words.iter().zip(items) {
        let bits = u64::from_le_bytes(*word) >> shift & 0x0101_0101_0101_0101;
        *byte = (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
}

fn unpack_bits<const BITS: u32>(shift: u32, items: &[u8], codes: &mut Codes) {
    for (codes, byte) in codes.chunks_exact_mut(8 / BITS as usize).zip(items) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> (BITS * i as u32) & ((1 << BITS) - 1)) << shift;
        }
    }
}
