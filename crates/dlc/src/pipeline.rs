//! From elaborated graphs to an executable: the one path that the library and every command take.
//!
//! Each stage is timed, and shown to an [`Observer`] that may want its dump.

use crate::Error;
use dlc_graph::Graph;
use dlc_kernel::{BuildOptions, Executable, OptLevel, Program, StageTime, Target};
use dlc_pass::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The part of a program that is compiled from one graph.
pub struct EntryGraph {
    /// `run`, `init`, `train`, `eval`; of several that do the same, `train.16`.
    pub name: String,
    /// Elaborated, with all sizes bound.
    pub graph: Graph,
}

/// Receives a stage's name and its dump for one entry, or for the program as a whole.
/// The dump is made only if it is asked for.
pub type Observer<'a> = &'a mut dyn FnMut(&str, &dyn Fn() -> String);

/// The stages at which the graph has a name of its own in `--emit`.
pub const GRAPH_STAGES: [&str; 3] = ["graph", "grad", "fused"];

/// A program and how long it took to get there.
pub struct Lowered {
    /// The kernel program of all entries.
    pub program: Program,
    /// The passes and the lowering; a pass that ran for several entries is listed once.
    pub stages: Vec<StageTime>,
}

/// Runs all passes over every entry and lowers them to one program.
pub fn lower(entries: &[EntryGraph], opt: OptLevel, observe: Observer<'_>) -> Lowered {
    let mut stages: Vec<StageTime> = Vec::new();
    let mut fused = Vec::with_capacity(entries.len());
    for entry in entries {
        observe("graph", &|| entry.graph.to_string());
        let graph = dlc_pass::run(&entry.graph, opt, &mut |pass, graph, time| {
            add_time(&mut stages, pass.name, time.as_secs_f64() * 1e3);
            observe(pass.name, &|| graph.to_string());
            if pass.name == "differentiate" {
                observe("grad", &|| graph.to_string());
            }
        });
        observe("fused", &|| graph.to_string());
        fused.push((entry.name.as_str(), graph));
    }
    let start = Instant::now();
    let named: Vec<(&str, &Graph)> = fused.iter().map(|(name, graph)| (*name, graph)).collect();
    let program = dlc_pass::lower(&named);
    add_time(&mut stages, "lower", start.elapsed().as_secs_f64() * 1e3);
    observe("kernels", &|| program.to_string());
    Lowered { program, stages }
}

/// The graph of an entry after the pass of that name; `None` if there is no such pass at `opt`.
pub fn run_until(entry: &EntryGraph, opt: OptLevel, pass: &str) -> Option<Graph> {
    let mut found = None;
    dlc_pass::run(&entry.graph, opt, &mut |ran, graph, _| {
        if ran.name == pass {
            found = Some(graph.clone());
        }
    });
    found
}

/// A program, and why its kernels are apart.
pub struct Explained {
    /// The kernel program of all entries.
    pub program: Program,
    /// By entry: pairs of kernels by name, the lesser first.
    pub reasons: Vec<BTreeMap<(String, String), Vec<Reason>>>,
    /// By entry: the kernels that operations have; the others copy results to where they are kept.
    pub named: Vec<BTreeSet<String>>,
}

/// [`lower`], with the reasons of fusion; without fusion there are none.
pub fn explain(entries: &[EntryGraph], opt: OptLevel) -> Explained {
    let explained = entries.iter().map(|e| (e.name.as_str(), dlc_pass::explain(&e.graph, opt)));
    let fused: Vec<_> = explained.collect();
    let named: Vec<_> = fused.iter().map(|(name, (graph, _))| (*name, graph)).collect();
    let dlc_pass::Lowered { program, kernels } = dlc_pass::lower_named(&named);
    let reasons = fused.iter().zip(&kernels).map(|((_, (_, apart)), kernels)| {
        let mut reasons = BTreeMap::<_, Vec<Reason>>::new();
        for a in apart {
            if let (Some(one), Some(other)) = (kernels.get(&a.kernel), kernels.get(&a.neighbour)) {
                reasons.entry(crate::perf::pair(one, other)).or_default().push(a.reason);
            }
        }
        reasons
    });
    let reasons = reasons.collect();
    let named = kernels.iter().map(|kernels| kernels.values().cloned().collect()).collect();
    Explained { program, reasons, named }
}

/// Everything `--emit` can show for a target: stages of their own name, then passes.
pub fn stage_names(target: &dyn Target) -> Vec<&'static str> {
    let mut names = vec!["ast", "graph", "grad", "fused", "kernels"];
    names.extend(target.stages());
    names.extend(dlc_pass::PASSES.iter().map(|p| p.name));
    names
}

/// Lowers and builds.
pub fn build(
    entries: &[EntryGraph],
    target: &dyn Target,
    options: &BuildOptions,
) -> Result<(Box<dyn Executable>, Vec<StageTime>), Error> {
    let Lowered { program, mut stages } = lower(entries, options.opt_level, &mut |_, _| {});
    let executable = target.build(&program, options)?;
    stages.extend(executable.stage_times().iter().cloned());
    Ok((executable, stages))
}

/// Adds to the time of the stage of that name, which becomes the last if it is new.
pub fn add_time(stages: &mut Vec<StageTime>, name: &'static str, ms: f64) {
    match stages.iter_mut().find(|s| s.name == name) {
        Some(stage) => stage.ms += ms,
        None => stages.push(StageTime { name, ms }),
    }
}
