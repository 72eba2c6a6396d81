//! What the tests on a device share.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::struct_excessive_bools,
    reason = "shared by tests, each of which uses a part"
)]

pub mod tiny;
pub mod vocabularies;

use std::path::PathBuf;

use omnimini::caps::Precision;
use omnimini::gpu::{DeviceOptions, Gpu};
use omnimini::hub;

/// The adapter the tests run on.
pub fn gpu() -> Gpu {
    pollster::block_on(Gpu::open(&options())).unwrap()
}

/// See `tests/kernels.rs`.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        adapter: std::env::var("OMNIMINI_ADAPTER").ok(),
        precision: std::env::var("OMNIMINI_PRECISION")
            .map_or(Precision::Auto, |p| p.parse().unwrap()),
        strict_webgpu: std::env::var_os("OMNIMINI_STRICT_WEBGPU").is_some(),
        ..DeviceOptions::default()
    }
}

/// The longest text that a test takes: what a software driver computes in a minute, or what
/// `OMNIMINI_LONGEST` says.
pub fn longest(usual: usize) -> usize {
    std::env::var("OMNIMINI_LONGEST").map_or(usual, |l| l.parse().unwrap())
}

/// The file of a model: in the folder that `OMNIMINI_TEST_MODELS` names, as `NAME.gguf`, or in the
/// cache folder, where `omnimini pull` puts it.
pub fn model_file(name: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("OMNIMINI_TEST_MODELS") {
        let file = PathBuf::from(folder).join(format!("{name}.gguf"));
        return file.is_file().then_some(file);
    }
    hub::find(&hub::Home::from_env().ok()?, name).ok()
}
