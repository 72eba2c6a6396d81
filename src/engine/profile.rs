//! Where a step's time goes: each launch between two timestamps of the device.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Engine, Row, Sequence};
use crate::error::{Error, Result};
use crate::gpu::{Extent, Readback};
use crate::kernel::{Access, Dispatch, Resource};

/// The time of one launch.
#[derive(Clone, Debug)]
pub struct LaunchTime {
    /// What it computes, such as `blk.3.attn_q`.
    pub label: String,
    /// Its kernel.
    pub kernel: &'static str,
    /// Bytes of weights it reads.
    pub weight_bytes: u64,
    /// Nanoseconds, the median of all repetitions.
    pub nanoseconds: f64,
}

/// Which step is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// One token after `depth` others, whose keys and values are whatever the cache holds.
    Decode {
        /// Tokens before it.
        depth: usize,
    },
    /// A whole chunk of a prompt, from position 0 on.
    Prompt,
}

impl Engine {
    /// Times every launch of a step, `repetitions` times. The device should be idle; what the cache
    /// and the step buffers hold afterwards is of no use, so open sequences should be dropped.
    ///
    /// # Errors
    /// [`Error::Device`] where the device has no timestamps inside passes.
    pub async fn profile(
        self: &Arc<Self>,
        what: Timed,
        repetitions: usize,
    ) -> Result<Vec<LaunchTime>> {
        let features = self.gpu.device.features();
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            return Err(Error::Device {
                reason: "it has no timestamps inside passes, so its launches can't be timed".into(),
            });
        }
        let which = usize::from(what == Timed::Prompt);
        let plan = &self.decoder()?.plans[which];
        let mut rows: Vec<Row> = match what {
            Timed::Decode { depth } => vec![row(depth.min(self.context - 1))],
            Timed::Prompt => (0..self.chunk).map(row).collect(),
        };
        // Positions that no sequence ever filled hold nothing that would take longer.
        let mut sequence = Sequence::new(self)?;
        let program = {
            let mut state = self.state();
            state.current = 0;
            sequence.reserve(&mut state, rows.last().map_or(0, |r| r.pos as usize + 1))?;
            Arc::clone(&state.programs[which])
        };
        for row in &mut rows {
            row.slot = sequence.slot();
        }
        let extent = Extent {
            tokens: rows.len(),
            positions: rows.last().map_or(0, |r| r.pos as usize + 1),
        };
        let queue = &self.gpu.queue;
        let step = self.buffer(Resource::Step);
        queue.write_buffer(step, 0, bytemuck::cast_slice(&rows));

        let device = &self.gpu.device;
        let count = program.len() as u32 + 1;
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("omnimini.profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let bytes = u64::from(count) * 8;
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("omnimini.profile"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let period = f64::from(queue.get_timestamp_period());
        let mut times = vec![Vec::new(); program.len()];
        let mut words = Vec::new();
        let mut readback = Readback::new(&self.gpu, bytes);
        for _ in 0..repetitions.max(1) {
            let mut encoder = self.gpu.encoder();
            program.encode_timed(
                extent,
                &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
                &set,
            );
            encoder.resolve_query_set(&set, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, readback.staging(), 0, bytes);
            readback.start(self.gpu.submit(encoder));
            readback.finish(&self.gpu, &mut words).await?;
            let at = |i: usize| u64::from(words[2 * i]) | u64::from(words[2 * i + 1]) << 32;
            for (i, samples) in times.iter_mut().enumerate() {
                samples.push(at(i + 1).saturating_sub(at(i)) as f64 * period);
            }
        }
        let time = |(d, mut samples): (&Dispatch, Vec<f64>)| {
            samples.sort_by(f64::total_cmp);
            LaunchTime {
                label: d.label.clone(),
                kernel: d.kernel.name,
                weight_bytes: self.weight_bytes(d),
                nanoseconds: samples[samples.len() / 2],
            }
        };
        Ok(plan.dispatches.iter().zip(times).map(time).collect())
    }

    /// Bytes of the weights that a launch reads whole; a gather reads next to nothing.
    fn weight_bytes(&self, d: &Dispatch) -> u64 {
        if d.kernel.name == "embed" {
            return 0;
        }
        let weight = |(r, a): &(Resource, Access)| match r {
            Resource::Weight(..) if *a == Access::Read => self.buffer(*r).size(),
            _ => 0,
        };
        d.bindings.iter().map(weight).sum()
    }
}

fn row(pos: usize) -> Row {
    Row {
        token: pos as u32 + 1,
        pos: pos as u32,
        slot: 0,
        live: 1,
    }
}

/// Sums of launches that do the same in every layer: `blk.3.attn_q` becomes `attn_q`. In order of
/// first appearance: (label, kernel, launches, weight bytes, nanoseconds).
pub fn by_operation(times: &[LaunchTime]) -> Vec<(String, &'static str, usize, u64, f64)> {
    let mut places: HashMap<(String, &'static str), usize> = HashMap::new();
    let mut sums: Vec<(String, &'static str, usize, u64, f64)> = Vec::new();
    for t in times {
        let label = match t.label.strip_prefix("blk.").and_then(|l| l.split_once('.')) {
            Some((_, rest)) => rest,
            None => &t.label,
        };
        let place = *places
            .entry((label.to_string(), t.kernel))
            .or_insert_with(|| {
                sums.push((label.to_string(), t.kernel, 0, 0, 0.0));
                sums.len() - 1
            });
        sums[place].2 += 1;
        sums[place].3 += t.weight_bytes;
        sums[place].4 += t.nanoseconds;
    }
    sums
}
