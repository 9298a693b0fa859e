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
use crate::lower::{Facts, facts};
use crate::schedule::contract::ContractSchedule;
use crate::schedule::domain::AxisSet;
use crate::schedule::{Config, Site};
use dlc_kernel::{
    Access, Axis, BufferId, Class, DType, Entry, Expr, ExprId, Exprs, Form, Kernel, Lookup,
    Program, Store,
};
use rustc_hash::{FxHashMap, FxHashSet};

/// By buffer: the dim that goes last.
type Layout = FxHashMap<BufferId, usize>;

/// Puts the channels of convolutions last, where that pays.
pub(super) fn channels_last(program: &Program, config: Config) -> Program {
    let mut arranged = program.clone();
    let mut looked_at = FxHashSet::default();
    for at in 0..program.entries.len() {
        let chains = Chains { program, entry: &program.entries[at] };
        for seed in chains.seeds() {
            if looked_at.contains(&seed.0) {
                continue;
            }
            let layout = chains.grow(seed);
            looked_at.extend(layout.keys().copied());
            let mut candidate = arranged.clone();
            apply(&mut candidate, at, &layout);
            let cost = |program: &Program| estimate(&pad(program), at, config);
            if cost(&candidate) < cost(&arranged) {
                arranged = candidate;
            }
        }
    }
    arranged
}

/// Cycles of all contractions of an entry.
fn estimate(program: &Program, entry: usize, config: Config) -> f64 {
    let Facts { aliases, fixed, .. } = &facts(program)[entry];
    let site = Site { program, aliases, fixed, config };
    let forms = program.entries[entry].kernels.iter().map(|k| &k.form);
    let contractions = forms.filter(|form| matches!(form, Form::Contract { .. }));
    let cycles = |form| ContractSchedule::new(site, form).map_or(f64::INFINITY, |s| s.cycles);
    contractions.map(cycles).sum()
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

/// The chains of an entry.
struct Chains<'p> {
    program: &'p Program,
    entry: &'p Entry,
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
}

impl<'p> Chains<'p> {
    /// The data of contractions through windows, with their channel dim.
    fn seeds(&self) -> Vec<(BufferId, usize)> {
        let forms = self.entry.kernels.iter().map(|k| &k.form);
        let windowed = forms.flat_map(Crossing::both).filter(Crossing::has_windows);
        windowed.filter_map(|c| Some((self.eligible(c.data.0)?, c.data_channel()?))).collect()
    }

    fn eligible(&self, id: BufferId) -> Option<BufferId> {
        let buffer = self.program.buffer(id);
        let bound = buffer.shape.iter().all(|n| n.as_const().is_some());
        let fits = buffer.class == Class::Temp && buffer.dtype == DType::F32 && bound;
        let in_order = |k: &Kernel| match &k.form {
            Form::Reshape { src, dst } => [*src, *dst].contains(&id),
            Form::ScatterAdd { buffer, .. } => *buffer == id,
            _ => false,
        };
        let free = !self.entry.outputs.contains(&id) && !self.entry.kernels.iter().any(in_order);
        (fits && buffer.shape.len() >= 3 && free).then_some(id)
    }

    /// Everything that is walked through together with the seed.
    fn grow(&self, seed: (BufferId, usize)) -> Layout {
        let mut layout: Layout = [seed].into_iter().collect();
        loop {
            let before = layout.len();
            for kernel in &self.entry.kernels {
                let found = match &kernel.form {
                    Form::Contract { .. } => through_contraction(&kernel.form, &layout),
                    _ => along(kernel, &layout),
                };
                for (buffer, dim) in found {
                    if self.eligible(buffer).is_some() {
                        layout.entry(buffer).or_insert(dim);
                    }
                }
            }
            if layout.len() == before {
                return layout;
            }
        }
    }
}

/// Dims that a kernel which is no contraction walks through along the axis of a channel.
fn along(kernel: &Kernel, layout: &Layout) -> Vec<(BufferId, usize)> {
    let mut found = Vec::new();
    for part in kernel.parts() {
        let loads = part.nodes().filter_map(|(_, expr)| match expr {
            Expr::Load { buffer, access, .. } => Some((*buffer, access)),
            _ => None,
        });
        let stores = part.stores.iter().map(|s| (s.buffer, &s.access));
        found.extend(same_axis(loads.chain(stores).collect(), layout));
    }
    found
}

/// Dims of accesses along the axis which is the channel of one of them.
fn same_axis(uses: Vec<(BufferId, &Access)>, layout: &Layout) -> Vec<(BufferId, usize)> {
    let channel = |&(buffer, access): &(BufferId, &Access)| {
        layout.get(&buffer).and_then(|&dim| access.coords[dim].as_axis())
    };
    let channels: Vec<Axis> = uses.iter().filter_map(channel).collect();
    let dims = uses.iter().flat_map(|&(buffer, access)| {
        let dim = channels.iter().find_map(|&axis| dim_along(access, axis));
        dim.map(|dim| (buffer, dim))
    });
    dims.collect()
}

fn dim_along(access: &Access, axis: Axis) -> Option<usize> {
    access.coords.iter().position(|c| c.as_axis() == Some(axis))
}

/// Dims that a contraction relates to known channels: its data's to its results', and those of
/// results and of what is added to them to one another.
fn through_contraction(form: &Form, layout: &Layout) -> Vec<(BufferId, usize)> {
    let mut found = Vec::new();
    for crossing in Crossing::both(form) {
        let after = crossing.after();
        found.extend(same_axis(after.clone(), layout));
        let (data, access) = crossing.data;
        let (Some(dim), Some(out)) = (crossing.data_channel(), crossing.out_channel()) else {
            continue;
        };
        let results = after.iter().filter_map(|&(b, access)| Some((b, dim_along(access, out)?)));
        let results: Vec<_> = results.collect();
        let known = |(buffer, dim): &(BufferId, usize)| layout.get(buffer) == Some(dim);
        if known(&(data, dim)) {
            found.extend(results);
        } else if results.iter().any(known) && access.coords.len() > 2 {
            found.push((data, dim));
        }
    }
    found
}

impl<'p> Crossing<'p> {
    /// A contraction with either operand as its data.
    fn both(form: &'p Form) -> Vec<Crossing<'p>> {
        let Form::Contract { out, exprs, lhs, rhs, stores, .. } = form else { return Vec::new() };
        let one = |(data, weights): (ExprId, ExprId)| {
            let Expr::Load { buffer, access, .. } = exprs.get(data) else { return None };
            let weights = axes_below(exprs, weights);
            Some(Crossing { exprs, stores, data: (*buffer, access), weights, outs: out.len() })
        };
        [(*lhs, *rhs), (*rhs, *lhs)].into_iter().filter_map(one).collect()
    }

    fn is_out(&self, axis: Axis) -> bool {
        (axis.0 as usize) < self.outs
    }

    /// Whether a coordinate of the data is a position plus a place in a window.
    fn has_windows(&self) -> bool {
        let mixed = |terms: &[(Axis, i64)]| {
            terms.iter().any(|t| self.is_out(t.0)) && terms.iter().any(|t| !self.is_out(t.0))
        };
        self.data.1.coords.iter().any(|c| mixed(&c.terms))
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
        let roots = self.stores.iter().map(|s| s.value);
        let nodes = self.exprs.reachable(roots).into_iter().map(|id| self.exprs.get(id));
        let loads = nodes.filter_map(|expr| match expr {
            Expr::Load { buffer, access, .. } => Some((*buffer, access)),
            _ => None,
        });
        loads.chain(self.stores.iter().map(|s| (s.buffer, &s.access))).collect()
    }
}

/// The axes that loads below a node depend on.
fn axes_below(exprs: &Exprs, root: ExprId) -> AxisSet {
    let mut axes = AxisSet::default();
    for id in exprs.reachable([root]) {
        if let Expr::Load { access, .. } = exprs.get(id) {
            let terms = access.coords.iter().flat_map(|c| &c.terms);
            axes = terms.fold(axes, |axes, t| axes.union(AxisSet::of(t.0)));
        }
    }
    axes
}
