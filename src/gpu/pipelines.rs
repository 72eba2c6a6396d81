//! Pipelines: composed, compiled and kept, each once a device.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{Dispatch, Kernel};
use crate::shader::{Dialect, Variant};

/// Every pipeline made so far on one device.
#[derive(Debug, Default)]
pub struct Pipelines {
    made: Mutex<HashMap<(&'static str, Variant), wgpu::ComputePipeline>>,
}

impl Pipelines {
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
            let pipeline = create(gpu, kernel, variant)?;
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
        create(gpu, d.kernel, &d.variant)
    }
}

fn create(gpu: &Gpu, kernel: &Kernel, variant: &Variant) -> Result<wgpu::ComputePipeline> {
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
        cache: None,
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
