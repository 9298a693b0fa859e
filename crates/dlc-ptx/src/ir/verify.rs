//! What a well-formed module must satisfy: [`verify()`] checks every [`Rule`].
//!
//! What is emitted is verified in tests and debug builds; a module that breaks a rule is a defect
//! of the compiler, never of a user's model.
//!
//! `shape` looks at one statement at a time, `flow` follows the paths of a kernel with what is
//! known of its registers, which is a `fact` each.
//!
//! Not checked, because it is a property of values: that accesses stay inside, that addresses are
//! aligned where nothing is known of an index, that threads do not race. The interpreter finds those.

mod fact;
mod flow;
mod shape;

use super::{Class, Kernel, Module};
use crate::Flavour;
use flow::Flow;
use rustc_hash::FxHashSet;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Names of kernels are unique within the module and those of parameters within their kernel;
    /// they are letters, digits and `_`, and do not start with a digit.
    Name,
    /// Blocks are of whole warps and at most 1024 threads, and `min_blocks` of them, at least one,
    /// have no more threads than a multiprocessor.
    Threads,
    /// Shared memory fits into what a block may have.
    Shared,
    /// The instruction exists in the flavour's PTX version and on its architecture.
    Floor,
    /// Registers are among those that the kernel declares.
    Register,
    /// Parameters are addresses or numbers, exist where they are loaded, and are of the register's
    /// class.
    Param,
    /// Registers have the class that the instruction takes at that place.
    Class,
    /// There are as many registers and bytes as the instruction can move at once.
    Width,
    /// The operation exists for that type, space and kind of operand.
    Form,
    /// The registers that an instruction writes are distinct.
    Distinct,
    /// A register is written before it is read, on every path, in the same lane.
    Written,
    /// The predicate of a loop is written by its body.
    Loop,
    /// No access is known to be misaligned.
    Aligned,
    /// Barriers of a block stand where all its threads come by, and what a whole warp does where
    /// all its lanes do: conditions around them do not depend on the thread, or the lane.
    Converged,
    /// What is loaded as read-only is not written by the same kernel.
    ReadOnly,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rule::Name => "names must be unique and well-formed",
            Rule::Threads => "a block must be of whole warps and fit a multiprocessor",
            Rule::Shared => "shared memory must fit",
            Rule::Floor => "the flavour must have the instruction",
            Rule::Register => "registers must be declared",
            Rule::Param => "parameters must exist and fit",
            Rule::Class => "registers must have the class that the instruction takes",
            Rule::Width => "an instruction must move what it can",
            Rule::Form => "the operation must exist for its operands",
            Rule::Distinct => "registers that are written must be distinct",
            Rule::Written => "registers must be written before they are read",
            Rule::Loop => "a loop must write its predicate",
            Rule::Aligned => "accesses must be aligned",
            Rule::Converged => "all threads must come by a barrier, all lanes by a warp's work",
            Rule::ReadOnly => "what is read-only must not be written",
        })
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`: {rule}: {detail}")]
pub struct VerifyError {
    /// The kernel.
    pub kernel: String,
    /// The rule.
    pub rule: Rule,
    /// How it is broken; mostly the instruction.
    pub detail: String,
}

/// A rule that something does not hold to, before it is known where.
type Broken = (Rule, String);

/// `Err` with `detail` unless `holds`.
fn require(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

/// The most threads of a block.
const MAX_THREADS: u32 = 1024;

/// The most threads on a multiprocessor.
const RESIDENT: u32 = 2048;

/// Checks every [`Rule`]; gives the first that is broken.
pub fn verify(module: &Module, flavour: Flavour) -> Result<(), VerifyError> {
    let mut names = FxHashSet::default();
    for kernel in &module.kernels {
        let unique = require(names.insert(kernel.name.as_str()), Rule::Name, || "again".into());
        let checked = unique.and_then(|()| check(kernel, flavour));
        checked.map_err(|(rule, detail)| VerifyError {
            kernel: kernel.name.clone(),
            rule,
            detail,
        })?;
    }
    Ok(())
}

fn check(kernel: &Kernel, flavour: Flavour) -> Result<(), Broken> {
    require(is_clean(&kernel.name), Rule::Name, || "its own".into())?;
    let mut names = FxHashSet::default();
    for param in &kernel.params {
        let name = &param.name;
        let fits = is_clean(name) && names.insert(name.as_str());
        require(fits, Rule::Name, || format!("parameter `{name}`"))?;
        let fits = matches!(param.class, Class::B64 | Class::B32 | Class::F32);
        require(fits, Rule::Param, || format!("`{name}` is {}", param.class.name()))?;
    }
    let (threads, blocks) = (kernel.threads, kernel.min_blocks);
    let whole = threads.is_multiple_of(32) && (32..=MAX_THREADS).contains(&threads);
    let fits = whole && (1..=RESIDENT / threads).contains(&blocks);
    require(fits, Rule::Threads, || format!("{blocks} x {threads}"))?;
    let most = flavour.max_shared();
    let fits = kernel.shared <= most;
    require(fits, Rule::Shared, || format!("{} bytes of {most}", kernel.shared))?;
    shape::check(kernel, flavour, &kernel.body)?;
    Flow::new(kernel).check()
}

fn is_clean(name: &str) -> bool {
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    letters && name.starts_with(|c: char| !c.is_ascii_digit())
}
