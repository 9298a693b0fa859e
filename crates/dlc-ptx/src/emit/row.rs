//! Rows: folds by teams of threads, in a fixed order.
//!
//! Rows and elements that do not exist are others once more: their loads are harmless, their
//! elements are left out of folds, and nothing of theirs is stored.

use super::fold::{self, Accumulator};
use super::map::coordinates;
use super::point::Point;
use super::writer::Writer;
use crate::ir::{B32, Compare, IntOp, LogicOp, Pred, Special, Value};
use crate::schedule::row::{RowSchedule, Team};
use crate::schedule::{THREADS, WARP};
use dlc_kernel::lanes::Vector;
use dlc_kernel::{ExprId, FoldOp, Step};
use smallvec::smallvec;

/// Writes the body of a row kernel.
pub fn write(w: &mut Writer<'_>, schedule: &RowSchedule<'_>, steps: &[Step]) {
    let place = Standing::new(w, schedule);
    let mut row = Row { schedule, place, turns: Vec::new(), folds: Vec::new() };
    if schedule.holds {
        row.turns = (0..schedule.turns).map(|turn| row.turn(w, Value::Literal(turn))).collect();
    }
    let mut stores = 0..;
    for (step, what) in (0..).zip(steps) {
        match what {
            Step::Fold(op, element) => {
                let result = row.fold(w, *op, *element);
                row.folds.push((step, result));
                row.turns.iter_mut().for_each(|t| t.point.fold(step, smallvec![result]));
            }
            Step::StoreRow(store) => row.store_row(w, stores.next().expect("endless"), store.value),
            Step::StoreEach(store) => {
                row.store_each(w, stores.next().expect("endless"), store.value);
            }
        }
    }
}

/// Where a thread stands.
struct Standing {
    /// The coordinates of its row.
    row: Vec<Value<B32>>,
    /// Whether there is that row; `None` if there is always.
    exists: Option<Pred>,
    /// Its number within the team.
    member: B32,
    /// Whether it is the one that stores what a row has once.
    speaks: Pred,
}

impl Standing {
    fn new(w: &mut Writer<'_>, schedule: &RowSchedule<'_>) -> Standing {
        let block = w.b.special(Special::BlockX);
        let thread = w.b.special(Special::Thread);
        let warp = w.b.int(IntOp::ShrU, thread, WARP.ilog2());
        let lane = w.b.int(IntOp::And, thread, WARP - 1);
        let (first, member) = match schedule.team {
            Team::Warp => (w.b.mad(block, THREADS / WARP, warp), lane),
            Team::Block => (block, thread),
            Team::Column => (w.b.mad(block, WARP, lane), warp),
        };
        let rows = schedule.rows();
        let even = rows % i64::from(schedule.team.rows()) == 0;
        let exists = (!even).then(|| w.b.set_uint(Compare::Lt, first, rows as u32));
        let at = if even { first } else { w.b.int(IntOp::MinU, first, rows as u32 - 1) };
        let row = coordinates(w, at.into(), &schedule.domain.extents[..schedule.border], 1);
        let speaks = w.b.set_int(Compare::Eq, member, 0);
        let speaks = exists.map_or(speaks, |e| w.b.logic(LogicOp::And, speaks, e));
        Standing { row, exists, member, speaks }
    }
}

/// The elements of a row that a thread has in one turn.
struct Turn<'d, 'k> {
    point: Point<'d, 'k>,
    /// The position of the first one within the row.
    position: B32,
    /// Whether they exist; `None` if always.
    exists: Option<Pred>,
}

/// A row at work.
struct Row<'s, 'k> {
    schedule: &'s RowSchedule<'k>,
    place: Standing,
    /// Those held, or none.
    turns: Vec<Turn<'s, 'k>>,
    folds: Vec<(u32, Vector)>,
}

impl<'s, 'k> Row<'s, 'k> {
    /// The elements of that turn.
    fn turn(&self, w: &mut Writer<'_>, turn: Value<B32>) -> Turn<'s, 'k> {
        let RowSchedule { domain, border, team, lanes, .. } = self.schedule;
        let units = self.schedule.length() / *lanes as i64;
        let unit = w.b.mad(turn, team.stride(), self.place.member);
        let even = units % i64::from(team.stride()) == 0;
        let exists = (!even).then(|| w.b.set_uint(Compare::Lt, unit, units as u32));
        let unit = if even { unit } else { w.b.int(IntOp::MinU, unit, units as u32 - 1) };
        let inner = coordinates(w, unit.into(), &domain.extents[*border..], *lanes);
        let axes = [&self.place.row[..], &inner].concat();
        let mut point = Point::new(domain, axes, *lanes);
        self.folds.iter().for_each(|&(step, result)| point.fold(step, smallvec![result]));
        let position = w.b.int(IntOp::Mul, unit, *lanes as u32);
        Turn { point, position, exists }
    }

    /// Does something with the elements of every turn: those held, or all in a loop.
    fn each_turn(
        &mut self,
        w: &mut Writer<'_>,
        mut work: impl FnMut(&mut Writer<'_>, &mut Turn<'s, 'k>),
    ) {
        if self.schedule.holds {
            return self.turns.iter_mut().for_each(|turn| work(w, turn));
        }
        let turn = w.b.mov32(0);
        w.do_while(|w| {
            let mut elements = self.turn(w, turn.into());
            work(w, &mut elements);
            w.b.int_to(IntOp::Add, turn, turn, 1);
            w.b.set_uint(Compare::Lt, turn, self.schedule.turns)
        });
    }

    fn fold(&mut self, w: &mut Writer<'_>, op: FoldOp, element: ExprId) -> Vector {
        let dtype = self.schedule.domain.exprs.dtype(element);
        let accumulator = Accumulator::new(w, op, dtype);
        self.each_turn(w, |w, turn| {
            let side = turn.point.value(w, element);
            for lane in 0..turn.point.lanes() {
                let number = w.scope.number(&mut w.b, side[lane % side.len()]);
                let position = w.b.int(IntOp::Add, turn.position, lane as u32);
                accumulator.push(w, number, position, turn.exists);
            }
        });
        fold::across(w, &accumulator, self.schedule.team, self.place.member);
        accumulator.result(w)
    }

    fn store_row(&self, w: &mut Writer<'_>, store: usize, value: ExprId) {
        let inner = self.schedule.domain.extents.len() - self.schedule.border;
        let axes = [&self.place.row[..], &vec![Value::Literal(0); inner]].concat();
        w.if_(self.place.speaks, |w| {
            let mut point = Point::new(&self.schedule.domain, axes, 1);
            self.folds.iter().for_each(|&(step, result)| point.fold(step, smallvec![result]));
            point.store(w, store, value, None);
        });
    }

    fn store_each(&mut self, w: &mut Writer<'_>, store: usize, value: ExprId) {
        let row = self.place.exists;
        self.each_turn(w, |w, turn| {
            let when = match (row, turn.exists) {
                (Some(row), Some(element)) => Some(w.b.logic(LogicOp::And, row, element)),
                (one, other) => one.or(other),
            };
            turn.point.store(w, store, value, when);
        });
    }
}
