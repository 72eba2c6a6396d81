//! Q5_1: 32 elements, w = d * q + m, q of 5 bits.

use super::Plane;
use super::block::{self, Codes, F16, add_fifth_bits, fifth_bits, join_nibbles, split_nibbles};
use super::fit::{over, spread};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    m: F16,
    /// Bit `i`: the fifth bit of element `i`.
    qh: [u8; 4],
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 24);

impl block::Block for Block {
    const DTYPE: DType = DType::Q5_1;
    const ID: u32 = 7;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::bits(4), Plane::copy(0, 4, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
        add_fifth_bits(self.qh, codes);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(q) + m;
        }
    }

    /// The elements' range is spread over all codes.
    fn encode(x: &[f32]) -> Self {
        let (d, m) = spread(x, 31.0);
        let inverse = over(1.0, d);
        let codes = std::array::from_fn(|i| ((x[i] - m) * inverse + 0.5).clamp(0.0, 31.0) as u8);
        Self {
            d: F16::new(d),
            m: F16::new(m),
            qh: fifth_bits(&codes),
            qs: join_nibbles(&codes),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite() && self.m.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        let d = rng.scale(0.05 / 9.2);
        self.d = F16::new(d);
        self.m = F16::new(-d * rng.uniform(14.5, 16.5));
    }
}
