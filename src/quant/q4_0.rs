//! Q4_0: 32 elements, w = d * (q - 8), q of 4 bits.

use super::Plane;
use super::block::{self, Codes, F16, join_nibbles, split_nibbles};
use super::fit::{extreme, over};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 18);

impl block::Block for Block {
    const DTYPE: DType = DType::Q4_0;
    const ID: u32 = 2;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 2, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(q as i8 - 8);
        }
    }

    /// The extreme element is at -8.
    fn encode(x: &[f32]) -> Self {
        let d = extreme(x) / -8.0;
        let inverse = over(1.0, d);
        let code = |i: usize| (x[i] * inverse + 8.5).clamp(0.0, 15.0) as u8;
        Self {
            d: F16::new(d),
            qs: join_nibbles(&std::array::from_fn::<_, 32, _>(code)),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / 4.6));
    }
}
