//! Weights from a checkpoint to the device, repacked on the way, tensor by tensor.
//!
//! Only some megabytes of staging live at any time, and a file's pages are given back once they
//! are uploaded, so that peak memory stays near one copy of the weights.

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::gpu::{Buffers, Gpu};
use crate::graph::{Graph, WeightSpec};
use crate::kernel::Resource;
use crate::plan::{self, Part};
use crate::quant::{self, Format, Layout};

use super::OnProgress;

/// Bytes repacked and staged at once.
const STAGE: usize = 4 << 20;

/// Uploads every weight of `graph`.
pub(super) fn weights(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    graph: &Graph,
    progress: OnProgress<'_>,
) -> Result<Buffers> {
    let mut buffers = Buffers::new();
    let bytes = |w: &WeightSpec| {
        let row = Format::of(w.dtype).row_bytes(w.cols).unwrap_or(0);
        (w.rows * row) as u64
    };
    let total = graph.weights.iter().map(bytes).sum();
    let mut done = 0;
    let mut pending = 0;
    for (id, spec) in graph.weights.iter().enumerate() {
        for (index, part) in plan::parts(spec, &gpu.caps)?.iter().enumerate() {
            let buffer = gpu.buffer(&format!("{}.{index}", spec.name), part.layout.bytes as u64);
            upload_part(gpu, checkpoint, spec, part, &buffer, &mut pending)?;
            gpu.check()?;
            buffers.insert(Resource::Weight(id, index), buffer);
        }
        done += bytes(spec);
        progress(done, total);
    }
    let len = graph.vectors.last().map_or(0, |v| v.first + v.len);
    let mut vectors = vec![0f32; len.max(4)];
    for v in &graph.vectors {
        let values = vector(checkpoint, &v.name)?;
        let Some(part) = values.get(v.from..v.from + v.len) else {
            return Err(Error::Shape {
                tensor: v.name.clone(),
                want: vec![v.from + v.len],
                got: vec![values.len()],
            });
        };
        for (to, value) in vectors[v.first..].iter_mut().zip(part) {
            *to = value * v.scale;
        }
    }
    let buffer = gpu.buffer("vectors", 4 * vectors.len() as u64);
    gpu.queue
        .write_buffer(&buffer, 0, bytemuck::cast_slice(&vectors));
    buffers.insert(Resource::Vectors, buffer);
    flush(gpu, &mut pending)?;
    Ok(buffers)
}

/// All elements of a vector in f32.
fn vector(checkpoint: &Checkpoint, name: &str) -> Result<Vec<f32>> {
    let info = checkpoint.need(name)?;
    quant::dequantize(info.dtype, &checkpoint.data(info)?)
}

fn upload_part(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    spec: &WeightSpec,
    part: &Part,
    buffer: &wgpu::Buffer,
    pending: &mut usize,
) -> Result<()> {
    let info = checkpoint.need(&spec.name)?;
    let row = Format::of(spec.dtype).row_bytes(spec.cols)?;
    // A multiple of 64 rows keeps every plane's piece on whole words.
    let step = (STAGE / row.max(1)).max(64) / 64 * 64;
    let planes = Format::of(spec.dtype).planes;
    for first in (0..part.rows).step_by(step) {
        let rows = step.min(part.rows - first);
        let from = spec.first + part.first + first;
        let data = checkpoint.rows(info, from..from + rows)?;
        let layout = Layout::new(spec.dtype, rows, spec.cols);
        let mut packed = vec![0u8; layout.bytes];
        quant::repack_rows(spec.dtype, &data, rows, spec.cols, &mut packed)?;
        for (i, plane) in planes.iter().enumerate() {
            let bytes = rows * spec.cols / plane.per * plane.bytes;
            let at = part.layout.offsets[i] + first * spec.cols / plane.per * plane.bytes;
            // The last piece may end within a word; its plane is padded.
            let bytes = bytes.next_multiple_of(4);
            let piece = &packed[layout.offsets[i]..layout.offsets[i] + bytes];
            gpu.queue.write_buffer(buffer, at as u64, piece);
        }
        // A file's pages leave memory piece by piece: an embedding may be most of the file.
        drop(data);
        checkpoint.release(info, from..from + rows);
        *pending += packed.len();
        if *pending >= 4 * STAGE {
            flush(gpu, pending)?;
        }
    }
    Ok(())
}

/// Submits what was written and waits, so that its staging memory is free again.
fn flush(gpu: &Gpu, pending: &mut usize) -> Result<()> {
    *pending = 0;
    gpu.wait(Some(&gpu.submit(gpu.encoder())))
}
