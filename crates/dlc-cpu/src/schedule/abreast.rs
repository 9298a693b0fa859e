//! Rows side by side, by leaves along an outer axis: column sums, statistics of channels that stand
//! last.
//!
//! Rows are walked over as their elements lie in memory, points one below the other. Each row's fold
//! states, and what its steps share between points, are in the scratch room, where neighbouring
//! rows are neighbours. Of many points, *blocks* are walked over apart, by any thread; what their folds
//! come to is merged, in order, before the next walk. Blocks depend on the shape alone.

use super::domain::{AxisSet, Linear, Place};
use super::row::{Pass, RowFold, RowLanes, RowSchedule};
use super::stretch::{Kept, Stretch, Task};
use crate::leaf::lanes::{Op, ops};
use crate::leaf::loops::{Fold, Loop, Stream};
use dlc_kernel::{Axis, DType, Expr, ExprId};
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
}

/// Blocks of points. The shared workspace holds what each fold comes to, block by block.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Points of each, along the only inner axis, or of all inner axes but the last. The last block may
    /// have fewer.
    pub points: i64,
    /// How many there are.
    pub count: i64,
    /// By fold: the leaf that merges what blocks come to into the states.
    pub merges: Vec<Arc<Loop>>,
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
        for pass in &rows.passes {
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
            abreast.walks.push(Walk { before, each, folds: folds.len() });
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
        let line_by_line = self.walks.iter().all(|walk| walk.each.lines.is_some());
        let are_few = self.extent < BLOCK * ENOUGH_UNITS;
        if rows.steps > 0 || rows.outer > 1 || !line_by_line || !are_few {
            return None;
        }
        let cut: i64 = match &rows.inner_loops()[..] {
            [only] => rows.extent(*only),
            [others @ .., _] => others.iter().map(|&a| rows.extent(a)).product(),
            [] => return None,
        };
        let wanted =
            (rows.row_points().saturating_mul(self.extent) / BLOCK_ELEMENTS).min(MOST_BLOCKS);
        let points = (cut + wanted - 1).checked_div(wanted)?;
        let count = (cut + points - 1).checked_div(points)?;
        let merges = self.states.iter().map(|(fold, _)| self.merge(rows, *fold));
        let blocks = || Some(Blocks { points, count, merges: merges.collect::<Option<_>>()? });
        if count >= FEWEST_BLOCKS { blocks() } else { None }
    }

    /// The leaf that merges a fold of several blocks, which stand one below the other, into its state.
    fn merge(&self, rows: &RowSchedule, fold: RowFold) -> Option<Arc<Loop>> {
        let dtype = rows.domain.exprs.dtype(fold.value);
        let stream = |address| Stream { dtype, address, offset: 0, stride: 1 };
        let mut leaf = Loop { unroll: 4, ..Loop::over(vec![stream(0), stream(1)]) };
        let kind = ops::kind(dtype);
        let [state, partial] =
            [Op::Carry(kind, 0), Op::Input(kind, 0)].map(|op| leaf.lanes.add(op));
        let next = ops::merge(&mut leaf.lanes, fold.op, dtype, state, partial);
        leaf.folds.push(Fold { op: fold.op, dtype, next });
        leaf.fold_columns(vec![1]);
        leaf.set_lines(vec![i32::try_from(4 * self.room).ok()?, 0]);
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
