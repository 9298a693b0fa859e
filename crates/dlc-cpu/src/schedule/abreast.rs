//! Rows side by side, by leaves along an outer axis: column sums, statistics of channels that stand
//! last.
//!
//! A block of rows is walked over point by point, as its elements lie in memory. Each row's fold
//! states, and what its steps share between points, are in the scratch room, where neighbouring
//! rows are neighbours.

use super::domain::{AxisSet, Linear, Place};
use super::row::{Pass, RowFold, RowSchedule};
use super::stretch::{Kept, Stretch, Task};
use dlc_kernel::{Axis, DType, Expr, ExprId};

/// Rows that are walked over together.
pub const BLOCK: i64 = 256;

/// The most bytes of the scratch room: half of a second-level cache.
const MOST_BYTES: i64 = 1 << 18;

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
    extent: i64,
    slots: i64,
}

/// One walk over rows side by side.
#[derive(Clone, Debug)]
pub struct Walk {
    /// What is the same for all points of a row, and left for the walk.
    pub before: Option<Stretch>,
    /// What is done at each point.
    pub each: Stretch,
}

impl Abreast {
    /// Rows side by side along `axis`, if leaves can do all of their steps.
    pub fn new(rows: &RowSchedule, axis: Axis) -> Option<Abreast> {
        let extent = rows.extent(axis);
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
            let task = Task { stores, folds, states, row: &row, finds: &finds, ..Task::default() };
            let each = Stretch::new(&rows.domain, axis, None, task)?;
            abreast.walks.push(Walk { before, each });
        }
        if !rows.stores.is_empty() {
            let task = Task { stores: &rows.stores, row: &row, finds: &finds, ..Task::default() };
            abreast.last = Some(Stretch::new(&rows.domain, axis, None, task)?);
        }
        (abreast.scratch_bytes() as i64 <= MOST_BYTES).then_some(abreast)
    }

    /// Bytes of the scratch room.
    pub fn scratch_bytes(&self) -> usize {
        4 * (self.slots * self.extent) as usize
    }

    fn empty(axis: Axis, extent: i64) -> Abreast {
        let (states, walks) = (Vec::new(), Vec::new());
        Abreast { axis, states, walks, last: None, extent, slots: 0 }
    }

    /// Room for a value of each row.
    fn slot(&mut self) -> Place {
        let terms = [(self.axis, 1)].into_iter().collect();
        let linear = Linear { terms, offset: self.slots * self.extent };
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

    /// Values that a pass computes from folds, the same at all points of a row.
    fn shared(&mut self, rows: &RowSchedule, pass: &Pass) -> Vec<Kept> {
        let (domain, all) = (&rows.domain, rows.domain.extents.len());
        let inner = AxisSet::range(rows.outer, all);
        let varies = |id: &ExprId| domain.uses[id.0 as usize].meets(inner);
        let worthy = |id: &ExprId| {
            let computed = !matches!(domain.exprs.get(*id), Expr::Folded(_));
            let folded = domain.uses[id.0 as usize].meets(AxisSet::FOLDED);
            computed && folded && !varies(id) && domain.exprs.dtype(*id) == DType::F32
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
