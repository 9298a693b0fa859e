//! Row kernels: folds, and stores that use them.

use super::expr::{Evaluator, Lanes, Val};
use super::fold::{Reducer, merge_all};
use super::map::set_axes;
use super::tail::kept;
use super::{Emitter, LANES, NOTRAP, Part, Phase, When, abreast, emit, load, stretch};
use crate::schedule::domain::{AxisSet, Linear, strides};
use crate::schedule::row::{Pass, RowFold, RowLanes, RowSchedule};
use crate::schedule::stretch::Stretch;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32X4;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{Axis, Expr, ExprId};
use std::ops::Range;

/// The code of a row kernel: one phase, or more where rows are cut.
pub fn phases(schedule: &RowSchedule, frontend: TargetFrontendConfig) -> Vec<Phase> {
    let operands = schedule.operands();
    let rows = Rows { schedule };
    let phase = |units, unit_cost, emit_rows: &dyn Fn(&mut Emitter)| {
        let code = emit(schedule.config, frontend, &operands, emit_rows);
        Phase {
            when: When::Call,
            loops: None,
            parts: vec![Part { code, operands: operands.clone(), units, unit_cost }],
        }
    };
    if let Some((abreast, blocks)) = schedule.abreast.as_ref().zip(schedule.blocks()) {
        let evaluator = || Evaluator::new(&schedule.domain);
        let walk = |walks: &Range<usize>| {
            let cost = schedule.cost_of(&schedule.passes[walks.clone()]);
            phase(blocks.count, cost, &|e| {
                abreast::emit_blocks(e, &mut evaluator(), schedule, (abreast, blocks), walks);
            })
        };
        let mut phases: Vec<Phase> = blocks.phases.iter().map(walk).collect();
        if abreast.last.is_some() {
            phases.push(phase(1, 0.0, &|e| {
                abreast::emit_last(e, &mut evaluator(), schedule, (abreast, blocks));
            }));
        }
        return phases;
    }
    let mut phases = vec![phase(schedule.units(), schedule.unit_cost(), &|e| rows.emit(e))];
    if schedule.chunks > 1 {
        let cost = 2.0 * schedule.chunks as f64;
        phases.push(phase(schedule.rows(), cost, &|e| rows.emit_merge(e)));
    }
    phases
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
            match (schedule.outer_lanes(), &schedule.abreast) {
                (None, _) => self.emit_row(e, &mut ev),
                (Some(_), Some(abreast)) => {
                    abreast::emit(e, &mut ev, schedule, abreast, point[loops.len()]);
                }
                (Some(axis), None) => {
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

    /// All steps of a row, or of one row for each lane; of a chunk, its folds.
    fn emit_row(&self, e: &mut Emitter, ev: &mut Evaluator<'s>) {
        if self.schedule.chunks > 1 {
            return self.emit_chunk(e, ev);
        }
        let kept = self.schedule.tail.as_ref().map(|tail| kept(e, ev, self.schedule, tail));
        for pass in &self.schedule.passes {
            for (fold, result) in pass.folds.iter().zip(self.emit_pass(e, ev, pass, kept)) {
                self.define(e, ev, fold.step, result);
            }
        }
        self.store_row(e, ev);
    }

    fn store_row(&self, e: &mut Emitter, ev: &mut Evaluator<'s>) {
        for store in &self.schedule.stores {
            load::store(ev, e, store.buffer, &store.place, store.value);
        }
    }

    /// Folds a chunk and leaves the results in the shared workspace.
    fn emit_chunk(&self, e: &mut Emitter, ev: &mut Evaluator<'s>) {
        let [pass] = &self.schedule.passes[..] else { panic!("chunks are walked over once") };
        let results = self.emit_pass(e, ev, pass, None);
        for (at, (fold, result)) in pass.folds.iter().zip(results).enumerate() {
            let chunk = ev.axis(Axis(self.schedule.row_axes() as u32));
            let lanes = ev.lanes();
            for lane in 0..lanes.map_or(1, |l| l.active) {
                let mut row = self.row_index(e, ev, lane);
                row = e.add_scaled(row, chunk, self.schedule.rows());
                let address = self.result_address(e, at, row);
                let dtype = ev.domain.exprs.dtype(fold.value);
                let value = match lanes {
                    Some(_) => load::extract(e, dtype, result, lane),
                    None => result,
                };
                e.b.ins().store(NOTRAP, value, address, 0);
            }
        }
    }

    /// Merges the chunks of every row in order, and makes the stores.
    fn emit_merge(&self, e: &mut Emitter) {
        let schedule = self.schedule;
        let mut ev = Evaluator::new(&schedule.domain);
        let axes: Vec<Axis> = (0..schedule.row_axes() as u32).map(Axis).collect();
        let extents: Vec<i64> = axes.iter().map(|&a| schedule.extent(a)).collect();
        e.for_units(&extents, |e, point| {
            ev.enter();
            set_axes(&mut ev, &axes, point);
            let row = self.row_index(e, &ev, 0);
            for (at, fold) in schedule.folds().into_iter().enumerate() {
                let merged = self.merge_chunks(e, at, fold, row);
                self.define(e, &mut ev, fold.step, merged);
            }
            self.store_row(e, &mut ev);
            ev.leave();
        });
    }

    fn merge_chunks(&self, e: &mut Emitter, at: usize, fold: RowFold, row: Value) -> Value {
        let schedule = self.schedule;
        let reducer = self.reducer(fold);
        let initial = reducer.initial(e, false);
        let ty = e.b.func.dfg.value_type(initial[0]);
        let merged = e.repeat(0, schedule.chunks, 1, &initial, |e, chunk, state| {
            let position = e.add_scaled(row, chunk, schedule.rows());
            let address = self.result_address(e, at, position);
            let next = e.b.ins().load(ty, NOTRAP, address, 0);
            reducer.merge(e, state, &[next])
        });
        merged[0]
    }

    /// The row-major number of the row at a lane.
    fn row_index(&self, e: &mut Emitter, ev: &Evaluator, lane: u8) -> Value {
        let extents = &self.schedule.domain.extents[..self.schedule.row_axes()];
        let axes = (0..extents.len() as u32).map(Axis);
        let linear = Linear { terms: axes.zip(strides(extents)).collect(), offset: 0 };
        let row = ev.linear(e, &linear);
        let step = ev.lanes().map_or(0, |l| linear.coef(l.axis) * i64::from(lane));
        e.b.ins().iadd_imm_s(row, step)
    }

    /// Where the result of fold `at` for a row of a chunk is.
    fn result_address(&self, e: &mut Emitter, at: usize, position: Value) -> Value {
        let shared = e.shared();
        let first = at as i64 * self.schedule.chunks * self.schedule.rows();
        let base = e.b.ins().iadd_imm_s(shared, 4 * first);
        e.add_scaled(base, position, 4)
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

    /// Walks over a row, or what is `kept` of it; gives the results of the folds.
    fn emit_pass(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        pass: &Pass,
        kept: Option<Value>,
    ) -> Vec<Value> {
        if let Some(stretch) = &pass.stretch {
            let count = kept.unwrap_or_else(|| e.int(self.schedule.extent(stretch.axis)));
            return self.emit_stretches(e, ev, pass, stretch, count);
        }
        let vectors = self.schedule.lanes != RowLanes::None;
        let reducers: Vec<Reducer> = pass.folds.iter().map(|f| self.reducer(*f)).collect();
        let states: Vec<Vec<Value>> = reducers.iter().map(|r| r.initial(e, vectors)).collect();
        let initial = states.concat().repeat(pass.accumulators);
        let width = states.concat().len();
        let folded = if self.schedule.row_points() == 0 {
            initial
        } else {
            self.for_points(e, ev, pass, initial, &mut |e, ev, at, mut state| {
                let next = self.emit_point(e, ev, pass, &state[at * width..][..width]);
                state.splice(at * width..(at + 1) * width, next);
                state
            })
        };
        let mut start = 0;
        let mut results = Vec::new();
        for (reducer, state) in reducers.iter().zip(&states) {
            let own = |all: &[Value]| all[start..start + state.len()].to_vec();
            let parts: Vec<Vec<Value>> = folded.chunks(width).map(own).collect();
            let merged = merge_all(e, *reducer, parts);
            results.push(match self.schedule.lanes {
                RowLanes::Inner(_) => reducer.across(e, &merged),
                _ => *merged.last().expect("a fold has a state"),
            });
            start += state.len();
        }
        results
    }

    /// [`Rows::emit_pass`] by a leaf, which is called once for each point of the other inner axes, but
    /// those of its lines.
    fn emit_stretches(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        pass: &Pass,
        stretch: &Stretch,
        count: Value,
    ) -> Vec<Value> {
        let start = e.int(0);
        let mut loops = self.schedule.inner_loops();
        loops.retain(|&axis| stretch.lines != Some(axis));
        let extents: Vec<i64> = loops.iter().map(|&a| self.schedule.extent(a)).collect();
        let call = |e: &mut Emitter, ev: &mut Evaluator<'s>| match stretch.lines {
            Some(axis) => {
                let lines = [start, e.int(self.schedule.extent(axis))];
                stretch::call_lines(e, ev, stretch, [start, count], lines)
            }
            None => stretch::call(e, ev, stretch, [start, count]),
        };
        if extents.is_empty() {
            return call(e, ev);
        }
        let reducers: Vec<Reducer> = pass.folds.iter().map(|f| self.reducer(*f)).collect();
        let initial = reducers.iter().flat_map(|r| r.initial(e, false)).collect::<Vec<_>>();
        let points = extents.iter().product();
        e.repeat(0, points, 1, &initial, |e, position, states| {
            let point = e.coordinates(position, &extents);
            ev.enter();
            set_axes(ev, &loops, &point);
            let found = call(e, ev);
            ev.leave();
            let merge = |((r, &a), b): ((&Reducer, &Value), Value)| r.merge(e, &[a], &[b])[0];
            reducers.iter().zip(states).zip(found).map(merge).collect()
        })
    }

    fn reducer(&self, fold: RowFold) -> Reducer {
        Reducer { op: fold.op, element: self.schedule.domain.exprs.dtype(fold.value) }
    }

    /// One accumulator of each fold after the current point or vector, which is also stored.
    fn emit_point(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        pass: &Pass,
        state: &[Value],
    ) -> Vec<Value> {
        let mut rest = state;
        let mut next = Vec::new();
        for fold in &pass.folds {
            let own;
            (own, rest) = rest.split_at(if fold.op.is_position() { 2 } else { 1 });
            next.extend(self.fold_in(e, ev, *fold, own));
        }
        for store in &pass.stores {
            load::store(ev, e, store.buffer, &store.place, store.value);
        }
        next
    }

    /// The state of a fold after the current point or vector.
    fn fold_in(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        fold: RowFold,
        state: &[Value],
    ) -> Vec<Value> {
        let reducer = self.reducer(fold);
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

    /// `body` at every point of a row, or at every vector of it; it is told which accumulator's turn
    /// it is.
    fn for_points(
        &self,
        e: &mut Emitter,
        ev: &mut Evaluator<'s>,
        pass: &Pass,
        state: Vec<Value>,
        body: Body<'_, 's>,
    ) -> Vec<Value> {
        let known = self.schedule.outer_set().union(AxisSet::FOLDED);
        let loops = self.schedule.inner_loops();
        let roots = pass.roots();
        let nest = Nest { rows: self, roots: &roots, accumulators: pass.accumulators };
        match self.schedule.lanes {
            RowLanes::Inner(axis) => {
                let lanes = Lanes { axis, active: 4, multiple_of: LANES };
                ev.enter();
                ev.set_lanes(Some(lanes));
                ev.hoist(e, &roots, known);
                let state = nest.emit(e, ev, &loops, known, state, body);
                ev.leave();
                ev.set_lanes(None);
                state
            }
            _ => {
                ev.enter();
                ev.hoist(e, &roots, known);
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
    roots: &'r [ExprId],
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
                ev.hoist(e, self.roots, known);
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
