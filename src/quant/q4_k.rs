//! Q4_K: 256 elements, w = d * s * q - dmin * m, q of 4 bits; s and m of 6 bits for 32 elements.

use super::Plane;
use super::block::{self, Codes, F16, MAX_ELEMENTS, split_nibbles};
use super::fit::{Affine, whole};
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

    /// Fits the groups of 256 elements, and gives their codes.
    pub(super) fn encode(x: &[f32], search: Affine) -> (Self, Codes) {
        let (mut s, mut m) = ([0.0; 8], [0.0; 8]);
        for (x, (s, m)) in x.chunks_exact(32).zip(s.iter_mut().zip(&mut m)) {
            (*s, *m) = search.fit(x);
        }
        let (d, s) = six_bits(s);
        let (dmin, m) = six_bits(m);
        let scales = std::array::from_fn(|i| match i {
            0..4 => s[i] | s[i + 4] >> 4 << 6,
            4..8 => m[i - 4] | m[i] >> 4 << 6,
            _ => s[i - 4] & 15 | m[i - 4] << 4,
        });
        let header = Self { d, dmin, scales };
        // By the factors as they are stored.
        let mut codes = [0; MAX_ELEMENTS];
        let groups = x.chunks_exact(32).zip(codes.chunks_exact_mut(32));
        for (i, (x, codes)) in groups.enumerate() {
            let (d, m) = header.group(i);
            if d == 0.0 {
                continue;
            }
            for (x, code) in x.iter().zip(codes) {
                *code = whole((x + m) / d, 0.0, search.top) as u8;
            }
        }
        (header, codes)
    }

    pub(super) fn is_finite(&self) -> bool {
        self.d.is_finite() && self.dmin.is_finite()
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

/// Factors as a half times 6 bits each: the largest is at 63.
fn six_bits(factors: [f32; 8]) -> (F16, [u8; 8]) {
    let top = factors.iter().copied().fold(0.0, f32::max);
    let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
    let codes = factors.map(|f| whole(inverse * f, 0.0, 63.0) as u8);
    (F16::new(top / 63.0), codes)
}

/// The weight of an element of Q4_K and Q5_K: large ones matter more, small ones still do.
pub(super) fn weight(x: f32, mean_square: f32) -> f32 {
    mean_square.sqrt() + x.abs()
}

const SEARCH: Affine = Affine {
    top: 15.0,
    first: -1.0,
    tenths: 20,
    weight,
    cost: |difference| difference * difference,
};

/// Spreads nibbles as Q4_K and Q5_K keep them: byte `32p + i` has elements `64p + i` and 32 after.
pub(super) fn split_super_nibbles(qs: &[u8; 128], codes: &mut Codes) {
    for (qs, codes) in qs.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        split_nibbles(qs, codes);
    }
}

/// Puts them there.
pub(super) fn join_super_nibbles(codes: &Codes) -> [u8; 128] {
    std::array::from_fn(|i| {
        let at = i / 32 * 64 + i % 32;
        codes[at] & 15 | codes[at + 32] << 4
    })
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

    fn encode(x: &[f32]) -> Self {
        let (header, codes) = Header::encode(x, SEARCH);
        Self {
            header,
            qs: join_super_nibbles(&codes),
        }
    }

    fn is_finite(&self) -> bool {
        self.header.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.header.make_sane(rng, 7.5);
    }
}
