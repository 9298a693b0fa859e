//! Kernels of a program become kernels of PTX.

pub mod integer;
pub mod lanes;
pub mod philox;
pub mod point;
pub mod writer;
