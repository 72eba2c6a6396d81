//! IQ4_NL: 32 elements, w = d * LEVELS`[q]`, q of 4 bits.

use super::Plane;
use super::block::{self, Codes, F16, split_nibbles};
use super::testing::Rng;
use crate::tensor::DType;

/// What a code of IQ4_NL and IQ4_XS stands for: finer near zero, where most weights are.
pub(super) const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 18);

impl block::Block for Block {
    const DTYPE: DType = DType::IQ4_NL;
    const ID: u32 = 20;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 2, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(LEVELS[usize::from(q & 15)]);
        }
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / 68.0));
    }
}
