//! The only place that names wgpu: device, buffers, pipelines, execution and readback.
