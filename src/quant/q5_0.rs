//! Q5_0: 32 elements, w = d * (q - 16), q of 5 bits.

use super::Plane;
use super::block::{self, Codes, F16, add_fifth_bits, fifth_bits, join_nibbles, split_nibbles};
use super::fit::{extreme, over};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    /// Bit `i`: the fifth bit of element `i`.
    qh: [u8; 4],
    /// Byte `i`: element `i` low, element `i + 16` high.
    qs: [u8; 16],
}

const _: () = assert!(size_of::<Block>() == 22);

impl block::Block for Block {
    const DTYPE: DType = DType::Q5_0;
    const ID: u32 = 6;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::bits(4), Plane::copy(0, 2, 32)];

    fn codes(&self, codes: &mut Codes) {
        split_nibbles(&self.qs, &mut codes[..32]);
        add_fifth_bits(self.qh, codes);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        for (out, &q) in out.iter_mut().zip(codes) {
            *out = d * f32::from(q as i8 - 16);
        }
    }

    /// The extreme element is at -16.
    fn encode(x: &[f32]) -> Self {
        let d = extreme(x) / -16.0;
        let inverse = over(1.0, d);
        let codes = std::array::from_fn(|i| (x[i] * inverse + 16.5).clamp(0.0, 31.0) as u8);
        Self {
            d: F16::new(d),
            qh: fifth_bits(&codes),
            qs: join_nibbles(&codes),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / 9.2));
    }
}
