//! Adapters and devices: finding one, opening it with what it can do, and noticing when it fails.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory;
use super::store::{Fnv, Kept, cache_folder};
use crate::caps::{Caps, DeviceKind, Precision};
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
    /// Bytes there are for buffers, where anybody says: of a card, its own memory, which others may use,
    /// too; of a software driver, what the system has left.
    pub memory: Option<u64>,
    /// Native half precision.
    pub f16: bool,
    /// Side of square cooperative matrices, f16 in and f32 out, where there are any.
    pub cooperative_matrix: Option<u32>,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub max_invocations: u32,
    /// Storage buffers that one kernel may bind.
    pub max_storage_buffers: u32,
    /// Workgroups in one dimension of a dispatch.
    pub max_groups: u32,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Which adapter: a number of the list or a part of its name; the best when `None`.
    pub adapter: Option<String>,
    /// What activations may be rounded to.
    pub precision: Precision,
    /// The kind of device whose kernels are used, where not the adapter's own: for tests.
    pub kind: Option<DeviceKind>,
    /// WebGPU's default limits and no optional feature, as a browser may give.
    pub strict_webgpu: bool,
    /// Folder for compiled pipelines and results of checks; nothing is kept when `None`.
    pub cache: Option<PathBuf>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            adapter: None,
            precision: Precision::Auto,
            kind: None,
            strict_webgpu: false,
            cache: cache_folder(),
        }
    }
}

/// What was asked of a device so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submissions to the queue.
    pub submissions: u64,
    /// Times that this process stopped until the device had done something.
    pub waits: u64,
    /// Launches of kernels.
    pub launches: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    submissions: AtomicU64,
    waits: AtomicU64,
    pub(super) launches: AtomicU64,
}

/// A submission, to wait for.
#[derive(Clone, Debug)]
pub struct Ticket(wgpu::SubmissionIndex);

/// Changes a kernel's WGSL before it is compiled: gets the kernel's name and the text.
pub type Rewrite = fn(&str, &str) -> String;

/// What went wrong on a device since it was last asked.
#[derive(Debug, Default)]
struct Faults {
    lost: Option<String>,
    error: Option<Error>,
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
    pub(super) counters: Arc<Counters>,
    /// Folder for what is kept.
    pub(super) cache: Option<PathBuf>,
    pub(super) rewrite: Option<Rewrite>,
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
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(wgpu::Features::PIPELINE_CACHE);

/// Matrix units. wgpu calls them experimental and wants a word that this is known.
const MATRICES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;

fn caps(
    info: &wgpu::AdapterInfo,
    features: wgpu::Features,
    limits: &wgpu::Limits,
    coop_matrix: Option<u32>,
    precision: Precision,
) -> Caps {
    let subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size > 0;
    Caps {
        kind: kind(info.device_type),
        f16: features.contains(wgpu::Features::SHADER_F16),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        subgroups: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        coop_matrix,
        precision: precision.resolve(
            kind(info.device_type),
            features.contains(wgpu::Features::SHADER_F16),
        ),
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_groups: limits.max_compute_workgroups_per_dimension,
        offset_align: limits.min_storage_buffer_offset_alignment,
    }
}

fn describe(
    index: usize,
    info: &wgpu::AdapterInfo,
    caps: &Caps,
    memory: Option<u64>,
) -> AdapterInfo {
    AdapterInfo {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", caps.kind),
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .into(),
        subgroups: caps.subgroups,
        memory,
        f16: caps.f16,
        cooperative_matrix: caps.coop_matrix,
        max_binding: caps.max_binding,
        max_buffer: caps.max_buffer,
        workgroup_memory: caps.workgroup_memory,
        max_invocations: caps.max_invocations,
        max_storage_buffers: caps.max_storage_buffers,
        max_groups: caps.max_groups,
    }
}

/// Side of the largest square matrices that an adapter multiplies, f16 in and f32 out.
fn coop_matrix(adapter: &wgpu::Adapter) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    if !adapter.features().contains(MATRICES) {
        return None;
    }
    let sides = adapter.cooperative_matrix_properties().into_iter();
    let square = |p: &wgpu::CooperativeMatrixProperties| {
        [p.m_size, p.n_size, p.k_size]
            .iter()
            .all(|s| *s == p.m_size)
            && (p.ab_type, p.cr_type) == (F16, F32)
    };
    let known = |side: &u32| [8, 16].contains(side);
    sides.filter(square).map(|p| p.m_size).filter(known).max()
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
        let options = DeviceOptions::default();
        describe_adapter(index, a, &options).0
    };
    adapters.iter().enumerate().map(describe).collect()
}

/// An adapter and what it can do, before a device of it is open.
fn describe_adapter(
    index: usize,
    adapter: &wgpu::Adapter,
    options: &DeviceOptions,
) -> (AdapterInfo, Caps) {
    let info = adapter.get_info();
    let (features, limits, matrix) = wanted(adapter, options);
    let mut caps = caps(&info, features, &limits, matrix, options.precision);
    let memory = memory::of_adapter(adapter, caps.kind);
    let described = describe(index, &info, &caps, memory);
    as_asked(&mut caps, options);
    (described, caps)
}

/// The features and limits that a device is asked for, and the side of its matrix units.
fn wanted(
    adapter: &wgpu::Adapter,
    options: &DeviceOptions,
) -> (wgpu::Features, wgpu::Limits, Option<u32>) {
    if options.strict_webgpu {
        return (wgpu::Features::empty(), wgpu::Limits::default(), None);
    }
    let features = adapter.features() & WANTED;
    (features, adapter.limits(), coop_matrix(adapter))
}

/// Takes the kind of device that options name for the adapter's own.
fn as_asked(caps: &mut Caps, options: &DeviceOptions) {
    if let Some(kind) = options.kind {
        caps.kind = kind;
        caps.precision = options.precision.resolve(kind, caps.f16);
    }
}

/// The adapter that options choose, and its number.
async fn choose(options: &DeviceOptions) -> Result<(usize, wgpu::Adapter)> {
    let mut adapters = enumerate(options.strict_webgpu).await;
    let found: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let index = match options.adapter.as_deref() {
        None => 0,
        Some(wanted) => wanted
            .parse()
            .ok()
            .filter(|index| *index < found.len())
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
    Ok((index, adapters.swap_remove(index)))
}

/// The adapter that options choose and what it can do, without opening a device of it.
///
/// # Errors
/// [`Error::NoAdapter`] where none fits.
pub async fn look(options: &DeviceOptions) -> Result<(AdapterInfo, Caps)> {
    let (index, adapter) = choose(options).await?;
    Ok(describe_adapter(index, &adapter, options))
}

/// wgpu's leave to use what it calls experimental.
#[expect(
    unsafe_code,
    reason = "matrix units; every kernel with them is checked on the adapter before it is used"
)]
fn experimental(wanted: bool) -> wgpu::ExperimentalFeatures {
    if !wanted {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: the token asks that undefined behaviour in experimental features be expected. Ours are
    // cooperative matrices, in one kernel whose loads and stores stay inside workgroup memory.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

fn refused(e: &wgpu::RequestDeviceError) -> Error {
    Error::Device {
        reason: e.to_string(),
    }
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where none fits, [`Error::Device`] where the driver refuses.
    pub async fn open(options: &DeviceOptions) -> Result<Self> {
        let (index, adapter) = choose(options).await?;
        let (mut features, limits, matrix) = wanted(&adapter, options);
        if matrix.is_some() {
            features |= MATRICES;
        }
        let desc = wgpu::DeviceDescriptor {
            label: Some("omnimini"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental(matrix.is_some()),
            ..Default::default()
        };
        let opened = adapter.request_device(&desc).await;
        let (device, queue, matrix) = match opened {
            Ok((device, queue)) => (device, queue, matrix),
            // Some drivers offer matrix units and then refuse them.
            Err(e) if matrix.is_some() => {
                let name = adapter.get_info().name;
                log::warn!("{name}: no matrix units after all ({e})");
                let desc = wgpu::DeviceDescriptor {
                    required_features: features - MATRICES,
                    experimental_features: experimental(false),
                    ..desc
                };
                let opened = adapter.request_device(&desc).await;
                let (device, queue) = opened.map_err(|e| refused(&e))?;
                (device, queue, None)
            }
            Err(e) => return Err(refused(&e)),
        };
        let cache = options.cache.clone();
        let mut gpu = Self::new(device, queue, index, cache, matrix, options.precision);
        as_asked(&mut gpu.caps, options);
        let (wanted, used) = (options.precision, gpu.caps.precision);
        if wanted != Precision::Auto && wanted != used {
            log::warn!(
                "{}: {wanted} does not pay or is not there, {used} is used",
                gpu.info.name
            );
        }
        Ok(gpu)
    }

    /// Takes a device that the program has already, for example its window's. Its error handler and
    /// its device-lost callback become ours: what goes wrong comes as an error of the call at hand.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::new(device, queue, 0, cache_folder(), None, Precision::Auto)
    }

    /// Compiles what `rewrite` makes of every kernel: for tests of what happens on a driver that
    /// computes wrongly.
    #[must_use]
    pub fn with_rewrite(mut self, rewrite: Rewrite) -> Self {
        self.rewrite = Some(rewrite);
        self
    }

    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        index: usize,
        cache: Option<PathBuf>,
        matrix: Option<u32>,
        precision: Precision,
    ) -> Self {
        let info = device.adapter_info();
        let features = device.features();
        let caps = caps(&info, features, &device.limits(), matrix, precision);
        let faults = Arc::new(Mutex::new(Faults::default()));
        let seen = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            // What fails on a device that is gone says nothing new.
            let mut faults = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if faults.lost.is_none() && faults.error.is_none() {
                log::debug!("the device reports: {e}");
                faults.error = Some(fault(&e));
            }
        }));
        let seen = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = match (message.trim(), reason) {
                ("", wgpu::DeviceLostReason::Destroyed) => "it was destroyed",
                ("", _) => "no reason was given",
                (message, _) => message,
            };
            let mut faults = seen.lock().unwrap_or_else(PoisonError::into_inner);
            faults.lost.get_or_insert(message.to_string());
        });
        Self {
            info: describe(index, &info, &caps, memory::of_device(&device, caps.kind)),
            device,
            queue,
            caps,
            faults,
            counters: Arc::default(),
            cache,
            rewrite: None,
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that went wrong since the last call, as an error.
    pub fn check(&self) -> Result<()> {
        // A device that is gone is often noticed first by what fails on it: ask it once more.
        #[cfg(not(target_arch = "wasm32"))]
        let asks = {
            let faults = self.faults();
            faults.error.is_some() && faults.lost.is_none()
        };
        #[cfg(not(target_arch = "wasm32"))]
        if asks {
            let _ = self.poll(wgpu::PollType::Wait {
                submission_index: None,
                timeout: Some(PATIENCE),
            });
        }
        let mut faults = self.faults();
        if let Some(reason) = faults.lost.clone() {
            return Err(Error::DeviceLost { reason });
        }
        faults.error.take().map_or(Ok(()), Err)
    }

    /// Submits what was encoded.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Ticket {
        self.counters.submissions.fetch_add(1, Relaxed);
        Ticket(self.queue.submit([encoder.finish()]))
    }

    /// A new encoder.
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Waits until a submission is done, or until everything is; callbacks have run then. A browser
    /// cannot wait: there this only looks for errors, and callbacks come by themselves.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where the device went away, and whatever [`Gpu::check`] finds.
    pub fn wait(&self, ticket: Option<&Ticket>) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        {
            self.counters.waits.fetch_add(1, Relaxed);
            loop {
                let polled = self.poll(wgpu::PollType::Wait {
                    submission_index: ticket.map(|t| t.0.clone()),
                    timeout: Some(PATIENCE),
                });
                match polled {
                    // However slow a device is: as long as it is there, it is waited for.
                    Some(Err(wgpu::PollError::Timeout)) => self.check()?,
                    // The submission was refused, as on a device that is gone: ask for the reason.
                    Some(Err(_)) => {
                        self.poll(wgpu::PollType::wait_indefinitely());
                        self.check()?;
                        return Err(Error::DeviceLost {
                            reason: "it took no more work".into(),
                        });
                    }
                    Some(Ok(_)) | None => break,
                }
            }
        }
        #[cfg(target_arch = "wasm32")]
        let _ = ticket;
        self.check()
    }

    /// Polls; `None` where the device turned out to be lost in it.
    #[cfg(not(target_arch = "wasm32"))]
    fn poll(&self, how: wgpu::PollType) -> Option<Result<wgpu::PollStatus, wgpu::PollError>> {
        let polled = quietly(|| self.device.poll(how));
        if polled.is_none() {
            let mut faults = self.faults();
            faults
                .lost
                .get_or_insert_with(|| "the driver gave it up".into());
        }
        polled
    }

    /// What was asked of the device so far.
    pub fn counts(&self) -> Counts {
        Counts {
            submissions: self.counters.submissions.load(Relaxed),
            waits: self.counters.waits.load(Relaxed),
            launches: self.counters.launches.load(Relaxed),
        }
    }

    /// Says which adapter, driver and version of ours something holds for.
    pub(crate) fn identity(&self) -> u64 {
        let info = self.device.adapter_info();
        let text = format!(
            "{} {} {} {:?} {} {} {:?} {} {:?}",
            info.name,
            info.vendor,
            info.device,
            info.backend,
            info.driver,
            info.driver_info,
            self.device.features(),
            env!("CARGO_PKG_VERSION"),
            std::env::var_os("OMNIMINI_CHECKED_SHADERS").is_some(),
        );
        Fnv::new().with(text.as_bytes()).get()
    }

    /// A file that is kept for this adapter, where something may be kept.
    pub(crate) fn kept(&self, name: &str) -> Option<Kept> {
        let folder = self.cache.as_deref()?;
        Some(Kept::new(
            folder,
            &format!("{name}-{:016x}", self.identity()),
        ))
    }

    /// Bytes of the buffer that [`Gpu::buffer`] makes for `bytes`: kernels read by up to 32.
    pub fn buffer_bytes(bytes: u64) -> u64 {
        bytes.next_multiple_of(32).max(32)
    }

    /// A storage buffer of `bytes`, rounded up to whole words; never empty.
    pub fn buffer(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: Self::buffer_bytes(bytes),
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }
}

/// How long a wait goes on before it looks for errors in between.
#[cfg(not(target_arch = "wasm32"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// An error of the device in our words.
fn fault(e: &wgpu::Error) -> Error {
    match e {
        wgpu::Error::OutOfMemory { .. } => Error::DeviceMemory,
        // The first line says what it is about; those below it name wgpu's own objects.
        e => Error::Device {
            reason: e
                .to_string()
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        },
    }
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static POLLING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a poll of wgpu's, which panics where the driver reports a lost device: that is `None`, and
/// is not printed. Every other panic goes on.
#[cfg(not(target_arch = "wasm32"))]
fn quietly<T>(poll: impl FnOnce() -> T) -> Option<T> {
    use std::panic::{self, AssertUnwindSafe};
    static HOOK: std::sync::Once = std::sync::Once::new();
    // A panic's text is a `&str` where the compiler could format it, else a `String`.
    let ours = |payload: &dyn std::any::Any| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied());
        text.is_some_and(|t| t.starts_with("Error in Device::poll"))
    };
    HOOK.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !(POLLING.get() && ours(info.payload())) {
                next(info);
            }
        }));
    });
    POLLING.set(true);
    let polled = panic::catch_unwind(AssertUnwindSafe(poll));
    POLLING.set(false);
    match polled {
        Ok(polled) => Some(polled),
        Err(payload) if ours(&*payload) => None,
        Err(payload) => panic::resume_unwind(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_gives_up_in_a_poll_is_no_panic() {
        assert_eq!(quietly(|| 7), Some(7));
        let lost = quietly(|| panic!("Error in Device::poll: {}", "Parent device is lost"));
        assert_eq!(lost, None::<()>);
        let other = std::panic::catch_unwind(|| quietly(|| panic!("another {}", 1)));
        assert!(other.is_err());
    }

    #[test]
    fn errors_have_words() {
        let source = || Box::new(std::io::Error::other("x"));
        let e = fault(&wgpu::Error::OutOfMemory { source: source() });
        assert!(e.to_string().contains("memory"), "{e}");
        let description = "Validation Error\n\nCaused by:\n  In Device::create_buffer\n".into();
        let e = fault(&wgpu::Error::Validation {
            source: source(),
            description,
        });
        let text = e.to_string();
        assert!(
            text.contains("create_buffer") && !text.contains('\n'),
            "{e}"
        );
    }
}
