//! The PTX target: a kernel program becomes PTX text for NVIDIA GPUs.
//!
//! The modules, in the order data flows:
//!
//! - [`flavour`]: which PTX version and architecture is written for.
//! - [`math`]: how products of floats are computed.
//! - [`group`]: which kernels of a program are computed together.
//! - [`ir`]: typed PTX instructions under structured control flow: what kernels are made of.
//! - [`device`]: what a host needs to run them; [`manifest`]: the same as a file.
//! - [`interpret`]: runs them without a GPU, and finds what is wrong with them.
//! - [`gpu`]: the GPU of this machine, if any; `cuda`, with the feature of that name: launching.
//! - [`target`]: all of this as a target among others.
#![deny(unsafe_code)]

pub mod compile;
#[cfg(feature = "cuda")]
#[allow(unsafe_code, reason = "the driver is a C library")]
pub mod cuda;
pub mod device;
pub mod emit;
pub mod flavour;
pub mod gpu;
pub mod group;
pub mod interpret;
pub mod ir;
pub mod manifest;
pub mod math;
pub mod memory;
pub mod place;
pub mod schedule;
pub mod target;

pub use compile::PtxTarget;
pub use device::DeviceProgram;
pub use flavour::Flavour;
pub use gpu::Gpu;
pub use manifest::Manifest;
pub use math::Math;
