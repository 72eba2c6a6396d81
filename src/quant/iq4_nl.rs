//! IQ4_NL: 32 elements, w = d * LEVELS`[q]`, q of 4 bits.

use super::Plane;
use super::block::{self, Codes, F16, join_nibbles, split_nibbles};
use super::fit::{over, symmetric};
use super::testing::Rng;
use crate::tensor::DType;

/// What a code of IQ4_NL and IQ4_XS stands for: finer near zero, where most weights are.
pub(super) const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// The code whose level is nearest.
pub(super) fn nearest(x: f32) -> u8 {
    let above = LEVELS.iter().position(|level| f32::from(*level) >= x);
    let Some(above) = above.filter(|above| *above > 0) else {
        return if above.is_some() { 0 } else { 15 };
    };
    let [low, high] = [LEVELS[above - 1], LEVELS[above]].map(f32::from);
    (if x - low < high - x { above - 1 } else { above }) as u8
}

/// d of x ≈ d · level for a group of 32.
pub(super) fn fit(x: &[f32]) -> f32 {
    let ends = std::iter::once(127.0).chain((-134..=-120).map(|end| end as f32));
    symmetric(x, ends, |x| f32::from(LEVELS[usize::from(nearest(x))]))
}

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

    fn encode(x: &[f32]) -> Self {
        let d = fit(x);
        let inverse = over(1.0, d);
        let code = |i: usize| nearest(x[i] * inverse);
        Self {
            d: F16::new(d),
            qs: join_nibbles(&std::array::from_fn::<_, 32, _>(code)),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / 68.0));
    }
}
