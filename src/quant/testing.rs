//! Random valid blocks for tests and benches of everything that multiplies weights.

use super::Format;
use crate::tensor::DType;

/// A small seeded generator (splitmix64): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose sequence depends on the seed alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    /// Uniform in `low..high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next_u64() >> 40) as f32 / (1 << 24) as f32)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller's method).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * self.uniform(1e-7, 1.0).ln()).sqrt();
        radius * self.uniform(0.0, std::f32::consts::TAU).cos()
    }

    /// A scale near `size`: half to one and a half times as large, of either sign.
    pub(super) fn signed_scale(&mut self, size: f32) -> f32 {
        let size = self.scale(size);
        if self.next_u64() & 1 == 0 {
            size
        } else {
            -size
        }
    }

    /// A positive scale near `size`: half to one and a half times as large.
    pub(super) fn scale(&mut self, size: f32) -> f32 {
        self.uniform(0.5 * size, 1.5 * size)
    }
}

/// `n` random valid blocks: every bit of the quants random, finite scales, weights of about
/// N(0, 0.05).
pub fn random_blocks(dtype: DType, rng: &mut Rng, n: usize) -> Vec<u8> {
    (Format::of(dtype).random)(rng, n)
}

/// The blocks of a random matrix `[rows, cols]`; `cols` is a multiple of the block.
pub fn random_matrix(dtype: DType, rng: &mut Rng, rows: usize, cols: usize) -> Vec<u8> {
    random_blocks(dtype, rng, rows * cols / Format::of(dtype).block)
}

/// What the quantisers are tried on; `tools/fixtures/quantize.py` makes the same numbers.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// Nearly normal, of deviation 0.036.
    Usual,
    /// Every 61st is eight times as large.
    Outliers,
    /// Nearly all are positive.
    Shifted,
}

impl Sample {
    /// `n` numbers, whole ones times a power of two: the same on every machine.
    pub fn values(self, n: usize) -> Vec<f32> {
        let mut rng = Rng::new(self as u64);
        let value = |i: usize| {
            let word = rng.next_u64();
            let sum: u64 = (0..4).map(|part| word >> (16 * part) & 0xffff).sum();
            let value = sum as i64 - 131_070;
            let value = match self {
                Self::Outliers if i.is_multiple_of(61) => 8 * value,
                Self::Shifted => value + 100_000,
                _ => value,
            };
            value as f32 / (1 << 20) as f32
        };
        (0..n).map(value).collect()
    }
}
