//! F32, F16 and BF16: plain floats, blocks of one.

use super::Plane;
use super::block::{Block, Codes, F16};
use super::testing::Rng;
use crate::tensor::DType;

/// IEEE single precision.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Single([u8; 4]);

impl Block for Single {
    const DTYPE: DType = DType::F32;
    const ID: u32 = 0;
    const ELEMENTS: usize = 1;
    const PLANES: &'static [Plane] = &[Plane::copy(0, 4, 1)];

    fn values(&self, _: &Codes, out: &mut [f32]) {
        out[0] = f32::from_le_bytes(self.0);
    }

    fn encode(x: &[f32]) -> Self {
        Self(x[0].to_le_bytes())
    }

    fn is_finite(&self) -> bool {
        f32::from_le_bytes(self.0).is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.0 = (0.05 * rng.normal()).to_le_bytes();
    }
}

/// IEEE half precision.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Half(F16);

impl Block for Half {
    const DTYPE: DType = DType::F16;
    const ID: u32 = 1;
    const ELEMENTS: usize = 1;
    const PLANES: &'static [Plane] = &[Plane::copy(0, 2, 1)];

    fn values(&self, _: &Codes, out: &mut [f32]) {
        out[0] = self.0.get();
    }

    fn encode(x: &[f32]) -> Self {
        Self(F16::new(x[0]))
    }

    fn is_finite(&self) -> bool {
        self.0.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.0 = F16::new(0.05 * rng.normal());
    }
}

/// The upper half of an IEEE single.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Brain([u8; 2]);

impl Block for Brain {
    const DTYPE: DType = DType::BF16;
    const ID: u32 = 30;
    const ELEMENTS: usize = 1;
    const PLANES: &'static [Plane] = &[Plane::copy(0, 2, 1)];

    fn values(&self, _: &Codes, out: &mut [f32]) {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16);
    }

    fn encode(x: &[f32]) -> Self {
        Self(half::bf16::from_f32(x[0]).to_le_bytes())
    }

    fn is_finite(&self) -> bool {
        half::bf16::from_le_bytes(self.0).is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.0 = half::bf16::from_f32(0.05 * rng.normal()).to_le_bytes();
    }
}
