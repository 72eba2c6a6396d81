//! Q4_K: 256 elements, w = d * s * q - dmin * m, q of 4 bits; s and m of 6 bits for 32 elements.

use super::Plane;
use super::block::{self, Codes, F16, split_nibbles};
use super::testing::Rng;
use crate::tensor::DType;

/// The scales of a super-block of eight groups, as Q4_K and Q5_K keep them.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Header {
    d: F16,
    dmin: F16,
    /// s of groups 0 to 3, m of groups 0 to 3, then low nibbles of groups 4 to 7 (s low, m high);
    /// these groups' upper bit pairs are the top bits of the first eight bytes.
    scales: [u8; 12],
}

impl Header {
    /// `(d * s, dmin * m)` of a group, 0 to 7.
    pub(super) fn group(&self, i: usize) -> (f32, f32) {
        let b = &self.scales;
        let (s, m) = if i < 4 {
            (b[i] & 63, b[i + 4] & 63)
        } else {
            let low = b[i + 4];
            (low & 15 | b[i - 4] >> 6 << 4, low >> 4 | b[i] >> 6 << 4)
        };
        (self.d.get() * f32::from(s), self.dmin.get() * f32::from(m))
    }

    /// Sets scales for codes with this mean and this many times the weights' deviation.
    pub(super) fn make_sane(&mut self, rng: &mut Rng, mean: f32) {
        let d = rng.scale(0.05 / (36.0 * mean));
        self.d = F16::new(d);
        self.dmin = F16::new(mean * d);
    }

    /// The values of 256 codes.
    pub(super) fn values(&self, codes: &Codes, out: &mut [f32]) {
        let groups = codes.chunks_exact(32).zip(out.chunks_exact_mut(32));
        for (i, (codes, out)) in groups.enumerate() {
            let (d, m) = self.group(i);
            for (out, &q) in out.iter_mut().zip(codes) {
                *out = d * f32::from(q) - m;
            }
        }
    }
}

/// Spreads nibbles as Q4_K and Q5_K keep them: byte `32p + i` has elements `64p + i` and 32 after.
pub(super) fn split_super_nibbles(qs: &[u8; 128], codes: &mut Codes) {
    for (qs, codes) in qs.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        split_nibbles(qs, codes);
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    header: Header,
    qs: [u8; 128],
}

const _: () = assert!(size_of::<Block>() == 144);

impl block::Block for Block {
    const DTYPE: DType = DType::Q4_K;
    const ID: u32 = 12;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[Plane::NIBBLES, Plane::copy(0, 16, 256)];

    fn codes(&self, codes: &mut Codes) {
        split_super_nibbles(&self.qs, codes);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        self.header.values(codes, out);
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.header.make_sane(rng, 7.5);
    }
}
