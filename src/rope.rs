//! Rotary positions: angles, and the ways to stretch them over a longer context.
//!
//! A head's elements turn in pairs, pair i by pos · frequency(i). Everything here is f64: at position
//! 131,072 an f32 angle is off by up to a hundredth of a radian.

use std::f64::consts::PI;
use std::ops::Range;

/// Rotary positions: which angles, over which elements.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Elements of a head that turn; the rest stay.
    pub dims: usize,
    /// Pairs are (e, e + dims / 2) rather than neighbours.
    pub neox: bool,
    /// Base of the geometric series of wavelengths.
    pub base: f64,
    /// What becomes of the frequencies.
    pub scaling: Scaling,
    /// Factor of the turned elements (YaRN's and LongRoPE's attention factor).
    pub amplitude: f64,
}

/// Ways to make a model see further than it was first trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Positions are divided by this.
    Linear(f64),
    /// Each frequency is divided by its own number: Llama 3's scaling and LongRoPE come so.
    Divisors(Vec<f32>),
    /// Fast pairs stay, slow ones are divided by `factor`, and between them there is a ramp
    /// (arXiv 2309.00071).
    Yarn {
        /// How many times the context was stretched.
        factor: f64,
        /// Context before.
        original: f64,
        /// Turns over that context from which on a pair counts as fast.
        beta_fast: f64,
        /// Turns below which it counts as slow.
        beta_slow: f64,
        /// The ramp begins and ends at whole pairs.
        truncate: bool,
    },
}

impl RopeSpec {
    /// Plain rotation.
    pub fn plain(dims: usize, neox: bool, base: f64) -> Self {
        Self {
            dims,
            neox,
            base,
            scaling: Scaling::None,
            amplitude: 1.0,
        }
    }

    /// Angular frequencies, dims / 2 of them, radians a position. They are rounded to f32, as the makers of
    /// models keep them: far into a text the rounding is seen.
    pub fn frequencies(&self) -> Vec<f64> {
        let pairs = self.dims / 2;
        let plain = |i: usize| self.base.powf(-2.0 * i as f64 / self.dims as f64);
        let divisor: Box<dyn Fn(usize) -> f64> = match &self.scaling {
            Scaling::None => Box::new(|_| 1.0),
            Scaling::Linear(factor) => Box::new(|_| *factor),
            Scaling::Divisors(divisors) => {
                Box::new(|i| divisors.get(i).map_or(1.0, |d| f64::from(*d)))
            }
            Scaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                truncate,
            } => {
                // The pair that makes so many turns over the original context.
                let pair = |turns: f64| {
                    self.dims as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln())
                };
                let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
                if low >= high {
                    high = low + 0.001;
                }
                Box::new(move |i| {
                    let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    1.0 / (slow / factor + (1.0 - slow))
                })
            }
        };
        let frequency = |i: usize| (plain(i) / divisor(i)) as f32;
        (0..pairs).map(|i| f64::from(frequency(i))).collect()
    }

    /// Turns one head in place to position `pos`, by the [`RopeSpec::frequencies`].
    pub fn rotate(&self, head: &mut [f64], frequencies: &[f64], pos: u32) {
        for (i, f) in frequencies.iter().enumerate() {
            let (sin, cos) = (f64::from(pos) * f).sin_cos();
            let (a, b) = if self.neox {
                (i, i + self.dims / 2)
            } else {
                (2 * i, 2 * i + 1)
            };
            let (x, y) = (head[a] * self.amplitude, head[b] * self.amplitude);
            (head[a], head[b]) = (x * cos - y * sin, y * cos + x * sin);
        }
    }

    /// Entries of [`Self::table`].
    pub fn table_len(&self, positions: &Range<usize>) -> usize {
        (256 + positions.len().div_ceil(256)) * (self.dims / 2)
    }

    /// (cos, sin) of 0 to 255 steps, then of each whole 256 of `positions` from the first of them on, which
    /// the shaders add (`shaders/lib/rope.wgsl`). The amplitude is in the second of the two.
    pub fn table(&self, positions: Range<usize>) -> Vec<[f32; 2]> {
        let frequencies = self.frequencies();
        let near = (0..256).map(|pos| (pos, 1.0));
        let far = positions.step_by(256).map(|pos| (pos, self.amplitude));
        near.chain(far)
            .flat_map(|(pos, amplitude)| {
                frequencies.iter().map(move |f| {
                    let (sin, cos) = (pos as f64 * f).sin_cos();
                    [(cos * amplitude) as f32, (sin * amplitude) as f32]
                })
            })
            .collect()
    }
}

/// Divisors of Llama 3's scaling: long waves are divided by `factor`, short ones stay, and between
/// `low` and `high` turns over the `original` context there is a smooth way from one to the other.
pub fn llama3_divisors(
    dims: usize,
    base: f64,
    factor: f64,
    [low, high]: [f64; 2],
    original: f64,
) -> Vec<f32> {
    let plain = RopeSpec::plain(dims, true, base).frequencies();
    let divisor = |f: f64| {
        let turns = original * f / (2.0 * PI);
        if turns > high {
            return 1.0;
        }
        if turns < low {
            return factor;
        }
        let smooth = (turns - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    };
    plain.into_iter().map(|f| divisor(f) as f32).collect()
}

/// The base of dynamic NTK scaling for a context of `context` tokens.
pub fn dynamic_base(base: f64, dims: usize, factor: f64, original: f64, context: f64) -> f64 {
    if context <= original {
        return base;
    }
    let dims = dims as f64;
    base * (factor * context / original - (factor - 1.0)).powf(dims / (dims - 2.0))
}

/// YaRN's amplitude for a stretch by `factor`, with weight `m`.
pub fn yarn_amplitude(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * m * factor.ln() + 1.0
    }
}

/// LongRoPE's amplitude for a stretch of a context of `original` tokens by `factor`.
pub fn longrope_amplitude(factor: f64, original: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        (1.0 + factor.ln() / original.ln()).sqrt()
    }
}
