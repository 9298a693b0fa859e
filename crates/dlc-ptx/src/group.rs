//! Which kernels of a program are computed together, by one launch.
//!
//! Attention is three kernels of a program: scores, their softmax, and the sums of values that it
//! weights. One launch does all three where nobody else reads scores and weights, which then have no
//! place in memory. Its gradients are products that make up scores and gradients of weights again, and
//! sums over queries or keys of what becomes of them: a launch does some of the sums, and computes
//! for itself what they are sums of.

use crate::Math;
use crate::schedule::attention::Attention;
use crate::schedule::gradient::Gradient;
use dlc_kernel::region::Regions;
use dlc_kernel::{BufferId, Class, Entry, Expr, Form, Kernel, Program};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::ops::Range;

/// A program whose kernels that are computed together stand side by side; those that several groups
/// compute stand in each.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// The program.
    pub program: Program,
    /// By entry.
    pub entries: Vec<Groups>,
}

/// The groups of an entry.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Positions of kernels that are computed together, in order; most are alone.
    pub ranges: Vec<Range<usize>>,
    /// Buffers that every group which reads them writes for itself: they have no place in memory.
    pub inner: FxHashSet<BufferId>,
    /// Which elements of the entry's buffers matter.
    pub regions: Regions,
}

impl Grouped {
    /// Groups the kernels of every entry.
    pub fn new(program: &Program, math: Math) -> Grouped {
        let mut grouped = Grouped { program: program.clone(), entries: Vec::new() };
        for (entry, new) in program.entries.iter().zip(&mut grouped.program.entries) {
            let regions = Regions::of(program, entry);
            let finder = Finder { program, entry, regions: &regions, uses: Uses::new(entry), math };
            let groups = finder.groups();
            let order = groups.iter().flatten();
            new.kernels = order.map(|&at| entry.kernels[at].clone()).collect();
            let is_before = |group: &&Vec<usize>| group[group.len() - 1] < entry.commit;
            new.commit = groups.iter().filter(is_before).map(Vec::len).sum();
            let mut end = 0;
            let range = |group: &Vec<usize>| {
                end += group.len();
                end - group.len()..end
            };
            let ranges: Vec<Range<usize>> = groups.iter().map(range).collect();
            let inner = inner(program, new, &ranges);
            grouped.entries.push(Groups { ranges, inner, regions });
        }
        grouped
    }
}

/// Whether nobody writes what kernels read between where they stand and the last one of them, where
/// they will be computed.
fn keeps_reads(entry: &Entry, group: &[usize]) -> bool {
    let last = group[group.len() - 1];
    let others = |from: usize| (from + 1..last).filter(|at| !group.contains(at));
    let written =
        |from: usize, id: &BufferId| others(from).any(|at| entry.kernels[at].writes().contains(id));
    let kept = |&from: &usize| !entry.kernels[from].reads().iter().any(|id| written(from, id));
    group.iter().all(kept)
}

/// The temporaries that every group which touches them writes for itself.
fn inner(program: &Program, entry: &Entry, ranges: &[Range<usize>]) -> FxHashSet<BufferId> {
    let mut inner: FxHashSet<BufferId> = FxHashSet::default();
    let mut outer: FxHashSet<BufferId> = entry.outputs.iter().copied().collect();
    for range in ranges {
        let kernels = &entry.kernels[range.clone()];
        let writes: FxHashSet<BufferId> = kernels.iter().flat_map(Kernel::writes).collect();
        let reads: FxHashSet<BufferId> = kernels.iter().flat_map(Kernel::reads).collect();
        outer.extend(reads.iter().filter(|id| kernels.len() == 1 || !writes.contains(id)));
        let is_inner =
            |id: &&BufferId| reads.contains(id) && program.buffer(**id).class == Class::Temp;
        inner.extend(writes.iter().filter(is_inner));
    }
    inner.retain(|id| !outer.contains(id));
    inner
}

/// Looks for groups in an entry.
struct Finder<'p> {
    program: &'p Program,
    entry: &'p Entry,
    regions: &'p Regions,
    uses: Uses,
    math: Math,
}

impl Finder<'_> {
    /// The groups, each at the place of its last kernel.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut taken: FxHashSet<usize> = FxHashSet::default();
        let mut found: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for last in 0..self.entry.kernels.len() {
            let attention = self.attention(last).map(|group| vec![group.to_vec()]);
            let groups = attention.unwrap_or_else(|| self.gradients(last));
            let kept = groups.iter().all(|group| keeps_reads(self.entry, group));
            if !kept || groups.iter().flatten().any(|at| taken.contains(at)) {
                continue;
            }
            taken.extend(groups.iter().flatten());
            found.extend(groups.into_iter().map(|group| (group[group.len() - 1], group)));
        }
        let group = |at: usize| match found.get(&at) {
            Some(group) => Some(group.clone()),
            None => (!taken.contains(&at)).then(|| vec![at]),
        };
        (0..self.entry.kernels.len()).filter_map(group).collect()
    }

    /// The attention that ends with the kernel at `last`, if any.
    fn attention(&self, last: usize) -> Option<[usize; 3]> {
        self.feeding(last).find_map(|row| {
            let fits = |&scores: &usize| {
                let kernels = [scores, row, last].map(|at| &self.entry.kernels[at]);
                Attention::new(self.program, kernels, self.math).is_some()
            };
            let group = [self.feeding(row).find(fits)?, row, last];
            self.is_in_time(&group, &group).then_some(group)
        })
    }

    /// The groups of gradients whose planes end with the kernel at `last`: each has as many sums as fit.
    fn gradients(&self, last: usize) -> Vec<Vec<usize>> {
        let is_product = |&at: &usize| matches!(self.entry.kernels[at].form, Form::Contract { .. });
        if !is_product(&last) {
            return Vec::new();
        }
        let tiles = self.feeding(last).filter(is_product).filter(|&at| self.is_read_late(at, last));
        let tiles: Vec<usize> = tiles.chain([last]).collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for sum in self.uses.readers_of(&self.entry.kernels[last]) {
            let with = |group: &[usize]| [group, &[sum]].concat();
            let joined = groups.iter().position(|group| self.is_gradient(&with(group)));
            match joined {
                Some(at) => groups[at].push(sum),
                None if self.is_gradient(&with(&tiles)) => groups.push(with(&tiles)),
                None => return Vec::new(),
            }
        }
        let in_time = |group: &Vec<usize>| self.is_in_time(group, &group[tiles.len()..]);
        if groups.iter().all(in_time) { groups } else { Vec::new() }
    }

    fn is_gradient(&self, group: &[usize]) -> bool {
        let kernels: Option<Vec<&Kernel>> =
            group.iter().map(|&at| self.entry.kernels[..self.entry.commit].get(at)).collect();
        kernels.is_some_and(|kernels| {
            Gradient::new(self.program, self.regions, &kernels, self.math).is_some()
        })
    }

    /// Whether a product is read by what becomes of another one's sums, not by its factors.
    fn is_read_late(&self, at: usize, by: usize) -> bool {
        let Form::Contract { exprs, lhs, rhs, .. } = &self.entry.kernels[by].form else {
            return false;
        };
        let writes = self.entry.kernels[at].writes();
        !exprs.reachable([*lhs, *rhs]).iter().any(|id| match exprs.get(*id) {
            Expr::Load { buffer, .. } => writes.contains(buffer),
            _ => false,
        })
    }

    /// The kernels whose results the one at `at` alone reads.
    fn feeding(&self, at: usize) -> impl Iterator<Item = usize> {
        let reads = self.entry.kernels[at].reads().into_iter();
        reads
            .filter(|&id| self.program.buffer(id).class == Class::Temp)
            .filter_map(move |id| self.uses.only_between(id, at))
    }

    /// Whether nobody before a group's last kernel reads what those of its kernels give to others.
    fn is_in_time(&self, group: &[usize], giving: &[usize]) -> bool {
        let last = group[group.len() - 1];
        let readers = giving.iter().flat_map(|&at| self.uses.readers_of(&self.entry.kernels[at]));
        readers.filter(|reader| !group.contains(reader)).all(|reader| reader > last)
    }
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

    /// Who reads what a kernel writes, in order.
    fn readers_of(&self, kernel: &Kernel) -> Vec<usize> {
        let readers = kernel.writes().into_iter().filter_map(|id| self.readers.get(&id));
        let readers: BTreeSet<usize> = readers.flatten().copied().collect();
        readers.into_iter().collect()
    }

    /// The kernel that writes the buffer, if that at `reader` alone reads it.
    fn only_between(&self, id: BufferId, reader: usize) -> Option<usize> {
        let alone = self.readers.get(&id).is_some_and(|readers| readers == &[reader]);
        self.writer.get(&id).copied().filter(|_| alone)
    }
}
