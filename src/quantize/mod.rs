//! A checkpoint in another type: which tensor becomes what, and the file of it.

mod mix;

pub use mix::{MIXES, Mix};

use crate::format::{Checkpoint, GgufWriter, Metadata, Value};
use crate::quant::{self, Format};
use crate::tensor::{DType, TensorInfo};
use crate::{Error, Result};
use mix::{Matrix, Model};
use std::path::Path;

/// Elements of a tensor that are in memory at once, as floats and as blocks.
const PIECE: usize = 1 << 23;

/// How a checkpoint is written anew.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The file type.
    pub mix: &'static Mix,
    /// Every matrix gets the file type's own type, where its columns allow.
    pub pure: bool,
    /// A file of the new one's name is replaced.
    pub replace: bool,
}

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The tensor as it will be; its offset is of no account.
    pub tensor: TensorInfo,
    /// The type it has.
    pub before: DType,
}

/// What becomes of every tensor of a checkpoint, in its order.
///
/// # Errors
/// [`Error::Columns`] where a tensor's rows are no whole blocks of the type they have.
pub fn changes(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Vec<Change>> {
    let tensors = checkpoint.tensors();
    let arch = checkpoint.meta.str("general.architecture").unwrap_or("");
    let count = |key: &str| first_number(&checkpoint.meta, &format!("{arch}.{key}"));
    let heads = count("attention.head_count").unwrap_or(1);
    let model = Model {
        shared: heads / count("attention.head_count_kv").unwrap_or(heads).max(1),
        experts: count("expert_count").unwrap_or(0),
        tied: checkpoint.tensor("output.weight").is_none(),
    };
    let layers = count("block_count").unwrap_or(0);
    let values = tensors.iter().filter(|t| mix::is_values(&t.name));
    let mut values: Vec<usize> = values.map(|t| layer(&t.name)).collect();
    values.sort_unstable();
    let change = |tensor: &TensorInfo| {
        let (rows, cols) = tensor.rows_cols();
        let is_values = mix::is_values(&tensor.name);
        let layer = layer(&tensor.name);
        let dtype = if rows > 1 && mix::is_quantised(&tensor.name) {
            let matrix = Matrix {
                name: &tensor.name,
                cols,
                stacked: tensor.shape.len() > 2,
                at: if is_values {
                    values.partition_point(|other| *other < layer)
                } else {
                    layer
                },
                of: if is_values { values.len() } else { layers },
            };
            recipe.mix.choose(matrix, model, recipe.pure)
        } else {
            // Norms and biases, which are small, and which other programs want in full.
            match tensor.dtype {
                DType::F16 | DType::BF16 => DType::F32,
                other => other,
            }
        };
        let bytes = (rows * Format::of(dtype).row_bytes(cols)?) as u64;
        Ok(Change {
            tensor: TensorInfo {
                dtype,
                bytes,
                ..tensor.clone()
            },
            before: tensor.dtype,
        })
    };
    tensors.iter().map(change).collect()
}

/// The layer that a tensor belongs to, by its name; 0 for those of none.
fn layer(name: &str) -> usize {
    let number = name.strip_prefix("blk.").and_then(|n| n.split('.').next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A number, or the first of an array that has one for each layer.
fn first_number(meta: &Metadata, key: &str) -> Option<usize> {
    let one = meta.u32(key).ok();
    let first = || meta.u32s(key).ok()?.first().copied();
    one.or_else(first).map(|n| n as usize)
}

/// Writes `checkpoint` as one GGUF file, with `more` metadata and [`changes`] made on the way, by all
/// threads of rayon's pool. `progress` gets the bytes written so far and all of them, and says whether to go
/// on. Nothing but a whole file ever has the name `path`.
///
/// # Errors
/// [`Error::Exists`] and [`Error::Itself`] where `path` may not be written, [`Error::NotFinite`]
/// where a weight is no number, [`Error::Stopped`] where `progress` says so, [`Error::Io`] and
/// those of [`Checkpoint::rows`].
pub fn write(
    checkpoint: &Checkpoint,
    more: Vec<(String, Value)>,
    recipe: &Recipe,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<Change>> {
    if checkpoint.has_file(path) {
        let path = path.to_owned();
        return Err(Error::Itself { path });
    }
    let changes = changes(checkpoint, recipe)?;
    let mut meta = checkpoint.meta.clone();
    for key in ["split.no", "split.count", "split.tensors.count"] {
        meta.remove(key);
    }
    for (key, value) in more {
        meta.set(&key, value);
    }
    meta.set("general.file_type", Value::U32(recipe.mix.file_type));
    // The version of ggml's block formats that all today's files have.
    meta.set("general.quantization_version", Value::U32(2));
    let tensors: Vec<TensorInfo> = changes.iter().map(|c| c.tensor.clone()).collect();
    let mut writer = GgufWriter::create(path, recipe.replace, &meta, &tensors)?;
    let total = tensors.iter().map(|t| t.bytes).sum();
    let mut done = 0;
    for (old, new) in checkpoint.tensors().iter().zip(&tensors) {
        let (rows, cols) = old.rows_cols();
        let step = (PIECE / cols.max(1)).max(1);
        for first in (0..rows).step_by(step) {
            if !progress(done, total) {
                let path = path.to_owned();
                return Err(Error::Stopped { path });
            }
            let rows = first..rows.min(first + step);
            let elements = rows.len() * cols;
            let source = checkpoint.rows(old, rows.clone())?;
            let bytes = quant::convert(old.dtype, &source, elements, new.dtype);
            let bytes = bytes.map_err(|e| e.of_tensor(&old.name))?;
            drop(source);
            checkpoint.release(old, rows);
            writer.write(&bytes)?;
            done += bytes.len() as u64;
        }
    }
    progress(done, total);
    writer.finish()?;
    Ok(changes)
}
