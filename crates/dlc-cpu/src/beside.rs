//! Loops that run beside each other: each on one thread, where that takes less time than the steps of one
//! after the other, shared out to all threads.
//!
//! They need nothing of each other, as the directions of a recurrent layer, or one *follows* the other: a
//! step of it needs only some steps of the other, as the layers of a recurrent network.

mod deal;

pub use deal::{Beside, beside};
use dlc_kernel::plan::Aliases;
use dlc_kernel::{Access, Axis, BufferId, Entry, Form, Index, Kernel, Size};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;

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
    fn in_storage(&self, aliases: &Aliases) -> Touched {
        let root = |id: &BufferId| aliases.get(id).copied().unwrap_or(*id);
        let all = |ids: &FxHashSet<BufferId>| ids.iter().map(root).collect();
        Touched { reads: all(&self.reads), writes: all(&self.writes) }
    }

    /// Whether it matters which of the two is first.
    pub fn bears_on(&self, other: &Touched) -> bool {
        !self.writes.is_disjoint(&other.reads) || self.overwrites(other)
    }

    /// Whether a later one writes what this one touches, or the other way round, but for what it reads.
    fn overwrites(&self, later: &Touched) -> bool {
        !self.writes.is_disjoint(&later.writes) || !self.reads.is_disjoint(&later.writes)
    }
}

/// How far an earlier loop must have got before a step of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The earlier loop's position among the neighbours.
    pub of: usize,
    /// What step 0 needs of it, in `scale`s of a step.
    first: i64,
    /// How much more each step needs.
    by_step: i64,
    /// At least 1.
    scale: i64,
    /// The steps that it has.
    all: i64,
}

impl Need {
    /// How many steps of the earlier loop come before the step `step`.
    pub fn before(&self, step: i64) -> i64 {
        ((self.first + self.by_step * step).div_euclid(self.scale) + 1).clamp(0, self.all)
    }
}

/// Loops that may run beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// Their positions among the kernels of an entry.
    pub loops: Range<usize>,
    /// By loop.
    pub members: Vec<Neighbour>,
}

/// A loop among neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// What its steps need of earlier loops.
    pub needs: Vec<Need>,
    /// Whether its steps need nothing of each other, so that any thread may run the next one.
    pub is_free: bool,
}

/// A loop, as far as neighbours depend on it.
struct Candidate<'p> {
    kernel: &'p Kernel,
    touched: Touched,
    steps: i64,
}

/// Neighbours among an entry's kernels that are loops, cannot fail, and need nothing of each other or follow
/// each other. A loop whose steps need nothing of each other shares those out, if it follows none.
pub fn neighbours(
    entry: &Entry,
    at_load: &[bool],
    aliases: &Aliases,
    independent: &FxHashMap<usize, i64>,
) -> Vec<Neighbours> {
    let mut found: Vec<Neighbours> = Vec::new();
    let mut members: Vec<Candidate> = Vec::new();
    for (at, kernel) in entry.kernels.iter().enumerate() {
        let Form::Loop { steps, .. } = &kernel.form else { continue };
        if kernel.may_fail() || at_load[at] {
            continue;
        }
        let (touched, steps) = (Touched::of(kernel), steps.as_const().unwrap_or(0));
        let own = Candidate { kernel, touched, steps };
        let is_free = independent.contains_key(&at);
        let needs = || {
            let of = |(k, earlier)| own.needs_of(k, earlier, aliases);
            let needs: Option<Vec<Vec<Need>>> = members.iter().enumerate().map(of).collect();
            needs.map(|needs| needs.concat()).filter(|needs| !is_free || !needs.is_empty())
        };
        match found.last_mut().filter(|last| last.loops.end == at).zip(needs()) {
            Some((last, needs)) => {
                last.loops.end += 1;
                last.members.push(Neighbour { needs, is_free });
            }
            None if is_free => continue,
            None => {
                let first = vec![Neighbour::default()];
                found.push(Neighbours { loops: at..at + 1, members: first });
                members.clear();
            }
        }
        members.push(own);
    }
    for group in &mut found {
        // Nothing follows it: all threads share it out.
        while group.members.pop_if(|last| last.is_free).is_some() {
            group.loops.end -= 1;
        }
    }
    found.retain(|group| group.loops.len() > 1);
    found
}

impl Candidate<'_> {
    /// What this loop needs of an earlier one; `None` if that must end before this begins.
    fn needs_of(&self, of: usize, earlier: &Candidate, aliases: &Aliases) -> Option<Vec<Need>> {
        let [before, own] = [earlier, self].map(|one| one.touched.in_storage(aliases));
        let read: Vec<BufferId> =
            earlier.touched.writes.intersection(&self.touched.reads).copied().collect();
        let is_alias = |id: &BufferId| aliases.contains_key(id);
        if before.overwrites(&own) || read.iter().any(is_alias) {
            return None;
        }
        if before.writes.intersection(&own.reads).count() != read.len() {
            return None;
        }
        let Form::Loop { start, .. } = &self.kernel.form else { return None };
        if start.iter().any(|k| k.reads().iter().any(|id| read.contains(id))) {
            return None;
        }
        let mut needs = Vec::new();
        for id in read {
            let loads = self.places(id, false)?;
            let stores = earlier.places(id, true)?;
            for store in &stores {
                for load in &loads {
                    let need = Need { of, all: earlier.steps, ..need(store, load)? };
                    if !needs.contains(&need) {
                        needs.push(need);
                    }
                }
            }
        }
        let is_early = |need: &Need| need.before(0) < earlier.steps;
        needs.iter().all(is_early).then_some(needs)
    }

    /// Where its steps read or write a buffer, as ranges of coordinates; `None` if it is not known.
    fn places(&self, id: BufferId, writes: bool) -> Option<Vec<Place>> {
        let Form::Loop { body, .. } = &self.kernel.form else { return None };
        if writes && body.iter().any(|kernel| writes_otherwise(kernel, id)) {
            return None;
        }
        let parts = body.iter().flat_map(Kernel::parts);
        let place = |axes: &[Size], access: &Access| {
            // A step, and all of everything else.
            let axes = [&[Size::from(1i64)], &axes[1..]].concat();
            let along = |coord: &Index| {
                let (low, high) = coord.range(&axes).filter(|_| coord.div == 1)?;
                Some(Along { step: coord.coef(Axis(0)), low, high })
            };
            access.coords.iter().map(along).collect::<Option<Place>>()
        };
        let mut found = Vec::new();
        for part in parts {
            for (_, access, lookups) in part.loads().filter(|load| !writes && load.0 == id) {
                found.push(place(&part.axes, access).filter(|_| lookups.is_empty())?);
            }
            for store in part.stores.iter().filter(|store| writes && store.buffer == id) {
                found.push(place(&part.axes, &store.access)?);
            }
        }
        Some(found)
    }
}

/// By dim, the coordinates that a step reads or writes.
type Place = Vec<Along>;

/// Coordinates from `low` to `high` at step 0, and as many further at every step.
struct Along {
    step: i64,
    low: i64,
    high: i64,
}

/// How far a loop that stores must be before the step 0 of one that loads there, and how much further
/// for each step more.
fn need(store: &Place, load: &Place) -> Option<Need> {
    let (to, from) = store.iter().zip(load).find(|(to, _)| to.step != 0)?;
    let (scale, first, by_step) = match to.step > 0 {
        // What begins at or before the end of what is read.
        true => (to.step, from.high - to.low, from.step),
        // What ends at or after its beginning.
        false => (-to.step, to.high - from.low, -from.step),
    };
    Some(Need { of: 0, first, by_step, scale, all: 0 })
}

/// Whether a kernel writes a buffer otherwise than by stores.
fn writes_otherwise(kernel: &Kernel, id: BufferId) -> bool {
    match &kernel.form {
        Form::Loop { start, body, .. } => {
            // What begins an inner loop is no part of its steps.
            start.iter().any(|kernel| kernel.writes().contains(&id))
                || body.iter().any(|kernel| writes_otherwise(kernel, id))
        }
        Form::Scatter { buffer, .. } => *buffer == id,
        Form::Reshape { dst, .. } => *dst == id,
        _ => false,
    }
}
