//! Small programs, and what their PTX must compute: the kernel interpreter's answer.
#![allow(dead_code)]

#[path = "../../../dlc-kernel/tests/shared/draft.rs"]
mod draft;

use dlc_kernel::{Array, Machine, Program, Tensor};
use dlc_ptx::{DeviceProgram, Flavour, Math, PtxTarget, interpret::Device};
pub use draft::*;

pub const TARGET: PtxTarget = PtxTarget { flavour: Flavour::Sm80, math: Math::F32 };

pub fn compile(program: &Program) -> DeviceProgram {
    TARGET.compile(program).unwrap()
}

/// Runs the PTX of `program` and compares with the interpreter of kernels: integers exactly, floats
/// within `relative` of the largest value of their tensor.
pub fn check(program: &Program, inputs: &[Tensor], relative: f64) -> Vec<Tensor> {
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    let expected = Machine::new(program).call("run", &arrays).unwrap();
    let code = compile(program);
    let result = Device::new(&code).call(0, inputs);
    let (outputs, _) = result.unwrap_or_else(|e| panic!("{e}\n{program}"));
    for (got, wanted) in outputs.iter().zip(&expected) {
        let error = error(got, wanted);
        assert!(
            error <= relative,
            "off by {error}, allowed {relative}\n{program}\n{}\ngot {}\nwanted {}",
            TARGET.schedule(program),
            head(got.data.to_f64()),
            head(wanted.data.clone())
        );
    }
    outputs
}
