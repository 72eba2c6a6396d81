//! Rows of a tensor, made from what the safetensors files hold.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::Dtype;

use super::super::Source;
use crate::error::{Error, Result};

/// A tensor as a safetensors file has it.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Raw {
    /// Its last dimension, or the last two where those are packed codes.
    fn row_elements(&self, packed: bool) -> usize {
        let tail = if packed { 2 } else { 1 };
        let from = self.shape.len().saturating_sub(tail);
        self.shape[from..].iter().product()
    }

    /// Bytes of an element.
    fn size(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    /// Rows in all.
    pub(super) fn rows(&self) -> usize {
        self.shape.iter().product::<usize>() / self.row_elements(false).max(1)
    }

    fn bytes<'s>(&self, sources: &'s [Source], range: Range<u64>) -> Result<Cow<'s, [u8]>> {
        sources[self.file].bytes(self.offset + range.start..self.offset + range.end)
    }
}

/// Some rows of a raw tensor: every `step`-th from `first` on.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) raw: Raw,
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) rows: usize,
}

impl Piece {
    /// All rows.
    pub(super) fn whole(raw: &Raw) -> Self {
        Self {
            first: 0,
            step: 1,
            rows: raw.rows(),
            raw: raw.clone(),
        }
    }
}

/// What becomes of rows on the way.
#[derive(Clone, Debug)]
pub(super) enum Convert {
    /// Nothing.
    Copy,
    /// Numbers of any type become f32, and this is added.
    Floats(f32),
    /// MXFP4 with nibbles in order and scales apart becomes ggml's blocks; scales have a raw row for
    /// each of the codes.
    Mxfp4(Raw),
    /// FP8 gets a scale for each 32 of a row: that of the matrix, of the row, or of the square of so many rows
    /// and columns that it is in.
    Scaled {
        /// The scales.
        scales: Raw,
        /// Rows and columns that share one.
        square: [usize; 2],
    },
    /// The raw tensor has inputs as rows: `[experts, inputs, outputs]`.
    Transposed,
}

/// How a tensor is made.
#[derive(Clone, Debug)]
pub(in super::super) struct Recipe {
    /// What it is made of, one piece's rows after the other's.
    pub(super) pieces: Vec<Piece>,
    /// Rows of a head, whose two halves alternate in the result.
    pub(super) head: Option<usize>,
    pub(super) convert: Convert,
    /// Values of the description's own, which no file holds.
    pub(super) literal: Vec<f32>,
    /// Elements of a row here: a matrix's inputs; one, where a vector's elements are taken apart.
    pub(super) cols: usize,
}

impl Recipe {
    /// The piece and its raw row that row `r` of the result comes from.
    fn locate(&self, r: usize) -> Option<(&Piece, usize)> {
        let mut row = match self.head {
            Some(head) => {
                let (start, within) = (r / head * head, r % head);
                start + within % 2 * (head / 2) + within / 2
            }
            None => r,
        };
        for piece in &self.pieces {
            if row < piece.rows {
                return Some((piece, piece.first + row * piece.step));
            }
            row -= piece.rows;
        }
        None
    }

    /// Bytes of some rows of a tensor of `cols` columns.
    pub(in super::super) fn rows<'s>(
        &self,
        sources: &'s [Source],
        cols: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'s, [u8]>> {
        let rows = self.own(cols, rows);
        if self.pieces.is_empty() {
            let values = self
                .literal
                .get(rows.start * self.cols..rows.end * self.cols);
            let values = values.unwrap_or_default();
            return Ok(Cow::Owned(bytemuck::cast_slice(values).to_vec()));
        }
        if let (Convert::Copy, None, [piece]) = (&self.convert, self.head, &self.pieces[..])
            && piece.step == 1
        {
            let row = (self.cols * piece.raw.size()) as u64;
            let at = |r: usize| (piece.first + r) as u64 * row;
            return piece.raw.bytes(sources, at(rows.start)..at(rows.end));
        }
        let mut out = Vec::new();
        for r in rows {
            let (piece, row) = self.locate(r).ok_or(Error::Overflow { what: "tensor" })?;
            self.row(sources, piece, row, &mut out)?;
        }
        Ok(Cow::Owned(out))
    }

    /// Appends one row.
    fn row(&self, sources: &[Source], piece: &Piece, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let raw = &piece.raw;
        let size = raw.size();
        let at = |n: usize| (n * size) as u64;
        match &self.convert {
            Convert::Copy => {
                let from = row * self.cols;
                out.extend_from_slice(&raw.bytes(sources, at(from)..at(from + self.cols))?);
            }
            Convert::Floats(plus) => {
                let from = row * self.cols;
                let bytes = raw.bytes(sources, at(from)..at(from + self.cols))?;
                for element in bytes.chunks_exact(size) {
                    out.extend((float(raw.dtype, element) + plus).to_le_bytes());
                }
            }
            Convert::Mxfp4(scales) => {
                let (codes_row, scales_row) = (self.cols / 2, self.cols / 32);
                let from = row * codes_row;
                let codes = raw.bytes(sources, at(from)..at(from + codes_row))?;
                let from = (row * scales_row) as u64;
                let scales = scales.bytes(sources, from..from + scales_row as u64)?;
                for (codes, scale) in codes.chunks_exact(16).zip(scales.iter()) {
                    out.push(*scale);
                    let code = |i: usize| codes[i / 2] >> (i % 2 * 4) & 15;
                    out.extend((0..16).map(|j| code(j) | code(j + 16) << 4));
                }
            }
            Convert::Scaled { scales, square } => {
                let from = row * self.cols;
                let codes = raw.bytes(sources, at(from)..at(from + self.cols))?;
                let across = self.cols.div_ceil(square[1]);
                for (group, codes) in codes.chunks_exact(32).enumerate() {
                    let i = (row / square[0]) * across + group * 32 / square[1];
                    let at = |n: usize| (n * scales.size()) as u64;
                    let scale = scales.bytes(sources, at(i)..at(i + 1))?;
                    out.extend(float(scales.dtype, &scale).to_le_bytes());
                    out.extend_from_slice(codes);
                }
            }
            Convert::Transposed => {
                let outputs = raw.row_elements(false);
                let (expert, output) = (row / outputs, row % outputs);
                for input in 0..self.cols {
                    let from = (expert * self.cols + input) * outputs + output;
                    out.extend_from_slice(&raw.bytes(sources, at(from)..at(from + 1))?);
                }
            }
        }
        Ok(())
    }

    /// Rows of our own, of which several may make one of the tensor's.
    fn own(&self, cols: usize, rows: Range<usize>) -> Range<usize> {
        let each = cols / self.cols.max(1);
        rows.start * each..rows.end * each
    }

    /// Says that some rows of a tensor of `cols` columns will not be read again soon.
    pub(in super::super) fn release(&self, sources: &[Source], cols: usize, rows: Range<usize>) {
        let rows = self.own(cols, rows);
        let packed = matches!(self.convert, Convert::Mxfp4(_));
        if matches!(self.convert, Convert::Transposed) {
            return;
        }
        for piece in &self.pieces {
            let raw = &piece.raw;
            let row = (raw.row_elements(packed) * raw.size()) as u64;
            let mine = rows
                .clone()
                .filter_map(|r| self.locate(r))
                .filter(|(p, _)| std::ptr::eq(*p, piece))
                .map(|(_, r)| r as u64);
            let (low, high) = mine.fold((u64::MAX, 0), |(l, h), r| (l.min(r), h.max(r + 1)));
            if low < high && piece.step == 1 {
                sources[raw.file].release(raw.offset + low * row..raw.offset + high * row);
            }
        }
    }
}

/// One number of a raw tensor.
fn float(dtype: Dtype, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (Dtype::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        (Dtype::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        _ => f32::NAN,
    }
}
