//! Stretches of an axis that a loop leaf computes.
//!
//! A stretch is as long as it likes along one axis and stands still along all others. Everything in
//! it is unit-stride and inside, affine in the axis, or the same for all its points: kernels of which
//! any other value is asked keep code of their own. Where its elements lie may be looked up. Where
//! loads leave their tensor, all in the same place, a second leaf goes on with what they give there
//! ([`Window`]).

mod draft;

use super::PlacedStore;
use super::contract::Axes;
use super::domain::{AxisSet, Domain, Place};
use super::row::RowFold;
use super::window::{Checks, Window};
use crate::leaf::loops::{Fold, Loop, MAX_STRIDE, NEAR_ADDRESSES};
use crate::leaf::wide::Width;
use crate::level::Level;
use dlc_kernel::{Axis, BufferId, DType, Expr, ExprId};
pub(super) use draft::Draft;
use std::sync::Arc;

/// The shortest axis that is worth calls of a leaf, and of one with many lines or much to do at a point.
const SHORTEST: [i64; 2] = [16, 4];

/// Bytes between lines that are too many: several lines are in the reach of an instruction.
const MOST_STEP: u32 = 1 << 24;

/// Operations at a point that are much.
const MUCH: usize = 32;

/// The farthest that memory is brought near beforehand, in bytes: half of a first-level cache.
const FARTHEST: i64 = 1 << 14;

/// How far ahead memory is brought near that comes from beyond the caches: a page, where processors stop
/// guessing.
const PAGE: i32 = 1 << 12;

/// How many lines ahead memory is brought near that no line before has touched.
const LINES_AHEAD: i32 = 3;

/// The most registers that fold states may take.
const MOST_STATES: usize = 8;

/// A leaf, and what its argument block is filled with.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Along which its elements are.
    pub axis: Axis,
    /// What is called.
    pub leaf: Arc<Loop>,
    /// By stream of the leaf.
    pub streams: Vec<Stream>,
    /// By address of the leaf: the stream that begins there.
    pub addresses: Vec<Stream>,
    /// By uniform of the leaf: the value at the stretch's first point.
    pub uniforms: Vec<ExprId>,
    /// Where the leaf is the one to call, if it is not everywhere.
    pub window: Option<Box<Window>>,
    /// The axis of the leaf's lines, if it has any.
    pub lines: Option<Axis>,
}

/// Elements in memory along the axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The buffer; if none, the worker's scratch room.
    pub buffer: Option<BufferId>,
    /// The storage type.
    pub dtype: DType,
    /// Where its elements are.
    pub place: Place,
}

/// A value that one stretch leaves in the scratch room for a later one over the same points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The value, an `F32` or `I32`.
    pub id: ExprId,
    /// Where.
    pub place: Place,
}

/// What a stretch computes.
#[derive(Clone, Copy, Default)]
pub struct Task<'t> {
    /// Stores at every point.
    pub stores: &'t [PlacedStore],
    /// Folds, over the points along the axis or those of other axes.
    pub folds: &'t [RowFold],
    /// By fold, if each point has a state of its own: where it is in the scratch room, merged with what the
    /// lines of a call add.
    pub states: &'t [Place],
    /// All folds of the row: those of earlier passes are known.
    pub row: &'t [RowFold],
    /// Stored besides.
    pub leaves: &'t [Kept],
    /// Computed and stored before.
    pub finds: &'t [Kept],
    /// Whether points may be stored more than once: nothing that is stored is loaded.
    pub again: bool,
    /// Whether it may begin at any point, not only at multiples of four.
    pub anywhere: bool,
}

impl Stretch {
    /// The stretch along `axis` that does `task`, if leaves can; line by line along `down`, if that is
    /// given and possible.
    pub fn new(domain: &Domain, axis: Axis, down: Option<Axis>, task: Task) -> Option<Stretch> {
        let extent = domain.extents[axis.0 as usize];
        if extent < SHORTEST[1] {
            return None;
        }
        let draft = Draft::new(domain, Area::Line(axis), task.row);
        let (mut stretch, checks) = Stretch::part(draft, axis, task)?;
        if checks.is_some() && stretch.leaf.has_random() && !task.anywhere {
            return Stretch::new(domain, axis, down, Task { anywhere: true, ..task });
        }
        if let Some(checks) = checks {
            let mut draft = Draft::new(domain, Area::Line(axis), task.row);
            draft.go_beyond();
            let beyond = match draft.is_idle(task) {
                true => None,
                false => Some(Stretch::part(draft, axis, task)?.0),
            };
            stretch.window = Some(Box::new(Window::new(domain, axis, checks, beyond)));
        }
        if let Some(down) = down {
            stretch.go_down(domain, down);
        }
        let much = stretch.lines.is_some() || stretch.leaf.lanes.len() >= MUCH;
        (extent >= SHORTEST[usize::from(much)]).then_some(stretch)
    }

    /// What `draft` becomes by doing `task`, and the conditions under which it does.
    fn part(mut draft: Draft, axis: Axis, task: Task) -> Option<(Stretch, Option<Checks>)> {
        let domain = draft.domain;
        draft.anywhere = task.anywhere;
        let is_open = |kept: &&Kept| draft.fixed(kept.id).is_none();
        let finds: Vec<&Kept> = task.finds.iter().filter(is_open).collect();
        for kept in finds {
            let vector = draft.input(kept.stream(domain))?;
            draft.vectors.insert(kept.id, vector);
            if matches!(domain.exprs.get(kept.id), Expr::Folded(_)) {
                draft.moving = draft.moving.union(AxisSet::FOLDED);
            }
        }
        let values = task.values();
        let found: Vec<ExprId> = task.finds.iter().map(|k| k.id).collect();
        for id in domain.reachable_beside(&values, &found) {
            draft.describe(id, values.contains(&id))?;
        }
        let folds = task.folds.iter().enumerate().map(|(k, f)| draft.fold(k, *f));
        let folds = folds.collect::<Option<Vec<Fold>>>()?;
        let state = |(fold, place): (&RowFold, &Place)| {
            let dtype = domain.exprs.dtype(fold.value);
            draft.stream(Stream { buffer: None, dtype, place: place.clone() })
        };
        let states = task.folds.iter().zip(task.states).map(state).collect::<Option<Vec<u16>>>()?;
        let mut stores = Vec::new();
        for store in task.stores {
            stores.push(draft.store(store)?);
        }
        for kept in task.leaves {
            stores.push((draft.stream(kept.stream(domain))?, draft.vector(kept.id)));
        }
        let checks = draft.window.take();
        Some((draft.finish(axis, task, stores, (folds, states))?, checks))
    }

    /// Whether some of its streams are in the scratch room.
    pub fn uses_scratch(&self) -> bool {
        self.streams.iter().any(|s| s.buffer.is_none())
    }

    /// Makes it do, line by line, what it does along another axis, too, if nothing but the places of its
    /// streams changes from line to line.
    fn go_down(&mut self, domain: &Domain, next: Axis) {
        if self.leaf.addresses() > NEAR_ADDRESSES {
            return;
        }
        let stands = |id: &ExprId| !domain.uses[id.0 as usize].contains(next);
        let step = |stream: &Stream| {
            let Place { quotients, found, .. } = &stream.place;
            let moves = quotients.iter().any(|q| q.index.coef(next) != 0)
                || !found.iter().all(|f| stands(&f.index));
            let bytes = stream.place.linear.coef(next).checked_mul(stream.dtype.bytes() as i64)?;
            i32::try_from(bytes).ok().filter(|b| !moves && b.unsigned_abs() < MOST_STEP)
        };
        let steps = self.addresses.iter().map(step).collect::<Option<Vec<i32>>>();
        let Some(steps) = steps.filter(|_| self.uniforms.iter().all(stands)) else { return };
        if let Some(window) = &mut self.window {
            if !self.leaf.repeats || !window.is_box(self.axis, next) {
                return;
            }
            window.beyond.iter_mut().for_each(|beyond| beyond.go_down(domain, next));
        }
        self.lines = Some(next);
        Arc::make_mut(&mut self.leaf).set_lines(steps);
    }

    /// Joins the lines of what is beyond its window, of which each is whole, if they follow each other
    /// in memory.
    pub fn join_lines(&mut self, domain: &Domain) {
        let (axis, Some(down)) = (self.axis, self.lines) else { return };
        let follow = |s: &Stream| {
            let [along, across] = [axis, down].map(|a| s.place.linear.coef(a));
            along * domain.extents[axis.0 as usize] == across
        };
        let beyond = self.window.as_mut().and_then(|window| window.beyond.as_mut());
        if let Some(beyond) = beyond.filter(|beyond| beyond.addresses.iter().all(follow)) {
            beyond.lines = None;
            Arc::make_mut(&mut beyond.leaf).lines = None;
        }
    }

    /// Makes it bring near what lies one step further along another axis.
    pub fn look_ahead(&mut self, next: Axis) {
        let distance = |(k, stream): (usize, &Stream)| {
            let bytes = stream.place.linear.coef(next).saturating_mul(stream.dtype.bytes() as i64);
            let wanted = self.leaf.loads(k) && stream.buffer.is_some();
            (wanted && bytes != 0 && bytes.abs() <= FARTHEST).then_some((k as u16, bytes as i32))
        };
        let ahead = self.streams.iter().enumerate().filter_map(distance).collect();
        Arc::make_mut(&mut self.leaf).ahead = ahead;
    }

    /// Makes it bring near what later lines load of the streams that are `far`, and do one line after the
    /// other: of several together, all would wait.
    pub fn look_down(&mut self, far: impl Fn(&Stream) -> bool) {
        let leaf = Arc::make_mut(&mut self.leaf);
        let wanted = |k: &usize| far(&self.streams[*k]) && leaf.loads(*k);
        let wanted = (0..self.streams.len()).filter(wanted);
        let distance = |k: usize| LINES_AHEAD * leaf.line_step(leaf.streams[k].address);
        let ahead: Vec<(u16, i32)> = wanted.map(|k| (k as u16, distance(k))).collect();
        let Some(lines) = leaf.lines.as_mut().filter(|_| !ahead.is_empty()) else { return };
        lines.together = 1;
        leaf.ahead = ahead;
    }

    /// Makes its stores pass by the caches, if all are of whole words to buffers, and none is made twice;
    /// what it loads is asked for a page ahead. Of a table in which it looks up, few rows may matter.
    pub fn stream_results(&mut self) {
        if self.window.is_some() && self.lines.is_some() {
            return;
        }
        let may = |s: &Stream| s.buffer.is_some() && s.dtype.bytes() == 4;
        if self.streams.iter().any(|s| !s.place.found.is_empty()) {
            return;
        }
        let leaf = Arc::make_mut(&mut self.leaf);
        let all = leaf.stores.iter().all(|s| may(&self.streams[usize::from(s.0)]));
        let near = leaf.addresses() <= NEAR_ADDRESSES;
        let all = all && near && !leaf.has_strides();
        leaf.streaming = all && !leaf.stores.is_empty();
        if leaf.streaming && leaf.ahead.is_empty() {
            let from = |k: &usize| self.streams[*k].buffer.is_some() && leaf.loads(*k);
            let loaded = (0..self.streams.len()).filter(from);
            leaf.ahead = loaded.map(|k| (k as u16, PAGE)).collect();
        }
        if let (true, Some(lines)) = (leaf.streaming, &mut leaf.lines) {
            lines.together = 1;
        }
        if let Some(beyond) = self.window.as_mut().and_then(|window| window.beyond.as_mut()) {
            beyond.stream_results();
        }
    }
}

impl Kept {
    fn stream(&self, domain: &Domain) -> Stream {
        let dtype = domain.exprs.dtype(self.id);
        Stream { buffer: None, dtype, place: self.place.clone() }
    }
}

/// How many of Cranelift's vectors one of a leaf is worth.
pub fn vectors_at_once(level: Level) -> f64 {
    Width::of(level).map_or(1.0, |width| f64::from(width.lanes()) / 4.0)
}

impl Stream {
    /// Bytes from `other` to this one, if they are the same at every point.
    fn distance(&self, other: &Stream) -> Option<i32> {
        let (own, from) = (&self.place, &other.place);
        let alike = self.buffer == other.buffer
            && own.linear.terms == from.linear.terms
            && own.quotients == from.quotients
            && own.found == from.found;
        let elements = own.linear.offset.checked_sub(from.linear.offset).filter(|_| alike)?;
        // Half of what an instruction reaches: unrolled code adds to it.
        let bytes = elements.checked_mul(self.dtype.bytes() as i64)?;
        i32::try_from(bytes).ok().filter(|b| b.unsigned_abs() < 1 << 30)
    }
}

impl Task<'_> {
    fn values(&self) -> Vec<ExprId> {
        let folded = self.folds.iter().map(|f| f.value);
        let stored = self.stores.iter().map(|s| s.value);
        folded.chain(stored).chain(self.leaves.iter().map(|k| k.id)).collect()
    }
}

/// The points that one call of a leaf is for.
#[derive(Clone, Copy)]
pub(super) enum Area<'r> {
    /// Those along an axis.
    Line(Axis),
    /// Those of two sides of a contraction, each with its sum.
    Tile {
        /// The side that is broadcast.
        rows: &'r Axes,
        /// The side that is vectorized.
        columns: &'r Axes,
    },
}

impl Area<'_> {
    /// What a value depends on that is not the same at all points.
    fn moving(self) -> AxisSet {
        match self {
            Area::Line(axis) => AxisSet::of(axis),
            Area::Tile { rows, columns } => {
                let axes = rows.axes.iter().chain(&columns.axes);
                axes.fold(AxisSet::FOLDED, |set, &axis| set.union(AxisSet::of(axis)))
            }
        }
    }

    /// Whether a leaf finds the elements of a stream.
    fn takes(self, Stream { dtype, place, .. }: &Stream) -> bool {
        let walks = match self {
            Area::Line(axis) => {
                let words = matches!(dtype, DType::F32 | DType::I32);
                let even = place.quotients.iter().all(|q| q.index.coef(axis) == 0);
                let stride = place.linear.coef(axis);
                let apart = even && words && (2..=MAX_STRIDE.into()).contains(&stride);
                let is_there = place.found.iter().all(|f| f.extent > 0);
                (apart || place.is_unit_along(axis)) && is_there
            }
            Area::Tile { columns, .. } => {
                let stands = !columns.axes.iter().any(|&axis| place.uses().contains(axis));
                let unit = || columns.last().is_some_and(|axis| place.is_unit_along(axis));
                let fits = matches!(dtype, DType::F32 | DType::I32 | DType::Bool);
                let fits = fits && place.quotients.is_empty() && place.found.is_empty();
                fits && (stands || unit())
            }
        };
        walks && place.checks.is_empty()
    }
}
