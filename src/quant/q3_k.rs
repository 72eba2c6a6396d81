//! Q3_K: 256 elements, w = d * (s - 32) * (q - 4), q of 3 bits, s of 6 bits for 16 elements.

use super::Plane;
use super::block::{self, Codes, F16, MAX_ELEMENTS};
use super::fit::{descend, extreme, over, whole};
use super::q2_k::{join_pairs, split_pairs};
use super::testing::Rng;
use crate::tensor::DType;
use bytemuck::Zeroable as _;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    /// Bit `g` of byte `i`: the third bit of element `32g + i`.
    hmask: [u8; 32],
    /// Byte `32h + i`: elements `128h + i`, and 32, 64, 96 further, from the lowest bits up.
    qs: [u8; 64],
    /// Low nibbles of scales 0 to 7 and 8 to 15 in bytes 0 to 7; byte `8 + i` has the upper bit
    /// pairs of scales `i`, `i + 4`, `i + 8` and `i + 12`.
    scales: [u8; 12],
    d: F16,
}

const _: () = assert!(size_of::<Block>() == 110);

impl Block {
    fn scale(&self, i: usize) -> i8 {
        let low = self.scales[i % 8] >> (i / 8 * 4) & 15;
        let high = self.scales[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

impl block::Block for Block {
    const DTYPE: DType = DType::Q3_K;
    const ID: u32 = 11;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[
        Plane::pairs(0),
        Plane::bits(2),
        Plane::copy(96, 12, 256),
        Plane::copy(108, 2, 256),
    ];

    fn codes(&self, codes: &mut Codes) {
        split_pairs(&self.qs, codes);
        for (group, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, mask) in codes.iter_mut().zip(&self.hmask) {
                *code |= (mask >> group & 1) << 2;
            }
        }
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        let groups = codes.chunks_exact(16).zip(out.chunks_exact_mut(16));
        for (i, (codes, out)) in groups.enumerate() {
            let d = d * f32::from(self.scale(i));
            for (out, &q) in out.iter_mut().zip(codes) {
                *out = d * f32::from(q as i8 - 4);
            }
        }
    }

    fn encode(x: &[f32]) -> Self {
        let mut factors = [0.0; 16];
        for (x, factor) in x.chunks_exact(16).zip(&mut factors) {
            *factor = descend(x, 4.0);
        }
        let mut block = Self::zeroed();
        let inverse = over(-32.0, extreme(&factors));
        block.d = F16::new(over(1.0, inverse));
        let s = factors.map(|f| whole(inverse * f + 32.0, 0.0, 63.0) as u8);
        for (i, s) in s.into_iter().enumerate() {
            block.scales[i % 8] |= (s & 15) << (i / 8 * 4);
            block.scales[8 + i % 4] |= s >> 4 << (i / 4 * 2);
        }
        // By the factors as they are stored.
        let mut codes = [0; MAX_ELEMENTS];
        let groups = x.chunks_exact(16).zip(codes.chunks_exact_mut(16));
        for (i, (x, codes)) in groups.enumerate() {
            let d = block.d.get() * f32::from(block.scale(i));
            for (x, code) in x.iter().zip(codes) {
                let q = if d == 0.0 { 0.0 } else { x / d };
                *code = whole(q + 4.0, 0.0, 7.0) as u8;
            }
        }
        block.qs = join_pairs(&codes);
        for (i, code) in codes.iter().enumerate() {
            block.hmask[i % 32] |= (code >> 2) << (i / 32);
        }
        block
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / (18.5 * 2.35)));
    }
}
