//! OmniMini: an open, local GPT-4o mini that runs on any GPU through wgpu compute shaders.
//!
//! Five nouns carry everything; ARCHITECTURE.md maps them to files.
//! A [`format::Checkpoint`] is bytes with an index, a [`graph::Graph`] is operations on shaped
//! tensors, a [`plan::Plan`] is that graph made concrete for one adapter, an [`engine::Engine`] is
//! a device with a model loaded, and a [`session::Session`] is one conversation on it.

pub mod caps;
pub mod engine;
pub mod error;
pub mod format;
pub mod gpu;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod quant;
#[cfg(not(target_arch = "wasm32"))]
pub mod quantize;
pub mod rope;
pub mod session;
pub mod shader;
pub mod tensor;
pub mod text;

#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
pub mod hub;

#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub mod bench;
#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub mod cli;

/// The wgpu that this crate is built on, for a program that brings its own device.
pub use wgpu;

pub use engine::{LoadOptions, Sampling};
pub use error::{Error, Result};
pub use session::{EmbedOptions, Embedding, Model, Options, Session};
pub use text::Part;
