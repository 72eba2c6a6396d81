//! Composes a kernel's WGSL from its files, imports and constants.
