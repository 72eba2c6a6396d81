//! Weights from one format to another.

use super::Format;
use super::layout::{check_length, dequantize};
use crate::tensor::DType;
use crate::{Error, Result};

/// Elements that a thread converts at once: whole blocks of every format.
const PIECE: usize = 1 << 16;

/// Blocks for `values`, a whole number of rows whose length is a multiple of the block.
/// See [`Format::quantize`]. Uses all threads of rayon's pool.
///
/// # Errors
/// [`Error::Columns`] if `values` are no whole blocks, [`Error::Overflow`] if they are too many.
pub fn quantize(dtype: DType, values: &[f32]) -> Result<Vec<u8>> {
    let format = Format::of(dtype);
    let mut out = vec![0; format.row_bytes(values.len())?];
    let bytes = PIECE / format.block * format.block_bytes;
    let pieces = values.chunks(PIECE).zip(out.chunks_mut(bytes)).collect();
    each(pieces, |(values, out)| {
        (format.quantize)(values, out);
        Ok(())
    })?;
    Ok(out)
}

/// `elements` elements of a tensor as blocks of another format, by way of their f32 values; a
/// row's length is a multiple of both blocks. Uses all threads of rayon's pool.
///
/// # Errors
/// [`Error::Columns`] if the elements are no whole blocks of either format,
/// [`Error::Length`] if `bytes` do not have that many, [`Error::NotFinite`] if a value is no number.
pub fn convert(source: DType, bytes: &[u8], elements: usize, dtype: DType) -> Result<Vec<u8>> {
    let (old, new) = (Format::of(source), Format::of(dtype));
    check_length("blocks", old.row_bytes(elements)?, bytes.len())?;
    if source == dtype {
        return Ok(bytes.to_vec());
    }
    let mut out = vec![0; new.row_bytes(elements)?];
    let [from, to] = [old, new].map(|f| PIECE / f.block * f.block_bytes);
    let pieces = bytes.chunks(from).zip(out.chunks_mut(to)).collect();
    each(pieces, |(bytes, out)| {
        let values = dequantize(source, bytes)?;
        if !values.iter().all(|x| x.is_finite()) {
            let what = "the tensor".into();
            return Err(Error::NotFinite { what });
        }
        (new.quantize)(&values, out);
        Ok(())
    })?;
    Ok(out)
}

#[cfg(target_arch = "wasm32")]
fn each<T>(pieces: Vec<T>, work: impl Fn(T) -> Result<()>) -> Result<()> {
    pieces.into_iter().try_for_each(work)
}

#[cfg(not(target_arch = "wasm32"))]
fn each<T: Send>(pieces: Vec<T>, work: impl Fn(T) -> Result<()> + Sync + Send) -> Result<()> {
    use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
    pieces.into_par_iter().try_for_each(work)
}

/// What is taken for a type of super-blocks where rows are no whole ones: blocks of 32 with about
/// as many bits, as llama.cpp has them.
const STAND_INS: &[(DType, DType)] = &[
    (DType::Q2_K, DType::Q4_0),
    (DType::Q3_K, DType::Q4_0),
    (DType::Q4_K, DType::Q5_0),
    (DType::Q5_K, DType::Q5_1),
    (DType::Q6_K, DType::Q8_0),
    (DType::IQ4_XS, DType::IQ4_NL),
];

/// The type in which a matrix is kept where `wanted` is asked for: that or its stand-in where it has
/// fewer bits than `source`, which the matrix has, else `source`.
pub fn smaller(source: DType, wanted: DType, cols: usize) -> DType {
    let wanted = fitting(wanted, cols);
    let [old, new] = [source, wanted].map(Format::of);
    let fewer = new.block_bytes * old.block < old.block_bytes * new.block;
    if fewer { wanted } else { source }
}

/// The type that rows of `cols` elements get where `dtype` is wanted: itself where they are whole
/// blocks of it, else its stand-in, else F16.
pub fn fitting(dtype: DType, cols: usize) -> DType {
    let fits = |dtype: &DType| cols.is_multiple_of(Format::of(*dtype).block);
    let other = STAND_INS.iter().find(|(wanted, _)| *wanted == dtype);
    let other = other.map(|(_, other)| *other);
    std::iter::once(dtype)
        .chain(other)
        .find(fits)
        .unwrap_or(DType::F16)
}
