//! What this target changes in a program before it schedules it: a program again, that computes
//! the same.
//!
//! `pad`: a contraction that reads beyond the edges of a tensor gets a copy of it with the edges
//! written out, so that its operand lies in memory in constant steps.

mod pad;

use dlc_kernel::{OptLevel, Program};

/// The program as it is scheduled.
pub fn arrange(program: &Program, opt_level: OptLevel) -> Program {
    match opt_level {
        OptLevel::O0 | OptLevel::O1 => program.clone(),
        OptLevel::O2 => pad::pad(program),
    }
}
