//! Launching on an NVIDIA GPU through its driver, which is looked for when a program runs.
//!
//! - [`driver`]: the driver's objects, each freed when dropped. All `unsafe` code is there.
//! - [`cubin`]: PTX to machine code by the driver, kept on disk.
//! - [`executable`]: a program with its storage on the GPU.

pub mod cubin;
pub mod driver;
pub mod executable;

use crate::PtxTarget;
use crate::gpu::{Gpu, NoGpu};
use dlc_kernel::{BuildError, BuildOptions, Executable, Program};
use driver::Context;
use executable::CudaExecutable;

/// The first GPU.
///
/// # Errors
/// Why there is none that can be used.
pub fn find() -> Result<Gpu, NoGpu> {
    driver::describe(0)
}

/// Compiles a program and puts it on the first GPU.
///
/// # Errors
/// If there is no GPU for the target's flavour, too little memory on it, or its driver fails.
pub fn build(
    target: PtxTarget,
    program: &Program,
    options: &BuildOptions,
) -> Result<Box<dyn Executable>, BuildError> {
    let gpu = find()?;
    gpu.runs(target.flavour)?;
    let context = Context::open(0).map_err(|e| NoGpu::Driver(e.to_string()))?;
    Ok(Box::new(CudaExecutable::new(target, program, options, &gpu, context)?))
}
