//! Element types and shapes, shared by every layer above.

use std::fmt;

/// How a tensor's elements are stored, in a checkpoint and on the GPU.
///
/// The quantised types are ggml's block formats, but for the last, which folders have; [`crate::quant::FORMATS`] has their layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the type's own name")]
#[allow(non_camel_case_types, reason = "these are ggml's own spellings")]
pub enum DType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    F8_E4M3,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One tensor of a checkpoint: what it is and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name it has in its file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape, slowest dimension first: a weight matrix is `[rows N, columns K]` and
    /// its quantised blocks run along K. (GGUF stores the reverse order; the reader turns it.)
    pub shape: Vec<usize>,
    /// Which of the checkpoint's files holds it.
    pub file: usize,
    /// Byte offset of its first element from the start of that file.
    pub offset: u64,
    /// Bytes it takes there.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows and columns: the last dimension is the columns, all others together the rows.
    pub fn rows_cols(&self) -> (usize, usize) {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows = self.shape[..self.shape.len().saturating_sub(1)]
            .iter()
            .product();
        (rows, cols)
    }
}
