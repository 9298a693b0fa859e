//! What code generation makes of a kernel: functions, what they are applied to, and when they run.

use crate::leaf::Leaf;
use cranelift_codegen::ir::Function;
use dlc_kernel::BufferId;

/// A function, not yet compiled.
#[derive(Clone)]
pub struct Code {
    /// Its body; calls `UserExternalName { namespace: 0, index }` for `leaves[index]`.
    pub function: Function,
    /// The leaves it calls.
    pub leaves: Vec<Leaf>,
    /// Whether every innermost loop of it calls a leaf, so that its own instructions take no time.
    pub is_control: bool,
}

/// A function applied to operands, over its own units.
#[derive(Clone)]
pub struct Part {
    /// What runs.
    pub code: Code,
    /// The buffers it sees, in the order its code counts them.
    pub operands: Vec<BufferId>,
    /// The size of its parallel domain. How units are shared out never changes a result.
    pub units: i64,
    /// What one unit costs, about, in nanoseconds; decides how many threads are worth waking.
    pub unit_cost: f64,
}

/// Nanoseconds of a part's work below which better code does not pay for the time to compile it.
const WORTH_OPTIMIZING: f64 = 1e4;

impl Part {
    /// Whether its own instructions take so much time that they should be as good as can be.
    pub fn is_hot(&self) -> bool {
        !self.code.is_control && self.units as f64 * self.unit_cost >= WORTH_OPTIMIZING
    }
}

/// When a phase runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In every call.
    Call,
    /// Before the first call, and before the next one whenever parameters have changed.
    Load,
}

/// Parts that may run at the same time. A kernel is a list of phases, one after the other.
#[derive(Clone)]
pub struct Phase {
    /// When it runs.
    pub when: When,
    /// In how many of the loops around the kernel it runs, at every step of them, and before the others;
    /// in all of them, if nothing is said.
    pub loops: Option<usize>,
    /// Independent of one another.
    pub parts: Vec<Part>,
}
