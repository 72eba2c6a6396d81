//! The only place that names wgpu: device, buffers, pipelines, execution and readback.

mod check;
mod device;
mod memory;
mod pipelines;
mod program;
mod readback;
mod store;

pub use check::compare;
pub(crate) use check::{Case, Checks, Wrong};
pub use device::{AdapterInfo, Counts, DeviceOptions, Gpu, Rewrite, Ticket, adapters, look};
pub use pipelines::Pipelines;
pub use program::{Buffers, Extent, Program};
pub use readback::{Readback, read};
pub use store::cache_folder;
pub(crate) use store::{Fnv, Kept};
