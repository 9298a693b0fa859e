//! Layouts: temporaries of convolutions whose channels become neighbours in memory.
//!
//! A contraction through windows reads, for every position, all channels. Where those are
//! neighbours, positions are rows that may be read in place whatever the width of a picture is, and
//! channels are the columns, which weights fill densely. So the channel dim of what such a
//! contraction reads and stores goes last, and that of all temporaries which the same kernels walk
//! through together: no conversion stands inside a chain. A chain changes if its contractions become
//! cheaper by the estimate that schedules them.
//!
//! Only the storage of temporaries changes; a reshape needs rows in order, and so do callers.

use super::pad::pad;
use super::piece::pieces;
use super::winograd;
use crate::caches::Caches;
use crate::lower::{Facts, facts_of};
use crate::schedule::Config;
use crate::schedule::contract::{Choices, ContractSchedule};
use crate::schedule::domain::{AxisSet, extents};
use dlc_kernel::{
    Access, Axis, BufferId, Class, Entry, Expr, ExprId, Exprs, Form, Kernel, Lookup, Part, Program,
    Size, Store,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// By buffer: the dim that goes last.
type Layout = FxHashMap<BufferId, usize>;

/// Puts the channels of convolutions last, where that pays.
pub(super) fn channels_last(mut program: Program, config: Config) -> Program {
    for at in 0..program.entries.len() {
        let chains = Chains::new(&program, &program.entries[at]);
        if chains.seeds.is_empty() {
            continue;
        }
        let facts = &facts_of(&program, &program.entries[at]);
        let mut looked_at = FxHashSet::default();
        for &seed in &chains.seeds {
            if looked_at.contains(&seed.0) {
                continue;
            }
            let layout = chains.grow(seed);
            looked_at.extend(layout.keys().copied());
            let as_it_is = contractions(&program, at, &layout);
            let mut changed = as_it_is.clone();
            apply(&mut changed, 0, &layout);
            if estimate(changed, facts, config) < estimate(as_it_is, facts, config) {
                apply(&mut program, at, &layout);
            }
        }
    }
    program
}

/// A program of an entry's contractions alone, as far as a layout concerns them.
fn contractions(program: &Program, entry: usize, layout: &Layout) -> Program {
    let entry = &program.entries[entry];
    let concerned = |k: &&Kernel| matches!(k.form, Form::Contract { .. }) && touches(k, layout);
    let kernels = entry.kernels.iter().filter(concerned);
    let kernels: Vec<Kernel> = kernels.cloned().collect();
    let (inputs, outputs, commit) = (Vec::new(), Vec::new(), kernels.len());
    let only = Entry { name: entry.name.clone(), inputs, outputs, kernels, commit };
    Program { buffers: program.buffers.clone(), entries: vec![only] }
}

/// Cycles of contractions.
fn estimate(contractions: Program, facts: &Facts, config: Config) -> f64 {
    let program = &pad(contractions);
    // A layout decides the order of sums.
    let config = Config { caches: Caches::USUAL, ..config };
    let site = facts.site(program, config, Choices::none());
    let cycles = |kernel: &Kernel| match &kernel.form {
        Form::Contract { .. } => {
            let schedule = ContractSchedule::new(site, &kernel.form);
            let direct = schedule.map_or(f64::INFINITY, |s| s.cycles);
            let transformed = winograd::estimate(program, kernel, &facts.fixed, config);
            transformed.map_or(direct, |cycles| cycles.min(direct))
        }
        _ => 0.0,
    };
    program.entries[0].kernels.iter().map(cycles).sum()
}

/// Stores the buffers of a layout in it.
fn apply(program: &mut Program, entry: usize, layout: &Layout) {
    for (buffer, &dim) in layout {
        let shape = &mut program.buffers[buffer.0 as usize].shape;
        shape[dim..].rotate_left(1);
    }
    let mut kernels = std::mem::take(&mut program.entries[entry].kernels);
    for kernel in kernels.iter_mut().filter(|k| touches(k, layout)) {
        for mut piece in pieces(&mut kernel.form) {
            piece.change_accesses(|buffer, access, lookups| {
                if let Some(&dim) = layout.get(&buffer) {
                    move_last(dim, access, lookups);
                }
            });
            piece.sort_axes(program, |buffer| layout.contains_key(&buffer));
        }
    }
    program.entries[entry].kernels = kernels;
}

fn move_last(dim: usize, access: &mut Access, lookups: &mut [Lookup]) {
    access.coords[dim..].rotate_left(1);
    let last = access.coords.len() as u32 - 1;
    for lookup in lookups {
        lookup.dim = match lookup.dim as usize {
            d if d == dim => last,
            d if d > dim => lookup.dim - 1,
            _ => lookup.dim,
        };
    }
}

fn touches(kernel: &Kernel, layout: &Layout) -> bool {
    kernel.reads().iter().chain(&kernel.writes()).any(|id| layout.contains_key(id))
}

/// A dim of a buffer.
type Dim = (BufferId, usize);

/// The chains of an entry.
struct Chains {
    /// Buffers that may change.
    eligible: FxHashSet<BufferId>,
    /// Dims that go last together, because one axis of a kernel walks along all of them, or because a
    /// contraction makes one of the other.
    together: Vec<Vec<Dim>>,
    /// The data of contractions through windows, with their channels.
    seeds: Vec<Dim>,
}

/// A contraction, as far as chains go through it.
struct Crossing<'p> {
    exprs: &'p Exprs,
    stores: &'p [Store],
    /// What is read through windows, or like it: data, not weights.
    data: (BufferId, &'p Access),
    /// The axes of the other operand.
    weights: AxisSet,
    outs: usize,
    extents: SmallVec<[i64; 8]>,
}

impl Chains {
    fn new(program: &Program, entry: &Entry) -> Chains {
        let eligible = eligible(program, entry);
        let (mut together, mut seeds) = (Vec::new(), Vec::new());
        for kernel in &entry.kernels {
            match &kernel.form {
                Form::Contract { .. } => {
                    for crossing in Crossing::both(&kernel.form) {
                        seeds.extend(crossing.seed().filter(|s| eligible.contains(&s.0)));
                        together.extend(crossing.together());
                    }
                }
                _ => together.extend(walked_together(kernel)),
            }
        }
        Chains { eligible, together, seeds }
    }

    /// Everything that changes together with the seed.
    fn grow(&self, seed: Dim) -> Layout {
        let mut groups: FxHashMap<Dim, Vec<usize>> = FxHashMap::default();
        for (group, dims) in self.together.iter().enumerate() {
            dims.iter().for_each(|&dim| groups.entry(dim).or_default().push(group));
        }
        let mut layout: Layout = [seed].into_iter().collect();
        let mut open = vec![seed];
        while let Some(dim) = open.pop() {
            let groups = groups.get(&dim).into_iter().flatten();
            for &(buffer, dim) in groups.flat_map(|&group| &self.together[group]) {
                if self.eligible.contains(&buffer) && !layout.contains_key(&buffer) {
                    layout.insert(buffer, dim);
                    open.push((buffer, dim));
                }
            }
        }
        layout
    }
}

/// Whether it is a contraction that reads through windows.
pub(super) fn has_windows(form: &Form) -> bool {
    Crossing::both(form).iter().any(|crossing| crossing.windows().next().is_some())
}

/// Temporaries with channels that nothing needs in order.
fn eligible(program: &Program, entry: &Entry) -> FxHashSet<BufferId> {
    let fits = |id: &BufferId| {
        let buffer = program.buffer(*id);
        let bound = buffer.shape.iter().all(|n| n.as_const().is_some());
        buffer.class == Class::Temp && bound && buffer.shape.len() >= 3
    };
    let all = (0..program.buffers.len() as u32).map(BufferId);
    let mut eligible: FxHashSet<BufferId> = all.filter(fits).collect();
    let in_order = entry.kernels.iter().flat_map(|kernel| match &kernel.form {
        Form::Reshape { src, dst } => vec![*src, *dst],
        Form::Scatter { buffer, .. } => vec![*buffer],
        Form::Loop { .. } => [kernel.reads(), kernel.writes()].concat(),
        _ => Vec::new(),
    });
    in_order.chain(entry.outputs.iter().copied()).for_each(|id| _ = eligible.remove(&id));
    eligible
}

/// By axis: the dims that a kernel which is no contraction walks along.
fn walked_together(kernel: &Kernel) -> Vec<Vec<Dim>> {
    let parts = kernel.parts();
    // The parts of a map have axes of their own, those of other forms share theirs.
    let sharing = if matches!(kernel.form, Form::Map { .. }) { 1 } else { parts.len().max(1) };
    parts.chunks(sharing).flat_map(|parts| by_axis(parts.iter().flat_map(uses))).collect()
}

/// What a part reads and stores.
fn uses<'k>(part: &Part<'k>) -> Vec<(BufferId, &'k Access)> {
    let loads = part.exprs.loads(part.roots.iter().copied());
    loads.chain(part.stores.iter().map(|s| (s.buffer, &s.access))).collect()
}

/// By axis: the dims that it alone walks along.
fn by_axis<'a>(uses: impl Iterator<Item = (BufferId, &'a Access)>) -> Vec<Vec<Dim>> {
    let mut along: FxHashMap<Axis, Vec<Dim>> = FxHashMap::default();
    for (buffer, access) in uses {
        for (dim, coord) in access.coords.iter().enumerate() {
            if let Some(axis) = coord.as_axis() {
                along.entry(axis).or_default().push((buffer, dim));
            }
        }
    }
    along.into_values().filter(|dims| dims.len() > 1).collect()
}

fn dim_along(access: &Access, axis: Axis) -> Option<usize> {
    access.coords.iter().position(|c| c.as_axis() == Some(axis))
}

impl<'p> Crossing<'p> {
    /// A contraction with either operand as its data.
    fn both(form: &'p Form) -> Vec<Crossing<'p>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = form else {
            return Vec::new();
        };
        if form.has_several_sums() {
            return Vec::new();
        }
        let all: Vec<Size> = out.iter().chain(reduce).cloned().collect();
        let extents = extents(&all).unwrap_or_default();
        let one = |(data, weights): (ExprId, ExprId)| {
            let Expr::Load { buffer, access, .. } = exprs.get(data) else { return None };
            let weights = axes_below(exprs, weights);
            let (data, extents) = ((*buffer, access), extents.clone());
            Some(Crossing { exprs, stores, data, weights, outs: out.len(), extents })
        };
        [(*lhs, *rhs), (*rhs, *lhs)].into_iter().filter_map(one).collect()
    }

    /// The data and its channel, if windows are summed over: a place in one is the shorter axis of two.
    fn seed(&self) -> Option<Dim> {
        let extent = |axis: Axis| self.extents.get(axis.0 as usize);
        let is_summed = |(position, place): (Axis, Axis)| extent(place) <= extent(position);
        Some((self.data.0, self.data_channel()?)).filter(|_| self.windows().any(is_summed))
    }

    /// Results and what is read for them by axis; the channels of data and of results.
    fn together(&self) -> Vec<Vec<Dim>> {
        let after = self.after();
        let mut together = by_axis(after.iter().copied());
        if let (Some(dim), Some(out)) = (self.data_channel(), self.out_channel()) {
            let results =
                after.iter().filter_map(|&(b, access)| Some((b, dim_along(access, out)?)));
            together.push(results.chain([(self.data.0, dim)]).collect());
        }
        together
    }

    fn is_out(&self, axis: Axis) -> bool {
        (axis.0 as usize) < self.outs
    }

    /// The axes of results and of sums that a coordinate of the data adds up.
    fn windows(&self) -> impl Iterator<Item = (Axis, Axis)> {
        self.data.1.coords.iter().filter_map(|coord| {
            let mut axes = coord.terms.iter().map(|t| t.0);
            let out = axes.clone().find(|&axis| self.is_out(axis))?;
            Some((out, axes.find(|&axis| !self.is_out(axis))?))
        })
    }

    /// The dim of the data that is summed over with weights, if there is exactly one.
    fn data_channel(&self) -> Option<usize> {
        let summed = |axis: Axis| !self.is_out(axis) && self.weights.contains(axis);
        let coords = self.data.1.coords.iter().enumerate();
        let mut dims = coords.filter(|(_, c)| c.as_axis().is_some_and(summed)).map(|(dim, _)| dim);
        dims.next().filter(|_| dims.next().is_none())
    }

    /// The axis of the results that only weights decide, if there is exactly one.
    fn out_channel(&self) -> Option<Axis> {
        let own = |&axis: &Axis| self.weights.contains(axis) && !self.data.1.uses(axis);
        let mut axes = (0..self.outs as u32).map(Axis).filter(own);
        axes.next().filter(|_| axes.next().is_none())
    }

    /// What is stored, and what is read for that.
    fn after(&self) -> Vec<(BufferId, &'p Access)> {
        let loads = self.exprs.loads(self.stores.iter().map(|s| s.value));
        loads.chain(self.stores.iter().map(|s| (s.buffer, &s.access))).collect()
    }
}

/// The axes that loads below a node depend on.
fn axes_below(exprs: &Exprs, root: ExprId) -> AxisSet {
    let terms = exprs.loads([root]).flat_map(|(_, access)| &access.coords).flat_map(|c| &c.terms);
    terms.fold(AxisSet::default(), |axes, t| axes.union(AxisSet::of(t.0)))
}
