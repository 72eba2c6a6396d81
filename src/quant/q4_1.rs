//! Q4_1: 32 elements, w = d * q + m, q of 4 bits.

use super::Plane;
use super::block::{self, Codes, F16, join_nibbles, split_nibbles};
use super::fit::{over, spread};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    m: F16,
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 20);

impl block::Block for Block {
    const DTYPE: DType = DType::Q4_1;
    const ID: u32 = 3;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 4, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(q) + m;
        }
    }

    /// The elements' range is spread over all codes.
    fn encode(x: &[f32]) -> Self {
        let (d, m) = spread(x, 15.0);
        let inverse = over(1.0, d);
        let code = |i: usize| ((x[i] - m) * inverse + 0.5).clamp(0.0, 15.0) as u8;
        Self {
            d: F16::new(d),
            m: F16::new(m),
            qs: join_nibbles(&std::array::from_fn::<_, 32, _>(code)),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite() && self.m.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        let d = rng.scale(0.05 / 4.6);
        self.d = F16::new(d);
        self.m = F16::new(-d * rng.uniform(6.5, 8.5));
    }
}
