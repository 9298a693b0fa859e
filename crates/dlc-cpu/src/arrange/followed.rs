//! What stands between two loops of which one follows the other becomes a loop, too: over stretches of
//! their steps, so that all can run beside each other (`beside.rs`). So the layers of a recurrent network
//! run on threads of their own, and the product between them is made as soon as some of its rows are
//! there.
//!
//! Only if a step is little work: else threads share out each step.

use super::cut::Cut;
use super::piece::pieces;
use crate::beside::Touched;
use crate::schedule::domain::extents;
use dlc_kernel::{Access, Axis, BufferId, Class, Form, Index, Kernel, Lookup, Part, Program, Size};
use rustc_hash::{FxHashMap, FxHashSet};

/// Multiply-adds of a step that threads rather share out.
const MUCH_WORK: i64 = 1 << 20;
/// Rows of a stretch that are enough for a product to use its weights well.
const ENOUGH_ROWS: i64 = 8;
/// Stretches: of fewer, the first one would hold up the second loop for too long; of more, setting out
/// would take longer than the work.
const STRETCHES: std::ops::RangeInclusive<i64> = 3..=32;

/// Cuts what stands between loops that follow each other into stretches of their steps.
pub(super) fn in_stretches(mut program: Program) -> Program {
    for at in 0..program.entries.len() {
        let entry = &mut program.entries[at];
        let mut kernels = std::mem::take(&mut entry.kernels);
        let mut late = kernels.split_off(entry.commit);
        let outputs: FxHashSet<BufferId> = entry.outputs.iter().copied().collect();
        let mut from = 0;
        while let Some(first) = (from..kernels.len()).find(|&k| steps(&kernels[k]).is_some()) {
            from = first + 1;
            if let Some(pair) = Pair::new(&program, &kernels, first) {
                from = first + pair.before.len() + 1 + pair.between.len();
                kernels = pair.in_stretches(kernels);
                let movable = |id: &BufferId| {
                    program.buffer(*id).class == Class::Temp && !outputs.contains(id)
                };
                let moved = pair.stored.iter().filter(|(id, _)| movable(id));
                let moved = moved.map(|(&id, along)| (id, along.dim)).collect();
                let mut all: Vec<&mut Kernel> = kernels.iter_mut().chain(&mut late).collect();
                steps_first(&mut program, &mut all, moved);
            }
        }
        let entry = &mut program.entries[at];
        entry.commit = kernels.len();
        kernels.extend(late);
        entry.kernels = kernels;
    }
    program
}

/// How many steps a loop has.
fn steps(kernel: &Kernel) -> Option<i64> {
    match &kernel.form {
        Form::Loop { steps, .. } => steps.as_const(),
        _ => None,
    }
}

/// Which dim of a buffer steps go along, and whether from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Along {
    dim: usize,
    from_the_end: bool,
}

/// By buffer.
type Alongs = FxHashMap<BufferId, Along>;

/// Two loops of which the second follows the first, and what stands between them.
struct Pair {
    /// Where the first loop is, and where the second.
    loops: (usize, usize),
    /// What the second needs, but that does not depend on the first: it goes before both.
    before: Vec<usize>,
    /// What leads from the first to the second, and how it is cut.
    between: Vec<(usize, Cut)>,
    /// What the second does not need: it goes after both.
    after: Vec<usize>,
    /// Where what stands between them stores.
    stored: Alongs,
}

impl Pair {
    /// The loop at `first` and the next one, if it follows.
    fn new(program: &Program, kernels: &[Kernel], first: usize) -> Option<Pair> {
        let second = (first + 1..kernels.len()).find(|&k| steps(&kernels[k]).is_some())?;
        let [steps, others] = [first, second].map(|k| steps(&kernels[k]));
        let is_small = |k: usize| work_of_a_step(&kernels[k]) <= MUCH_WORK;
        let steps = steps.filter(|_| steps == others && is_small(first) && is_small(second))?;
        let all: Vec<Touched> = kernels[first..=second].iter().map(Touched::of).collect();
        let touched = |k: usize| &all[k - first];
        let (mut needed, mut leads) = (vec![second], FxHashSet::from_iter([first]));
        for k in (first + 1..second).rev() {
            if needed.iter().any(|&later| touched(k).bears_on(touched(later))) {
                needed.push(k);
            }
        }
        for k in first + 1..=second {
            let depends = |&earlier: &usize| touched(earlier).bears_on(touched(k));
            if needed.contains(&k) && leads.iter().any(depends) {
                leads.insert(k);
            }
        }
        if !leads.contains(&second) || waits_for_another(kernels, first, &leads) {
            return None;
        }
        let (mut before, mut after, mut leading) = (Vec::new(), Vec::new(), Vec::new());
        for k in first + 1..second {
            match (needed.contains(&k), leads.contains(&k)) {
                (true, true) => leading.push(k),
                (true, false) => before.push(k),
                (false, _) => after.push(k),
            }
        }
        let mut alongs = stored_in_steps(&kernels[first]);
        let points = points_of_a_stretch(program, &alongs, steps)?;
        let (mut between, mut stored) = (Vec::new(), Alongs::default());
        for k in leading {
            let (axis, from_the_end) = followed_along(&kernels[k], &alongs, steps)?;
            let (depth, steps) = (0, steps / points);
            between.push((k, Cut { axis, depth, steps, points, from_the_end }));
            for part in kernels[k].parts() {
                for store in part.stores {
                    let along = along(&store.access, axis)?;
                    let from_the_end = along.from_the_end != from_the_end;
                    let along = Along { from_the_end, ..along };
                    stored.insert(store.buffer, along);
                    alongs.insert(store.buffer, along);
                }
            }
        }
        follows(&kernels[second], &alongs).then_some(())?;
        Some(Pair { loops: (first, second), before, between, after, stored })
    }

    /// The kernels in the new order, with loops over stretches.
    fn in_stretches(&self, kernels: Vec<Kernel>) -> Vec<Kernel> {
        let mut kernels: Vec<Option<Kernel>> = kernels.into_iter().map(Some).collect();
        let ((first, second), end) = (self.loops, kernels.len());
        let mut take = |k: usize| kernels[k].take().expect("each has one place");
        let mut ordered: Vec<Kernel> = (0..first).map(&mut take).collect();
        ordered.extend(self.before.iter().map(|&k| take(k)));
        ordered.push(take(first));
        for (k, cut) in &self.between {
            let kernel = take(*k);
            let mut form = cut.of(&kernel.form);
            pieces(&mut form).iter_mut().for_each(|piece| piece.axis_first(1, cut.axis.0 + 1));
            let (name, origin) = (format!("{}_stretches", kernel.name), kernel.origin.clone());
            let body = vec![Kernel { form, ..kernel }];
            let form = Form::Loop { steps: Size::from(cut.steps), start: Vec::new(), body };
            ordered.push(Kernel { name, origin, form });
        }
        ordered.push(take(second));
        ordered.extend(self.after.iter().map(|&k| take(k)));
        ordered.extend((second + 1..end).map(take));
        ordered
    }
}

/// Multiply-adds of contractions at a step of a loop, inner loops included.
fn work_of_a_step(kernel: &Kernel) -> i64 {
    let Form::Loop { steps, body, .. } = &kernel.form else { return 0 };
    let product = |sizes: &[Size]| sizes.iter().filter_map(Size::as_const).product::<i64>();
    let work = |kernel: &Kernel| match &kernel.form {
        Form::Contract { out, sums, reduce, .. } => product(out) * product(sums) * product(reduce),
        Form::Loop { steps, .. } => product(std::slice::from_ref(steps)) * work_of_a_step(kernel),
        _ => 0,
    };
    let all: i64 = body.iter().map(work).sum();
    all / steps.as_const().unwrap_or(1).max(1)
}

/// Whether some of the kernels need a loop, too, that runs beside the one at `first`.
fn waits_for_another(kernels: &[Kernel], first: usize, leads: &FxHashSet<usize>) -> bool {
    let own = Touched::of(&kernels[first]);
    let others = kernels[..first].iter().rev().take_while(|kernel| steps(kernel).is_some());
    let mut beside = others.map(Touched::of).filter(|other| !own.bears_on(other));
    beside.any(|other| leads.iter().any(|&k| other.bears_on(&Touched::of(&kernels[k]))))
}

/// What a loop stores in the order of its steps.
fn stored_in_steps(kernel: &Kernel) -> Alongs {
    let Form::Loop { body, .. } = &kernel.form else { return Alongs::default() };
    let parts = body.iter().flat_map(Kernel::parts);
    let stores = parts.flat_map(|part| part.stores);
    stores.filter_map(|s| Some((s.buffer, along(&s.access, Axis(0))?))).collect()
}

/// The one dim that an axis goes along.
fn along(access: &Access, axis: Axis) -> Option<Along> {
    let dim = access.coords.iter().position(|coord| coord.uses(axis))?;
    Some(Along { dim, from_the_end: is_from_the_end(&access.coords[dim], axis)? })
}

/// Whether a coordinate that moves with an axis alone, element by element, begins at the end.
fn is_from_the_end(coord: &Index, axis: Axis) -> Option<bool> {
    match coord.terms.as_slice() {
        [(own, step @ (1 | -1))] if *own == axis && coord.div == 1 => Some(*step < 0),
        _ => None,
    }
}

/// The smallest part of the steps whose rows are enough, and of which there are neither too few nor too many.
fn points_of_a_stretch(program: &Program, alongs: &Alongs, steps: i64) -> Option<i64> {
    let rows = |(id, along): (&BufferId, &Along)| {
        let shape = extents(&program.buffer(*id).shape).ok()?;
        let others = shape[..shape.len() - 1].iter().enumerate().filter(|(d, _)| *d != along.dim);
        Some(others.map(|(_, n)| n).product::<i64>())
    };
    let rows = alongs.iter().filter_map(rows).min()?;
    let fits = |points: &i64| steps % points == 0 && STRETCHES.contains(&(steps / points));
    (1..steps).filter(fits).find(|points| points * rows >= ENOUGH_ROWS)
}

/// The axis along which a kernel can follow what steps store, and whether it then begins at its end.
fn followed_along(kernel: &Kernel, alongs: &Alongs, steps: i64) -> Option<(Axis, bool)> {
    let axes = match &kernel.form {
        Form::Map { segments } if segments.len() == 1 => &segments[0].axes,
        Form::Row { outer, .. } => outer,
        Form::Contract { out, .. } if !kernel.form.has_several_sums() => out,
        _ => return None,
    };
    let parts = kernel.parts();
    let mut found = None;
    for (id, access, _) in parts.iter().flat_map(Part::loads) {
        let Some(own) = alongs.get(&id) else { continue };
        let coord = &access.coords[own.dim];
        let &(axis, _) = coord.terms.first()?;
        let way = (axis, is_from_the_end(coord, axis)? != own.from_the_end);
        (*found.get_or_insert(way) == way).then_some(())?;
    }
    let is_whole = |(axis, _): &(Axis, bool)| {
        axes.get(axis.0 as usize).is_some_and(|extent| *extent == Size::from(steps))
    };
    found.filter(is_whole).filter(|_| !kernel.may_fail())
}

/// Whether the steps of a loop read in order what is stored in the order of other steps.
fn follows(kernel: &Kernel, alongs: &Alongs) -> bool {
    let Form::Loop { body, .. } = &kernel.form else { return false };
    let parts: Vec<Part> = body.iter().flat_map(Kernel::parts).collect();
    let in_order = |(id, access, _): (BufferId, &Access, &[Lookup])| {
        let own = alongs.get(&id)?;
        Some(is_from_the_end(&access.coords[own.dim], Axis(0)) == Some(own.from_the_end))
    };
    let mut read = parts.iter().flat_map(Part::loads).filter_map(in_order).peekable();
    read.peek().is_some() && read.all(|in_order| in_order)
}

/// Puts dims of buffers first, where all kernels find elements by their coordinates: what a step or a
/// stretch reads are neighbours in memory then.
fn steps_first(
    program: &mut Program,
    kernels: &mut [&mut Kernel],
    mut dims: FxHashMap<BufferId, usize>,
) {
    kernels.iter().for_each(|kernel| keep_in_order(kernel, &mut dims));
    for (id, &dim) in &dims {
        program.buffers[id.0 as usize].shape[..=dim].rotate_right(1);
    }
    kernels.iter_mut().for_each(|kernel| move_first(kernel, &dims));
}

/// Removes what a kernel does not find by coordinates alone.
fn keep_in_order(kernel: &Kernel, dims: &mut FxHashMap<BufferId, usize>) {
    match &kernel.form {
        Form::Map { .. } | Form::Row { .. } | Form::Contract { .. } => {
            for part in kernel.parts() {
                let looked_up = part.loads().filter(|(_, _, lookups)| !lookups.is_empty());
                looked_up.for_each(|(id, ..)| _ = dims.remove(&id));
            }
        }
        Form::Loop { start, body, .. } => {
            start.iter().chain(body).for_each(|kernel| keep_in_order(kernel, dims));
        }
        Form::Scatter { .. } | Form::Reshape { .. } | Form::Check { .. } => {
            let all = kernel.reads().into_iter().chain(kernel.writes());
            all.for_each(|id| _ = dims.remove(&id));
        }
    }
}

fn move_first(kernel: &mut Kernel, dims: &FxHashMap<BufferId, usize>) {
    if let Form::Loop { start, body, .. } = &mut kernel.form {
        start.iter_mut().chain(body).for_each(|kernel| move_first(kernel, dims));
        return;
    }
    for mut piece in pieces(&mut kernel.form) {
        piece.change_accesses(|id, access, _| {
            if let Some(&dim) = dims.get(&id) {
                access.coords[..=dim].rotate_right(1);
            }
        });
    }
}
