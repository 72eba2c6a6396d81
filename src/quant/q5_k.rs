//! Q5_K: 256 elements, w = d * s * q - dmin * m, q of 5 bits; s and m of 6 bits for 32 elements.

use super::Plane;
use super::block::{self, Codes};
use super::fit::Affine;
use super::q4_k::{Header, join_super_nibbles, split_super_nibbles, weight};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    header: Header,
    /// Bit `g` of byte `i`: the fifth bit of element `32g + i`.
    qh: [u8; 32],
    qs: [u8; 128],
}

const _: () = assert!(size_of::<Block>() == 176);

const SEARCH: Affine = Affine {
    top: 31.0,
    first: -0.5,
    tenths: 15,
    weight,
    cost: |difference| difference * difference,
};

impl block::Block for Block {
    const DTYPE: DType = DType::Q5_K;
    const ID: u32 = 13;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 16, 256), Plane::bits(4)];

    fn codes(&self, codes: &mut Codes) {
        split_super_nibbles(&self.qs, codes);
        for (group, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, high) in codes.iter_mut().zip(&self.qh) {
                *code |= (high >> group & 1) << 4;
            }
        }
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        self.header.values(codes, out);
    }

    fn encode(x: &[f32]) -> Self {
        let (header, codes) = Header::encode(x, SEARCH);
        let fifth = |i: usize| {
            let bits = (0..8).map(|group| (codes[32 * group + i] >> 4 & 1) << group);
            bits.sum()
        };
        Self {
            header,
            qh: std::array::from_fn(fifth),
            qs: join_super_nibbles(&codes),
        }
    }

    fn is_finite(&self) -> bool {
        self.header.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.header.make_sane(rng, 15.5);
    }
}
