//! A plan on a device: pipelines, parameters and bind groups made once, replayed every step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::device::Counters;
use super::{Gpu, Pipelines};
use crate::error::{Error, Result};
use crate::kernel::{Dispatch, Resource};
use crate::shader::Const;

/// Buffers by what they are.
pub type Buffers = HashMap<Resource, wgpu::Buffer>;

/// A recorded launch.
#[derive(Debug)]
struct Launch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    tokens: Option<(usize, u32)>,
}

impl Launch {
    /// Encodes it for a step of `tokens` tokens; see [`Dispatch::tokens`].
    fn encode(&self, tokens: usize, pass: &mut wgpu::ComputePass<'_>) {
        let mut grid = self.grid;
        if let Some((axis, each)) = self.tokens {
            let most = u32::try_from(tokens).unwrap_or(u32::MAX);
            grid[axis] = grid[axis].min(most.div_ceil(each));
        }
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Launches with everything they bind, ready to be encoded any number of times.
#[derive(Debug)]
pub struct Program {
    launches: Vec<Launch>,
    counters: Arc<Counters>,
}

/// Distance of two parameter blocks: WebGPU's default alignment of uniform offsets.
const PARAMS: u64 = 256;

impl Program {
    /// Binds `dispatches` to `buffers`.
    ///
    /// # Errors
    /// [`Error::Shader`] where a kernel does not compose or a buffer is missing.
    pub fn new(
        gpu: &Gpu,
        pipelines: &Pipelines,
        dispatches: &[Dispatch],
        buffers: &Buffers,
    ) -> Result<Self> {
        pipelines.prepare(gpu, dispatches.iter())?;
        let mut bytes = vec![0u8; dispatches.len() * PARAMS as usize];
        for (d, block) in dispatches
            .iter()
            .zip(bytes.chunks_exact_mut(PARAMS as usize))
        {
            for (value, word) in d.params.iter().zip(block.chunks_exact_mut(4)) {
                let bits = match *value {
                    Const::U(v) => v,
                    Const::F(v) => v.to_bits(),
                    Const::B(v) => u32::from(v),
                };
                word.copy_from_slice(&bits.to_le_bytes());
            }
        }
        let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("omnimini.params"),
            size: (bytes.len() as u64).max(PARAMS),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&params, 0, &bytes);
        let mut layouts: HashMap<
            (&str, &crate::shader::Variant),
            (wgpu::ComputePipeline, wgpu::BindGroupLayout),
        > = HashMap::new();
        let mut launches = Vec::with_capacity(dispatches.len());
        for (i, d) in dispatches.iter().enumerate() {
            let key = (d.kernel.name, &d.variant);
            let (pipeline, layout) = match layouts.entry(key) {
                Entry::Occupied(made) => made.into_mut(),
                Entry::Vacant(new) => {
                    let pipeline = pipelines.get(gpu, d)?;
                    let layout = pipeline.get_bind_group_layout(0);
                    new.insert((pipeline, layout))
                }
            };
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &params,
                    offset: i as u64 * PARAMS,
                    size: std::num::NonZeroU64::new(PARAMS),
                }),
            }];
            for (n, (resource, _)) in d.bindings.iter().enumerate() {
                let buffer = buffers.get(resource).ok_or_else(|| Error::Shader {
                    kernel: d.kernel.name,
                    reason: format!("`{}` binds {resource}, which has no buffer", d.label),
                })?;
                entries.push(wgpu::BindGroupEntry {
                    binding: n as u32 + 1,
                    resource: buffer.as_entire_binding(),
                });
            }
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&d.label),
                layout,
                entries: &entries,
            });
            launches.push(Launch {
                pipeline: pipeline.clone(),
                group,
                grid: d.grid,
                tokens: d.tokens,
            });
        }
        Ok(Self {
            launches,
            counters: Arc::clone(&gpu.counters),
        })
    }

    /// Number of launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether there is nothing to launch.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Encodes every launch, for as many tokens as there may be.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_range(0..self.launches.len(), usize::MAX, pass);
    }

    /// Encodes some of the launches for a step of `tokens` tokens; what of `range` is past the last
    /// launch is left out.
    pub fn encode_range(
        &self,
        range: Range<usize>,
        tokens: usize,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        let end = range.end.min(self.launches.len());
        let launches = self.launches.get(range.start..end).unwrap_or_default();
        self.counters
            .launches
            .fetch_add(launches.len() as u64, Relaxed);
        for launch in launches {
            launch.encode(tokens, pass);
        }
    }

    /// Encodes every launch between timestamps: query i before launch i, one more after the last.
    pub fn encode_timed(&self, pass: &mut wgpu::ComputePass<'_>, set: &wgpu::QuerySet) {
        for (i, launch) in self.launches.iter().enumerate() {
            pass.write_timestamp(set, i as u32);
            launch.encode(usize::MAX, pass);
        }
        pass.write_timestamp(set, self.launches.len() as u32);
    }
}
