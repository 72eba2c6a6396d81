//! Adapters and devices: finding one, opening it with what it can do, and noticing when it fails.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::caps::{Caps, DeviceKind};
use crate::error::{Error, Result};

/// An adapter of this machine, as `omnimini devices` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterInfo {
    /// Its place in the list, which `--adapter` takes.
    pub index: usize,
    /// Name of the device.
    pub name: String,
    /// API it is driven by: Vulkan, Metal, Dx12, BrowserWebGpu.
    pub backend: String,
    /// Discrete, Integrated, Cpu or Other.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Smallest and largest subgroup, where subgroup operations can be used.
    pub subgroups: Option<(u32, u32)>,
    /// Native half precision.
    pub f16: bool,
    /// Cooperative matrices of 8 x 8 halves.
    pub cooperative_matrix: bool,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub max_invocations: u32,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Which adapter: a number of the list or a part of its name; the best when `None`.
    pub adapter: Option<String>,
    /// WebGPU's default limits and no optional feature, as a browser may give.
    pub strict_webgpu: bool,
}

/// What went wrong on a device since it was last asked.
#[derive(Debug, Default)]
struct Faults {
    lost: Option<String>,
    error: Option<String>,
}

/// An open device with its queue.
#[derive(Debug)]
pub struct Gpu {
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// What it is.
    pub info: AdapterInfo,
    /// What it can do.
    pub caps: Caps,
    faults: Arc<Mutex<Faults>>,
}

fn instance(strict: bool) -> wgpu::Instance {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.backends = wgpu::Backends::PRIMARY;
    if strict {
        desc.flags |= wgpu::InstanceFlags::STRICT_WEBGPU_COMPLIANCE;
    }
    wgpu::Instance::new(desc)
}

fn kind(ty: wgpu::DeviceType) -> DeviceKind {
    match ty {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
        wgpu::DeviceType::Cpu => DeviceKind::Cpu,
        _ => DeviceKind::Other,
    }
}

/// The features we use where an adapter has them.
const WANTED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(wgpu::Features::PIPELINE_CACHE);

fn caps(
    info: &wgpu::AdapterInfo,
    features: wgpu::Features,
    limits: &wgpu::Limits,
    coop_matrix: bool,
) -> Caps {
    let subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size > 0;
    Caps {
        kind: kind(info.device_type),
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        coop_matrix,
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_groups: limits.max_compute_workgroups_per_dimension,
        offset_align: limits.min_storage_buffer_offset_alignment,
    }
}

fn describe(index: usize, info: &wgpu::AdapterInfo, caps: &Caps) -> AdapterInfo {
    AdapterInfo {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", caps.kind),
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .into(),
        subgroups: caps.subgroups,
        f16: caps.f16,
        cooperative_matrix: caps.coop_matrix,
        max_binding: caps.max_binding,
        max_buffer: caps.max_buffer,
        workgroup_memory: caps.workgroup_memory,
        max_invocations: caps.max_invocations,
    }
}

fn has_coop_matrix(adapter: &wgpu::Adapter) -> bool {
    adapter
        .features()
        .contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
}

/// Every adapter, real GPUs first; the order `--adapter` numbers them by.
async fn enumerate(strict: bool) -> Vec<wgpu::Adapter> {
    let mut adapters = instance(strict)
        .enumerate_adapters(wgpu::Backends::PRIMARY)
        .await;
    adapters.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// Every adapter of this machine.
pub async fn adapters() -> Vec<AdapterInfo> {
    let adapters = enumerate(false).await;
    let describe = |(index, a): (usize, &wgpu::Adapter)| {
        let info = a.get_info();
        let caps = caps(&info, a.features(), &a.limits(), has_coop_matrix(a));
        describe(index, &info, &caps)
    };
    adapters.iter().enumerate().map(describe).collect()
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where none fits, [`Error::Device`] where the driver refuses.
    pub async fn open(options: &DeviceOptions) -> Result<Self> {
        let mut adapters = enumerate(options.strict_webgpu).await;
        let found: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
        let index = match options.adapter.as_deref() {
            None => 0,
            Some(wanted) => wanted
                .parse()
                .ok()
                .or_else(|| {
                    let wanted = wanted.to_lowercase();
                    found
                        .iter()
                        .position(|n| n.to_lowercase().contains(&wanted))
                })
                .unwrap_or(usize::MAX),
        };
        if index >= adapters.len() {
            return Err(Error::NoAdapter {
                wanted: options.adapter.clone(),
                found,
            });
        }
        let adapter = adapters.swap_remove(index);
        let (features, limits) = if options.strict_webgpu {
            (wgpu::Features::empty(), wgpu::Limits::default())
        } else {
            (adapter.features() & WANTED, adapter.limits())
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("omnimini"),
                required_features: features,
                required_limits: limits,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device {
                reason: e.to_string(),
            })?;
        Ok(Self::new(device, queue, index))
    }

    /// Takes a device that the program has already, for example its window's.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::new(device, queue, 0)
    }

    fn new(device: wgpu::Device, queue: wgpu::Queue, index: usize) -> Self {
        let info = device.adapter_info();
        let coop = device
            .features()
            .contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let caps = caps(&info, device.features(), &device.limits(), coop);
        let faults = Arc::new(Mutex::new(Faults::default()));
        let seen = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            log::error!("the device reports: {e}");
            let mut faults = seen.lock().unwrap_or_else(PoisonError::into_inner);
            faults.error.get_or_insert(e.to_string());
        }));
        let seen = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let mut faults = seen.lock().unwrap_or_else(PoisonError::into_inner);
                faults.lost.get_or_insert(message);
            }
        });
        Self {
            info: describe(index, &info, &caps),
            device,
            queue,
            caps,
            faults,
        }
    }

    /// The first thing that went wrong since the last call, as an error.
    pub fn check(&self) -> Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = faults.lost.clone() {
            return Err(Error::DeviceLost { reason });
        }
        match faults.error.take() {
            Some(reason) => Err(Error::Device { reason }),
            None => Ok(()),
        }
    }

    /// A storage buffer of `bytes`, rounded up to whole words; never empty.
    pub fn buffer(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.next_multiple_of(16).max(16),
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }
}
