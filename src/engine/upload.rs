//! Weights from a checkpoint to the device, repacked or quantised on the way, tensor by tensor.
//!
//! Only some megabytes of staging live at any time, and a file's pages are given back once they
//! are uploaded, so that peak memory stays near one copy of the weights.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::gpu::{Buffers, Case, Checks, Gpu, Pipelines, Program};
use crate::graph::{Graph, WeightSpec};
use crate::kernel::linear::Weight;
use crate::kernel::{Dispatch, Resource, encode};
use crate::plan::{self, Part};
use crate::quant::{self, Format, Layout};
use crate::tensor::{DType, TensorInfo};

use super::OnProgress;

/// Bytes repacked and staged at once.
const STAGE: usize = 1 << 20;

/// Uploads every weight of `graph`; those that it has in another type than the checkpoint are
/// quantised on the way, by the kernels of `encoders` where these make that type.
pub(super) fn weights(
    gpu: &Gpu,
    pipelines: &Pipelines,
    encoders: &Encoders,
    checkpoint: &Checkpoint,
    graph: &Graph,
    progress: OnProgress<'_>,
) -> Result<Buffers> {
    let mut buffers = Buffers::new();
    let mut upload = Upload {
        gpu,
        pipelines,
        encoders,
        checkpoint,
        staging: HashMap::new(),
        pending: 0,
    };
    // As the checkpoint has them.
    let bytes = |w: &WeightSpec| {
        let dtype = checkpoint.tensor(&w.name).map_or(w.dtype, |t| t.dtype);
        let row = Format::of(dtype).row_bytes(w.cols).unwrap_or(0);
        (w.rows * row) as u64
    };
    let total = graph.weights.iter().map(bytes).sum();
    let mut done = 0;
    for (id, spec) in graph.weights.iter().enumerate() {
        for (index, part) in plan::parts(spec, &gpu.caps)?.iter().enumerate() {
            let buffer = gpu.buffer(&format!("{}.{index}", spec.name), part.layout.bytes as u64);
            upload.part(spec, part, &buffer)?;
            gpu.check()?;
            buffers.insert(Resource::Weight(id, index), buffer);
        }
        done += bytes(spec);
        progress(done, total);
    }
    let mut vectors = vec![0f32; graph.vector_elements()];
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
    upload.flush()?;
    Ok(buffers)
}

/// All elements of a vector in f32.
fn vector(checkpoint: &Checkpoint, name: &str) -> Result<Vec<f32>> {
    let info = checkpoint.need(name)?;
    let values = quant::dequantize(info.dtype, &checkpoint.data(info)?)?;
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    let what = "the tensor".into();
    Err(Error::NotFinite { what }.of_tensor(name))
}

/// Pairs of types, from and to, whose kernel computes rightly on this adapter.
#[derive(Debug, Default)]
pub(super) struct Encoders(HashSet<(DType, DType)>);

impl Encoders {
    /// Checks the kernels that `graph`'s weights want of this checkpoint; what an adapter computes
    /// wrongly is left to the processor.
    ///
    /// # Errors
    /// Where the device fails.
    pub(super) async fn check(
        gpu: &Gpu,
        pipelines: &Pipelines,
        checks: &mut Checks,
        checkpoint: &Checkpoint,
        graph: &Graph,
    ) -> Result<Self> {
        let types = |spec: &WeightSpec| Some((checkpoint.tensor(&spec.name)?.dtype, spec.dtype));
        let mut pairs: HashSet<_> = graph.weights.iter().filter_map(types).collect();
        pairs.retain(|(from, to)| from != to);
        let mut cases = Vec::new();
        // Any size does: cases have their own.
        pairs.retain(|&(from, to)| {
            let source = source(&Layout::new(from, encode::ROWS, 256));
            let to = Layout::new(to, encode::ROWS, 256);
            let made = encode::encode(&gpu.caps, "check", source, DESTINATION, &to, 0);
            cases.extend(made.as_ref().map(Case::of));
            made.is_some()
        });
        if cases.is_empty() {
            return Ok(Self(pairs));
        }
        let pending = checks.start(gpu, pipelines, cases)?;
        let wrong = checks.finish(gpu, pending).await?;
        checks.save();
        for w in &wrong {
            log::warn!(
                "{}: kernel `{}` computes wrongly, and the processor takes its place ({})",
                gpu.info.name,
                w.kernel,
                w.reason
            );
        }
        let kernel = |dtype: DType| encode::ENCODERS.iter().find(|e| e.0 == dtype);
        pairs.retain(|(_, to)| {
            kernel(*to).is_some_and(|(_, k, _)| wrong.iter().all(|w| w.kernel != k.name))
        });
        Ok(Self(pairs))
    }
}

/// Where an encoder reads, and where it writes.
const SOURCE: Resource = Resource::Slot(0);
const DESTINATION: Resource = Resource::Weight(0, 0);

/// Rows that wait in the staging buffer, as a kernel sees them.
fn source(layout: &Layout) -> Weight {
    Weight {
        resource: SOURCE,
        dtype: layout.dtype,
        rows: layout.rows,
        cols: layout.cols,
        first: 0,
        planes: layout.planes(),
    }
}

/// Uploading, as it goes on.
struct Upload<'a> {
    gpu: &'a Gpu,
    pipelines: &'a Pipelines,
    encoders: &'a Encoders,
    checkpoint: &'a Checkpoint,
    /// Buffers for rows that are quantised on the device, by their bytes.
    staging: HashMap<usize, wgpu::Buffer>,
    /// Bytes written since the device was last waited for.
    pending: usize,
}

impl Upload<'_> {
    fn part(&mut self, spec: &WeightSpec, part: &Part, buffer: &wgpu::Buffer) -> Result<()> {
        let info = self.checkpoint.need(&spec.name)?;
        let row = Format::of(info.dtype).row_bytes(spec.cols)?;
        // A multiple of 64 rows keeps every plane's piece on whole words.
        let step = (STAGE / row.max(1)).max(encode::ROWS) / encode::ROWS * encode::ROWS;
        for first in (0..part.rows).step_by(step) {
            let rows = first..part.rows.min(first + step);
            let before = spec.first + part.first;
            let from = before + rows.start..before + rows.end;
            let bytes = self.checkpoint.rows(info, from.clone())?;
            if let Some(block) = (Format::of(info.dtype).not_finite)(&bytes) {
                let row = from.start + block * Format::of(info.dtype).block_bytes / row.max(1);
                return Err(Error::NotFinite {
                    what: format!("row {row} of tensor `{}`", spec.name.escape_debug()),
                });
            }
            if info.dtype == spec.dtype {
                self.store(spec, part, buffer, rows, &bytes)?;
            } else if !self.encode(info, part, buffer, rows.clone(), &bytes)? {
                let elements = rows.len() * spec.cols;
                let made = quant::convert(info.dtype, &bytes, elements, spec.dtype);
                let made = made.map_err(|e| e.of_tensor(&spec.name))?;
                self.store(spec, part, buffer, rows, &made)?;
            }
            // A file's pages leave memory piece by piece: an embedding may be most of the file.
            drop(bytes);
            self.checkpoint.release(info, from);
            if self.pending >= 4 * STAGE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Puts rows of blocks into their places among the part's planes.
    fn store(
        &mut self,
        spec: &WeightSpec,
        part: &Part,
        buffer: &wgpu::Buffer,
        rows: Range<usize>,
        blocks: &[u8],
    ) -> Result<()> {
        let layout = Layout::new(spec.dtype, rows.len(), spec.cols);
        let mut packed = vec![0u8; layout.bytes];
        quant::repack_rows(spec.dtype, blocks, rows.len(), spec.cols, &mut packed)?;
        for plane in 0..Format::of(spec.dtype).planes.len() {
            let to = part.layout.rows(plane, rows.clone());
            // The last piece may end within a word; its plane is padded.
            let bytes = to.len().next_multiple_of(4);
            let piece = &packed[layout.offsets[plane]..][..bytes];
            self.gpu.queue.write_buffer(buffer, to.start as u64, piece);
        }
        self.pending += packed.len();
        Ok(())
    }

    /// Has the device quantise rows of blocks into their places; whether it can.
    fn encode(
        &mut self,
        info: &TensorInfo,
        part: &Part,
        buffer: &wgpu::Buffer,
        rows: Range<usize>,
        blocks: &[u8],
    ) -> Result<bool> {
        let layout = Layout::new(info.dtype, rows.len(), part.layout.cols);
        let fits = layout.bytes as u64 <= self.gpu.caps.max_binding;
        if !fits || !self.encoders.0.contains(&(info.dtype, part.layout.dtype)) {
            return Ok(false);
        }
        let launch: Option<Dispatch> = encode::encode(
            &self.gpu.caps,
            &info.name,
            source(&layout),
            DESTINATION,
            &part.layout,
            rows.start,
        );
        let Some(launch) = launch else {
            return Ok(false);
        };
        let mut packed = vec![0u8; layout.bytes];
        quant::repack_rows(info.dtype, blocks, rows.len(), layout.cols, &mut packed)?;
        let staging = self.staging.entry(packed.len());
        let staging = staging.or_insert_with(|| self.gpu.buffer("staging", packed.len() as u64));
        self.gpu.queue.write_buffer(staging, 0, &packed);
        let buffers = Buffers::from([(SOURCE, staging.clone()), (DESTINATION, buffer.clone())]);
        let program = Program::new(self.gpu, self.pipelines, &[launch], &buffers)?;
        let mut encoder = self.gpu.encoder();
        program.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        // What is written next waits for this, so that the staging buffer is free then.
        self.gpu.submit(encoder);
        self.pending += packed.len();
        Ok(true)
    }

    /// Submits what was written and waits, so that its staging memory is free again.
    fn flush(&mut self) -> Result<()> {
        self.pending = 0;
        self.staging.clear();
        self.gpu.wait(Some(&self.gpu.submit(self.gpu.encoder())))
    }
}
