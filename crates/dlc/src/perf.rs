//! What is known of each kernel before it runs: how it is computed, what it costs, what bounds it,
//! and why it is not one with its neighbours.

use crate::pipeline::{self, EntryGraph};
use crate::report::grouped;
use crate::roofs::{Bound, Roofs};
use crate::{Compiler, Error};
use dlc_kernel::{Decision, Entry, Form, Kernel, Program};
use dlc_pass::Reason;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// See the module's documentation.
#[derive(Clone, Debug, Serialize)]
pub struct Perf {
    /// The target.
    pub target: String,
    /// The roofs that the bounds follow from, where they are known.
    pub roofs: Option<Roofs>,
    /// In the order of the program.
    pub entries: Vec<EntryPerf>,
}

/// The kernels of an entry.
#[derive(Clone, Debug, Serialize)]
pub struct EntryPerf {
    /// `run`, `train`, `eval`.
    pub name: String,
    /// In execution order.
    pub kernels: Vec<KernelPerf>,
}

/// One kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelPerf {
    /// Its name.
    pub name: String,
    /// `FILE:LINE` of what asked for it.
    pub line: Option<String>,
    /// `contract`, `row`, `map`, ...
    pub form: &'static str,
    /// The algorithm.
    pub algorithm: String,
    /// The tile and the blocks around it.
    pub tile: Option<String>,
    /// How operands lie and are read.
    pub layout: String,
    /// Threads that take part.
    pub threads: usize,
    /// Operations; a multiply-add counts as 2, an elementary function as 1.
    pub flops: u64,
    /// Bytes it touches at least.
    pub bytes: u64,
    /// What it cannot be faster than, where roofs are known.
    pub bound: Option<Bound>,
    /// Kernels that make what it reads, and why they are not part of it.
    pub apart: Vec<ApartFrom>,
}

/// A kernel that was not fused with another.
#[derive(Clone, Debug, Serialize)]
pub struct ApartFrom {
    /// The other.
    pub kernel: String,
    /// Why.
    pub reasons: Vec<&'static str>,
}

/// Explains every kernel of a program with these entries.
///
/// # Errors
/// If the target cannot compile it.
pub fn explain_perf(compiler: &Compiler, entries: &[EntryGraph]) -> Result<Perf, Error> {
    let explained = pipeline::explain(entries, compiler.options().opt_level);
    let decisions = compiler.target_ref().decide(&explained.program, compiler.options())?;
    let roofs = Roofs::known(compiler);
    let program = &decisions.program;
    let entry = |((entry, decided), why): ((&Entry, Vec<Decision>), Why)| {
        let kernels = entry.kernels.iter().zip(decided).map(|(kernel, decision)| {
            describe(program, kernel, decision, roofs.as_ref(), apart(entry, kernel, &why))
        });
        EntryPerf { name: entry.name.clone(), kernels: kernels.collect() }
    };
    let decided = program.entries.iter().zip(decisions.kernels);
    let entries = decided.zip(why(&explained)).map(entry).collect();
    Ok(Perf { target: compiler.any_target().describe(), roofs, entries })
}

/// What decides why kernels of an entry are apart.
struct Why<'a> {
    /// As fusion and lowering made it.
    lowered: &'a Entry,
    /// Pairs of them by name, the lesser first.
    reasons: &'a BTreeMap<(String, String), Vec<Reason>>,
}

fn why(explained: &pipeline::Explained) -> impl Iterator<Item = Why<'_>> {
    explained
        .program
        .entries
        .iter()
        .zip(&explained.reasons)
        .map(|(entry, reasons)| Why { lowered: entry, reasons })
}

impl Why<'_> {
    /// Why `kernel` is apart from one before it.
    fn of(&self, kernel: &Kernel, other: &Kernel) -> Vec<&'static str> {
        let lowered = |k: &Kernel| self.lowered.kernels.iter().find(|l| l.name == k.name);
        let ends = lowered(kernel).zip(lowered(other));
        match self.reasons.get(&pair(&kernel.name, &other.name)) {
            Some(found) => found.iter().map(|reason| reason.text()).collect(),
            None if ends.is_none() => vec!["the target made one of them"],
            None if ends.is_some_and(|(kernel, other)| self.reshapes(other, kernel)) => {
                vec!["a reshape stands between them"]
            }
            None if matches!(kernel.form, Form::Check { .. }) => vec!["a check scans memory"],
            None if self.reasons.is_empty() => vec!["nothing is fused at this level"],
            None => vec!["fusion takes in neither"],
        }
    }

    /// Whether what one kernel writes is reshaped for another, which a target may do without.
    fn reshapes(&self, from: &Kernel, to: &Kernel) -> bool {
        let (written, read) = (from.writes(), to.reads());
        let leads = |form: &Form| match form {
            Form::Reshape { src, dst } => written.contains(src) && read.contains(dst),
            _ => false,
        };
        self.lowered.kernels.iter().any(|kernel| leads(&kernel.form))
    }
}

fn describe(
    program: &Program,
    kernel: &Kernel,
    decision: Decision,
    roofs: Option<&Roofs>,
    apart: Vec<ApartFrom>,
) -> KernelPerf {
    let Decision { algorithm, tile, layout, threads } = decision;
    let (flops, bytes) = (kernel.flops(), kernel.bytes(program));
    KernelPerf {
        name: kernel.name.clone(),
        line: line(kernel),
        form: kernel.form.name(),
        algorithm,
        tile,
        layout,
        threads,
        flops,
        bytes,
        bound: roofs.map(|roofs| roofs.bound(threads, flops, bytes)),
        apart,
    }
}

/// `FILE:LINE` of what asked for a kernel.
pub(crate) fn line(kernel: &Kernel) -> Option<String> {
    kernel.origin.as_ref().map(|at| format!("{}:{}", at.file, at.line))
}

/// The kernels before `kernel` that make what it reads.
fn apart(entry: &Entry, kernel: &Kernel, why: &Why) -> Vec<ApartFrom> {
    let reads = kernel.reads();
    let makes = |k: &&Kernel| k.writes().iter().any(|b| reads.contains(b));
    let from =
        |other: &Kernel| ApartFrom { kernel: other.name.clone(), reasons: why.of(kernel, other) };
    entry.kernels.iter().take_while(|k| k.name != kernel.name).filter(makes).map(from).collect()
}

/// The key of two kernels, whichever comes first.
pub(crate) fn pair(a: &str, b: &str) -> (String, String) {
    (a.min(b).to_owned(), a.max(b).to_owned())
}

impl fmt::Display for Perf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.roofs {
            None => "its roofs are not known".into(),
            Some(roofs) if roofs.measured => format!("roofs measured on {}", roofs.cpu),
            Some(_) => "roofs assumed for 3 GHz; `dlc targets --measure` measures them".into(),
        };
        writeln!(f, "{}; {how}", self.target)?;
        for entry in &self.entries {
            writeln!(f, "\nentry {}", entry.name)?;
            entry.kernels.iter().try_for_each(|kernel| kernel.fmt(f))?;
        }
        Ok(())
    }
}

impl fmt::Display for KernelPerf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.name, self.line.as_deref().unwrap_or(""))?;
        writeln!(f, "  algorithm  {}: {}", self.form, self.algorithm)?;
        if let Some(tile) = &self.tile {
            writeln!(f, "  tile       {tile}")?;
        }
        writeln!(f, "  layout     {}", self.layout)?;
        writeln!(f, "  threads    {}", self.threads)?;
        let (flops, bytes) = (grouped(self.flops), grouped(self.bytes));
        writeln!(f, "  work       {flops} operations, {bytes} bytes")?;
        if let Some(bound) = &self.bound {
            writeln!(f, "  bound      {}, {:.4} ms", bound.by, bound.ms)?;
        }
        for apart in &self.apart {
            writeln!(f, "  apart      from {}: {}", apart.kernel, apart.reasons.join("; "))?;
        }
        Ok(())
    }
}
