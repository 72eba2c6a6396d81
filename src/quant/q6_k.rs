//! Q6_K: 256 elements, w = d * s * (q - 32), q of 6 bits, s a signed byte for 16 elements.

use super::Plane;
use super::block::{self, Codes, F16, MAX_ELEMENTS, split_nibbles};
use super::fit::{extreme, over, symmetric, whole};
use super::testing::Rng;
use crate::tensor::DType;
use bytemuck::Zeroable as _;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    /// Byte `64h + i`: low nibbles of elements `128h + i` and 64 after.
    ql: [u8; 128],
    /// Byte `32h + i`: upper bit pairs of elements `128h + i`, and 32, 64, 96 further.
    qh: [u8; 64],
    scales: [i8; 16],
    d: F16,
}

const _: () = assert!(size_of::<Block>() == 210);

impl block::Block for Block {
    const DTYPE: DType = DType::Q6_K;
    const ID: u32 = 14;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[
        Plane::NIBBLES,
        Plane::pairs(4),
        Plane::copy(192, 16, 256),
        Plane::copy(208, 2, 256),
    ];

    fn codes(&self, codes: &mut Codes) {
        let halves = self.ql.chunks_exact(64).zip(self.qh.chunks_exact(32));
        for ((low, high), codes) in halves.zip(codes.chunks_exact_mut(128)) {
            split_nibbles(low, codes);
            for (pair, codes) in codes.chunks_exact_mut(32).enumerate() {
                for (code, high) in codes.iter_mut().zip(high) {
                    *code |= (high >> (2 * pair) & 3) << 4;
                }
            }
        }
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let d = self.d.get();
        let groups = codes.chunks_exact(16).zip(out.chunks_exact_mut(16));
        for (&s, (codes, out)) in self.scales.iter().zip(groups) {
            let d = d * f32::from(s);
            for (out, &q) in out.iter_mut().zip(codes) {
                *out = d * f32::from(q as i8 - 32);
            }
        }
    }

    fn encode(x: &[f32]) -> Self {
        let mut factors = [0.0; 16];
        for (x, factor) in x.chunks_exact(16).zip(&mut factors) {
            *factor = {
                let ends = (-9..=9).map(|tenth| -32.0 - 0.1 * tenth as f32);
                symmetric(x, ends, |q| whole(q, -32.0, 31.0))
            };
        }
        let mut block = Self::zeroed();
        let inverse = over(-128.0, extreme(&factors));
        if inverse == 0.0 {
            return block;
        }
        block.d = F16::new(1.0 / inverse);
        block.scales = factors.map(|f| whole(inverse * f, -128.0, 127.0) as i8);
        // By the factors as they are stored.
        let mut codes = [0; MAX_ELEMENTS];
        let groups = x.chunks_exact(16).zip(codes.chunks_exact_mut(16));
        for (&s, (x, codes)) in block.scales.iter().zip(groups) {
            let d = block.d.get() * f32::from(s);
            for (x, code) in x.iter().zip(codes) {
                let q = if d == 0.0 { 0.0 } else { x / d };
                *code = whole(q + 32.0, 0.0, 63.0) as u8;
            }
        }
        block.ql = std::array::from_fn(|i| {
            let at = i / 64 * 128 + i % 64;
            codes[at] & 15 | codes[at + 64] << 4
        });
        block.qh = std::array::from_fn(|i| {
            let at = i / 32 * 128 + i % 32;
            let pairs = (0..4).map(|pair| codes[at + 32 * pair] >> 4 << (2 * pair));
            pairs.sum()
        });
        block
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / (74.0 * 18.5)));
    }
}
