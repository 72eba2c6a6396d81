//! The kernels we ship: one row each, with variants and launch geometry.
