//! Chains of kernels whose temporaries are too large for the caches are computed in slices: a loop over
//! parts of an axis that all of them have, so that what one kernel leaves the next one finds near.
//!
//! Attention is the case in point: scores, weights and sums of a few heads at a time, and never the
//! scores of all. What lives within a step of a loop has the room of one step (`lower.rs`).

use super::piece::pieces;
use super::substitute::Substitution;
use crate::lower::fixed_work;
use crate::schedule::domain::extents;
use dlc_kernel::{
    Access, Axis, BufferId, Class, Entry, Exprs, Form, Index, Kernel, Lookup, Part, Program,
    Segment, Size, Step, Store,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// What the temporaries of a step may take, in bytes: about a second-level cache. It is the same for
/// all machines, and would not change a sum if it were not.
const NEAR: i64 = 1 << 20;

/// How many bytes must stay near for one that is read again: steps also have less of what products use
/// many times.
const WORTH: i64 = 8;

/// Cuts chains into slices, where that saves more than it costs.
pub(super) fn in_slices(mut program: Program) -> Program {
    for at in 0..program.entries.len() {
        let mut chains = Chain::all(&program, &program.entries[at]).into_iter().peekable();
        if chains.peek().is_none() {
            continue;
        }
        let entry = &mut program.entries[at];
        let (all, commit) = (std::mem::take(&mut entry.kernels), entry.commit);
        let (mut kernels, mut begins) = (Vec::with_capacity(all.len()), None);
        let mut rest = all.into_iter().enumerate();
        while let Some((k, kernel)) = rest.next() {
            if k == commit {
                begins = Some(kernels.len());
            }
            kernels.push(match chains.next_if(|(first, _)| *first == k) {
                Some((_, chain)) => {
                    let others = rest.by_ref().take(chain.axes.len() - 1).map(|(_, next)| next);
                    let own: Vec<Kernel> = std::iter::once(kernel).chain(others).collect();
                    chain.in_slices(&mut program, &own)
                }
                None => kernel,
            });
        }
        let entry = &mut program.entries[at];
        entry.commit = begins.unwrap_or(kernels.len());
        entry.kernels = kernels;
    }
    program
}

/// Kernels in a row that are cut into slices along an axis that all of them have.
struct Chain {
    /// By kernel: which of its axes it is.
    axes: Vec<Axis>,
    /// How many steps.
    steps: i64,
    /// How many points a step has.
    points: i64,
    /// What lives within a step, and which of its dims the axis goes along.
    local: FxHashMap<BufferId, usize>,
}

/// An axis that the kernels of a chain have in common, so far.
#[derive(Clone)]
struct Line {
    axes: Vec<Axis>,
    extent: i64,
    /// By buffer that they write: which dim it goes along, if it is one.
    dims: FxHashMap<BufferId, usize>,
}

impl Chain {
    /// The chains of an entry that are worth it, with their first kernels.
    fn all(program: &Program, entry: &Entry) -> Vec<(usize, Chain)> {
        let kernels = &entry.kernels;
        if !kernels.iter().any(|kernel| begins_chain(program, kernel)) {
            return Vec::new();
        }
        let fixed = fixed_work(program, entry);
        let mut last_read = FxHashMap::default();
        for (k, kernel) in kernels.iter().enumerate() {
            kernel.reads().into_iter().for_each(|id| _ = last_read.insert(id, k));
        }
        entry.outputs.iter().for_each(|id| _ = last_read.insert(*id, kernels.len()));
        let (mut chains, mut from) = (Vec::new(), 0);
        while from < kernels.len() {
            let limit = if from < entry.commit { entry.commit } else { kernels.len() };
            let end = (from..limit).find(|&k| fixed[k]).unwrap_or(limit);
            let chain = Chain::best(program, &kernels[..end], from, &last_read);
            let length = chain.as_ref().map_or(1, |chain| chain.axes.len());
            chains.extend(chain.map(|chain| (from, chain)));
            from += length;
        }
        chains
    }

    /// The chain from the kernel `from` on that saves most.
    fn best(
        program: &Program,
        kernels: &[Kernel],
        from: usize,
        last_read: &FxHashMap<BufferId, usize>,
    ) -> Option<Chain> {
        let first = kernels.get(from).filter(|kernel| begins_chain(program, kernel))?;
        let (mut lines, mut written) = (Line::all(first), first.writes());
        let mut best: Option<(i64, Chain)> = None;
        for (k, kernel) in kernels.iter().enumerate().skip(from + 1) {
            let reads = kernel.reads();
            let goes_on = reads.iter().any(|id| written.contains(id) && is_large(program, *id));
            lines = if goes_on { Line::go_on(lines, &written, kernel) } else { Vec::new() };
            if lines.is_empty() {
                break;
            }
            written.extend(kernel.writes());
            if !is_product(kernel) {
                continue;
            }
            // What the chain writes and reads, nobody else may read.
            let own = &kernels[from..=k];
            let read: Vec<BufferId> = own.iter().flat_map(Kernel::reads).collect();
            let local: Vec<BufferId> =
                written.iter().filter(|id| read.contains(id)).copied().collect();
            let stays = |id: &BufferId| {
                program.buffer(*id).class == Class::Temp && last_read.get(id) <= Some(&k)
            };
            let whole = local.iter().all(stays);
            let chains = lines.iter().filter_map(|line| Chain::of(program, own, &local, line));
            for (saved, chain) in chains.filter(|_| whole) {
                if best.as_ref().is_none_or(|(most, _)| saved > *most) {
                    best = Some((saved, chain));
                }
            }
        }
        Some(best?.1)
    }

    /// The chain along `line`, with the bytes that need not go far, if that is worth what has to be
    /// read again at every step.
    fn of(
        program: &Program,
        kernels: &[Kernel],
        local: &[BufferId],
        line: &Line,
    ) -> Option<(i64, Chain)> {
        let bytes = |id: &BufferId| bytes(program, *id);
        let per_point = local.iter().map(bytes).sum::<i64>() / line.extent;
        let fits = |n: &i64| line.extent % n == 0 && n * per_point <= NEAR;
        let points = (1..=line.extent).rev().find(fits).unwrap_or(1);
        let steps = line.extent / points;
        let saved: i64 = local.iter().filter(|id| is_large(program, **id)).map(bytes).sum();
        let read: FxHashSet<BufferId> = kernels.iter().flat_map(Kernel::reads).collect();
        let stays = |id: &&BufferId| !local.contains(id) && !line.moves(kernels, **id);
        let again = (steps - 1) * read.iter().filter(stays).map(bytes).sum::<i64>();
        let dim = |id: &BufferId| Some((*id, *line.dims.get(id)?));
        let local = local.iter().map(dim).collect::<Option<_>>()?;
        let chain = Chain { axes: line.axes.clone(), steps, points, local };
        (steps > 1 && saved > WORTH * again).then_some((saved - again, chain))
    }

    /// The loop over its slices. Temporaries that live within a step have the steps first.
    fn in_slices(&self, program: &mut Program, kernels: &[Kernel]) -> Kernel {
        for (&id, &dim) in &self.local {
            let shape = &mut program.buffers[id.0 as usize].shape;
            shape[dim] = Size::from(self.points);
            shape.insert(0, Size::from(self.steps));
        }
        let last = kernels.last().expect("a chain has kernels");
        let slice = |(kernel, &axis): (&Kernel, &Axis)| {
            let mut form = self.slice(&kernel.form, axis);
            for mut piece in pieces(&mut form) {
                piece.change_accesses(|id, access, _| {
                    if let Some(&dim) = self.local.get(&id) {
                        access.coords[dim] = Index::axis(axis.0 + 1);
                        access.coords.insert(0, Index::axis(0));
                    }
                });
            }
            Kernel { form, ..kernel.clone() }
        };
        let body = kernels.iter().zip(&self.axes).map(slice).collect();
        let form = Form::Loop { steps: Size::from(self.steps), start: Vec::new(), body };
        Kernel { name: format!("{}_slices", last.name), origin: last.origin.clone(), form }
    }

    /// A kernel's form with the steps as its first axis, and the points of a step as `axis`.
    fn slice(&self, form: &Form, axis: Axis) -> Form {
        let cut = |axes: &[Size]| -> SmallVec<[Size; 4]> {
            let mut new = SmallVec::from(axes);
            new[axis.0 as usize] = Size::from(self.points);
            new.insert(0, Size::from(self.steps));
            new
        };
        let over = |count: usize| -> Vec<Index> {
            let index = |a: u32| match a == axis.0 {
                true => Index::affine([(0, self.points), (a + 1, 1)], 0i64),
                false => Index::axis(a + 1),
            };
            (0..count as u32).map(index).collect()
        };
        let mut new = Exprs::new();
        match form {
            Form::Map { segments } => {
                let [Segment { axes, exprs, stores }] = &segments[..] else {
                    unreachable!("a line is along all of a map")
                };
                let over = over(axes.len());
                let mut copy = Substitution::new(exprs, &over);
                let stores = stores.iter().map(|s| copy.store(&mut new, s)).collect();
                Form::Map { segments: vec![Segment { axes: cut(axes), exprs: new, stores }] }
            }
            Form::Row { outer, inner, exprs, steps } => {
                let over = over(outer.len() + inner.len());
                let mut copy = Substitution::new(exprs, &over);
                let steps = steps.iter().map(|step| match step {
                    Step::Fold(op, value) => Step::Fold(*op, copy.copy(&mut new, *value)),
                    Step::StoreRow(store) => Step::StoreRow(copy.store(&mut new, store)),
                    Step::StoreEach(store) => Step::StoreEach(copy.store(&mut new, store)),
                });
                let steps = steps.collect();
                Form::Row { outer: cut(outer), inner: inner.clone(), exprs: new, steps }
            }
            Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } => {
                let over = over(out.len() + reduce.len());
                let mut copy = Substitution::new(exprs, &over);
                let [lhs, rhs] = [lhs, rhs].map(|&factor| copy.copy(&mut new, factor));
                let stores = stores.iter().map(|s| copy.store(&mut new, s)).collect();
                let (out, reduce) = (cut(out), reduce.clone());
                let sums = SmallVec::new();
                Form::Contract { out, sums, reduce, exprs: new, lhs, rhs, stores }
            }
            _ => unreachable!("a line is along axes"),
        }
    }
}

impl Line {
    /// The axes that a kernel's points may be taken apart by, if it can be part of a chain.
    fn all(kernel: &Kernel) -> Vec<Line> {
        let axes = match &kernel.form {
            Form::Map { segments } if segments.len() == 1 => &segments[0].axes,
            Form::Row { outer, .. } => outer,
            Form::Contract { out, .. } => out,
            _ => return Vec::new(),
        };
        let Ok(extents) = extents(axes) else { return Vec::new() };
        if kernel.may_fail() || kernel.form.has_several_sums() {
            return Vec::new();
        }
        let parts = kernel.parts();
        let line = |(axis, extent)| {
            let stores = parts.iter().flat_map(|part| &part.stores);
            let dim = |store: &&Store| {
                let dim = store.access.coords.iter().position(|c| c.as_axis() == Some(axis))?;
                Some((store.buffer, dim))
            };
            Line { axes: vec![axis], extent, dims: stores.filter_map(dim).collect() }
        };
        (0u32..).map(Axis).zip(extents).filter(|a| a.1 > 1).map(line).collect()
    }

    /// The lines that go on through the next kernel, which reads some of what is `written`.
    fn go_on(lines: Vec<Line>, written: &[BufferId], kernel: &Kernel) -> Vec<Line> {
        let (own, parts) = (Line::all(kernel), kernel.parts());
        let read: Vec<_> =
            parts.iter().flat_map(Part::loads).filter(|load| written.contains(&load.0)).collect();
        let through = |mut line: Line| {
            let fits = |next: &&Line| {
                let along = |(id, access, lookups): &(BufferId, &Access, &[Lookup])| {
                    let dim = line.dims.get(id).filter(|_| lookups.is_empty());
                    dim.is_some_and(|&dim| access.coords[dim].as_axis() == Some(next.axes[0]))
                };
                next.extent == line.extent && read.iter().all(along)
            };
            let next = own.iter().find(fits)?;
            line.axes.extend(&next.axes);
            line.dims.extend(&next.dims);
            Some(line)
        };
        lines.into_iter().filter_map(through).collect()
    }

    /// Whether the kernels read another part of a buffer at every step.
    fn moves(&self, kernels: &[Kernel], id: BufferId) -> bool {
        kernels.iter().zip(&self.axes).all(|(kernel, &axis)| {
            let parts = kernel.parts();
            let mut loads = parts.iter().flat_map(Part::loads);
            loads.all(|(read, access, _)| read != id || access.uses(axis))
        })
    }
}

fn begins_chain(program: &Program, kernel: &Kernel) -> bool {
    is_product(kernel) && kernel.writes().iter().any(|&id| is_large(program, id))
}

/// Chains lead from one contraction to another: other kernels walk through memory in order, and are as
/// fast from far away.
fn is_product(kernel: &Kernel) -> bool {
    matches!(kernel.form, Form::Contract { .. })
}

fn bytes(program: &Program, id: BufferId) -> i64 {
    let buffer = program.buffer(id);
    buffer.elements().map_or(0, |n| n as i64 * buffer.dtype.bytes() as i64)
}

fn is_large(program: &Program, id: BufferId) -> bool {
    program.buffer(id).class == Class::Temp && bytes(program, id) > NEAR
}
