//! Checkpoints: bytes on disk, in memory or behind ranges, indexed into metadata and tensors.
