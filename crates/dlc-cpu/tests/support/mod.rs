//! Small programs, and what they must compute: the kernel interpreter's answer.
#![allow(dead_code)]

#[path = "../../../dlc-kernel/tests/shared/draft.rs"]
pub mod draft;

use dlc_cpu::CpuTarget;
use dlc_cpu::level::Level;
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

/// Targets for every level that runs here, the best one last.
pub fn targets() -> impl Iterator<Item = CpuTarget> {
    let best = CpuTarget::detect().unwrap();
    let lower = Level::ALL.into_iter().filter(move |l| *l < best.level() && l.runs_here());
    lower.map(CpuTarget::new).chain(CpuTarget::detect())
}

/// Runs `program` at every level and optimization level and with 1, 2 and 3 threads, and compares with
/// the interpreter: integers exactly, floats within `relative` of the largest value of their tensor.
/// Returns what the best level makes.
pub fn check(program: &Program, inputs: &[Tensor], relative: f64) -> Vec<Tensor> {
    let arrays: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    let expected = Machine::new(program).call("run", &arrays).unwrap();
    let mut last = Vec::new();
    for target in targets() {
        for opt_level in [OptLevel::O0, OptLevel::O2] {
            last = check_build(&target, program, opt_level, inputs);
            compare(&last, &expected, relative, || {
                let dump = target.emit("schedule", program, &options(opt_level, 1)).unwrap();
                format!("{} {opt_level:?}\n{program}\n{dump}", target.name())
            });
        }
    }
    last
}

/// The outputs, which are the same for any number of threads.
fn check_build(
    target: &CpuTarget,
    program: &Program,
    opt_level: OptLevel,
    inputs: &[Tensor],
) -> Vec<Tensor> {
    let one = run(target, program, &options(opt_level, 1), inputs).unwrap();
    for threads in [2, 3] {
        let more = run(target, program, &options(opt_level, threads), inputs).unwrap();
        let level = target.name();
        assert!(
            same_bits(&one, &more),
            "{threads} threads differ at {level} {opt_level:?}\n{program}"
        );
    }
    one
}

fn compare(found: &[Tensor], expected: &[Array], relative: f64, what: impl Fn() -> String) {
    for (got, wanted) in found.iter().zip(expected) {
        let error = error(got, wanted);
        assert!(
            error <= relative,
            "off by {error}, allowed {relative}: {}\ngot {}\nwanted {}",
            what(),
            head(got.data.to_f64()),
            head(wanted.data.clone())
        );
    }
}
