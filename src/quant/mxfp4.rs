//! MXFP4: 32 elements, w = 2^(e - 128) * LEVELS`[q]`, q of 4 bits (e2m1), e a byte.
//!
//! The format is the Open Compute Project's Microscaling one; ggml doubles the levels to make them
//! whole and halves the exponent's power instead.

use super::Plane;
use super::block::{self, Codes, join_nibbles, split_nibbles};
use super::fit::extreme;
use super::testing::Rng;
use crate::tensor::DType;

/// Twice the value of each e2m1 code.
const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The code of the positive level nearest to `x`, of two the smaller.
fn nearest(x: f32) -> u8 {
    let nearer = |pair: &&[i8]| 2.0 * x > f32::from(pair[0] + pair[1]);
    LEVELS[..8].windows(2).take_while(nearer).count() as u8
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    e: u8,
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 17);

impl Block {
    /// 2^(e - 128); the two smallest are subnormal.
    fn scale(&self) -> f32 {
        f32::from_bits(match u32::from(self.e) {
            e @ 0..2 => 0x0020_0000 << e,
            e => (e - 1) << 23,
        })
    }
}

impl block::Block for Block {
    const DTYPE: DType = DType::MXFP4;
    const ID: u32 = 39;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 1, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.scale();
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(LEVELS[usize::from(q & 15)]);
        }
    }

    /// The extreme element's own power of two: its level is 4 or 6, as an e2m1 number of that power.
    fn encode(x: &[f32]) -> Self {
        let power = (extreme(x).abs().to_bits() >> 23) as u8;
        let mut block = Self {
            e: power.saturating_sub(2),
            qs: [0; 16],
        };
        let d = block.scale();
        let code = |i: usize| match nearest(x[i].abs() / d) {
            0 => 0,
            q => q | u8::from(x[i] < 0.0) << 3,
        };
        block.qs = join_nibbles(&std::array::from_fn::<_, 32, _>(code));
        block
    }

    fn is_finite(&self) -> bool {
        // All ones are the Microscaling formats' NaN.
        self.e != u8::MAX
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.e = 120 + rng.below(3) as u8;
    }
}
