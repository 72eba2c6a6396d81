//! How the cache keeps keys and values: types of elements, pages, and how many of them.

use std::fmt;
use std::str::FromStr;

use crate::graph::Attention;

/// Positions of one page of the cache.
pub const PAGE: usize = 32;

/// Elements of a head that share a scale, in the types that have any.
pub const BLOCK: usize = 32;

/// How the cache keeps its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half precision: two bytes an element.
    F16,
    /// Single precision: four.
    F32,
    /// Signed bytes with a scale (f32) for each block of 32: nine bits an element.
    Q8_0,
    /// Four bits with a scale for each block: five bits an element. A block goes through Hadamard's
    /// matrix first, so that one large element, of which keys have some, does not leave the others
    /// no codes; eight bits have enough without.
    Q4_0,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().0)
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|t| t.row().0 == s);
        known.ok_or_else(|| format!("it is one of {}", Self::ALL.map(|t| t.row().0).join(", ")))
    }
}

impl KvType {
    /// Every type, the finest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0];

    /// Its name, the words of 32 elements, and the modules that read it by items of four elements and
    /// of eight.
    fn row(self) -> (&'static str, usize, [&'static str; 2]) {
        match self {
            Self::F32 => ("f32", 32, ["kv/f32", "kv/f32_wide"]),
            Self::F16 => ("f16", 16, ["kv/f16", "kv/f16_wide"]),
            Self::Q8_0 => ("q8_0", 9, ["kv/q8_0", "kv/q8_0_wide"]),
            Self::Q4_0 => ("q4_0", 5, ["kv/q4_0", "kv/q4_0_wide"]),
        }
    }

    /// The type that a module of `shaders/kv/` reads.
    pub(super) fn of_file(file: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.row().2.contains(&file))
    }

    pub(super) fn file(self, wide: bool) -> &'static str {
        self.row().2[usize::from(wide)]
    }

    /// Whether elements come in blocks with a scale.
    pub fn has_blocks(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// Words of `n` elements: whole blocks, where there are any.
    pub fn words(self, n: usize) -> usize {
        n * self.row().1 / BLOCK
    }

    /// Where element `i` stands: its word, that of its scale (or the same), and its first bit.
    pub fn place(self, i: usize) -> (usize, usize, usize) {
        let (block, e) = (self.row().1 * (i / BLOCK), i % BLOCK);
        match self {
            Self::F32 => (i, i, 0),
            Self::F16 => (i / 2, i / 2, 16 * (i % 2)),
            Self::Q8_0 => (block + e / 4, block + 8, 8 * (e % 4)),
            Self::Q4_0 => (block + e / 8, block + 4, 8 * (e % 4) + e % 8 / 4 * 4),
        }
    }

    /// What stands for element `i` in words of this type.
    pub fn value(self, words: &[u32], i: usize) -> Option<f64> {
        let (word, scale, bit) = self.place(i);
        let code = words.get(word)? >> bit;
        let scale = f64::from(f32::from_bits(*words.get(scale)?));
        Some(match self {
            Self::F32 => f64::from(f32::from_bits(code)),
            Self::F16 => half::f16::from_bits(code as u16).to_f64(),
            Self::Q8_0 => f64::from(code as i8) * scale,
            Self::Q4_0 => (f64::from(code & 15) - 8.0) * scale,
        })
    }

    /// The scale of a block.
    fn scale(self, block: &[f64]) -> f64 {
        let low = block.iter().copied().fold(0.0, f64::min);
        let high = block.iter().copied().fold(0.0, f64::max);
        match self {
            Self::F32 | Self::F16 => 1.0,
            Self::Q8_0 => high.max(-low) / 127.0,
            Self::Q4_0 if -low > high => low / -8.0,
            Self::Q4_0 => high / -8.0,
        }
    }

    /// What stands for `v` under a scale.
    fn code(self, v: f64, scale: f64) -> f64 {
        let quotient = if scale == 0.0 { 0.0 } else { v / scale };
        match self {
            Self::F32 => v,
            Self::F16 => half::f16::from_f64(v).to_f64(),
            Self::Q8_0 => quotient.round_ties_even(),
            Self::Q4_0 => quotient.round_ties_even().clamp(-8.0, 7.0),
        }
    }

    /// Puts a head through the orthogonal matrix that blocks are kept through, its own inverse.
    pub fn turn(self, head: &mut [f64]) {
        if self != Self::Q4_0 {
            return;
        }
        for block in head.chunks_exact_mut(BLOCK) {
            for bit in [1, 2, 4, 8, 16] {
                for i in (0..BLOCK).filter(|i| i & bit == 0) {
                    let (a, b) = (block[i], block[i + bit]);
                    (block[i], block[i + bit]) = (a + b, a - b);
                }
            }
            for v in block {
                *v /= (BLOCK as f64).sqrt();
            }
        }
    }

    /// Makes of a head's elements what stands for them in the cache.
    pub fn keep(self, head: &mut [f64]) {
        self.turn(head);
        for block in head.chunks_mut(BLOCK) {
            let scale = self.scale(block);
            for v in block {
                *v = self.code(*v, scale) * scale;
            }
        }
    }

    /// Rounds a head's elements to what the cache gives back.
    pub fn round(self, head: &mut [f64]) {
        self.keep(head);
        self.turn(head);
    }

    /// Whether no element comes so near the middle between two codes that another order of sums would
    /// change its own.
    pub(super) fn is_clear(self, head: &[f64]) -> bool {
        const NEAR: f64 = 5e-4;
        let mut head = head.to_vec();
        self.turn(&mut head);
        head.chunks(BLOCK).all(|block| {
            let scale = self.scale(block);
            let ends = [f64::min, f64::max].map(|f| block.iter().copied().fold(0.0, f));
            let fair = (ends[0] + ends[1]).abs() > NEAR * ends[1].max(-ends[0]);
            let clear = |v: &f64| ((v / scale).fract().abs() - 0.5).abs() > NEAR;
            !self.has_blocks() || fair && block.iter().all(clear)
        })
    }

    /// Elements in this type: whole blocks, where it has any, else an even number.
    pub fn encode(self, values: &[f32]) -> Vec<u32> {
        let mut words = vec![0; self.words(values.len())];
        for (first, block) in (0..).step_by(BLOCK).zip(values.chunks(BLOCK)) {
            let mut wide: Vec<f64> = block.iter().map(|v| f64::from(*v)).collect();
            self.turn(&mut wide);
            let scale = self.scale(&wide) as f32;
            for (i, v) in wide.iter().enumerate() {
                let code = self.code(*v, f64::from(scale));
                let (word, scale_at, bit) = self.place(first + i);
                words[word] |= match self {
                    Self::F32 => (code as f32).to_bits(),
                    Self::F16 => u32::from(half::f16::from_f64(code).to_bits()) << bit,
                    Self::Q8_0 => u32::from(code as i8 as u8) << bit,
                    Self::Q4_0 => ((code + 8.0) as u32) << bit,
                };
                if self.has_blocks() {
                    words[scale_at] = scale.to_bits();
                }
            }
        }
        words
    }
}

/// The cache's shape: what of it the kernels and the planner know. How many pages there are is the
/// engine's business, and may change as the cache grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Element type.
    pub dtype: KvType,
    /// Pages of the largest context.
    pub stride: usize,
    /// Tokens that may be written past the ones that the sequence keeps: of a prompt's chunk, or of
    /// steps under way that turn out to be past the end.
    pub ahead: usize,
}

impl KvShape {
    /// Pages of the ring that keeps a window's positions for one sequence: what the oldest of a chunk's
    /// tokens sees is still there when the newest is written. `None` where the whole context takes
    /// no more.
    pub fn ring(&self, window: Option<u32>) -> Option<usize> {
        let ring = (window? as usize + self.ahead).div_ceil(PAGE) + 1;
        (ring < self.stride).then_some(ring)
    }

    /// Entries of the page table that a sequence has in layers of this window.
    pub fn entries(&self, window: Option<u32>) -> usize {
        self.ring(window).unwrap_or(self.stride)
    }

    /// Bytes of one page of a layer, keys and values.
    pub fn page_bytes(&self, kv_heads: usize, head_dim: usize) -> usize {
        4 * self.dtype.words(2 * PAGE * kv_heads * head_dim)
    }

    /// Bytes of one whole context in layers of these attentions.
    pub fn bytes<'a>(&self, layers: impl Iterator<Item = &'a Attention>) -> usize {
        let layer =
            |a: &Attention| self.entries(a.window) * self.page_bytes(a.kv_heads, a.head_dim);
        layers.map(layer).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::testing::Rng;

    #[test]
    fn what_is_encoded_comes_back_rounded() {
        let mut random = Rng::new(5);
        let mut values: Vec<f32> = (0..128).map(|_| random.normal()).collect();
        values[32..64].fill(0.0);
        values[70] = -9.0;
        for dtype in KvType::ALL {
            let words = dtype.encode(&values);
            assert_eq!(words.len(), dtype.words(128));
            let exact: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let mut kept = exact.clone();
            dtype.keep(&mut kept);
            for (i, want) in kept.iter().enumerate() {
                let got = dtype.value(&words, i).unwrap_or(f64::NAN);
                assert!((got - want).abs() < 1e-5, "{dtype} {i}: {got} {want}");
            }
            let mut back = exact.clone();
            dtype.round(&mut back);
            // In mean squares, of a block without a large element and of one with.
            for (block, limits) in [(0, [0.0, 5e-4, 1e-2, 0.15]), (2, [0.0, 2e-3, 3e-2, 0.2])] {
                let i = block * BLOCK..(block + 1) * BLOCK;
                let errors = exact[i.clone()]
                    .iter()
                    .zip(&back[i])
                    .map(|(a, b)| (a - b).powi(2));
                let error = (errors.sum::<f64>() / BLOCK as f64).sqrt();
                let limit = KvType::ALL
                    .iter()
                    .position(|t| *t == dtype)
                    .map_or(0.0, |t| limits[t]);
                assert!(error <= limit, "{dtype}, block {block}: {error}");
            }
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert!("q5_0".parse::<KvType>().is_err_and(|e| e.contains("q4_0")));
    }
}
