//! Which kernels of a program are computed together, by one launch.
//!
//! Attention is three kernels of a program: scores, their softmax, and the sums of values that it
//! weights. One launch does all three where nobody else reads scores and weights, which then have no
//! place in memory. A training step's backward pass reads the weights: its forward pass stays apart.

use crate::Math;
use crate::schedule::attention::Attention;
use dlc_kernel::{BufferId, Class, Entry, Program};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// A program whose kernels that are computed together stand side by side.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// The program.
    pub program: Program,
    /// By entry: positions of kernels that are computed together, in order; most are alone.
    pub groups: Vec<Vec<Range<usize>>>,
}

impl Grouped {
    /// Groups the kernels of every entry.
    pub fn new(program: &Program, math: Math) -> Grouped {
        let mut grouped = Grouped { program: program.clone(), groups: Vec::new() };
        for (entry, new) in program.entries.iter().zip(&mut grouped.program.entries) {
            let groups = groups(program, entry, math);
            let order = groups.iter().flatten();
            new.kernels = order.map(|&at| entry.kernels[at].clone()).collect();
            let mut end = 0;
            let range = |group: &Vec<usize>| {
                end += group.len();
                end - group.len()..end
            };
            grouped.groups.push(groups.iter().map(range).collect());
        }
        grouped
    }
}

/// The groups of an entry, each at the place of its last kernel.
fn groups(program: &Program, entry: &Entry, math: Math) -> Vec<Vec<usize>> {
    let uses = Uses::new(entry);
    let kernels = 0..entry.kernels.len();
    let found = kernels.filter_map(|at| attention(program, entry, &uses, at, math));
    let found = found.filter(|group| keeps_reads(entry, group));
    let found: FxHashMap<usize, [usize; 2]> = found.map(|[i, j, last]| (last, [i, j])).collect();
    let taken: Vec<usize> = found.values().flatten().copied().collect();
    let alone = (0..entry.kernels.len()).filter(|at| !taken.contains(at));
    let group = |at| found.get(&at).map_or(vec![at], |first| [&first[..], &[at]].concat());
    alone.map(group).collect()
}

/// Whether nobody writes what kernels read between where they stand and the last one of them, where
/// they will be computed.
fn keeps_reads(entry: &Entry, [first, second, last]: &[usize; 3]) -> bool {
    let written = |from: usize, id: &BufferId| {
        entry.kernels[from + 1..*last].iter().any(|kernel| kernel.writes().contains(id))
    };
    let kept = |&from: &usize| !entry.kernels[from].reads().iter().any(|id| written(from, id));
    [first, second].into_iter().all(kept)
}

/// The attention that ends with the kernel at `last`, if any.
fn attention(
    program: &Program,
    entry: &Entry,
    uses: &Uses,
    last: usize,
    math: Math,
) -> Option<[usize; 3]> {
    let feeding = |at: usize| {
        let reads = entry.kernels[at].reads().into_iter();
        reads
            .filter(|&id| program.buffer(id).class == Class::Temp)
            .filter_map(move |id| uses.only_between(id, at))
    };
    feeding(last).find_map(|row| {
        let fits = |&scores: &usize| {
            let kernels = [scores, row, last].map(|at| &entry.kernels[at]);
            Attention::new(program, kernels, math).is_some()
        };
        Some([feeding(row).find(fits)?, row, last])
    })
}

/// Who writes and reads the buffers of an entry.
struct Uses {
    writer: FxHashMap<BufferId, usize>,
    /// The caller is one, too.
    readers: FxHashMap<BufferId, Vec<usize>>,
}

impl Uses {
    fn new(entry: &Entry) -> Uses {
        let mut uses = Uses { writer: FxHashMap::default(), readers: FxHashMap::default() };
        for (at, kernel) in entry.kernels.iter().enumerate() {
            kernel.writes().into_iter().for_each(|id| _ = uses.writer.insert(id, at));
            kernel.reads().into_iter().for_each(|id| uses.readers.entry(id).or_default().push(at));
        }
        for &id in &entry.outputs {
            uses.readers.entry(id).or_default().push(entry.kernels.len());
        }
        uses
    }

    /// The kernel that writes the buffer, if that at `reader` alone reads it.
    fn only_between(&self, id: BufferId, reader: usize) -> Option<usize> {
        let alone = self.readers.get(&id).is_some_and(|readers| readers == &[reader]);
        self.writer.get(&id).copied().filter(|_| alone)
    }
}
