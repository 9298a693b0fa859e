//! What a target offers: it turns a [`Program`] into an [`Executable`], and shows how.

use crate::{Program, Tensor};
use std::collections::BTreeMap;

/// How hard to try: `-O0`, `-O1`, `-O2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptLevel {
    /// No fusion, plain loops: the fastest compile and the easiest dump.
    O0,
    /// Fusion, vector code, little tuning.
    O1,
    /// Everything.
    #[default]
    O2,
}

/// Options of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// How hard to try.
    pub opt_level: OptLevel,
    /// Threads a call may use, the caller's included; `None` for what the machine grants.
    pub threads: Option<usize>,
    /// Bytes that parameters, state and temporaries may take; `None` for 80 % of what there is.
    pub memory_limit: Option<u64>,
    /// Whether convolutions are sums of products and nothing else: no transforms that trade larger
    /// rounding errors for fewer multiplications.
    pub exact_conv: bool,
    /// The folder where a target may keep code between runs, if it may.
    pub cache: Option<std::path::PathBuf>,
}

/// Why a program could not be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// This machine cannot run what was asked for.
    #[error("{0}")]
    Machine(String),
    /// The program needs more memory than it may take.
    #[error("the model needs {needed} bytes of memory, {limit} are allowed")]
    Memory {
        /// Peak bytes planned.
        needed: u64,
        /// The limit in force.
        limit: u64,
    },
    /// A limit of the code generator.
    #[error("kernel `{kernel}`: {message}")]
    Kernel {
        /// The kernel's name.
        kernel: String,
        /// What is in the way.
        message: String,
    },
}

/// Why a call failed. Parameters and state are then as before the call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// A gather or scatter index outside its dim.
    #[error("{place}: index {index} is outside 0..{extent}")]
    Index {
        /// The kernel and its source line.
        place: String,
        /// The index found.
        index: i64,
        /// The dim's extent.
        extent: i64,
    },
    /// A checked value (the loss, a gradient) is NaN or infinite.
    #[error("`{name}` is not finite")]
    NotFinite {
        /// The checked buffer's name.
        name: String,
    },
    /// The device that runs the program, or its driver, refuses to go on.
    #[error("the device failed: {0}")]
    Device(String),
    /// The call does not fit the program.
    #[error("{0}")]
    Usage(String),
}

/// One stage of a build and how long it took.
#[derive(Clone, Debug)]
pub struct StageTime {
    /// The stage's name.
    pub name: &'static str,
    /// Milliseconds.
    pub ms: f64,
}

/// How a target computes one kernel, in words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The algorithm.
    pub algorithm: String,
    /// The tile that a loop nest computes at a time, and the blocks around it, if it has any.
    pub tile: Option<String>,
    /// In which order operands lie, and what is done about it.
    pub layout: String,
    /// Threads that take part.
    pub threads: usize,
}

/// How a target computes a program.
#[derive(Clone, Debug)]
pub struct Decisions {
    /// The program as the target arranged it; see [`Executable::program`].
    pub program: Program,
    /// By entry and kernel.
    pub kernels: Vec<Vec<Decision>>,
    /// By entry and name: kernels that the target made, or made others of.
    pub made: Vec<BTreeMap<String, Made>>,
}

/// How a target came to a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is, or is a part of.
    pub words: &'static str,
    /// Kernels of the program before, by name, whose work it does a part of; itself if it only became
    /// another.
    pub of: Vec<String>,
}

/// A way to run programs. Targets know nothing of graphs.
pub trait Target {
    /// The name a user gives it by: `x86-64-v3`.
    fn name(&self) -> &str;

    /// Compiles `program` and allocates its parameters and state. Temporaries are planned, and refused if
    /// they are too much; a target may allocate them when they are first needed.
    fn build(
        &self,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<Box<dyn Executable>, BuildError>;

    /// The dump of one of [`Target::stages`].
    fn emit(
        &self,
        stage: &str,
        program: &Program,
        options: &BuildOptions,
    ) -> Result<String, BuildError>;

    /// What [`Target::build`] would do with each kernel.
    fn decide(&self, program: &Program, options: &BuildOptions) -> Result<Decisions, BuildError>;

    /// The dumps this target can make, in order: `schedule`, `clif`, `asm`.
    fn stages(&self) -> &'static [&'static str];
}

/// A built program with its storage. Calls of entries that update nothing may run at the same time
/// from several threads; an updating call waits for them and is alone.
pub trait Executable: Send + Sync {
    /// The program it was built from, as the target arranged it: with all its buffers and entries,
    /// and perhaps more temporaries and kernels.
    fn program(&self) -> &Program;

    /// Runs the entry of that position with `inputs` in the entry's order, and fills `outputs`,
    /// which have the right types and shapes already; after an error they hold anything. Allocates
    /// nothing after the first call.
    fn call(
        &self,
        entry: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
    ) -> Result<(), RunError>;

    /// As [`Executable::call`]; adds to `seconds[k]` what the kernel at position `k` of the entry
    /// took.
    fn profile(
        &self,
        entry: usize,
        inputs: &[&Tensor],
        outputs: &mut [Tensor],
        seconds: &mut [f64],
    ) -> Result<(), RunError>;

    /// A copy of a parameter, state or run-time scalar.
    fn read(&self, name: &str) -> Result<Tensor, RunError>;

    /// Sets a parameter, state or run-time scalar.
    fn write(&self, name: &str, value: &Tensor) -> Result<(), RunError>;

    /// Bytes of parameters, state, temporaries, packed copies, inputs and outputs at the peak, while
    /// one call runs at a time.
    fn peak_bytes(&self) -> u64;

    /// How long each stage of the build took.
    fn stage_times(&self) -> &[StageTime];
}
