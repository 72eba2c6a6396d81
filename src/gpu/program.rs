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

/// How much of what a plan has room for a step needs.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Its tokens; see [`Dispatch::tokens`].
    pub tokens: usize,
    /// Positions that its last token sees; see [`Dispatch::positions`].
    pub positions: usize,
}

impl Extent {
    /// Everything there is room for.
    pub const ALL: Self = Self {
        tokens: usize::MAX,
        positions: usize::MAX,
    };
}

/// A recorded launch.
#[derive(Clone, Debug)]
struct Launch {
    label: String,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    /// Buffers of bindings 1, 2, …
    bound: Vec<(Resource, wgpu::Buffer)>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    tokens: Option<(usize, u32)>,
    positions: Option<(usize, u32)>,
}

impl Launch {
    /// Encodes it for a step of this extent.
    fn encode(&self, extent: Extent, pass: &mut wgpu::ComputePass<'_>) {
        let mut grid = self.grid;
        for (along, most) in [
            (self.tokens, extent.tokens),
            (self.positions, extent.positions),
        ] {
            if let Some((axis, each)) = along {
                let most = u32::try_from(most).unwrap_or(u32::MAX);
                grid[axis] = grid[axis].min(most.div_ceil(each));
            }
        }
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Binds the parameters of launch `i`, and its buffers.
fn group(
    gpu: &Gpu,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    params: &wgpu::Buffer,
    i: usize,
    bound: &[(Resource, wgpu::Buffer)],
) -> wgpu::BindGroup {
    let mut entries = vec![wgpu::BindGroupEntry {
        binding: 0,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: params,
            offset: i as u64 * PARAMS,
            size: std::num::NonZeroU64::new(PARAMS),
        }),
    }];
    for (n, (_, buffer)) in bound.iter().enumerate() {
        entries.push(wgpu::BindGroupEntry {
            binding: n as u32 + 1,
            resource: buffer.as_entire_binding(),
        });
    }
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(label),
        layout,
        entries: &entries,
    })
}

/// Launches with everything they bind, ready to be encoded any number of times.
#[derive(Clone, Debug)]
pub struct Program {
    launches: Vec<Launch>,
    params: wgpu::Buffer,
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
            let mut bound = Vec::with_capacity(d.bindings.len());
            for (resource, _) in &d.bindings {
                let buffer = buffers.get(resource).ok_or_else(|| Error::Shader {
                    kernel: d.kernel.name,
                    reason: format!("`{}` binds {resource}, which has no buffer", d.label),
                })?;
                bound.push((*resource, buffer.clone()));
            }
            launches.push(Launch {
                group: group(gpu, &d.label, layout, &params, i, &bound),
                label: d.label.clone(),
                pipeline: pipeline.clone(),
                layout: layout.clone(),
                bound,
                grid: d.grid,
                tokens: d.tokens,
                positions: d.positions,
            });
        }
        Ok(Self {
            launches,
            params,
            counters: Arc::clone(&gpu.counters),
        })
    }

    /// The same program with other buffers in the place of some.
    #[must_use]
    pub fn rebound(&self, gpu: &Gpu, changed: &Buffers) -> Self {
        let mut program = self.clone();
        for (i, launch) in program.launches.iter_mut().enumerate() {
            let mut differs = false;
            for (resource, buffer) in &mut launch.bound {
                if let Some(other) = changed.get(resource) {
                    *buffer = other.clone();
                    differs = true;
                }
            }
            if differs {
                let (layout, bound) = (&launch.layout, &launch.bound);
                launch.group = group(gpu, &launch.label, layout, &self.params, i, bound);
            }
        }
        program
    }

    /// Number of launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether there is nothing to launch.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Encodes every launch, for as much as there may be.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_range(0..self.launches.len(), Extent::ALL, pass);
    }

    /// Encodes some of the launches for a step of this extent; what of `range` is past the last launch
    /// is left out.
    pub fn encode_range(
        &self,
        range: Range<usize>,
        extent: Extent,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        let end = range.end.min(self.launches.len());
        let launches = self.launches.get(range.start..end).unwrap_or_default();
        self.counters
            .launches
            .fetch_add(launches.len() as u64, Relaxed);
        for launch in launches {
            launch.encode(extent, pass);
        }
    }

    /// Encodes every launch between timestamps: query i before launch i, one more after the last.
    pub fn encode_timed(
        &self,
        extent: Extent,
        pass: &mut wgpu::ComputePass<'_>,
        set: &wgpu::QuerySet,
    ) {
        for (i, launch) in self.launches.iter().enumerate() {
            pass.write_timestamp(set, i as u32);
            launch.encode(extent, pass);
        }
        pass.write_timestamp(set, self.launches.len() as u32);
    }
}
