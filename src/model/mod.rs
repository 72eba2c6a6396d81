//! Model descriptions: metadata to a config, a config to a graph.
//!
//! [`ARCHS`] has a row for each architecture; what a model has beyond its row (norms of q and k,
//! norms before and after blocks, biases, fused products, experts, its own output matrix) is seen from
//! the tensors that are there.

mod archs;
mod config;
mod decoder;
mod encoder;

pub use archs::{ARCHS, Arch};
pub use config::{Config, Experts, Pooling, RopeScaling};
pub use decoder::Head;

use crate::error::{Error, Result};
use crate::format::Checkpoint;

/// A model: its row and its numbers.
#[derive(Clone, Debug)]
pub struct Description {
    /// Row of the table.
    pub arch: &'static Arch,
    /// Numbers.
    pub config: Config,
}

impl Description {
    /// Whether its tokens see the whole text, so that it makes vectors of texts and no texts.
    pub fn is_encoder(&self) -> bool {
        !self.config.causal
    }

    /// How its texts' vectors are made: as its makers say or, where they do not, by what fits its kind.
    pub fn pooling(&self) -> Pooling {
        let usual = if self.is_encoder() {
            Pooling::Mean
        } else {
            Pooling::Last
        };
        self.config.pooling.unwrap_or(usual)
    }

    /// Reads a checkpoint's description.
    ///
    /// # Errors
    /// [`Error::Architecture`] for one we do not know; [`Error::Config`] for numbers that make no
    /// model.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let name = checkpoint.meta.str("general.architecture")?;
        let arch = ARCHS
            .iter()
            .find(|a| a.name == name)
            .ok_or_else(|| Error::Architecture {
                name: name.into(),
                known: ARCHS.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
            })?;
        let config = Config::new(arch, checkpoint)?;
        Ok(Self { arch, config })
    }
}
