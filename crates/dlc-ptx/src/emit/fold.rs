//! Folds: in a thread, and across the threads of a team, in an order that shapes alone decide.

use super::lanes::Number;
use super::writer::Writer;
use crate::ir::{
    Address, B32, CacheHint, Compare, F32, LogicOp, MemType, Pred, Reg, Shuffle, Space, Special,
    Value,
};
use crate::schedule::row::Team;
use crate::schedule::{THREADS, WARP};
use dlc_kernel::lanes::{Vector, ops};
use dlc_kernel::{DType, FoldOp};

/// A fold in progress, in registers of its own.
#[derive(Clone, Copy, Debug)]
pub struct Accumulator {
    op: FoldOp,
    dtype: DType,
    value: State,
    /// Of the best element, for positions.
    position: Option<B32>,
}

/// A register that a fold changes. Truth values are held as 0 or 1.
#[derive(Clone, Copy, Debug)]
enum State {
    Float(F32),
    Word(B32),
}

impl From<State> for Reg {
    fn from(state: State) -> Reg {
        match state {
            State::Float(register) => register.into(),
            State::Word(register) => register.into(),
        }
    }
}

impl Accumulator {
    /// The fold of no element of type `dtype`.
    pub fn new(w: &mut Writer<'_>, op: FoldOp, dtype: DType) -> Accumulator {
        let empty = op.of_value().empty(dtype);
        let value = match dtype {
            DType::F32 => State::Float(w.b.mov_f32(empty as f32)),
            _ => State::Word(w.b.mov32(empty as i64 as i32)),
        };
        let position = op.is_position().then(|| w.b.mov32(0));
        Accumulator { op, dtype, value, position }
    }

    /// Folds in an element, if it exists. Of positions, elements come in order.
    pub fn push(&self, w: &mut Writer<'_>, element: Number, position: B32, exists: Option<Pred>) {
        let element = self.hold(w, element);
        match self.position {
            Some(best) => {
                let better = self.beats(w, element, position, best);
                let better = exists.map_or(better, |e| w.b.logic(LogicOp::And, better, e));
                self.take(w, element, better);
                let position = w.b.select32(better, position, best);
                w.b.mov32_to(best, position);
            }
            None => {
                let merged = self.merge(w, element);
                match exists {
                    Some(exists) => self.take(w, merged, exists),
                    None => self.set(w, merged),
                }
            }
        }
    }

    /// Keeps the fold so far in global memory: the value, and the position after it.
    pub fn store(&self, w: &mut Writer<'_>, to: Address) {
        let value = Reg::from(self.value);
        w.b.store(Space::Global, memory(value), to, &[value]);
        if let Some(position) = self.position {
            let to = Address { offset: to.offset + 4, ..to };
            w.b.store(Space::Global, MemType::B32, to, &[position.into()]);
        }
    }

    /// Folds in one that was kept, if it exists.
    pub fn push_stored(&self, w: &mut Writer<'_>, from: Address, exists: Pred) {
        let (ty, hint) = (memory(self.value.into()), CacheHint::None);
        let value = w.b.load(Space::Global, ty, 1, from, hint)[0];
        let value = match self.value {
            State::Float(_) => F32(value.number).into(),
            State::Word(_) => self.number(w, State::Word(B32(value.number))),
        };
        let position = if self.position.is_some() {
            let from = Address { offset: from.offset + 4, ..from };
            B32(w.b.load(Space::Global, MemType::B32, 1, from, hint)[0].number)
        } else {
            w.b.mov32(0)
        };
        self.push(w, value, position, Some(exists));
    }

    /// The result, for the kernel's expressions.
    pub fn result(&self, w: &mut Writer<'_>) -> Vector {
        let number = match (self.position, self.value) {
            (Some(position), _) => w.b.mov32(position).into(),
            (None, state) => self.number(w, state),
        };
        w.scope.input(number)
    }

    fn hold(&self, w: &mut Writer<'_>, number: Number) -> State {
        match number {
            Number::F32(Value::Reg(register)) => State::Float(register),
            Number::F32(literal) => State::Float(w.b.mov_f32(literal)),
            Number::I32(Value::Reg(register)) => State::Word(register),
            Number::I32(literal) => State::Word(w.b.mov32(literal)),
            Number::Mask(Value::Reg(pred)) => State::Word(w.b.select32(pred, 1, 0)),
            Number::Mask(Value::Literal(holds)) => State::Word(w.b.mov32(u32::from(holds))),
            Number::Half(_) => panic!("doubles are not folded"),
        }
    }

    fn number(&self, w: &mut Writer<'_>, state: State) -> Number {
        match state {
            State::Float(register) => w.b.mov_f32(register).into(),
            State::Word(register) if self.dtype == DType::Bool => {
                w.b.set_int(Compare::Ne, register, 0).into()
            }
            State::Word(register) => w.b.mov32(register).into(),
        }
    }

    /// The fold with another one of the same kind.
    fn merge(&self, w: &mut Writer<'_>, other: State) -> State {
        let [mine, other] = [self.value, other].map(|state| {
            let number = self.number(w, state);
            w.scope.input(number)
        });
        let merged = ops::merge(&mut w.scope.lanes, self.op, self.dtype, mine, other);
        let number = w.scope.number(&mut w.b, merged);
        self.hold(w, number)
    }

    /// Whether another element, at another position, comes before the best one so far.
    fn beats(&self, w: &mut Writer<'_>, other: State, position: B32, best: B32) -> Pred {
        let cmp = if self.op == FoldOp::ArgMax { Compare::Gt } else { Compare::Lt };
        let earlier = w.b.set_uint(Compare::Lt, position, best);
        match (other, self.value) {
            (State::Float(other), State::Float(mine)) => {
                let better = w.b.set_float(cmp, other, mine);
                let equal = w.b.set_float(Compare::Eq, other, mine);
                let (nan, mine_nan) = (w.b.is_nan(other, other), w.b.is_nan(mine, mine));
                let both = w.b.logic(LogicOp::And, nan, mine_nan);
                let equal = w.b.logic(LogicOp::Or, equal, both);
                let equal = w.b.logic(LogicOp::And, equal, earlier);
                let number = w.b.not(mine_nan);
                let nan = w.b.logic(LogicOp::And, nan, number);
                let better = w.b.logic(LogicOp::Or, better, nan);
                w.b.logic(LogicOp::Or, better, equal)
            }
            (State::Word(other), State::Word(mine)) => {
                let better = w.b.set_int(cmp, other, mine);
                let equal = w.b.set_int(Compare::Eq, other, mine);
                let equal = w.b.logic(LogicOp::And, equal, earlier);
                w.b.logic(LogicOp::Or, better, equal)
            }
            _ => panic!("both are of the fold's type"),
        }
    }

    /// Becomes `other` where `when` holds.
    fn take(&self, w: &mut Writer<'_>, other: State, when: Pred) {
        let chosen = match (other, self.value) {
            (State::Float(other), State::Float(mine)) => {
                State::Float(w.b.select_f32(when, other, mine))
            }
            (State::Word(other), State::Word(mine)) => State::Word(w.b.select32(when, other, mine)),
            _ => panic!("both are of the fold's type"),
        };
        self.set(w, chosen);
    }

    fn set(&self, w: &mut Writer<'_>, state: State) {
        match (self.value, state) {
            (State::Float(mine), State::Float(other)) => w.b.mov_f32_to(mine, other),
            (State::Word(mine), State::Word(other)) => w.b.mov32_to(mine, other),
            _ => panic!("both are of the fold's type"),
        }
    }

    /// Folds in what another thread has.
    fn absorb(&self, w: &mut Writer<'_>, other: State, position: Option<B32>) {
        match (self.position, position) {
            (Some(best), Some(position)) => {
                let better = self.beats(w, other, position, best);
                self.take(w, other, better);
                let position = w.b.select32(better, position, best);
                w.b.mov32_to(best, position);
            }
            _ => {
                let merged = self.merge(w, other);
                self.set(w, merged);
            }
        }
    }

    fn shuffled(&self, w: &mut Writer<'_>, distance: u32) -> (State, Option<B32>) {
        let other = match self.value {
            State::Float(mine) => {
                State::Float(w.b.shuffle(Shuffle::Butterfly, mine, distance, WARP))
            }
            State::Word(mine) => State::Word(w.b.shuffle(Shuffle::Butterfly, mine, distance, WARP)),
        };
        let position = self.position;
        (other, position.map(|p| w.b.shuffle(Shuffle::Butterfly, p, distance, WARP)))
    }
}

/// Folds what the members of a team have; all of them then have the result.
pub fn across(w: &mut Writer<'_>, accumulator: &Accumulator, team: Team, member: B32) {
    if team != Team::Column {
        let mut distance = WARP / 2;
        while distance > 0 {
            let (other, position) = accumulator.shuffled(w, distance);
            accumulator.absorb(w, other, position);
            distance /= 2;
        }
    }
    match team {
        Team::Warp => {}
        Team::Block => through_memory(w, accumulator, member, false),
        Team::Column => through_memory(w, accumulator, member, true),
    }
}

/// Folds what the warps of a block have: one value each, or one for each lane.
fn through_memory(w: &mut Writer<'_>, accumulator: &Accumulator, member: B32, by_lane: bool) {
    let warps = THREADS / WARP;
    let row = if by_lane { WARP } else { 1 };
    let lane = w.b.special(Special::Lane);
    let warp = if by_lane { member } else { w.b.int(crate::ir::IntOp::ShrU, member, WARP.ilog2()) };
    let parts: Vec<Reg> = [Some(accumulator.value.into()), accumulator.position.map(Reg::from)]
        .into_iter()
        .flatten()
        .collect();
    let bases: Vec<B32> = parts
        .iter()
        .map(|_| {
            let offset = w.b.reserve_shared(warps * row * 4);
            w.b.shared_base(offset)
        })
        .collect();
    let speaks = if by_lane { None } else { Some(w.b.set_int(Compare::Eq, lane, 0)) };
    let own = if by_lane { w.b.mad(warp, WARP, lane) } else { warp };
    for (&part, &base) in parts.iter().zip(&bases) {
        let at = w.b.mad(own, 4, base);
        let store = |b: &mut crate::ir::Builder| {
            b.store(Space::Shared, memory(part), Address::shared(at, 0), &[part]);
        };
        match speaks {
            Some(speaks) => w.b.guarded(speaks, true, store),
            None => store(&mut w.b),
        }
    }
    w.b.barrier();
    // Everyone starts anew and folds the parts in the order of warps.
    let total = Accumulator::new(w, accumulator.op, accumulator.dtype);
    for warp in 0..warps {
        let others: Vec<Reg> = parts
            .iter()
            .zip(&bases)
            .map(|(&part, &base)| {
                let base = if by_lane { w.b.mad(lane, 4, base) } else { base };
                let from = Address::shared(base, (warp * row * 4) as i32);
                w.b.load(Space::Shared, memory(part), 1, from, CacheHint::None)[0]
            })
            .collect();
        let other = match accumulator.value {
            State::Float(_) => State::Float(F32(others[0].number)),
            State::Word(_) => State::Word(B32(others[0].number)),
        };
        total.absorb(w, other, others.get(1).map(|p| B32(p.number)));
    }
    accumulator.set(w, total.value);
    if let (Some(mine), Some(best)) = (accumulator.position, total.position) {
        w.b.mov32_to(mine, best);
    }
}

fn memory(register: Reg) -> MemType {
    if register.class == crate::ir::Class::F32 { MemType::F32 } else { MemType::B32 }
}
