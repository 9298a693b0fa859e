//! Kernels of a program become kernels of PTX.

pub mod fold;
pub mod integer;
pub mod lanes;
pub mod map;
pub mod philox;
pub mod point;
pub mod row;
pub mod writer;
