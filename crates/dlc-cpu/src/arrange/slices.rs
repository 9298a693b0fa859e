//! Chains of kernels whose temporaries are too large for the caches are computed in slices: a loop over
//! parts of an axis that all of them have, so that what one kernel leaves the next one finds near.
//!
//! Attention is the case in point: scores, weights and sums of a few heads at a time, and never the
//! scores of all. What lives within a step of a loop has the room of one step (`rooms.rs`).

mod line;
mod sums;

use super::cut::Cut;
use super::piece::pieces;
use crate::lower::Fixed;
use dlc_kernel::{Axis, BufferId, Class, Entry, Form, Index, Kernel, Program, Size};
use line::{Line, summed};
use rustc_hash::FxHashMap;

/// What the temporaries of a step may take, in bytes: about a second-level cache. It is the same for
/// all machines, and would not change a sum if it were not.
const NEAR: i64 = 1 << 20;

/// How many bytes must stay near for one that is read again: steps also have less of what products use
/// many times. Within a loop, operands are packed for all slices of a step, and every byte counts.
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
        let mut own = Vec::new();
        for (k, kernel) in all.into_iter().enumerate() {
            if k == commit {
                begins = Some(kernels.len());
            }
            let Some(chain) = chains.peek().filter(|chain| chain.places.contains(&k)) else {
                kernels.push(kernel);
                continue;
            };
            own.push(kernel);
            if own.len() == chain.places.len() {
                let (chain, own) = (chains.next().expect("it is there"), std::mem::take(&mut own));
                kernels.extend(chain.in_slices(&mut program, &own));
            }
        }
        let entry = &mut program.entries[at];
        entry.commit = begins.unwrap_or(kernels.len());
        entry.kernels = kernels;
    }
    program
}

/// Kernels that are cut into slices along an axis that all of them have. Those between them do not
/// depend on the chain, and go before it.
struct Chain {
    /// Where its kernels are.
    places: Vec<usize>,
    /// The loops that they are in already.
    around: Loops,
    /// By kernel: which of its axes it is.
    axes: Vec<Axis>,
    /// How many steps.
    steps: i64,
    /// How many points a step has.
    points: i64,
    /// What lives within a step, and which of its dims the axis goes along.
    local: FxHashMap<BufferId, usize>,
}

/// Loops around kernels.
#[derive(Clone, Copy)]
struct Loops {
    depth: u32,
    /// How often they run what is in them.
    steps: i64,
}

impl Loops {
    /// Of what every slice reads, and the loops around have another part of at every step: the bytes of
    /// it that stay near beside a slice, if there is room; and how many bytes must stay near for one
    /// that is read again.
    fn share_of(&self, bytes: i64) -> (i64, i64) {
        if self.depth == 0 {
            return (0, WORTH);
        }
        let own = bytes / self.steps;
        (if own <= NEAR / 2 { own } else { 0 }, 1)
    }
}

impl Chain {
    /// The chains of an entry that are worth it, in order.
    fn all(program: &Program, entry: &Entry) -> Vec<Chain> {
        let kernels = &entry.kernels;
        if !kernels.iter().any(|kernel| begins_chain(program, kernel)) {
            return Vec::new();
        }
        let fixed = Fixed::of(program, entry).at_load;
        let mut lives: FxHashMap<BufferId, (usize, usize)> = FxHashMap::default();
        for (k, kernel) in kernels.iter().enumerate() {
            let touched = [kernel.writes(), kernel.reads()].concat();
            touched.into_iter().for_each(|id| lives.entry(id).or_insert((k, k)).1 = k);
        }
        entry.outputs.iter().for_each(|id| _ = lives.insert(*id, (0, kernels.len())));
        let (mut chains, mut from) = (Vec::new(), 0);
        while from < kernels.len() {
            let limit = if from < entry.commit { entry.commit } else { kernels.len() };
            let end = (from..limit).find(|&k| fixed[k]).unwrap_or(limit);
            let chain = Chain::best(program, &kernels[..end], from, &lives);
            let last = chain.as_ref().and_then(|chain| chain.places.last());
            from = last.unwrap_or(&from) + 1;
            chains.extend(chain);
        }
        chains
    }

    /// The chain from the kernel `from` on that saves most.
    fn best(
        program: &Program,
        kernels: &[Kernel],
        from: usize,
        lives: &FxHashMap<BufferId, (usize, usize)>,
    ) -> Option<Chain> {
        let first = kernels.get(from).filter(|kernel| begins_chain(program, kernel))?;
        let outside = Loops { depth: 0, steps: 1 };
        let (mut lines, mut places) = (Line::all(first, outside), vec![from]);
        let (mut own, mut read, mut written) = (vec![first], first.reads(), first.writes());
        let mut best: Option<(i64, Chain)> = None;
        for (k, kernel) in kernels.iter().enumerate().skip(from + 1) {
            let (reads, writes) = (kernel.reads(), kernel.writes());
            if !reads.iter().any(|id| written.contains(id)) {
                match writes.iter().any(|id| read.contains(id) || written.contains(id)) {
                    true => break,
                    false => continue,
                }
            }
            let goes_on = reads.iter().any(|id| written.contains(id) && is_large(program, *id));
            lines =
                if goes_on { Line::go_on(lines, &written, kernel, outside) } else { Vec::new() };
            if lines.is_empty() {
                break;
            }
            places.push(k);
            own.push(kernel);
            read.extend(reads);
            written.extend(writes);
            if !is_product(kernel) {
                continue;
            }
            // What the chain writes and reads, nobody else may write or read.
            let local = || written.iter().filter(|id| read.contains(id));
            let stays = |id: &BufferId| {
                let within = |&(first, last): &(usize, usize)| first >= from && last <= k;
                program.buffer(*id).class == Class::Temp && lives.get(id).is_some_and(within)
            };
            if !local().all(stays) {
                continue;
            }
            let local: Vec<BufferId> = local().copied().collect();
            let found = Chain::along(program, &own, &local, &lines, outside);
            if let Some((saved, chain)) = found
                && best.as_ref().is_none_or(|(most, _)| saved > *most)
            {
                best = Some((saved, Chain { places: places.clone(), ..chain }));
            }
        }
        Some(best?.1)
    }

    /// The chain along one of `lines` that saves most, in the smallest steps.
    fn along(
        program: &Program,
        kernels: &[&Kernel],
        local: &[BufferId],
        lines: &[Line],
        around: Loops,
    ) -> Option<(i64, Chain)> {
        let chains = lines.iter().rev();
        let chains = chains.filter_map(|line| Chain::of(program, kernels, local, line, around));
        chains.max_by_key(|(saved, chain)| (*saved, chain.steps))
    }

    /// The chain along `line`, with the bytes that need not go far, if that is worth what has to be
    /// read again at every step. Within a loop, where nothing else would keep a long sequence's part
    /// near, steps are as large as makes it worth.
    fn of(
        program: &Program,
        kernels: &[&Kernel],
        local: &[BufferId],
        line: &Line,
        around: Loops,
    ) -> Option<(i64, Chain)> {
        let bytes = |id: &BufferId| bytes(program, *id);
        let per_point = local.iter().map(bytes).sum::<i64>() / around.steps / line.extent;
        let shared = line.shared(program, kernels, local);
        let (beside, worth) = around.share_of(shared);
        let fits = |n: &i64| line.extent % n == 0 && beside + n * per_point <= NEAR;
        let near = (1..=line.extent).rev().find(fits).unwrap_or(1);
        let most = if around.depth == 0 { near } else { line.extent / 2 };
        let saved: i64 = local.iter().filter(|id| is_large(program, **id)).map(bytes).sum();
        let again = |n: i64| if beside > 0 { 0 } else { (line.extent / n - 1) * shared };
        let is_worth = |n: &i64| line.extent % n == 0 && saved > worth * again(*n);
        let points = (near..=most).find(is_worth)?;
        let (steps, again) = (line.extent / points, again(points));
        let dim = |id: &BufferId| Some((*id, *line.dims.get(id)?));
        let local = local.iter().map(dim).collect::<Option<_>>()?;
        let (places, axes) = (Vec::new(), line.axes.clone());
        let chain = Chain { places, around, axes, steps, points, local };
        (steps > 1).then_some((saved - again, chain))
    }

    /// The loop over its slices, and what follows it. Temporaries that live within a step have the steps
    /// first, after those of the loops around. Steps that are still too large are cut along another axis.
    fn in_slices(&self, program: &mut Program, kernels: &[Kernel]) -> Vec<Kernel> {
        let depth = self.around.depth as usize;
        for (&id, &dim) in &self.local {
            let shape = &mut program.buffers[id.0 as usize].shape;
            shape[dim] = Size::from(self.points);
            shape.insert(depth, Size::from(self.steps));
        }
        let slice = |(kernel, &axis): (&Kernel, &Axis)| {
            let Chain { steps, points, around, .. } = *self;
            let cut = Cut { axis, depth: around.depth, steps, points, from_the_end: false };
            let mut form = cut.of(&kernel.form);
            for mut piece in pieces(&mut form) {
                piece.change_accesses(|id, access, _| {
                    if let Some(&dim) = self.local.get(&id) {
                        access.coords[dim] = Index::axis(axis.0 + 1);
                        access.coords.insert(depth, Index::axis(self.around.depth));
                    }
                });
            }
            Kernel { form, ..kernel.clone() }
        };
        let mut body: Vec<Kernel> = kernels.iter().zip(&self.axes).map(slice).collect();
        let (mut start, mut ends) = (Vec::new(), Vec::new());
        for ((kernel, &axis), slice) in kernels.iter().zip(&self.axes).zip(&mut body) {
            if summed(kernel, axis).is_some() {
                let [first, last] = self.add_up(program, kernel, slice);
                start.push(first);
                ends.push(last);
            }
        }
        if let Some(inner) = self.within(program, &body) {
            body = inner.in_slices(program, &body);
        }
        let last = kernels.last().expect("a chain has kernels");
        let (name, origin) = (format!("{}_slices", last.name), last.origin.clone());
        let form = Form::Loop { steps: Size::from(self.steps), start, body };
        [vec![Kernel { name, origin, form }], ends].concat()
    }

    /// The chain that its kernels are at each of its steps, if that is worth cutting again.
    fn within(&self, program: &Program, body: &[Kernel]) -> Option<Chain> {
        let around = Loops { depth: self.around.depth + 1, steps: self.around.steps * self.steps };
        let local: Vec<BufferId> = self.local.keys().copied().collect();
        let room: i64 = local.iter().map(|id| bytes(program, *id)).sum::<i64>() / around.steps;
        if room <= NEAR {
            return None;
        }
        let (first, others) = body.split_first()?;
        let (mut lines, mut written) = (Line::all(first, around), first.writes());
        // Its own axis has been cut as far as is worth it.
        lines.retain(|line| line.axes[0].0 != self.axes[0].0 + 1);
        for kernel in others {
            lines = Line::go_on(lines, &written, kernel, around);
            written.extend(kernel.writes());
        }
        let own: Vec<&Kernel> = body.iter().collect();
        Some(Chain::along(program, &own, &local, &lines, around)?.1)
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
