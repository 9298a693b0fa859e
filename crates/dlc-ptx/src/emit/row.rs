//! Rows: folds by teams of threads, in a fixed order.
//!
//! Rows and elements that do not exist are others once more: their loads are harmless, their
//! elements are left out of folds, and nothing of theirs is stored.

use super::fold::{self, Accumulator};
use super::map::coordinates;
use super::point::Point;
use super::writer::{Given, Writer};
use crate::ir::{Address, B32, Compare, IntOp, LogicOp, Pred, Special, Value};
use crate::schedule::row::{Phase, RowSchedule, Team};
use crate::schedule::{THREADS, WARP};
use dlc_kernel::lanes::Vector;
use dlc_kernel::{ExprId, FoldOp, Step};
use smallvec::smallvec;

/// Writes what a row kernel does in one phase.
pub fn write(w: &mut Writer<'_>, schedule: &RowSchedule<'_>, steps: &[Step], phase: &Phase) {
    let place = Standing::new(w, schedule, phase.parts);
    let mut row = Row { schedule, place, turns: Vec::new(), folds: Vec::new() };
    for &step in &phase.needs {
        let result = row.recall(w, step, &steps[step as usize]);
        row.folds.push((step, result));
    }
    if schedule.holds {
        row.turns = (0..schedule.turns).map(|turn| row.turn(w, Value::Literal(turn))).collect();
    }
    let is_store = |step: &&Step| !matches!(step, Step::Fold(..));
    let mut store = steps[..phase.steps.start].iter().filter(is_store).count();
    for (at, step) in phase.steps.clone().zip(&steps[phase.steps.clone()]) {
        match step {
            Step::Fold(op, element) => row.fold_step(w, at as u32, *op, *element),
            Step::StoreRow(what) => row.store_row(w, store, what.value),
            Step::StoreEach(what) => row.store_each(w, store, what.value),
        }
        store += usize::from(is_store(&step));
    }
}

/// Where a thread stands.
struct Standing {
    /// The number of its row.
    number: B32,
    /// The coordinates of its row.
    row: Vec<Value<B32>>,
    /// Whether there is that row; `None` if there is always.
    exists: Option<Pred>,
    /// Which part of the row is its team's; `None` if all of it.
    part: Option<B32>,
    /// Its number within the team.
    member: B32,
    /// Its first unit of the row.
    start: B32,
    /// Whether it is the one that stores what a team has once.
    speaks: Pred,
}

impl Standing {
    fn new(w: &mut Writer<'_>, schedule: &RowSchedule<'_>, parts: u32) -> Standing {
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
        let part = (parts > 1).then(|| w.b.special(Special::BlockY));
        let units = schedule.turns * schedule.team.stride();
        let start = part.map_or(member, |part| w.b.mad(part, units, member));
        Standing { number: at, row, exists, part, member, start, speaks }
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
        let unit = w.b.mad(turn, team.stride(), self.place.start);
        let even = units % i64::from(team.stride() * self.schedule.turns) == 0;
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

    /// A fold of the row, or of the part, which then goes into the workspace.
    fn fold_step(&mut self, w: &mut Writer<'_>, step: u32, op: FoldOp, element: ExprId) {
        let accumulator = self.fold(w, op, element);
        if let Some(part) = self.place.part {
            let to = self.in_workspace(w, step, part.into());
            w.if_(self.place.speaks, |w| accumulator.store(w, to));
        }
        let result = accumulator.result(w);
        self.folds.push((step, result));
        self.turns.iter_mut().for_each(|t| t.point.fold(step, smallvec![result]));
    }

    /// Puts together what the parts of the row have folded in an earlier phase.
    fn recall(&self, w: &mut Writer<'_>, step: u32, what: &Step) -> Vector {
        let Step::Fold(op, element) = what else { panic!("folds alone are needed") };
        let RowSchedule { domain, parts, team, .. } = self.schedule;
        let accumulator = Accumulator::new(w, *op, domain.exprs.dtype(*element));
        for first in (0..*parts).step_by(team.stride() as usize) {
            let part = w.b.int(IntOp::Add, self.place.member, first);
            let exists = w.b.set_uint(Compare::Lt, part, *parts);
            let part = w.b.int(IntOp::MinU, part, parts - 1);
            let from = self.in_workspace(w, step, part.into());
            accumulator.push_stored(w, from, exists);
        }
        fold::across(w, &accumulator, *team, self.place.member);
        accumulator.result(w)
    }

    /// Where a part keeps what it has folded.
    fn in_workspace(&self, w: &mut Writer<'_>, step: u32, part: Value<B32>) -> Address {
        let (rows, parts) = (self.schedule.rows() as u32, self.schedule.parts);
        let row = w.b.int(IntOp::Add, self.place.number, step * rows);
        let at = w.b.mad(row, parts, part);
        let base = w.address(Given::Workspace(0));
        Address::global(w.b.mad_wide(at, 8, base), 0)
    }

    fn fold(&mut self, w: &mut Writer<'_>, op: FoldOp, element: ExprId) -> Accumulator {
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
        accumulator
    }

    fn store_row(&self, w: &mut Writer<'_>, store: usize, value: ExprId) {
        let inner = self.schedule.domain.extents.len() - self.schedule.border;
        let axes = [&self.place.row[..], &vec![Value::Literal(0); inner]].concat();
        let speaks = self.place.part.map_or(self.place.speaks, |part| {
            let first = w.b.set_int(Compare::Eq, part, 0);
            w.b.logic(LogicOp::And, self.place.speaks, first)
        });
        w.if_(speaks, |w| {
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
