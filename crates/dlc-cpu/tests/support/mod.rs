//! Small programs, and what they must compute: the kernel interpreter's answer.
#![allow(dead_code)]

#[path = "../../../dlc-kernel/tests/shared/draft.rs"]
pub mod draft;

use dlc_cpu::CpuTarget;
use dlc_kernel::{Array, BuildOptions, Machine, OptLevel, Program, RunError, Target, Tensor};
pub use draft::*;

pub fn options(opt_level: OptLevel, threads: usize) -> BuildOptions {
    BuildOptions { opt_level, threads: Some(threads), ..BuildOptions::default() }
}

/// The outputs of entry 0, after one call.
pub fn run(
    target: &CpuTarget,
    program: &Program,
    options: &BuildOptions,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, RunError> {
    let executable = target.build(program, options).unwrap();
    let mut outputs = empty_outputs(program);
    executable.call(0, &inputs.iter().collect::<Vec<_>>(), &mut outputs)?;
    Ok(outputs)
}

/// Runs `program` at every optimization level and with 1, 2 and 3 threads, and compares with the
/// interpreter: integers exactly, floats within `relative` of the largest value of their tensor.
pub fn check(program: &Program, inputs: &[Tensor], relative: f64) -> Vec<Tensor> {
    let target = CpuTarget::detect().unwrap();
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    let expected = Machine::new(program).call("run", &arrays).unwrap();
    let mut last = Vec::new();
    for opt_level in [OptLevel::O0, OptLevel::O2] {
        let one = run(&target, program, &options(opt_level, 1), inputs).unwrap();
        for threads in [2, 3] {
            let more = run(&target, program, &options(opt_level, threads), inputs).unwrap();
            assert!(same_bits(&one, &more), "{threads} threads differ at {opt_level:?}\n{program}");
        }
        for (got, wanted) in one.iter().zip(&expected) {
            let error = error(got, wanted);
            if error > relative {
                let dump = target.emit("schedule", program, &options(opt_level, 1)).unwrap();
                panic!(
                    "{opt_level:?}: off by {error}, allowed {relative}\n{program}\n{dump}\n\
                     got {}\nwanted {}",
                    head(got.data.to_f64()),
                    head(wanted.data.clone())
                );
            }
        }
        last = one;
    }
    last
}
