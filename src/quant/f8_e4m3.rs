//! F8_E4M3: 32 elements, w = d * q, q an OCP float of 4 bits of exponent and 3 of mantissa.
//!
//! Folders with FP8 weights have it: bytes, and scales apart for a matrix, a row or a square of 128. Here
//! each group has its scale, so that all three are one. GGUF has no such type.

use super::Plane;
use super::block::{self, Codes, NO_ID};
use super::fit::{extreme, over};
use super::testing::Rng;
use crate::tensor::DType;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    d: [u8; 4],
    qs: [u8; 32],
}

const _: () = assert!(size_of::<Block>() == 36);

/// The largest number of the type.
const MOST: f32 = 448.0;

/// A byte's number: no infinities, and NaN where all bits but the sign are set.
fn value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 127) {
        (_, 127) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::powi(2.0, exponent - 7),
    };
    if code & 128 == 0 { size } else { -size }
}

/// The nearest number's byte; of two as near, the even one.
fn code(x: f32) -> u8 {
    let size = x.abs().min(MOST);
    let sign = if x < 0.0 { 128 } else { 0 };
    // Below 2^-6 steps are 2^-9, and above an eighth of the power of two.
    let exponent = size.max(f32::powi(2.0, -6)).log2().floor() as i32;
    let steps = (size / f32::powi(2.0, exponent - 3)).round_ties_even() as i32;
    // Rounding up to the next power carries into the exponent.
    sign | (((exponent + 6) << 3) + steps).clamp(0, 126) as u8
}

impl block::Block for Block {
    const DTYPE: DType = DType::F8_E4M3;
    const ID: u32 = NO_ID;
    const ELEMENTS: usize = 32;
    const INTEGERS: bool = false;
    const PLANES: &'static [Plane] = &[Plane::copy(4, 32, 32), Plane::copy(0, 4, 32)];

    fn values(&self, _: &Codes, out: &mut [f32]) {
        let d = f32::from_le_bytes(self.d);
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = d * value(q);
        }
    }

    fn encode(x: &[f32]) -> Self {
        let d = extreme(x).abs() / MOST;
        let inverse = over(1.0, d);
        Self {
            d: d.to_le_bytes(),
            qs: std::array::from_fn(|i| code(x[i] * inverse)),
        }
    }

    fn is_finite(&self) -> bool {
        let codes = self.qs.iter().all(|q| q & 127 != 127);
        // A scale must leave its largest number one.
        codes && (f32::from_le_bytes(self.d) * MOST).is_finite()
    }

    fn make_sane(&mut self, rng: &mut Rng) {
        self.d = rng.scale(0.05 / 29.0).to_le_bytes();
        for q in &mut self.qs {
            // No NaNs, and not the largest all the time.
            *q = code(value(*q & 0xf7).clamp(-64.0, 64.0) + 0.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_its_own_code() {
        for byte in 0..=255u8 {
            let x = value(byte);
            if x.is_nan() {
                assert_eq!(byte & 127, 127);
            } else if x != 0.0 {
                assert_eq!(code(x), byte, "{x}");
            }
        }
        // The OCP's own examples: largest, smallest normal, largest and smallest subnormal.
        let known = [
            (0x7e, 448.0),
            (0x08, 0.015_625),
            (0x07, 0.013_671_875),
            (0x01, 0.001_953_125),
        ];
        for (byte, x) in known {
            assert!((value(byte) - x).abs() < 1e-9, "{byte:02x}");
        }
        assert_eq!((code(1e9), code(-1e9)), (0x7e, 0xfe));
    }
}
