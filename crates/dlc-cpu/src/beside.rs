//! Loops that run beside each other: each on a thread of its own, where that takes less time than the
//! steps of one after the other, shared out to all threads.

use crate::codegen::Phase;
use crate::lower::ScheduledEntry;
use crate::share::{Share, share_out};
use dlc_kernel::plan::Aliases;
use dlc_kernel::{BufferId, Entry, Form, Kernel};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;

/// What it costs to hand a kernel of a step to several threads, and to wait for them, in nanoseconds.
const REGION: f64 = 700.0;

/// What a kernel reads and writes.
pub struct Touched {
    reads: FxHashSet<BufferId>,
    writes: FxHashSet<BufferId>,
}

impl Touched {
    /// All of what it, and what is in it, reads and writes.
    pub fn of(kernel: &Kernel) -> Touched {
        let (reads, writes) = (kernel.reads(), kernel.writes());
        Touched { reads: reads.into_iter().collect(), writes: writes.into_iter().collect() }
    }

    /// The same with the storage in the place of what lives in it.
    fn in_storage(self, aliases: &Aliases) -> Touched {
        let root = |id: BufferId| aliases.get(&id).copied().unwrap_or(id);
        let all = |ids: FxHashSet<BufferId>| ids.into_iter().map(root).collect();
        Touched { reads: all(self.reads), writes: all(self.writes) }
    }

    /// Whether it matters which of the two is first.
    pub fn bears_on(&self, other: &Touched) -> bool {
        !self.writes.is_disjoint(&other.reads)
            || !self.writes.is_disjoint(&other.writes)
            || !self.reads.is_disjoint(&other.writes)
    }
}

/// Neighbours among an entry's kernels that are loops, need nothing of each other and cannot fail. A loop
/// whose steps need nothing of each other shares those out, and is none of them.
pub fn neighbours(
    entry: &Entry,
    at_load: &[bool],
    aliases: &Aliases,
    independent: &FxHashMap<usize, i64>,
) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut touched: Vec<Touched> = Vec::new();
    for (at, kernel) in entry.kernels.iter().enumerate() {
        let is_loop = matches!(kernel.form, Form::Loop { .. });
        if !is_loop || kernel.may_fail() || at_load[at] || independent.contains_key(&at) {
            continue;
        }
        let own = Touched::of(kernel).in_storage(aliases);
        match found.last_mut() {
            Some(last) if last.end == at && !touched.iter().any(|t| t.bears_on(&own)) => {
                last.end += 1;
            }
            _ => {
                found.push(at..at + 1);
                touched.clear();
            }
        }
        touched.push(own);
    }
    found.retain(|loops| loops.len() > 1);
    found
}

/// Those of an entry's neighbours that run beside each other, of so many threads.
pub fn beside(
    scheduled: &ScheduledEntry,
    phases: &[Vec<Phase>],
    threads: usize,
) -> Vec<Range<usize>> {
    let pays = |loops: &Range<usize>| {
        let times = loops.clone().map(|top| times(scheduled, phases, top, threads));
        let (alone, shared): (Vec<f64>, Vec<f64>) = times.unzip();
        loops.len() <= threads && alone.into_iter().fold(0.0, f64::max) < shared.iter().sum()
    };
    scheduled.facts.neighbours.iter().filter(|loops| pays(loops)).cloned().collect()
}

/// How long the steps of a loop take on one thread, and shared out to as many as there are, in
/// nanoseconds.
fn times(
    scheduled: &ScheduledEntry,
    phases: &[Vec<Phase>],
    top: usize,
    threads: usize,
) -> (f64, f64) {
    let leaves = scheduled.leaves.iter().zip(phases).filter(|(leaf, _)| leaf.top == top);
    let (mut alone, mut shared) = (0.0, 0.0);
    for (leaf, phases) in leaves {
        for phase in phases {
            let loops = phase.loops.unwrap_or(leaf.loops.len());
            let steps = leaf.loops[..loops].iter().product::<i64>();
            let shares = share_out(&phase.parts, steps, threads);
            let cost = |s: &Share| (s.end - s.begin) as f64 * phase.parts[s.part].unit_cost;
            let of_worker = |shares: &Vec<Share>| shares.iter().map(cost).sum::<f64>();
            let longest = shares.iter().map(of_worker).fold(0.0, f64::max);
            let region = if shares.len() > 1 { REGION } else { 0.0 };
            alone += steps as f64 * shares.iter().map(of_worker).sum::<f64>();
            shared += steps as f64 * (longest + region);
        }
    }
    (alone, shared)
}
