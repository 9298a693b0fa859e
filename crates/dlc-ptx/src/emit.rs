//! Kernels of a program become kernels of PTX.

pub mod lanes;
