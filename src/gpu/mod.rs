//! The only place that names wgpu: device, buffers, pipelines, execution and readback.

mod device;
mod pipelines;
mod program;
mod readback;

pub use device::{AdapterInfo, DeviceOptions, Gpu, adapters};
pub use pipelines::Pipelines;
pub use program::{Buffers, Program};
pub use readback::{Readback, read};
