//! IQ4_XS: 256 elements, w = d * (s - 32) * LEVELS`[q]`, q of 4 bits, s of 6 bits for 32 elements.

use super::Plane;
use super::block::{self, Codes, F16, split_nibbles};
use super::iq4_nl::LEVELS;
use super::testing::Rng;
use crate::tensor::DType;

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

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = F16::new(rng.signed_scale(0.05 / (18.5 * 68.0)));
    }
}
