//! Pipelines: composed, compiled and kept, each once a device; across runs where the backend can.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Fnv, Gpu, Kept};
use crate::error::{Error, Result};
use crate::kernel::{Dispatch, Kernel};
use crate::shader::{Dialect, Variant};

/// Every pipeline made so far on one device.
#[derive(Debug, Default)]
pub struct Pipelines {
    made: Mutex<HashMap<(&'static str, Variant), wgpu::ComputePipeline>>,
    disk: Option<Disk>,
}

/// The driver's compiled code and the file it is kept in.
#[derive(Debug)]
struct Disk {
    cache: wgpu::PipelineCache,
    file: Kept,
    /// Hash of what the file holds.
    held: Mutex<Option<u64>>,
}

impl Pipelines {
    /// None yet; what the driver compiled in earlier runs is used again where the backend can.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            made: Mutex::default(),
            disk: Disk::open(gpu),
        }
    }

    /// Keeps what the driver has compiled for the next run.
    pub fn save(&self) {
        let Some(disk) = &self.disk else { return };
        let Some(data) = disk.cache.get_data() else {
            return;
        };
        let hash = Fnv::new().with(&data).get();
        let mut held = disk.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != Some(hash) {
            disk.file.write(&data);
            *held = Some(hash);
        }
    }

    /// Makes what `dispatches` need and is not there yet, on all cores.
    ///
    /// # Errors
    /// [`Error::Shader`] where a kernel does not compose; a driver's complaint comes by
    /// [`Gpu::check`].
    pub fn prepare<'a>(
        &self,
        gpu: &Gpu,
        dispatches: impl Iterator<Item = &'a Dispatch>,
    ) -> Result<()> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<(&'static Kernel, &Variant)> = Vec::new();
        for d in dispatches {
            let known = missing
                .iter()
                .any(|(k, v)| k.name == d.kernel.name && **v == d.variant);
            if !known && !made.contains_key(&(d.kernel.name, d.variant.clone())) {
                missing.push((d.kernel, &d.variant));
            }
        }
        drop(made);
        let make = |(kernel, variant): &(&'static Kernel, &Variant)| {
            let pipeline = self.create(gpu, kernel, variant)?;
            let key = (kernel.name, (*variant).clone());
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.insert(key, pipeline);
            Ok(())
        };
        #[cfg(not(target_arch = "wasm32"))]
        {
            use rayon::prelude::*;
            missing.par_iter().try_for_each(make)
        }
        #[cfg(target_arch = "wasm32")]
        missing.iter().try_for_each(make)
    }

    /// The pipeline of a launch that was prepared.
    pub(super) fn get(&self, gpu: &Gpu, d: &Dispatch) -> Result<wgpu::ComputePipeline> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&(d.kernel.name, d.variant.clone())) {
            return Ok(pipeline.clone());
        }
        drop(made);
        self.create(gpu, d.kernel, &d.variant)
    }

    fn create(
        &self,
        gpu: &Gpu,
        kernel: &Kernel,
        variant: &Variant,
    ) -> Result<wgpu::ComputePipeline> {
        let cache = self.disk.as_ref().map(|disk| &disk.cache);
        create(gpu, kernel, variant, cache)
    }
}

/// Above this many bytes a cache is begun anew: it only ever grows.
const MOST: usize = 64 << 20;

impl Disk {
    #[expect(
        unsafe_code,
        reason = "a driver's own compiled code cannot be checked, only recognised"
    )]
    fn open(gpu: &Gpu) -> Option<Self> {
        if !gpu
            .device
            .features()
            .contains(wgpu::Features::PIPELINE_CACHE)
        {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(&gpu.device.adapter_info())?;
        let file = gpu.kept(&key)?;
        let data = file.read().filter(|data| data.len() <= MOST);
        let held = data.as_ref().map(|data| Fnv::new().with(data).get());
        let desc = wgpu::PipelineCacheDescriptor {
            label: Some("omnimini"),
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: the data are what `get_data` gave for this adapter, this driver's version and this
        // version of ours: that is in the file's name, and the hash in the file says that no byte
        // of them changed since. wgpu looks at its own header and the driver at its own besides,
        // and both begin anew (`fallback`) with data that are not theirs. Whoever can write into
        // the user's cache folder can do worse than to forge such a file.
        let cache = unsafe { gpu.device.create_pipeline_cache(&desc) };
        Some(Self {
            cache,
            file,
            held: Mutex::new(held),
        })
    }
}

/// The text of a variant, as it is compiled on this device.
pub(super) fn text(gpu: &Gpu, kernel: &Kernel, variant: &Variant) -> Result<String> {
    let dialect = if cfg!(target_arch = "wasm32") {
        Dialect::Browser
    } else {
        Dialect::Naga
    };
    let wgsl = kernel
        .compose(variant, dialect)
        .map_err(|e| Error::Shader {
            kernel: kernel.name,
            reason: e.to_string(),
        })?;
    Ok(match gpu.rewrite {
        Some(rewrite) => rewrite(kernel.name, &wgsl),
        None => wgsl,
    })
}

fn create(
    gpu: &Gpu,
    kernel: &Kernel,
    variant: &Variant,
    cache: Option<&wgpu::PipelineCache>,
) -> Result<wgpu::ComputePipeline> {
    let wgsl = text(gpu, kernel, variant)?;
    let label = format!("omnimini.{}", kernel.name);
    let desc = wgpu::ShaderModuleDescriptor {
        label: Some(&label),
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    };
    let module = module(gpu, desc);
    let desc = wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache,
    };
    Ok(gpu.device.create_compute_pipeline(&desc))
}

/// Compiles without bounds checks, which the kernels' own tests run with.
#[cfg(not(target_arch = "wasm32"))]
#[expect(
    unsafe_code,
    reason = "bounds checks cost 3 to 9 percent; every shader passes its tests with them on"
)]
fn module(gpu: &Gpu, desc: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
    if std::env::var_os("OMNIMINI_CHECKED_SHADERS").is_some() {
        return gpu.device.create_shader_module(desc);
    }
    // SAFETY: the text is composed from this crate's own files. Their index arithmetic stays inside
    // the bindings for every plan (tests/kernels.rs runs each variant with checks on and guard
    // words around its buffers), and their loops end.
    unsafe {
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        gpu.device.create_shader_module_trusted(desc, checks)
    }
}

#[cfg(target_arch = "wasm32")]
fn module(gpu: &Gpu, desc: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
    gpu.device.create_shader_module(desc)
}
