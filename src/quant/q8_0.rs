//! Q8_0: 32 elements, w = d * q, q a signed byte.

use super::Plane;
use super::block::{self, Codes, F16};
use super::fit::{extreme, over};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    qs: [i8; 32],
}

const _: () = assert!(size_of::<Block>() == 34);

impl block::Block for Block {
    const DTYPE: DType = DType::Q8_0;
    const ID: u32 = 8;
    const ELEMENTS: usize = 32;
    const PLANES: &'static [Plane] = &[Plane::copy(2, 32, 32), Plane::copy(0, 2, 32)];

    fn values(&self, _: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = d * f32::from(q);
        }
    }

    /// The extreme element is at 127 or -127.
    fn encode(x: &[f32]) -> Self {
        let d = extreme(x).abs() / 127.0;
        let inverse = over(1.0, d);
        Self {
            d: F16::new(d),
            qs: std::array::from_fn(|i| (x[i] * inverse).round() as i8),
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.scale(0.05 / 74.0));
    }
}
