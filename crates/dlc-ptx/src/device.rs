//! What a host needs to run a program's PTX: memory, and launches in order.
//!
//! A [`DeviceProgram`] is data: the interpreter, the launcher and `model.json` read the same one.
//! All memory is one allocation of [`DeviceProgram::bytes`]; every buffer has a fixed place in it, but
//! for temporaries that never leave a kernel.
//! A loop is a list of launches that is gone through once for each step; the step is an argument.

use crate::{Flavour, Math, ir};
use dlc_kernel::{Class, DType, Origin, RunError, place};

/// A compiled program.
#[derive(Clone, Debug)]
pub struct DeviceProgram {
    /// What the PTX is written for.
    pub flavour: Flavour,
    /// How its contractions multiply.
    pub math: Math,
    /// All kernels of all entries, equal ones once.
    pub module: ir::Module,
    /// Bytes of device memory.
    pub bytes: u64,
    /// Where the error record lies, see [`ErrorRecord`].
    pub error: u64,
    /// By [`dlc_kernel::BufferId`].
    pub buffers: Vec<DeviceBuffer>,
    /// As the program's.
    pub entries: Vec<DeviceEntry>,
}

/// A buffer in device memory, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceBuffer {
    /// The program's name of it.
    pub name: String,
    /// The type of an element; a `Bool` takes one byte.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<u64>,
    /// What it is for.
    pub class: Class,
    /// The value before the first write, for run-time scalars.
    pub default: f64,
    /// In bytes from the start of the allocation, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Bytes of all elements; 0 of a temporary that has no place, for it never leaves a kernel.
    pub bytes: u64,
}

/// Alignment of buffers in bytes.
pub const ALIGNMENT: u64 = 256;

/// One thing the program can be called for.
#[derive(Clone, Debug)]
pub struct DeviceEntry {
    /// Unique.
    pub name: String,
    /// Positions in [`DeviceProgram::buffers`], in calling order.
    pub inputs: Vec<usize>,
    /// As `inputs`.
    pub outputs: Vec<usize>,
    /// By kernel of the program's entry, as [`crate::group`] orders them: in order, on one stream.
    /// What computes several kernels stands at the last of them.
    pub kernels: Vec<Vec<Work<Launch>>>,
}

/// Something to do, once or as often as a loop has steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Work<T> {
    /// Once.
    Once(T),
    /// All of `works` in order, at every step.
    Repeat {
        /// How often, at least once.
        steps: u32,
        /// At least one.
        works: Vec<Work<T>>,
    },
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Position in the module.
    pub kernel: usize,
    /// The kernel of the program that this computes or helps to compute; of several, the last.
    pub name: String,
    /// The line that asked for it.
    pub origin: Origin,
    /// The name of the buffer whose elements it checks to be finite; what else can fail is an index.
    pub checks: Option<String>,
    /// Blocks along x, y and z, none 0.
    pub grid: [u32; 3],
    /// One for each parameter.
    pub args: Vec<Arg>,
}

/// What a kernel is given for a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The address of so many bytes, as an offset from the start of the allocation.
    Address {
        /// Where they begin.
        offset: u64,
        /// How many the kernel may touch.
        bytes: u64,
    },
    /// A number.
    Word(u32),
    /// The step of the loop around that has so many others around it.
    Step(u32),
}

/// What a kernel writes when it meets a bad index or a number that is not finite: four words.
/// Before a call they are zeros. Launches that would update parameters or state do nothing once
/// the first word is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorRecord {
    /// 0 for none, else 1 + the position of the launch among [`DeviceEntry::launches`].
    pub launch: u32,
    /// Which of that kernel's lookups or checked buffers, from 0.
    pub what: u32,
    /// The index found.
    pub index: i32,
    /// The exclusive upper bound.
    pub extent: u32,
}

impl ErrorRecord {
    /// Bytes of it.
    pub const BYTES: u64 = 16;

    /// The record that lies in memory as these bytes.
    ///
    /// # Panics
    /// If they are fewer than [`ErrorRecord::BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> ErrorRecord {
        let word =
            |i: usize| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"));
        ErrorRecord { launch: word(0), what: word(1), index: word(2) as i32, extent: word(3) }
    }
}

impl<T> Work<T> {
    /// The same with all that is done changed.
    pub fn map<U>(self, change: &mut impl FnMut(T) -> U) -> Work<U> {
        match self {
            Work::Once(one) => Work::Once(change(one)),
            Work::Repeat { steps, works } => {
                let works = works.into_iter().map(|work| work.map(change)).collect();
                Work::Repeat { steps, works }
            }
        }
    }

    /// All that is done, each once, in order.
    pub fn list(&self) -> Vec<&T> {
        match self {
            Work::Once(one) => vec![one],
            Work::Repeat { works, .. } => works.iter().flat_map(Work::list).collect(),
        }
    }

    /// How often something is done: what is in a loop, at every step.
    pub fn count(&self) -> u64 {
        match self {
            Work::Once(_) => 1,
            Work::Repeat { steps, works } => {
                works.iter().map(Work::count).sum::<u64>().saturating_mul((*steps).into())
            }
        }
    }

    /// Does all of it in order; `act` is told the steps of the loops around, outermost first.
    ///
    /// # Errors
    /// The first error of `act`, after which nothing is done.
    pub fn run<E>(&self, act: &mut impl FnMut(&T, &[u32]) -> Result<(), E>) -> Result<(), E> {
        self.run_within(&mut Vec::new(), act)
    }

    fn run_within<E>(
        &self,
        around: &mut Vec<u32>,
        act: &mut impl FnMut(&T, &[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Work::Once(one) => act(one, around),
            Work::Repeat { steps, works } => (0..*steps).try_for_each(|step| {
                around.push(step);
                works.iter().try_for_each(|work| work.run_within(around, act))?;
                around.pop();
                Ok(())
            }),
        }
    }
}

impl DeviceEntry {
    /// All launches, each once, in order.
    pub fn launches(&self) -> Vec<&Launch> {
        self.kernels.iter().flatten().flat_map(Work::list).collect()
    }

    /// How many launches a call makes.
    pub fn count(&self) -> u64 {
        self.kernels.iter().flatten().map(Work::count).sum()
    }

    /// The error that a call has noted, if any.
    pub fn failure(&self, record: ErrorRecord) -> Option<RunError> {
        let launch = self.launches()[record.launch.checked_sub(1)? as usize];
        Some(match &launch.checks {
            Some(name) => RunError::NotFinite { name: name.clone() },
            None => RunError::Index {
                place: place(&launch.name, &launch.origin),
                index: record.index.into(),
                extent: record.extent.into(),
            },
        })
    }
}

impl DeviceBuffer {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}
