//! Q2_K: 256 elements, w = d * s * q - dmin * m, q of 2 bits; s and m of 4 bits for 16 elements.

use super::Plane;
use super::block::{self, Codes, F16, MAX_ELEMENTS};
use super::fit::{Affine, whole};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    /// Byte `i`: s low and m high, of elements `16i..16i+16`.
    scales: [u8; 16],
    /// Byte `32h + i`: elements `128h + i`, and 32, 64, 96 further, from the lowest bits up.
    qs: [u8; 64],
    d: F16,
    dmin: F16,
}

const _: () = assert!(size_of::<Block>() == 84);

/// Spreads bit pairs as Q2_K and Q3_K keep them.
pub(super) fn split_pairs(qs: &[u8; 64], codes: &mut Codes) {
    for (qs, codes) in qs.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (pair, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, q) in codes.iter_mut().zip(qs) {
                *code = q >> (2 * pair) & 3;
            }
        }
    }
}

/// Packs bit pairs as [`split_pairs`] finds them.
pub(super) fn join_pairs(codes: &Codes) -> [u8; 64] {
    std::array::from_fn(|i| {
        let at = i / 32 * 128 + i % 32;
        let pairs = (0..4).map(|pair| (codes[at + 32 * pair] & 3) << (2 * pair));
        pairs.sum()
    })
}

const SEARCH: Affine = Affine {
    top: 3.0,
    first: -0.5,
    tenths: 15,
    weight: |x, _| x.abs(),
    cost: f32::abs,
};

/// Factors as a half times 4 bits each: the largest is at 15.
fn four_bits(factors: [f32; 16]) -> (F16, [u8; 16]) {
    let top = factors.iter().copied().fold(0.0, f32::max);
    let inverse = if top > 0.0 { 15.0 / top } else { 0.0 };
    let codes = factors.map(|f| whole(inverse * f, 0.0, 15.0) as u8);
    (F16::new(top / 15.0), codes)
}

impl block::Block for Block {
    const DTYPE: DType = DType::Q2_K;
    const ID: u32 = 10;
    const ELEMENTS: usize = 256;
    const PLANES: &'static [Plane] = &[
        Plane::pairs(0),
        Plane::copy(0, 16, 256),
        Plane::copy(80, 4, 256),
    ];

    fn codes(&self, codes: &mut Codes) {
        split_pairs(&self.qs, codes);
    }

    fn values(&self, codes: &Codes, out: &mut [f32]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let groups = codes.chunks_exact(16).zip(out.chunks_exact_mut(16));
        for (s, (codes, out)) in self.scales.iter().zip(groups) {
            let (d, m) = (d * f32::from(s & 15), dmin * f32::from(s >> 4));
            for (out, &q) in out.iter_mut().zip(codes) {
                *out = d * f32::from(q) - m;
            }
        }
    }

    fn encode(x: &[f32]) -> Self {
        let (mut s, mut m) = ([0.0; 16], [0.0; 16]);
        for (x, (s, m)) in x.chunks_exact(16).zip(s.iter_mut().zip(&mut m)) {
            (*s, *m) = SEARCH.fit(x);
        }
        let (d, s) = four_bits(s);
        let (dmin, m) = four_bits(m);
        let mut codes = [0; MAX_ELEMENTS];
        let groups = x.chunks_exact(16).zip(codes.chunks_exact_mut(16));
        for ((s, m), (x, codes)) in s.iter().zip(&m).zip(groups) {
            let (d, m) = (d.get() * f32::from(*s), dmin.get() * f32::from(*m));
            if d == 0.0 {
                continue;
            }
            for (x, code) in x.iter().zip(codes) {
                *code = whole((x + m) / d, 0.0, 3.0) as u8;
            }
        }
        Self {
            scales: std::array::from_fn(|i| s[i] | m[i] << 4),
            qs: join_pairs(&codes),
            d,
            dmin,
        }
    }

    fn is_finite(&self) -> bool {
        self.d.is_finite() && self.dmin.is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        let d = rng.scale(0.05 / 12.0);
        self.d = F16::new(d);
        self.dmin = F16::new(1.5 * d);
    }
}
