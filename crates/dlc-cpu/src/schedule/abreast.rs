//! Rows side by side, by leaves along an outer axis: column sums, statistics of channels that stand
//! last.
//!
//! Rows are walked over as their elements lie in memory, points one below the other. Each row's fold
//! states, and what its steps share between points, are in the scratch room, where neighbouring
//! rows are neighbours. Of many points, *blocks* are walked over apart, by any thread; what their folds
//! come to is merged, in order, before the next walk. Blocks depend on the shape alone. What
//! deviates from a mean is folded with that of each block, which is still near (`deviation.rs`).

use super::deviation::{self, Deviation};
use super::domain::{AxisSet, Linear, Place};
use super::row::{Pass, RowFold, RowLanes, RowSchedule};
use super::stretch::{Kept, Stretch, Task};
use crate::leaf::lanes::{Op, ops};
use crate::leaf::loops::{Fold, Loop, Stream};
use dlc_kernel::{Axis, DType, Expr, ExprId};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are walked over together, where points are not cut into blocks.
pub const BLOCK: i64 = 256;

/// As many blocks of rows as this are enough to share out.
const ENOUGH_UNITS: i64 = 8;

/// The most bytes of the scratch room: half of a second-level cache.
const MOST_BYTES: i64 = 1 << 18;

/// The fewest rows that vectors are worth it for, and the most that a vector has.
const FEWEST_ROWS: i64 = 16;

/// Elements of a block of points; fewer blocks than [`FEWEST_BLOCKS`] are not worth their merging.
const BLOCK_ELEMENTS: i64 = 1 << 14;

/// See [`BLOCK_ELEMENTS`].
const FEWEST_BLOCKS: i64 = 4;

/// More blocks than any number of threads wants.
const MOST_BLOCKS: i64 = 64;

/// The most elements of a block that is walked over twice: a quarter of a megabyte, of a second-level cache.
const NEAR_ELEMENTS: i64 = 1 << 16;

/// The most blocks there are, so that blocks are near.
const MOST_NEAR_BLOCKS: i64 = 1 << 10;

/// How rows are computed side by side.
#[derive(Clone, Debug)]
pub struct Abreast {
    /// The axis that counts them.
    pub axis: Axis,
    /// Where the state of each fold is, in order.
    pub states: Vec<(RowFold, Place)>,
    /// The walks, in order.
    pub walks: Vec<Walk>,
    /// Stores once for each row.
    pub last: Option<Stretch>,
    /// How points are cut, if they are.
    pub blocks: Option<Blocks>,
    extent: i64,
    /// Words from one value of all rows to the next: whole vectors.
    room: i64,
    slots: i64,
}

/// One walk over rows side by side.
#[derive(Clone, Debug)]
pub struct Walk {
    /// What is the same for all points of a row, and left for the walk.
    pub before: Option<Stretch>,
    /// What is done at each point; line by line along the last inner axis, if that is possible.
    pub each: Stretch,
    /// How many folds it makes.
    pub folds: usize,
    /// By fold, what it deviates from, if these are all that it does, and wait for the walk before alone.
    pub deviations: Option<Vec<Deviation>>,
}

/// Blocks of points. The shared workspace holds what each fold comes to, block by block.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Points of each, along the only inner axis, or of all inner axes but the last. The last block may
    /// have fewer.
    pub points: i64,
    /// How many there are.
    pub count: i64,
    /// Walks that follow one another in each block.
    pub phases: Vec<Range<usize>>,
    /// By fold: the leaf that merges what blocks come to into the states.
    pub merges: Vec<Merge>,
}

/// The merging of a fold of several blocks, which stand one below the other, into its state.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Reads what the fold comes to, then, of a deviation, the sums and the mean.
    pub leaf: Arc<Loop>,
    /// What it deviates from, if each block folds what deviates from its own mean.
    pub deviation: Option<Deviation>,
}

impl Abreast {
    /// Rows side by side along `axis`, if leaves can do all of their steps.
    pub fn new(rows: &RowSchedule, axis: Axis) -> Option<Abreast> {
        let (extent, down) = (rows.extent(axis), rows.inner_loops().pop());
        let again = matches!(rows.lanes, RowLanes::Overlapping(_));
        let (mut abreast, row) = (Abreast::empty(axis, extent), rows.folds());
        for fold in &row {
            let place = abreast.slot();
            abreast.states.push((*fold, place));
        }
        let mut finds = abreast.folded(rows);
        for (at, pass) in rows.passes.iter().enumerate() {
            let shared = abreast.shared(rows, pass);
            let task = Task { row: &row, leaves: &shared, finds: &finds, ..Task::default() };
            let before = match shared[..] {
                [] => None,
                _ => Some(Stretch::new(&rows.domain, axis, None, task)?),
            };
            finds.extend(shared.iter().cloned());
            let states = abreast.states_of(&pass.folds);
            let (stores, folds, states) = (&pass.stores[..], &pass.folds[..], &states[..]);
            let (row, finds) = (&row[..], &finds[..]);
            let task = Task { stores, folds, states, row, finds, again, ..Task::default() };
            let each = Stretch::new(&rows.domain, axis, down, task)?;
            // What the walk before folds must not itself depend on means of blocks.
            let before_it = abreast.walks.last().filter(|walk| walk.deviations.is_none());
            let deviations = before_it
                .and_then(|_| Deviation::all(rows, [&rows.passes[at - 1], pass], &shared, row));
            abreast.walks.push(Walk { before, each, folds: folds.len(), deviations });
        }
        if !rows.stores.is_empty() {
            let task = Task { stores: &rows.stores, row: &row, finds: &finds, ..Task::default() };
            abreast.last = Some(Stretch::new(&rows.domain, axis, None, task)?);
        }
        abreast.blocks = abreast.cut(rows);
        let fits = abreast.scratch_bytes() as i64 <= MOST_BYTES;
        (fits && extent >= FEWEST_ROWS).then_some(abreast)
    }

    /// Blocks of points, if there are enough, and rows are all that there is beside them.
    fn cut(&self, rows: &RowSchedule) -> Option<Blocks> {
        let are_few = self.extent < BLOCK * ENOUGH_UNITS;
        if rows.steps > 0 || rows.outer > 1 || !are_few {
            return None;
        }
        let cut: i64 = match &rows.inner_loops()[..] {
            [only] => rows.extent(*only),
            [others @ .., _] => others.iter().map(|&a| rows.extent(a)).product(),
            [] => return None,
        };
        let elements = rows.row_points().saturating_mul(self.extent);
        let deviates = self.walks.iter().any(|walk| walk.deviations.is_some());
        let near = if deviates { (elements / NEAR_ELEMENTS).min(MOST_NEAR_BLOCKS) } else { 0 };
        let wanted = (elements / BLOCK_ELEMENTS).min(MOST_BLOCKS.max(near));
        let points = (cut + wanted - 1).checked_div(wanted)?;
        // Means of blocks are merged by one leaf, so all have as many points.
        let evenly = || (points..2 * points).find(|p| cut % p == 0);
        let even = if deviates { evenly() } else { None };
        let even = even.filter(|p| cut / p >= FEWEST_BLOCKS);
        let points = even.unwrap_or(points);
        let count = (cut + points - 1).checked_div(points)?;
        if count < FEWEST_BLOCKS {
            return None;
        }
        let (mut phases, mut merges): (Vec<Range<usize>>, _) = (Vec::new(), Vec::new());
        for (at, walk) in self.walks.iter().enumerate() {
            let deviations = walk.deviations.as_ref().filter(|_| even.is_some());
            match phases.last_mut() {
                Some(phase) if deviations.is_some() => phase.end = at + 1,
                _ => phases.push(at..at + 1),
            }
            for fold in 0..walk.folds {
                let deviation = deviations.map(|deviations| deviations[fold].clone());
                let own = deviation.is_some().then_some(rows.row_points() / count);
                let leaf = self.merge(rows, self.states[merges.len()].0, own)?;
                merges.push(Merge { leaf, deviation });
            }
        }
        Some(Blocks { points, count, phases, merges })
    }

    /// The leaf that merges a fold of several blocks into its state; of deviations, if blocks of so many points have
    /// means of their own.
    fn merge(&self, rows: &RowSchedule, fold: RowFold, own: Option<i64>) -> Option<Arc<Loop>> {
        let dtype = rows.domain.exprs.dtype(fold.value);
        let block = i32::try_from(4 * self.room).ok()?;
        let steps = if own.is_some() { vec![block, block, 0, 0] } else { vec![block, 0] };
        let stream = |address| Stream { dtype, address, offset: 0, stride: 1 };
        let streams = (0..steps.len()).map(|address| stream(address as u16)).collect();
        let mut leaf = Loop { unroll: 4, ..Loop::over(streams) };
        let (kind, l) = (ops::kind(dtype), &mut leaf.lanes);
        let state = l.add(Op::Carry(kind, 0));
        let partial = match own {
            Some(points) => {
                let inputs = [0, 1, 2].map(|input| l.add(Op::Input(kind, input)));
                deviation::about(l, points, inputs)
            }
            None => l.add(Op::Input(kind, 0)),
        };
        let next = ops::merge(l, fold.op, dtype, state, partial);
        leaf.folds.push(Fold { op: fold.op, dtype, next });
        leaf.fold_columns(vec![steps.len() as u16 - 1]);
        leaf.set_lines(steps);
        Some(Arc::new(leaf))
    }

    /// Bytes of the shared workspace.
    pub fn shared_bytes(&self) -> usize {
        let blocks = self.blocks.as_ref().map_or(0, |blocks| blocks.count);
        4 * (blocks * self.room) as usize * self.states.len()
    }

    /// Where in the shared workspace what fold `fold` comes to in the first block begins, and bytes from there to
    /// the next block.
    pub fn partials(&self, fold: usize) -> [i64; 2] {
        let blocks = self.blocks.as_ref().map_or(0, |blocks| blocks.count);
        [4 * fold as i64 * blocks * self.room, 4 * self.room]
    }

    /// Bytes of the scratch room.
    pub fn scratch_bytes(&self) -> usize {
        4 * (self.slots * self.room) as usize
    }

    fn empty(axis: Axis, extent: i64) -> Abreast {
        let (states, walks) = (Vec::new(), Vec::new());
        let room = (extent as u64).next_multiple_of(FEWEST_ROWS as u64) as i64;
        Abreast { axis, states, walks, last: None, blocks: None, extent, room, slots: 0 }
    }

    /// Room for a value of each row.
    fn slot(&mut self) -> Place {
        let terms = [(self.axis, 1)].into_iter().collect();
        let linear = Linear { terms, offset: self.slots * self.room };
        self.slots += 1;
        Place { linear, ..Place::default() }
    }

    /// The results of folds, where their states are.
    fn folded(&self, rows: &RowSchedule) -> Vec<Kept> {
        let state = |step: u32| self.states.iter().find(|(fold, _)| fold.step == step);
        let kept = |(id, expr): (ExprId, &Expr)| match expr {
            Expr::Folded(step) => Some(Kept { id, place: state(*step)?.1.clone() }),
            _ => None,
        };
        rows.domain.exprs.iter().filter_map(kept).collect()
    }

    fn states_of(&self, folds: &[RowFold]) -> Vec<Place> {
        let own = |step| self.states.iter().find(move |(fold, _)| fold.step == step);
        folds.iter().filter_map(|f| own(f.step)).map(|s| s.1.clone()).collect()
    }

    /// Numbers that a pass reads or computes, the same at all points of a row but not of all rows. Side by
    /// side in the scratch room, all of them are found by one address.
    fn shared(&mut self, rows: &RowSchedule, pass: &Pass) -> Vec<Kept> {
        let (domain, all) = (&rows.domain, rows.domain.extents.len());
        let inner = AxisSet::range(rows.outer, all);
        let own = AxisSet::FOLDED.union(AxisSet::of(self.axis));
        let varies = |id: &ExprId| domain.uses[id.0 as usize].meets(inner);
        let worthy = |id: &ExprId| {
            let is_number = domain.exprs.dtype(*id) == DType::F32;
            let known = matches!(domain.exprs.get(*id), Expr::Folded(_));
            is_number && !known && !varies(id) && domain.uses[id.0 as usize].meets(own)
        };
        let reached = domain.reachable(&pass.roots());
        let operands = reached.iter().filter(|id| varies(id));
        let operands = operands.flat_map(|&id| domain.exprs.get(id).operands());
        let mut shared: Vec<ExprId> = operands.chain(pass.roots()).filter(worthy).collect();
        shared.sort_unstable();
        shared.dedup();
        shared.into_iter().map(|id| Kept { id, place: self.slot() }).collect()
    }
}

impl fmt::Display for Blocks {
    /// `64 blocks with means of their own`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.merges.iter().any(|merge| merge.deviation.is_some());
        write!(f, "{} blocks{}", self.count, if own { " with means of their own" } else { "" })
    }
}
