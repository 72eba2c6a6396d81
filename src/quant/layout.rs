//! Where a matrix's planes lie in its GPU buffer, and the way there from a checkpoint's blocks.

use super::{Format, Plane};
use crate::tensor::DType;
use crate::{Error, Result};
use std::ops::Range;

/// The most planes a format has.
pub const MAX_PLANES: usize = 4;

/// Every plane starts at a multiple of this, so that shaders may read whole `vec4<u32>`.
const ALIGN: usize = 16;

/// Rows are repacked by threads in pieces of about this many bytes.
#[cfg(not(target_arch = "wasm32"))]
const PIECE_BYTES: usize = 256 << 10;

/// The planes of some rows of a matrix, in the order of [`Format::planes`]; unused ones are empty.
#[derive(Debug)]
pub struct Planes<'a>(pub [&'a mut [u8]; MAX_PLANES]);

/// Where the planes of a matrix `[rows, cols]` lie in one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The format.
    pub dtype: DType,
    /// Rows, N.
    pub rows: usize,
    /// Columns, K.
    pub cols: usize,
    /// Byte offset of each plane, a multiple of 16; that of an absent plane is `bytes`.
    pub offsets: [usize; MAX_PLANES],
    /// Bytes of the whole buffer, a multiple of 16.
    pub bytes: usize,
}

impl Layout {
    /// The layout of `rows` rows of `cols` elements, where `cols` is a multiple of the format's
    /// block, as it is in every checkpoint that opened.
    pub fn new(dtype: DType, rows: usize, cols: usize) -> Self {
        let mut bytes = 0;
        let mut offsets = [0; MAX_PLANES];
        let planes = Format::of(dtype).planes;
        for (i, offset) in offsets.iter_mut().enumerate() {
            *offset = bytes;
            if let Some(plane) = planes.get(i) {
                bytes += rows * row_bytes(plane, cols);
                bytes = bytes.next_multiple_of(ALIGN);
            }
        }
        Self {
            dtype,
            rows,
            cols,
            offsets,
            bytes,
        }
    }

    /// Where planes 1 to 3 start, in vectors of 16 bytes: what the shaders in `quant/` take.
    pub fn planes(&self) -> [u32; MAX_PLANES - 1] {
        let [_, rest @ ..] = self.offsets;
        rest.map(|offset| (offset / ALIGN) as u32)
    }

    /// Bytes of the plane's items, without the padding behind them.
    fn plane_bytes(&self, plane: usize) -> usize {
        let plane = Format::of(self.dtype).planes.get(plane);
        plane.map_or(0, |plane| self.rows * row_bytes(plane, self.cols))
    }

    /// Where some rows' items of a plane lie in the buffer.
    pub fn rows(&self, plane: usize, rows: Range<usize>) -> Range<usize> {
        let plane_of = Format::of(self.dtype).planes.get(plane);
        let row = plane_of.map_or(0, |plane| row_bytes(plane, self.cols));
        let start = self.offsets.get(plane).copied().unwrap_or(self.bytes);
        start + rows.start * row..start + rows.end * row
    }

    /// Checks a buffer's length.
    fn check(&self, bytes: usize) -> Result<()> {
        check_length("GPU layout", self.bytes, bytes)
    }
}

/// Bytes of one row's items.
fn row_bytes(plane: &Plane, cols: usize) -> usize {
    cols / plane.per * plane.bytes
}

pub(super) fn check_length(what: &'static str, want: usize, got: usize) -> Result<()> {
    if want == got {
        return Ok(());
    }
    Err(Error::Length { what, want, got })
}

/// ggml's f32 values of whole blocks.
///
/// # Errors
/// [`Error::Length`] unless `bytes` are whole blocks.
pub fn dequantize(dtype: DType, bytes: &[u8]) -> Result<Vec<f32>> {
    let format = Format::of(dtype);
    let blocks = bytes.len() / format.block_bytes;
    check_length("blocks", blocks * format.block_bytes, bytes.len())?;
    let mut out = vec![0.0; blocks * format.block];
    (format.dequantize)(bytes, &mut out);
    Ok(out)
}

/// Fills `dst`, of [`Layout::bytes`] for `rows` and `cols`, with the planes of `src`, the rows'
/// blocks as a checkpoint has them. Padding becomes zeros. Uses all threads of rayon's pool.
///
/// # Errors
/// [`Error::Columns`] if `cols` is not a multiple of the block, [`Error::Length`] if a buffer has
/// another length than the shape wants.
pub fn repack_rows(
    dtype: DType,
    src: &[u8],
    rows: usize,
    cols: usize,
    dst: &mut [u8],
) -> Result<()> {
    let format = Format::of(dtype);
    let src_row = format.row_bytes(cols)?;
    let src_bytes = rows.checked_mul(src_row);
    check_length("rows", src_bytes.unwrap_or(usize::MAX), src.len())?;
    let layout = Layout::new(dtype, rows, cols);
    layout.check(dst.len())?;
    if src.is_empty() {
        return Ok(());
    }

    let mut rest = dst;
    let mut planes = <[&mut [u8]; MAX_PLANES]>::default();
    for (i, plane) in planes.iter_mut().enumerate() {
        let end = layout.offsets.get(i + 1).unwrap_or(&layout.bytes);
        let (here, after) = rest.split_at_mut(end - layout.offsets[i]);
        let (items, padding) = here.split_at_mut(layout.plane_bytes(i));
        padding.fill(0);
        *plane = items;
        rest = after;
    }
    repack_pieces(format, src, src_row, cols, planes);
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn repack_pieces(
    format: &Format,
    src: &[u8],
    _src_row: usize,
    _cols: usize,
    planes: [&mut [u8]; MAX_PLANES],
) {
    (format.repack)(src, &mut Planes(planes));
}

#[cfg(not(target_arch = "wasm32"))]
fn repack_pieces(
    format: &Format,
    src: &[u8],
    src_row: usize,
    cols: usize,
    planes: [&mut [u8]; MAX_PLANES],
) {
    use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

    let rows = (PIECE_BYTES / src_row).max(1);
    let mut rest = planes;
    let mut pieces = Vec::with_capacity(src.len() / (rows * src_row) + 1);
    for src in src.chunks(rows * src_row) {
        let rows = src.len() / src_row;
        let mut piece = <[&mut [u8]; MAX_PLANES]>::default();
        for ((piece, rest), plane) in piece.iter_mut().zip(&mut rest).zip(format.planes) {
            let (here, after) = std::mem::take(rest).split_at_mut(rows * row_bytes(plane, cols));
            *piece = here;
            *rest = after;
        }
        pieces.push((src, Planes(piece)));
    }
    pieces
        .into_par_iter()
        .for_each(|(src, mut planes)| (format.repack)(src, &mut planes));
}

/// The f32 values of a matrix in its GPU layout: what a shader must read there, and the proof that
/// repacking loses nothing.
///
/// # Errors
/// [`Error::Length`] unless `bytes` has the layout's length.
pub fn unpack(layout: &Layout, bytes: &[u8]) -> Result<Vec<f32>> {
    layout.check(bytes.len())?;
    let mut planes = [&[] as &[u8]; MAX_PLANES];
    for (i, plane) in planes.iter_mut().enumerate() {
        *plane = &bytes[layout.offsets[i]..][..layout.plane_bytes(i)];
    }
    let mut out = vec![0.0; layout.rows * layout.cols];
    (Format::of(layout.dtype).unpack)(&planes, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::quant::FORMATS;
    use crate::quant::testing::{Rng, random_matrix};

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn repacking_loses_nothing() {
        let mut rng = Rng::new(1);
        for format in &FORMATS {
            for (rows, blocks) in [(1, 1), (3, 5), (7, 2), (517, 9), (0, 3)] {
                let cols = blocks * format.block;
                let src = random_matrix(format.dtype, &mut rng, rows, cols);
                let layout = Layout::new(format.dtype, rows, cols);
                // What was there before must not matter.
                let mut dst = vec![0xa5; layout.bytes];
                repack_rows(format.dtype, &src, rows, cols, &mut dst).unwrap();
                let want = dequantize(format.dtype, &src).unwrap();
                let got = unpack(&layout, &dst).unwrap();
                assert_eq!(bits(&got), bits(&want), "{} {rows}x{cols}", format.name);
            }
        }
    }

    #[test]
    fn planes_are_aligned_and_padding_is_zero() {
        for format in &FORMATS {
            let (rows, cols) = (3, 256 + format.block);
            let layout = Layout::new(format.dtype, rows, cols);
            let src = vec![0xff; rows * format.row_bytes(cols).unwrap()];
            let mut dst = vec![0xa5; layout.bytes];
            repack_rows(format.dtype, &src, rows, cols, &mut dst).unwrap();
            for (i, &offset) in layout.offsets.iter().enumerate() {
                assert!(offset.is_multiple_of(ALIGN));
                let end = offset + layout.plane_bytes(i);
                let next = *layout.offsets.get(i + 1).unwrap_or(&layout.bytes);
                assert!(dst[offset..end].iter().all(|&byte| byte == 0xff));
                assert!(dst[end..next].iter().all(|&byte| byte == 0) && next - end < ALIGN);
            }
            let items: usize = format.planes.iter().map(|p| 256 / p.per * p.bytes).sum();
            assert_eq!(
                items,
                256 / format.block * format.block_bytes,
                "{}",
                format.name
            );
        }
    }

    /// The order that the shaders read, written down once more, element by element.
    #[test]
    fn plane_order_is_what_shaders_read() {
        let code = |i: usize| (i * 7 + i / 32 * 3) % 64;
        // A Q6_K block of these codes, scale 1 everywhere.
        let mut block = vec![0u8; 210];
        for i in 0..256 {
            let (half, r) = (i / 128, i % 128);
            block[64 * half + r % 64] |= ((code(i) & 15) << (r / 64 * 4)) as u8;
            block[128 + 32 * half + r % 32] |= ((code(i) >> 4) << (r / 32 * 2)) as u8;
        }
        block[192..208].copy_from_slice(&std::array::from_fn::<u8, 16, _>(|i| i as u8));
        block[208..].copy_from_slice(&half::f16::ONE.to_le_bytes());
        let layout = Layout::new(DType::Q6_K, 1, 256);
        assert_eq!(layout.offsets, [0, 128, 192, 208]);
        assert_eq!((layout.bytes, layout.planes()), (224, [8, 12, 13]));
        let mut dst = vec![0; layout.bytes];
        repack_rows(DType::Q6_K, &block, 1, 256, &mut dst).unwrap();
        let word = |at: usize| u32::from_le_bytes(dst[at..at + 4].try_into().unwrap()) as usize;
        for i in 0..256 {
            let (group, e) = (i / 32, i % 32);
            let low = word(16 * group + e / 8 * 4) >> (e % 4 * 8 + e % 8 / 4 * 4) & 15;
            let high = word(128 + 8 * group + e / 16 * 4) >> (e % 16 * 2) & 3;
            assert_eq!(low | high << 4, code(i), "element {i}");
        }
        assert_eq!(dst[192..210], block[192..210]);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let mut dst = vec![0; 32];
        let short = repack_rows(DType::Q4_0, &[0; 17], 1, 32, &mut dst);
        assert!(matches!(
            short,
            Err(Error::Length {
                want: 18,
                got: 17,
                ..
            })
        ));
        let columns = repack_rows(DType::Q4_K, &[0; 144], 1, 250, &mut dst);
        assert!(matches!(columns, Err(Error::Columns { block: 256, .. })));
        let buffer = repack_rows(DType::Q4_0, &[0; 18], 1, 32, &mut dst[..31]);
        assert!(matches!(buffer, Err(Error::Length { want: 32, .. })));
        let whole = dequantize(DType::Q8_0, &[0; 33]);
        assert!(matches!(whole, Err(Error::Length { .. })));
        let huge = repack_rows(DType::F32, &[], usize::MAX, 4, &mut []);
        assert!(matches!(huge, Err(Error::Length { .. })));
    }

    /// Whatever bits a block has: it is found where it gives a value that is no number, and nowhere else.
    #[test]
    fn blocks_that_are_no_numbers_are_found() {
        let mut rng = Rng::new(3);
        for format in &FORMATS {
            let sound = random_matrix(format.dtype, &mut rng, 40, 2 * 256);
            assert_eq!((format.not_finite)(&sound), None, "{}", format.name);
            let blocks = sound.len() / format.block_bytes;
            let mut found = 0;
            for _ in 0..2000 {
                let mut bytes = sound.clone();
                let i = rng.below(blocks);
                let block = &mut bytes[i * format.block_bytes..][..format.block_bytes];
                rng.fill(block);
                let values = dequantize(format.dtype, block).unwrap();
                let finite = values.iter().all(|v| v.is_finite());
                let bad = match format.dtype {
                    // It has a number for the exponent that means there is none.
                    DType::MXFP4 => block[0] == 0xff,
                    // Its scale must leave the largest code a number, whether the block has it or not.
                    DType::F8_E4M3 => {
                        let d = f32::from_le_bytes(block[..4].try_into().unwrap());
                        !finite || (448.0 * d).is_infinite()
                    }
                    _ => !finite,
                };
                assert_eq!(
                    (format.not_finite)(&bytes),
                    bad.then_some(i),
                    "{}",
                    format.name
                );
                found += usize::from(bad);
            }
            assert!(found > 0, "{}", format.name);
        }
    }

    #[test]
    fn random_weights_are_about_n_0_005() {
        let mut rng = Rng::new(2);
        for format in &FORMATS {
            let src = random_matrix(format.dtype, &mut rng, 64, 2048);
            let values = dequantize(format.dtype, &src).unwrap();
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let rms = (values.iter().map(|v| v * v).sum::<f32>() / n).sqrt();
            assert!(mean.abs() < 0.01, "{}: mean {mean}", format.name);
            assert!((0.035..0.1).contains(&rms), "{}: rms {rms}", format.name);
        }
    }
}
