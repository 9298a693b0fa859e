//! Kernels of a program become kernels of PTX.

pub mod attention;
pub mod check;
pub mod contract;
pub mod copy;
pub mod fold;
pub mod gradient;
pub mod integer;
pub mod lanes;
pub mod map;
pub mod philox;
pub mod plane;
pub mod point;
pub mod row;
pub mod scatter;
pub mod writer;
