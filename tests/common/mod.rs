//! What the tests on a device share.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::struct_excessive_bools,
    reason = "shared by tests, each of which uses a part"
)]

pub mod tiny;

use omnimini::gpu::{DeviceOptions, Gpu};

/// The adapter the tests run on.
pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::open(&options())).unwrap()
}

/// See `tests/kernels.rs`.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        adapter: std::env::var("OMNIMINI_ADAPTER").ok(),
        strict_webgpu: std::env::var_os("OMNIMINI_STRICT_WEBGPU").is_some(),
        ..DeviceOptions::default()
    }
}
