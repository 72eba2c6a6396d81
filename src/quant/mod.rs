//! Block formats: one file each, and the table of them.
//!
//! A format says two things about a weight matrix `[N, K]`: how its blocks lie in a checkpoint
//! (ggml's layouts, blocks of 32 or 256 elements along K) and how they lie on the GPU, where each
//! matrix is a few [`Plane`]s, so that neighbouring threads read neighbouring bytes.
//! Nothing is lost between the two: [`unpack`] gives the same floats as [`dequantize`], bit by bit.

mod block;
mod convert;
mod f8_e4m3;
mod fit;
mod float;
mod iq4_nl;
mod iq4_xs;
mod layout;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
#[doc(hidden)]
pub mod testing;

pub use convert::{convert, fitting, quantize, smaller};
pub use layout::{Layout, MAX_PLANES, Planes, dequantize, repack_rows, unpack};

use crate::tensor::DType;
use crate::{Error, Result};
use block::{
    Block, dequantize_blocks, not_finite_block, quantize_blocks, random_blocks, repack_blocks,
    unpack_blocks,
};

/// What the items of a plane hold.
///
/// An element's *code* is its unsigned integer before scales are applied, gathered from wherever
/// the file keeps its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Bytes of the block as they are in the file, from this offset on.
    Copy {
        /// Offset in bytes from the block's start.
        at: usize,
    },
    /// The low 4 bits of 32 codes, 16 bytes: 32-bit word `j` (0 to 3) holds elements `8j..8j+4`
    /// in the low nibbles of its bytes and `8j+4..8j+8` in the high nibbles.
    Nibbles,
    /// Two bits of 32 codes, 8 bytes: element `16j+i` at bits `2i` of 32-bit word `j`.
    Pairs {
        /// Which bits of the code: `shift` and `shift + 1`.
        shift: u32,
    },
    /// One bit of 32 codes, 4 bytes: bit `i` is element `i`'s.
    Bits {
        /// Which bit of the code.
        shift: u32,
    },
}

/// One flat array of fixed-size items in a matrix's GPU layout, row after row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plane {
    /// Bytes of an item.
    pub bytes: usize,
    /// Elements an item covers: 32 (a group), 256 (a super-block), or 1 for plain floats.
    pub per: usize,
    /// What it holds.
    pub part: Part,
}

impl Plane {
    const fn copy(at: usize, bytes: usize, per: usize) -> Self {
        let part = Part::Copy { at };
        Self { bytes, per, part }
    }

    const NIBBLES: Self = Self {
        bytes: 16,
        per: 32,
        part: Part::Nibbles,
    };

    const fn pairs(shift: u32) -> Self {
        let part = Part::Pairs { shift };
        Self {
            bytes: 8,
            per: 32,
            part,
        }
    }

    const fn bits(shift: u32) -> Self {
        let part = Part::Bits { shift };
        Self {
            bytes: 4,
            per: 32,
            part,
        }
    }
}

/// One row of [`FORMATS`].
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The element type it stores.
    pub dtype: DType,
    /// Its number in GGUF files; of one that these cannot have, none of theirs.
    pub id: u32,
    /// Elements are integers under their scales, so that they may be multiplied as bytes.
    pub integers: bool,
    /// ggml's name for it.
    pub name: &'static str,
    /// The shader module that reads its planes.
    pub wgsl: &'static str,
    /// Elements of a block in the file.
    pub block: usize,
    /// Bytes of a block in the file.
    pub block_bytes: usize,
    /// Its GPU layout, at most [`MAX_PLANES`]. Plane 0 has the low bits of every quant.
    pub planes: &'static [Plane],
    /// Whole blocks to ggml's f32 values. Panics unless `bytes` are whole blocks and `out` has
    /// their number of elements; [`dequantize`] checks.
    pub dequantize: fn(bytes: &[u8], out: &mut [f32]),
    /// Values to whole blocks, as near as the format allows: NaN counts as 0, and what is too large
    /// for it is cut; plain floats keep such numbers. Panics unless `values` has the elements of
    /// `out`'s blocks; [`convert`] checks.
    pub quantize: fn(values: &[f32], out: &mut [u8]),
    /// The first of whole blocks that does not stand for numbers: a float that is NaN or infinite, or
    /// a scale that is. Panics on a part of a block.
    pub not_finite: fn(bytes: &[u8]) -> Option<usize>,
    /// Whole blocks to planes of their exact size. Panics on other sizes; [`repack_rows`] checks.
    pub repack: fn(bytes: &[u8], planes: &mut Planes<'_>),
    unpack: fn(planes: &[&[u8]; MAX_PLANES], out: &mut [f32]),
    random: fn(&mut testing::Rng, usize) -> Vec<u8>,
}

impl Format {
    const fn new<B: Block>(name: &'static str, wgsl: &'static str) -> Self {
        let mut i = 0;
        while i < B::PLANES.len() {
            assert!(B::ELEMENTS.is_multiple_of(B::PLANES[i].per));
            i += 1;
        }
        assert!(B::PLANES.len() <= MAX_PLANES && B::ELEMENTS <= block::MAX_ELEMENTS);
        Self {
            dtype: B::DTYPE,
            id: B::ID,
            integers: B::INTEGERS,
            name,
            wgsl,
            block: B::ELEMENTS,
            block_bytes: size_of::<B>(),
            planes: B::PLANES,
            dequantize: dequantize_blocks::<B>,
            quantize: quantize_blocks::<B>,
            not_finite: not_finite_block::<B>,
            repack: repack_blocks::<B>,
            unpack: unpack_blocks::<B>,
            random: random_blocks::<B>,
        }
    }

    /// The row of a type.
    pub fn of(dtype: DType) -> &'static Self {
        &FORMATS[dtype as usize]
    }

    /// Whether GGUF files can have it.
    pub fn in_gguf(&self) -> bool {
        self.id != block::NO_ID
    }

    /// The row of a GGUF type number, if OmniMini reads that type.
    pub fn by_id(id: u32) -> Option<&'static Self> {
        let known = |format: &&Self| format.id == id && format.in_gguf();
        FORMATS.iter().find(known)
    }

    /// Bytes of a row of `k` elements in the file.
    ///
    /// # Errors
    /// [`Error::Columns`] unless `k` is a multiple of the block; [`Error::Overflow`] past the
    /// address space.
    pub fn row_bytes(&self, k: usize) -> Result<usize> {
        if !k.is_multiple_of(self.block) {
            return Err(Error::Columns {
                dtype: self.dtype,
                columns: k,
                block: self.block,
            });
        }
        (k / self.block)
            .checked_mul(self.block_bytes)
            .ok_or(Error::Overflow { what: "row" })
    }
}

/// Every format, in the order of [`DType`].
pub static FORMATS: [Format; 17] = [
    Format::new::<float::Single>("F32", "quant/f32"),
    Format::new::<float::Half>("F16", "quant/f16"),
    Format::new::<float::Brain>("BF16", "quant/bf16"),
    Format::new::<q4_0::Block>("Q4_0", "quant/q4_0"),
    Format::new::<q4_1::Block>("Q4_1", "quant/q4_1"),
    Format::new::<q5_0::Block>("Q5_0", "quant/q5_0"),
    Format::new::<q5_1::Block>("Q5_1", "quant/q5_1"),
    Format::new::<q8_0::Block>("Q8_0", "quant/q8_0"),
    Format::new::<q2_k::Block>("Q2_K", "quant/q2_k"),
    Format::new::<q3_k::Block>("Q3_K", "quant/q3_k"),
    Format::new::<q4_k::Block>("Q4_K", "quant/q4_k"),
    Format::new::<q5_k::Block>("Q5_K", "quant/q5_k"),
    Format::new::<q6_k::Block>("Q6_K", "quant/q6_k"),
    Format::new::<iq4_nl::Block>("IQ4_NL", "quant/iq4_nl"),
    Format::new::<iq4_xs::Block>("IQ4_XS", "quant/iq4_xs"),
    Format::new::<mxfp4::Block>("MXFP4", "quant/mxfp4"),
    Format::new::<f8_e4m3::Block>("F8_E4M3", "quant/f8_e4m3"),
];

// `Format::of` indexes by the type's number.
const _: () = {
    let mut i = 0;
    while i < FORMATS.len() {
        assert!(FORMATS[i].dtype as usize == i);
        i += 1;
    }
};

/// Names of ggml's other tensor types, for the sentence that refuses them.
const OTHER_TYPES: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// ggml's name of a type number that is not in [`FORMATS`], if it is known.
pub fn other_type(id: u32) -> Option<&'static str> {
    OTHER_TYPES
        .iter()
        .find_map(|&(other, name)| (other == id).then_some(name))
}
