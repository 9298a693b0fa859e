//! What a well-formed program must satisfy: [`verify()`] checks every [`Rule`].
//!
//! Passes that make programs run it after every step in tests and debug builds; a program that
//! breaks a rule is a defect of the compiler, never of a user's model. Rules over sizes are checked
//! where the sizes are bound, and taken for granted where they are not.
//!
//! Not checked, because it is a property of values or of the target: that a contraction's operands
//! vanish outside their tensors, that a divisor is not 0, that `element` counts of
//! [`Expr::Random`](crate::Expr::Random) differ from point to point, that the sizes fit in memory.
//! Nodes that no root needs are ignored.
//!
//! `kernel` looks at one kernel at a time, `store` at where it writes, `step` at loops; this module at the order of
//! kernels and at the classes of their buffers.

mod kernel;
mod step;
mod store;

use crate::{Buffer, BufferId, Class, Entry, Kernel, MAX_DIM, Program};
use rustc_hash::FxHashSet;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Buffers and expressions that are named exist; operands come before their users.
    Exists,
    /// Maps have segments, segments have stores, rows have a store, and so have contractions.
    Effect,
    /// Names of entries, of kernels within an entry, and of parameters, state and run-time scalars
    /// are unique; those of kernels consist of letters, digits and `_`.
    Name,
    /// Extents lie in `0..=MAX_DIM`, and so does a buffer's number of elements.
    Extent,
    /// Entry inputs are distinct and of class `Input`; only they are read, and only the outputs of
    /// this entry written, among buffers of those two classes. Nobody writes inputs and scalars.
    Class,
    /// A temporary or output is written by one kernel of an entry, whole, before any reads it; all
    /// outputs are written.
    Order,
    /// Kernels before the commit point leave parameters and state alone.
    Commit,
    /// From the first kernel that writes a parameter or state on, none can fail.
    Failure,
    /// One coordinate per dim of the buffer; divisors are positive.
    Rank,
    /// Only axes of the domain occur: all for folds, factors and each point of a row, the outer
    /// ones for what is stored once per row or sum.
    Axis,
    /// A fold's result is used after its step only, and in the stores of a contraction only.
    Fold,
    /// Operations take their operands' types, constants are values of their type, and loads and
    /// stores have the computing type of their buffer.
    Type,
    /// Dims that a lookup decides are distinct dims of the buffer, and 0 in the access; indices
    /// are `I32`. A scatter has at least one.
    Lookup,
    /// Stores have neither guards nor divisors and stay inside their buffer.
    Inside,
    /// No element is written twice by one kernel.
    Once,
    /// A kernel reads what it writes only in a map, within the segment that writes it, at the point
    /// that is written.
    InPlace,
    /// A reshape keeps type and number of elements.
    Reshape,
    /// The domains of a loop's kernels begin with the steps, and so do the dims of what they write; a
    /// step reads only what it has written before, or an earlier one.
    Step,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rule::Exists => "what is named must exist",
            Rule::Effect => "every part of a kernel must store something",
            Rule::Name => "names must be unique and well-formed",
            Rule::Extent => "extents must be in range",
            Rule::Class => "a buffer's class must allow its use",
            Rule::Order => "temporaries and outputs must be written whole, once, before any read",
            Rule::Commit => "parameters and state must not be written before the commit point",
            Rule::Failure => "nothing may fail once parameters or state have changed",
            Rule::Rank => "an access must have one coordinate per dim",
            Rule::Axis => "only axes of the domain may occur",
            Rule::Fold => "a fold must come before its use",
            Rule::Type => "types must fit",
            Rule::Lookup => "lookups must decide distinct dims by i32 indices",
            Rule::Inside => "stores must stay inside",
            Rule::Once => "no element may be written twice",
            Rule::InPlace => "what a kernel writes may be read at the same point of a map only",
            Rule::Reshape => "a reshape must keep type and elements",
            Rule::Step => "a step must come first in domains and read what is written before",
        })
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {rule}: {detail}")]
pub struct VerifyError {
    /// The buffer, entry or kernel.
    pub place: String,
    /// The rule.
    pub rule: Rule,
    /// How it is broken.
    pub detail: String,
}

/// A rule that something does not hold to, before it is known where.
type Broken = (Rule, String);

/// `Err` with `detail` unless `holds`.
fn require(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

fn at(place: impl Into<String>) -> impl FnOnce(Broken) -> VerifyError {
    |(rule, detail)| VerifyError { place: place.into(), rule, detail }
}

/// Checks every [`Rule`]; gives the first that is broken.
pub fn verify(program: &Program) -> Result<(), VerifyError> {
    buffers(program)?;
    let mut names = FxHashSet::default();
    for entry in &program.entries {
        let place = format!("entry `{}`", entry.name);
        let unique = names.insert(entry.name.as_str());
        require(unique, Rule::Name, || "another has that name".into()).map_err(at(&*place))?;
        signature(program, entry).map_err(at(&*place))?;
        for kernel in &entry.kernels {
            let place = format!("{place}, {}", kernel.place());
            kernel::check(program, kernel).map_err(at(place))?;
        }
        Schedule::new(program, entry).check(&place)?;
    }
    let some = !program.entries.is_empty();
    require(some, Rule::Effect, || "there is no entry".into()).map_err(at("program"))
}

fn buffers(program: &Program) -> Result<(), VerifyError> {
    let mut names = FxHashSet::default();
    for buffer in &program.buffers {
        let place = || format!("buffer `{}`", buffer.name);
        let shared = matches!(buffer.class, Class::Param | Class::State | Class::Scalar);
        let unique = !shared || names.insert(buffer.name.as_str());
        require(unique, Rule::Name, || "another has that name".into()).map_err(at(place()))?;
        extents(buffer).map_err(at(place()))?;
    }
    Ok(())
}

fn extents(buffer: &Buffer) -> Result<(), Broken> {
    kernel::extents(&buffer.shape)?;
    let bound = buffer.shape.iter().all(|s| s.as_const().is_some());
    let countable = buffer.elements().is_some_and(|n| n as u64 <= MAX_DIM as u64);
    require(!bound || countable, Rule::Extent, || "it has too many elements".into())?;
    let scalar = buffer.class != Class::Scalar || buffer.shape.is_empty();
    require(scalar, Rule::Class, || "a run-time scalar has rank 0".into())
}

fn signature(program: &Program, entry: &Entry) -> Result<(), Broken> {
    let mut seen = FxHashSet::default();
    for &id in entry.inputs.iter().chain(&entry.outputs) {
        kernel::exists(program, id)?;
    }
    for &id in &entry.inputs {
        let buffer = program.buffer(id);
        let fits = buffer.class == Class::Input && seen.insert(id);
        require(fits, Rule::Class, || format!("`{}` cannot be a (second) input", buffer.name))?;
    }
    let kernels = entry.kernels.len();
    require(entry.commit <= kernels, Rule::Commit, || format!("{} > {kernels}", entry.commit))?;
    let mut names = FxHashSet::default();
    for kernel in &entry.kernels {
        let name = &kernel.name;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let fits = plain && !name.is_empty() && names.insert(name);
        require(fits, Rule::Name, || format!("a kernel cannot be called `{name}` (again)"))?;
    }
    Ok(())
}

/// The walk over an entry's kernels in their order.
struct Schedule<'a> {
    program: &'a Program,
    entry: &'a Entry,
    written: FxHashSet<BufferId>,
    committed: bool,
}

impl<'a> Schedule<'a> {
    fn new(program: &'a Program, entry: &'a Entry) -> Schedule<'a> {
        Schedule { program, entry, written: FxHashSet::default(), committed: false }
    }

    fn check(mut self, place: &str) -> Result<(), VerifyError> {
        for (k, kernel) in self.entry.kernels.iter().enumerate() {
            let place = || format!("{place}, {}", kernel.place());
            self.reads(kernel).map_err(at(place()))?;
            self.writes(k, kernel).map_err(at(place()))?;
        }
        for &id in &self.entry.outputs {
            self.readable(id).map_err(at(place))?;
        }
        Ok(())
    }

    fn reads(&self, kernel: &Kernel) -> Result<(), Broken> {
        kernel.reads().into_iter().try_for_each(|id| self.readable(id))
    }

    /// That `id` has its value by now.
    fn readable(&self, id: BufferId) -> Result<(), Broken> {
        let name = &self.program.buffer(id).name;
        match self.program.buffer(id).class {
            Class::Param | Class::State | Class::Scalar => Ok(()),
            Class::Input => {
                let given = self.entry.inputs.contains(&id);
                require(given, Rule::Class, || format!("`{name}` is no input of this entry"))
            }
            Class::Output | Class::Temp => {
                let written = self.written.contains(&id);
                require(written, Rule::Order, || format!("`{name}` is not written before"))
            }
        }
    }

    fn writes(&mut self, at: usize, kernel: &Kernel) -> Result<(), Broken> {
        let writes = kernel.writes();
        let lasts =
            |id: &BufferId| matches!(self.program.buffer(*id).class, Class::Param | Class::State);
        self.committed |= writes.iter().any(lasts);
        let safe = !self.committed || !kernel.may_fail();
        require(safe, Rule::Failure, || "it may find a bad index or value".into())?;
        writes.into_iter().try_for_each(|id| self.write(at, kernel, id))
    }

    fn write(&mut self, at: usize, kernel: &Kernel, id: BufferId) -> Result<(), Broken> {
        let name = &self.program.buffer(id).name;
        match self.program.buffer(id).class {
            Class::Input | Class::Scalar => {
                Err((Rule::Class, format!("`{name}` cannot be written")))
            }
            Class::Param | Class::State => {
                let late = at >= self.entry.commit;
                require(late, Rule::Commit, || format!("`{name}` is written before"))
            }
            Class::Output if !self.entry.outputs.contains(&id) => {
                Err((Rule::Class, format!("`{name}` is no output of this entry")))
            }
            Class::Output | Class::Temp => {
                let whole = store::writes_whole(self.program, kernel, id);
                require(whole, Rule::Order, || format!("`{name}` is written in part only"))?;
                let first = self.written.insert(id);
                require(first, Rule::Order, || format!("`{name}` is written again"))
            }
        }
    }
}
