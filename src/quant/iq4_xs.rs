//! IQ4_XS: 256 elements, w = d * (s - 32) * LEVELS`[q]`, q of 4 bits, s of 6 bits for 32 elements.

use super::Plane;
use super::block::{self, Codes, F16, join_nibbles, split_nibbles};
use super::fit::{extreme, over, whole};
use super::iq4_nl::{LEVELS, fit, nearest};
use super::testing::Rng;
use crate::tensor::DType;
use bytemuck::Zeroable as _;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: F16,
    /// Bits `2g`: the upper bit pair of group `g`'s scale.
    scales_h: [u8; 2],
    /// Nibble `g`: the low bits of group `g`'s scale.
    scales_l: [u8; 4],
    /// Byte `16g + i`: element `32g + i` low, element `32g + i + 16` high.
    qs: [u8; 128],
}

const _: () = assert!(size_of::<Block>() == 136);

impl Block {
    fn scale(&self, group: usize) -> i8 {
        let low = self.scales_l[group / 2] >> (group % 2 * 4) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * group) & 3) as u8;
        (low | high << 4) as i8 - 32
    }
}

impl block::Block for Block {
    const DTYPE: DType = DType::IQ4_XS;
    const ID: u32 = 23;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 8, 256)];

    fn codes(&self, codes: &mut Codes) {
        for (qs, codes) in self.qs.chunks_exact(16).zip(codes.chunks_exact_mut(32)) {
            split_nibbles(qs, codes);
        }
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        let groups = codes.chunks_exact(32).zip(out.chunks_exact_mut(32));
        for (i, (codes, out)) in groups.enumerate() {
            let d = d * f32::from(self.scale(i));
            for (out, &q) in out.iter_mut().zip(codes) {
                *out = d * f32::from(LEVELS[usize::from(q & 15)]);
            }
        }
    }

    fn encode(x: &[f32]) -> Self {
        let mut factors = [0.0; 8];
        for (x, factor) in x.chunks_exact(32).zip(&mut factors) {
            *factor = fit(x);
        }
        let mut block = Self::zeroed();
        let inverse = over(-32.0, extreme(&factors));
        block.d = F16::new(over(1.0, inverse));
        let mut high = 0;
        for (i, factor) in factors.into_iter().enumerate() {
            let s = whole(inverse * factor + 32.0, 0.0, 63.0) as u8;
            block.scales_l[i / 2] |= (s & 15) << (i % 2 * 4);
            high |= u16::from(s >> 4) << (2 * i);
        }
        block.scales_h = high.to_le_bytes();
        // By the factors as they are stored.
        let stored = |i: usize| block.d.get() * f32::from(block.scale(i));
        let stored: [f32; 8] = std::array::from_fn(stored);
        let groups = x.chunks_exact(32).zip(block.qs.chunks_exact_mut(16));
        for (d, (x, qs)) in stored.into_iter().zip(groups) {
            let inverse = over(1.0, d);
            let code = |i: usize| nearest(x[i] * inverse);
            let joined: [u8; 16] = join_nibbles(&std::array::from_fn::<_, 32, _>(code));
            qs.copy_from_slice(&joined);
        }
        block
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / (18.5 * 68.0)));
    }
}
