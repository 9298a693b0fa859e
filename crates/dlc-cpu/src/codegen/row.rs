//! Row kernels: folds, and stores that use them.

use super::expr::{Evaluator, Lanes, Val};
use super::map::set_axes;
use super::ops::{self, select};
use super::{Emitter, LANES, Part, emit, load};
use crate::schedule::domain::AxisSet;
use crate::schedule::row::{RowFold, RowLanes, RowSchedule, RowStep};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::I32X4;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{Axis, DType, Expr, ExprId, FoldOp, Scalar, merge_op};

/// The code of a row kernel.
pub fn part(schedule: &RowSchedule, frontend: TargetFrontendConfig) -> Part {
    let operands = schedule.operands();
    let code = emit(schedule.config, frontend, &operands, |e| Rows { schedule }.emit(e));
    Part { code, operands, units: schedule.units(), unit_cost: schedule.unit_cost() }
}

struct Rows<'s, 'k> {
    schedule: &'s RowSchedule<'k>,
}

/// A body of the inner loops: the state of a fold at one point (or vector) to the next.
type Body<'b, 's> =
    &'b mut dyn FnMut(&mut Emitter, &mut Evaluator<'s>, usize, Vec<Value>) -> Vec<Value>;

impl<'s, 'k: 's> Rows<'s, 'k> {
    fn emit(&self, e: &mut Emitter) {
        let schedule = self.schedule;
        let mut ev = Evaluator::new(&schedule.domain);
        let loops = schedule.outer_loops();
        e.for_units(&schedule.unit_extents(), |e, point| {
            ev.enter();
            set_axes(&mut ev, &loops, point);
            match schedule.outer_lanes() {
                None => self.emit_row(e, &mut ev),
                Some(axis) => {
                    let first = e.b.ins().imul_imm_s(point[loops.len()], LANES);
                    self.emit_rows(e, &mut ev, axis, first);
                }
            }
            ev.leave();
        });
    }

    /// The rows `first..first + 4` along `axis`, or those there are.
    fn emit_rows(&self, e: &mut Emitter, ev: &mut Evaluator<'s>, axis: Axis, first: Value) {
        let extent = self.schedule.extent(axis);
        let overlaps = matches!(self.schedule.lanes, RowLanes::Overlapping(_));
        let full = Lanes { axis, active: 4, multiple_of: if overlaps { 1 } else { LANES } };
        let rest = (extent % LANES) as u8;
        if overlaps || rest == 0 {
            let last = e.int(extent - LANES);
            let first = if rest == 0 { first } else { e.b.ins().smin(first, last) };
            return self.emit_vector(e, ev, full, first);
        }
        let partial = Lanes { active: rest, ..full };
        if extent < LANES {
            return self.emit_vector(e, ev, partial, first);
        }
        let whole = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, first, extent & !3);
        let mut body = [full, partial].into_iter();
        let mut emit = |e: &mut Emitter| {
            let lanes = body.next().expect("both sides are emitted once");
            self.emit_vector(e, ev, lanes, first);
            Vec::new()
        };
        let emit = std::cell::RefCell::new(&mut emit);
        e.choose(whole, |e| (emit.borrow_mut())(e), |e| (emit.borrow_mut())(e));
    }

    fn emit_vector(&self, e: &mut Emitter, ev: &mut Evaluator<'s>, lanes: Lanes, first: Value) {
        ev.enter();
        ev.set_axis(lanes.axis, first);
        ev.set_lanes(Some(lanes));
        self.emit_row(e, ev);
        ev.leave();
        ev.set_lanes(None);
    }

    /// All steps of a row, or of one row for each lane.
    fn emit_row(&self, e: &mut Emitter, ev: &mut Evaluator<'s>) {
        let empty = self.schedule.row_points() == 0;
        for step in &self.schedule.steps {
            match step {
                RowStep::Fold(fold) => {
                    let result = self.emit_fold(e, ev, *fold);
                    self.define(e, ev, fold.step, result);
                }
                RowStep::StoreRow(store) => {
                    load::store(ev, e, store.buffer, &store.place, store.value);
                }
                RowStep::StoreEach(_) if empty => {}
                RowStep::StoreEach(store) => {
                    self.for_points(e, ev, store.value, 1, Vec::new(), &mut |e, ev, _, state| {
                        load::store(ev, e, store.buffer, &store.place, store.value);
                        state
                    });
                }
            }
        }
    }

    /// Makes the result of a fold the value of all nodes that stand for it.
    fn define(&self, e: &mut Emitter, ev: &mut Evaluator<'s>, step: u32, result: Value) {
        let vector = e.b.func.dfg.value_type(result).is_vector();
        let value = if vector { Val::Varying(result) } else { Val::Uniform(result) };
        for (id, expr) in self.schedule.domain.exprs.iter() {
            if *expr == Expr::Folded(step) {
                ev.define(id, value);
            }
        }
    }

    fn emit_fold(&self, e: &mut Emitter, ev: &mut Evaluator<'s>, fold: RowFold) -> Value {
        let element = ev.domain.exprs.dtype(fold.value);
        let reducer = Reducer { op: fold.op, element };
        let vectors = self.schedule.lanes != RowLanes::None;
        let one = reducer.initial(e, vectors);
        let width = one.len();
        let initial = one.repeat(fold.accumulators);
        let folded = if self.schedule.row_points() == 0 {
            initial
        } else {
            let count = fold.accumulators;
            self.for_points(e, ev, fold.value, count, initial, &mut |e, ev, at, mut state| {
                let next = self.fold_in(e, ev, fold, reducer, &state[at * width..][..width]);
                state.splice(at * width..(at + 1) * width, next);
                state
            })
        };
        let merged = merge_all(e, reducer, &folded, width);
        match self.schedule.lanes {
            RowLanes::Inner(_) => reducer.across(e, &merged),
            _ => *merged.last().expect("a fold has a state"),
        }
    }

    /// One accumulator after the current point or vector.
    fn fold_in(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        fold: RowFold,
        reducer: Reducer,
        state: &[Value],
    ) -> Vec<Value> {
        let vectors = self.schedule.lanes != RowLanes::None;
        let element = if vectors { ev.vector(e, fold.value) } else { ev.scalar(e, fold.value) };
        let inner = matches!(self.schedule.lanes, RowLanes::Inner(_));
        let mask = ev.lanes().filter(|l| inner && l.active < 4).map(|lanes| {
            let bits = [0, 1, 2, 3].map(|lane| if lane < lanes.active { u32::MAX } else { 0 });
            e.lanes(bits, I32X4)
        });
        if !fold.op.is_position() {
            return vec![reducer.fold(e, state[0], element, mask)];
        }
        let position = self.schedule.position();
        let position = match ev.affine(e, &position) {
            Val::Varying(value) => value,
            Val::Uniform(value) if vectors => e.splat(value),
            Val::Uniform(value) => value,
        };
        reducer.fold_position(e, state, element, position, mask)
    }

    /// `body` at every point of a row, or at every vector of it: `accumulators` points at a time,
    /// the position among them is told.
    fn for_points(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        root: ExprId,
        accumulators: usize,
        state: Vec<Value>,
        body: Body<'_, 's>,
    ) -> Vec<Value> {
        let known = self.schedule.outer_set().union(AxisSet::FOLDED);
        let loops = self.schedule.inner_loops();
        let nest = Nest { rows: self, root, accumulators };
        match self.schedule.lanes {
            RowLanes::Inner(axis) => {
                let lanes = Lanes { axis, active: 4, multiple_of: LANES };
                ev.enter();
                ev.set_lanes(Some(lanes));
                ev.hoist(e, &[root], known);
                let state = nest.emit(e, ev, &loops, known, state, body);
                ev.leave();
                ev.set_lanes(None);
                state
            }
            _ => {
                ev.enter();
                ev.hoist(e, &[root], known);
                let state = nest.emit(e, ev, &loops, known, state, body);
                ev.leave();
                state
            }
        }
    }
}

/// The loops inside a row.
struct Nest<'r, 's, 'k> {
    rows: &'r Rows<'s, 'k>,
    root: ExprId,
    accumulators: usize,
}

impl<'s, 'k: 's> Nest<'_, 's, 'k> {
    /// The loops over `axes`, outermost first, then the vector loop if there is one.
    fn emit(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        axes: &[Axis],
        known: AxisSet,
        state: Vec<Value>,
        body: Body<'_, 's>,
    ) -> Vec<Value> {
        let schedule = self.rows.schedule;
        let Some((&axis, rest)) = axes.split_first() else {
            return match schedule.lanes {
                RowLanes::Inner(lanes) => self.emit_vectors(e, ev, lanes, state, body),
                _ => body(e, ev, 0, state),
            };
        };
        let extent = schedule.extent(axis);
        if schedule.unrolled {
            return (0..extent).fold(state, |state, i| {
                let i = e.int(i);
                at(ev, axis, i, |ev| self.emit(e, ev, rest, known, state, body))
            });
        }
        if rest.is_empty() && !matches!(schedule.lanes, RowLanes::Inner(_)) {
            return self.emit_innermost(e, ev, axis, 1, extent, state, body);
        }
        let known = known.union(AxisSet::of(axis));
        e.repeat(0, extent, 1, &state, |e, i, state| {
            at(ev, axis, i, |ev| {
                ev.hoist(e, &[self.root], known);
                self.emit(e, ev, rest, known, state.to_vec(), body)
            })
        })
    }

    /// The vectors along the lane axis, the last one perhaps in part.
    fn emit_vectors(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        axis: Axis,
        state: Vec<Value>,
        body: Body<'_, 's>,
    ) -> Vec<Value> {
        let extent = self.rows.schedule.extent(axis);
        let state = self.emit_innermost(e, ev, axis, LANES, extent & !3, state, body);
        let rest = (extent % LANES) as u8;
        if rest == 0 {
            return state;
        }
        let whole = ev.lanes();
        ev.enter();
        ev.set_lanes(Some(Lanes { axis, active: rest, multiple_of: LANES }));
        let first = e.int(extent & !3);
        ev.set_axis(axis, first);
        let state = body(e, ev, 0, state);
        ev.leave();
        ev.set_lanes(whole);
        state
    }

    /// `0..end` by `step`, several accumulators at a time as long as that goes.
    #[allow(clippy::too_many_arguments)]
    fn emit_innermost(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        axis: Axis,
        step: i64,
        end: i64,
        state: Vec<Value>,
        body: Body<'_, 's>,
    ) -> Vec<Value> {
        let count = self.accumulators as i64;
        let stride = step * count;
        let together = if count > 1 { end / stride * stride } else { 0 };
        let state = e.repeat(0, together, stride, &state, |e, i, state| {
            (0..self.accumulators).fold(state.to_vec(), |state, k| {
                let i = e.b.ins().iadd_imm_s(i, k as i64 * step);
                at(ev, axis, i, |ev| body(e, ev, k, state))
            })
        });
        e.repeat(together, end, step, &state, |e, i, state| {
            at(ev, axis, i, |ev| body(e, ev, 0, state.to_vec()))
        })
    }
}

/// `body` with an axis at a value.
fn at<'s, R>(
    ev: &mut Evaluator<'s>,
    axis: Axis,
    value: Value,
    body: impl FnOnce(&mut Evaluator<'s>) -> R,
) -> R {
    ev.enter();
    ev.set_axis(axis, value);
    let result = body(ev);
    ev.leave();
    result
}

/// Merges states of `width` values pairwise, neighbours first.
fn merge_all(e: &mut Emitter, reducer: Reducer, states: &[Value], width: usize) -> Vec<Value> {
    let mut states: Vec<Vec<Value>> = states.chunks(width).map(<[Value]>::to_vec).collect();
    while states.len() > 1 {
        let merge = |pair: &[Vec<Value>]| match pair {
            [a, b] => reducer.merge(e, a, b),
            one => one[0].clone(),
        };
        states = states.chunks(2).map(merge).collect();
    }
    states.swap_remove(0)
}

/// How a fold goes from state to state. The state of a position is the best element and where it
/// is; of any other fold, the value.
#[derive(Clone, Copy)]
pub(super) struct Reducer {
    pub(super) op: FoldOp,
    pub(super) element: DType,
}

impl Reducer {
    /// The state before the first element.
    pub(super) fn initial(self, e: &mut Emitter, vectors: bool) -> Vec<Value> {
        let best = match self.op {
            FoldOp::ArgMax => FoldOp::Max,
            FoldOp::ArgMin => FoldOp::Min,
            op => op,
        };
        let value = Scalar::new(self.element, best.empty(self.element));
        let value = load::constant(e, value);
        let mut state = vec![value];
        if self.op.is_position() {
            state[0] = self.comparable(e, value);
            let zero = Scalar::new(DType::I32, 0.0);
            state.push(load::constant(e, zero));
        }
        if vectors {
            state.iter_mut().for_each(|v| *v = super::expr::splat(e, *v));
        }
        state
    }

    /// The state after `element`; lanes outside `mask` stay as they are.
    fn fold(self, e: &mut Emitter, state: Value, element: Value, mask: Option<Value>) -> Value {
        let element = match mask {
            None => element,
            Some(mask) => {
                let neutral = self.initial(e, true)[0];
                select(e, mask, element, neutral)
            }
        };
        self.merge(e, &[state], &[element])[0]
    }

    fn fold_position(
        self,
        e: &mut Emitter,
        state: &[Value],
        element: Value,
        position: Value,
        mask: Option<Value>,
    ) -> Vec<Value> {
        let element = self.comparable(e, element);
        let mut beats = self.beats(e, element, state[0]);
        if let Some(mask) = mask {
            beats = e.b.ins().band(beats, mask);
        }
        vec![select(e, beats, element, state[0]), select(e, beats, position, state[1])]
    }

    /// The state of two parts of the elements; of equal elements the first position counts.
    pub(super) fn merge(self, e: &mut Emitter, a: &[Value], b: &[Value]) -> Vec<Value> {
        if let Some(op) = merge_op(self.op) {
            return vec![ops::binary(e, op, self.element, a[0], b[0])];
        }
        let b_beats = self.beats(e, b[0], a[0]);
        let a_beats = self.beats(e, a[0], b[0]);
        let earlier = e.b.ins().icmp(IntCC::SignedLessThan, b[1], a[1]);
        let tie = e.b.ins().band_not(earlier, a_beats);
        let take = e.b.ins().bor(b_beats, tie);
        vec![select(e, take, b[0], a[0]), select(e, take, b[1], a[1])]
    }

    /// The result over the lanes of a state of vectors.
    pub(super) fn across(self, e: &mut Emitter, state: &[Value]) -> Value {
        let mut state = state.to_vec();
        for picks in [[2, 3, 0, 1], [1, 0, 3, 2]] {
            let other: Vec<Value> = state.iter().map(|&v| load::shuffle(e, v, v, picks)).collect();
            state = self.merge(e, &state, &other);
        }
        let result = *state.last().expect("a fold has a state");
        let dtype = if self.op.is_position() { DType::I32 } else { self.element };
        load::extract(e, dtype, result, 0)
    }

    /// An element in a type that has an order: truth values become numbers.
    fn comparable(self, e: &mut Emitter, element: Value) -> Value {
        match self.element {
            DType::Bool => ops::cast(e, DType::Bool, DType::I32, element),
            _ => element,
        }
    }

    /// Whether `x` is better than `best`; NaN is better than any number.
    fn beats(self, e: &mut Emitter, x: Value, best: Value) -> Value {
        let (a, b) = if self.op == FoldOp::ArgMax { (best, x) } else { (x, best) };
        if self.element != DType::F32 {
            return e.b.ins().icmp(IntCC::SignedLessThan, a, b);
        }
        let better = e.b.ins().fcmp(FloatCC::LessThan, a, b);
        let nan = e.b.ins().fcmp(FloatCC::Unordered, x, x);
        let number = e.b.ins().fcmp(FloatCC::Ordered, best, best);
        let first_nan = e.b.ins().band(nan, number);
        e.b.ins().bor(better, first_nan)
    }
}
