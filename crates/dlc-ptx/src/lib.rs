//! The PTX target: a kernel program becomes PTX text for NVIDIA GPUs.
//!
//! The modules, in the order data flows:
//!
//! - [`flavour`]: which PTX version and architecture is written for.
//! - [`math`]: how products of floats are computed.
//! - [`ir`]: typed PTX instructions under structured control flow: what kernels are made of.
//! - [`device`]: what a host needs to run them.
#![forbid(unsafe_code)]

pub mod compile;
pub mod device;
pub mod emit;
pub mod flavour;
pub mod interpret;
pub mod ir;
pub mod math;
pub mod memory;
pub mod place;
pub mod schedule;

pub use compile::PtxTarget;
pub use device::DeviceProgram;
pub use flavour::Flavour;
pub use math::Math;
