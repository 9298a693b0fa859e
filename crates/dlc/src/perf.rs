//! What is known of each kernel before it runs: how it is computed, what it costs, what bounds it,
//! and why it is not one with its neighbours.

use crate::pipeline::{self, EntryGraph};
use crate::report::grouped;
use crate::roofs::{Bound, Roofs};
use crate::{Compiler, Error};
use dlc_kernel::{Decision, Entry, Form, Kernel, Made, Program};
use dlc_pass::Reason;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
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
        let kernels = entry.kernels.iter().zip(decided).map(|(kernel, mut decision)| {
            if let Some(made) = why.made.get(&kernel.name) {
                decision.algorithm += &format!("; {}", made.words);
            }
            describe(program, kernel, decision, roofs.as_ref(), apart(entry, kernel, &why))
        });
        EntryPerf { name: entry.name.clone(), kernels: kernels.collect() }
    };
    let decided = program.entries.iter().zip(decisions.kernels);
    let entries = decided.zip(why(&explained, &decisions.made)).map(entry).collect();
    Ok(Perf { target: compiler.any_target().describe(), roofs, entries })
}

/// What decides why kernels of an entry are apart.
struct Why<'a> {
    /// As fusion and lowering made it.
    lowered: &'a Entry,
    /// Pairs of them by name, the lesser first.
    reasons: &'a BTreeMap<(String, String), Vec<Reason>>,
    /// Kernels that operations have.
    named: &'a BTreeSet<String>,
    /// What the target made of them.
    made: &'a BTreeMap<String, Made>,
}

fn why<'a>(
    explained: &'a pipeline::Explained,
    made: &'a [BTreeMap<String, Made>],
) -> impl Iterator<Item = Why<'a>> {
    let entries = explained.program.entries.iter().zip(&explained.reasons);
    let entries = entries.zip(explained.named.iter().zip(made));
    entries.map(|((lowered, reasons), (named, made))| Why { lowered, reasons, named, made })
}

impl<'a> Why<'a> {
    /// Why `kernel` is apart from one before it: what the target made them for, and why the kernels
    /// whose work they do are apart.
    fn of(&self, kernel: &Kernel, other: &Kernel) -> Vec<&'static str> {
        let ends = [&*kernel.name, &*other.name];
        let [own, others] = ends.map(|name| self.work_of(name));
        let made = ends.into_iter().rev().find_map(|name| self.made_new(name));
        let mut reasons: Vec<&str> = made.iter().map(|made| made.words).collect();
        for (one, other) in own.iter().flat_map(|one| others.iter().map(move |o| (*one, *o))) {
            if one != other {
                reasons.extend(self.of_lowered(one, other, made.is_some()));
            }
        }
        let mut said = BTreeSet::new();
        reasons.retain(|reason| said.insert(*reason));
        reasons
    }

    /// What the target made a kernel of, if it had no such kernel before.
    fn made_new(&self, name: &str) -> Option<&'a Made> {
        self.made.get(name).filter(|made| made.of != [name])
    }

    /// The kernels as lowered whose work a kernel does, or does a part of.
    fn work_of<'n>(&'n self, name: &'n str) -> Vec<&'n str> {
        let of = |made: &'n Made| made.of.iter().flat_map(|of| self.work_of(of)).collect();
        self.made_new(name).map_or(vec![name], of)
    }

    /// Why two kernels as lowered are apart. With `has_other`, there is another reason if none is known.
    fn of_lowered(&self, name: &str, other: &str, has_other: bool) -> Vec<&'static str> {
        let lowered = |name: &str| self.lowered.kernels.iter().find(|k| k.name == name);
        let ends = lowered(name).zip(lowered(other));
        match self.reasons.get(&pair(name, other)) {
            Some(found) => found.iter().map(|reason| reason.text()).collect(),
            None if has_other => Vec::new(),
            None if ends.is_none() => vec!["the target made one of them"],
            None if ends.is_some_and(|(kernel, other)| self.reshapes(other, kernel)) => {
                vec!["a reshape stands between them"]
            }
            None if ends.is_some_and(|(kernel, _)| matches!(kernel.form, Form::Check { .. })) => {
                vec!["a check scans memory"]
            }
            None if self.reasons.is_empty() => vec!["nothing is fused at this level"],
            None if !self.named.contains(name) => vec!["it copies results to where they are kept"],
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

/// The kernels before `kernel` that make what it reads; if the target made some of them for it, also those
/// that these read.
fn apart(entry: &Entry, kernel: &Kernel, why: &Why) -> Vec<ApartFrom> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut readers = vec![kernel];
    while let Some(reader) = readers.pop() {
        let reads = reader.reads();
        let before = entry.kernels.iter().take_while(|k| k.name != reader.name);
        for other in before.filter(|k| k.writes().iter().any(|b| reads.contains(b))) {
            if !seen.insert(&other.name) {
                continue;
            }
            let serves = why.work_of(&other.name) == [&*kernel.name];
            if serves {
                readers.push(other);
            }
            if reader.name == kernel.name || !serves {
                let reasons = why.of(kernel, other);
                found.push(ApartFrom { kernel: other.name.clone(), reasons });
            }
        }
    }
    found
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
