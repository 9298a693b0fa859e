//! Tuning: the ways to compute a contraction that the cost model ranks close are timed, each in the
//! kernels that have the problem, and the fastest is kept for later builds.
//!
//! All problems of a program are tried at once: round `k` builds it with the `k`-th way of each. The
//! best time of a kernel counts, over two rounds of rounds, so that a noisy moment decides nothing.
//! Results never depend on a choice ([`dlc_cpu::Choices`]).

use crate::bench::Arguments;
use crate::perf::line;
use crate::pipeline::{self, EntryGraph};
use crate::report::round;
use crate::store::Record;
use crate::{Compiler, Error, Module, network};
use dlc_cpu::{Alternatives, Choices};
use dlc_front::TrainOverrides;
use dlc_graph::Graph;
use dlc_kernel::{Bindings, Executable, Kernel, Program, Target, Tensor};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A way is taken instead of the model's own if it takes at most this share of its time.
const WORTHWHILE: f64 = 0.97;
/// How often all ways are tried, one after the other.
const PASSES: usize = 2;

/// What came of tuning a program.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// What was tried, in the order of the first kernels.
    pub problems: Vec<Trial>,
    /// The choices: ways that are faster than the model's own.
    #[serde(skip)]
    pub choices: Choices,
}

/// One problem of the program.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// What the choice is kept by.
    pub problem: String,
    /// The kernels that have it: name and source line.
    pub kernels: Vec<(String, Option<String>)>,
    /// The ways with the milliseconds that these kernels take together, the model's own first.
    pub ways: Vec<(String, f64)>,
    /// The position of the chosen way.
    pub chosen: usize,
}

/// Tunes inference of a model; each way is timed for about `seconds`.
///
/// # Errors
/// If it cannot be compiled or run.
pub fn tune_model(
    module: &Module,
    name: &str,
    bindings: &Bindings,
    seconds: f64,
) -> Result<Tuned, Error> {
    let (entry, init) = module.model(name)?.elaborate(bindings)?;
    tune(&module.compiler, &[entry], &init, seconds)
}

/// Tunes the training step of a model, as [`tune_model`].
///
/// # Errors
/// As [`tune_model`].
pub fn tune_training(
    module: &Module,
    name: &str,
    bindings: &Bindings,
    seconds: f64,
) -> Result<Tuned, Error> {
    let training = module.training(name, &TrainOverrides::default(), bindings)?;
    let batch = training.settings.batch;
    let entries = module.bound(&training, bindings, batch, &["train"])?;
    tune(&module.compiler, &entries, &training.init, seconds)
}

/// Times the ways of every contraction in the first entry of a program. `init` gives parameters
/// their first values.
fn tune(
    compiler: &Compiler,
    entries: &[EntryGraph],
    init: &Graph,
    seconds: f64,
) -> Result<Tuned, Error> {
    let compiler = &compiler.clone().choices(Choices::default());
    let program = pipeline::lower(entries, compiler.options.opt_level, &mut |_, _| {}).program;
    let mut problems = problems(compiler, &program)?;
    let rounds = problems.iter().map(|p| p.ways.len()).max().unwrap_or(0);
    let budget = Duration::from_secs_f64(seconds.clamp(0.0, 3600.0) / PASSES as f64);
    for k in (0..PASSES).flat_map(|_| 0..rounds) {
        let compiler = compiler.clone().choices(ways(&problems, k));
        let executable = compiler.target_ref().build(&program, &compiler.options)?;
        network::initialize(init, &*executable, 0, &compiler)?;
        let best = best_times(&*executable, budget)?;
        for problem in problems.iter_mut().filter(|p| k < p.ways.len()) {
            let total = problem.kernels.iter().map(|(name, _)| best[name]).sum::<f64>();
            let known = &mut problem.ways[k].1;
            *known = known.min(total * 1e3);
        }
    }
    let mut choices = Choices::default();
    for problem in &mut problems {
        problem.choose(&mut choices);
    }
    Ok(Tuned { problems, choices })
}

/// The problems of a program's first entry, each with its kernels.
fn problems(compiler: &Compiler, program: &Program) -> Result<Vec<Trial>, Error> {
    let target = compiler.any_target().require_cpu("tuning")?;
    let arranged = target.decide(program, &compiler.options)?.program;
    let alternatives = target.alternatives(program, &compiler.options)?;
    let mut problems: Vec<Trial> = Vec::new();
    let kernels = arranged.entries.first().map_or(&[][..], |entry| &entry.kernels);
    for (kernel, found) in kernels.iter().zip(alternatives.into_iter().flatten()) {
        let Some(Alternatives { problem, ways }) = found.filter(|f| f.ways.len() > 1) else {
            continue;
        };
        let named = |kernel: &Kernel| (kernel.name.clone(), line(kernel));
        match problems.iter_mut().find(|p| p.problem == problem) {
            Some(known) => known.kernels.push(named(kernel)),
            None => {
                let ways = ways.into_iter().map(|way| (way, f64::INFINITY)).collect();
                problems.push(Trial { problem, kernels: vec![named(kernel)], ways, chosen: 0 });
            }
        }
    }
    Ok(problems)
}

/// The `k`-th way of every problem, or its first if it has no more.
fn ways(problems: &[Trial], k: usize) -> Choices {
    let mut choices = Choices::default();
    for problem in problems {
        let (way, _) = problem.ways.get(k).unwrap_or(&problem.ways[0]);
        choices.set(&*problem.problem, &**way);
    }
    choices
}

/// The least seconds of each kernel of the first entry, by name.
fn best_times(
    executable: &dyn Executable,
    budget: Duration,
) -> Result<BTreeMap<String, f64>, Error> {
    let kernels = &executable.program().entries[0].kernels;
    let Arguments { inputs, mut outputs } = Arguments::random(executable);
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let mut best = vec![f64::INFINITY; kernels.len()];
    let (start, mut runs) = (Instant::now(), 0);
    while runs < 3 || start.elapsed() < budget {
        let mut seconds = vec![0.0; kernels.len()];
        executable.profile(0, &inputs, &mut outputs, &mut seconds)?;
        best.iter_mut().zip(&seconds).for_each(|(best, &s)| *best = best.min(s));
        runs += 1;
    }
    Ok(kernels.iter().map(|k| k.name.clone()).zip(best).collect())
}

impl Trial {
    /// Decides for the fastest way, if it is worth it.
    fn choose(&mut self, choices: &mut Choices) {
        let times = self.ways.iter().map(|way| way.1).enumerate();
        let (fastest, time) =
            times.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a problem has its own way");
        if time <= WORTHWHILE * self.ways[0].1 {
            self.chosen = fastest;
            choices.set(&*self.problem, &*self.ways[fastest].0);
        }
        self.ways.iter_mut().for_each(|way| way.1 = round(way.1));
    }
}

impl Tuned {
    /// Keeps the choices beside those that are kept; gives the file, if there is a place for it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store(&self, compiler: &Compiler) -> Result<Option<PathBuf>, Error> {
        let Some(record) = record(compiler) else { return Ok(None) };
        // A file that is of no use is replaced.
        let mut kept: Choices = record.read().ok().flatten().unwrap_or_default();
        for problem in &self.problems {
            match self.choices.get(&problem.problem) {
                Some(way) => kept.set(&*problem.problem, way),
                None => kept.forget(&problem.problem),
            }
        }
        record.write(kept)?;
        Ok(Some(record.path().to_owned()))
    }
}

/// The choices that tuning has kept for the compiler's target on this machine; none if it never ran.
///
/// # Errors
/// Why a file of choices is of no use.
pub fn tuned_choices(compiler: &Compiler) -> Result<Choices, String> {
    Ok(match record(compiler) {
        Some(record) => record.read()?.unwrap_or_default(),
        None => Choices::default(),
    })
}

fn record(compiler: &Compiler) -> Option<Record> {
    Record::new("choices", compiler.target_ref().name())
}

impl fmt::Display for Tuned {
    /// One line for each problem: its first kernel, the times before and after, what was chosen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            let (name, line) = &problem.kernels[0];
            let more = problem.kernels.len() - 1;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let ((_, own), (way, time)) = (&problem.ways[0], &problem.ways[problem.chosen]);
            let line = line.as_deref().unwrap_or("");
            let verdict = if problem.chosen == 0 { "as the model has it: " } else { "" };
            writeln!(f, "{name}{more}  {line}\n  {own:.4} -> {time:.4} ms  {verdict}{way}")?;
        }
        let (tried, faster) = (self.problems.len(), self.problems.iter().filter(|p| p.chosen > 0));
        writeln!(f, "{tried} problems, {} with a faster way", faster.count())
    }
}
