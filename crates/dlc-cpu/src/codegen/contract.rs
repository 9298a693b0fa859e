//! Contractions: the loops of a [`ContractSchedule`].
//!
//! Every algorithm ends in the same way: the sums at a point are given to the stores as
//! `Expr::Folded`. [`Algorithm::Tiled`] packs both operands, lets a leaf compute a block of sums
//! in the worker's own workspace, and then walks over the block once for the stores.

mod bands;
mod ends;
mod panels;
mod tiled;

use super::expr::{Evaluator, Lanes, Val};
use super::nest::{Point, Run};
use super::{Emitter, LANES, NOTRAP, Part, Phase, When, emit, load, stretch};
use crate::schedule::contract::{Algorithm, ContractSchedule, Ends, Stage, div_ceil};
use crate::schedule::domain::AxisSet;
use cranelift_codegen::ir::types::{F32, F32X4, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{Axis, BufferId, DType, Expr, ExprId, OptLevel};

/// The code of a contraction, phase by phase.
pub fn phases(schedule: &ContractSchedule, frontend: TargetFrontendConfig) -> Vec<Phase> {
    let contraction = Contraction { schedule };
    let phase = |stage| {
        let when = if schedule.is_at_load(stage) { When::Load } else { When::Call };
        let loops = Some(schedule.loops(stage));
        Phase { when, loops, parts: vec![contraction.part(stage, frontend)] }
    };
    schedule.stages().into_iter().map(phase).collect()
}

/// Writes the parts of one contraction.
pub(super) struct Contraction<'s, 'k> {
    pub(super) schedule: &'s ContractSchedule<'k>,
}

/// Where a body of [`Contraction::for_points`] stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Steps from the start of the run.
    pub at: Value,
    /// Points evaluated at once, 1 or 4.
    pub lanes: i64,
    /// Which vector of an unrolled loop it is.
    pub part: usize,
}

impl Contraction<'_, '_> {
    fn part(&self, stage: Stage, frontend: TargetFrontendConfig) -> Part {
        let s = self.schedule;
        let operands = self.operands(stage);
        let code = emit(s.config, frontend, &operands, |e| self.stage(e, stage));
        let unit_cost = s.unit_cost(stage) as f64 / 12.0;
        Part { code, operands, units: s.units(stage), unit_cost }
    }

    /// The buffers that the code of a stage names.
    fn operands(&self, stage: Stage) -> Vec<BufferId> {
        let s = self.schedule;
        let mut roots = Vec::new();
        let mut found: Vec<BufferId> = Vec::new();
        match stage {
            Stage::Pack(which) => roots.push(s.side(which).operand),
            _ => {
                roots.extend([s.rows.operand, s.columns.operand]);
                roots.extend(s.stores.iter().map(|store| store.value));
                found.extend(s.stores.iter().map(|store| store.buffer));
            }
        }
        found.extend(s.domain.reachable(&roots).iter().filter_map(
            |&id| match s.domain.exprs.get(id) {
                Expr::Load { buffer, .. } => Some(*buffer),
                _ => None,
            },
        ));
        let mut known = rustc_hash::FxHashSet::default();
        found.retain(|&buffer| known.insert(buffer));
        found
    }

    fn stage(&self, e: &mut Emitter, stage: Stage) {
        let (begin, end) = (e.begin, e.end);
        match (&self.schedule.algorithm, stage) {
            (Algorithm::Plain, _) => e.for_each(begin, end, 1, |e, unit| self.plain(e, unit)),
            (Algorithm::Dot, _) => self.dots(e, begin, end),
            (Algorithm::Sweep(run), _) => {
                e.for_each(begin, end, 1, |e, unit| self.sweep(e, *run, unit));
            }
            (Algorithm::Tiled(t), Stage::Pack(which)) => {
                e.for_each(begin, end, 1, |e, unit| self.pack_whole(e, t, which, unit));
            }
            (Algorithm::Tiled(t), Stage::Sum) => {
                self.for_blocks(e, |e, unit| self.sum_block(e, t, unit));
            }
            (Algorithm::Tiled(t), Stage::Finish) => {
                e.for_each(begin, end, 1, |e, unit| self.finish_row(e, t, unit));
            }
        }
    }

    /// `body` for every block of this call. At every second step of a loop the last one comes first:
    /// operands that are the same at all steps are then used before the caches lose them.
    fn for_blocks(&self, e: &mut Emitter, body: impl FnOnce(&mut Emitter, Value)) {
        let (begin, end, s) = (e.begin, e.end, self.schedule);
        if s.step_count() == 1 {
            return e.for_each(begin, end, 1, body);
        }
        let of_a_step = (s.units(Stage::Sum) / s.step_count().max(1)).max(1);
        let step = e.divide(begin, of_a_step).0;
        let is_odd = e.b.ins().band_imm_s(step, 1);
        let both = e.b.ins().iadd(begin, end);
        e.for_each(begin, end, 1, |e, unit| {
            let mirrored = e.b.ins().isub(both, unit);
            let mirrored = e.b.ins().iadd_imm_s(mirrored, -1);
            let unit = e.b.ins().select(is_odd, mirrored, unit);
            body(e, unit);
        });
    }

    pub(super) fn origin(&self, e: &mut Emitter) -> Point {
        e.origin(self.schedule.domain.extents.len())
    }

    fn evaluator(&self, point: &Point) -> Evaluator<'_> {
        let mut ev = Evaluator::new(&self.schedule.domain);
        for (axis, &value) in point.iter().enumerate() {
            ev.set_axis(Axis(axis as u32), value);
        }
        ev
    }

    /// `body` for every point of a run along an axis: vectors first, as many in one round as
    /// `rounds` says (in points, descending), then single points.
    pub(super) fn for_points(
        &self,
        e: &mut Emitter,
        roots: &[ExprId],
        point: &Point,
        (axis, run): (Axis, Run),
        rounds: &[i64],
        mut body: impl FnMut(&mut Emitter, &mut Evaluator, Step),
    ) {
        let all = AxisSet::range(0, point.len());
        let others = AxisSet(all.0 & !AxisSet::of(axis).0);
        let mut ev = self.evaluator(point);
        let mut from = run.start;
        let vectors = self.schedule.config.opt_level != OptLevel::O0;
        let rounds = if vectors { rounds } else { &[] };
        for &points in rounds.iter().chain(&[1]) {
            let lanes = points.min(LANES);
            ev.set_lanes((lanes == LANES).then_some(Lanes {
                axis,
                active: LANES as u8,
                multiple_of: 1,
            }));
            ev.enter();
            ev.hoist(e, roots, others);
            let left = e.b.ins().isub(run.end, from);
            let whole = e.b.ins().band_imm_s(left, -points);
            let to = e.b.ins().iadd(from, whole);
            e.for_each(from, to, points, |e, first| {
                for part in 0..(points / lanes) as usize {
                    let v = e.b.ins().iadd_imm_s(first, lanes * part as i64);
                    ev.enter();
                    ev.set_axis(axis, v);
                    let at = e.b.ins().isub(v, run.start);
                    body(e, &mut ev, Step { at, lanes, part });
                    ev.leave();
                }
            });
            ev.leave();
            from = to;
        }
    }

    /// Makes the stores at a point or vector that has these sums.
    fn store(&self, e: &mut Emitter, ev: &mut Evaluator, sums: &[Val]) {
        let s = self.schedule;
        for (id, expr) in s.domain.exprs.iter() {
            if let Expr::Folded(k) = expr {
                ev.define(id, sums[*k as usize]);
            }
        }
        for store in &s.stores {
            load::store(ev, e, store.buffer, &store.place, store.value);
        }
    }

    fn values(&self) -> Vec<ExprId> {
        self.schedule.stores.iter().map(|store| store.value).collect()
    }

    /// One point of the output, term by term.
    fn plain(&self, e: &mut Emitter, unit: Value) {
        let s = self.schedule;
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.out, unit);
        let sum = |k| {
            let k = e.int(k);
            e.set_axes(&mut point, &s.sums, k);
            Val::Uniform(self.plain_sum(e, &point))
        };
        let sums: Vec<Val> = (0..s.sums.points()).map(sum).collect();
        let mut ev = self.evaluator(&point);
        self.store(e, &mut ev, &sums);
    }

    /// One sum, term by term.
    fn plain_sum(&self, e: &mut Emitter, point: &Point) -> Value {
        let s = self.schedule;
        let (lhs, rhs) = (s.rows.operand, s.columns.operand);
        let dtype = s.domain.exprs.dtype(lhs);
        let zero = if dtype == DType::F32 { e.float(0.0) } else { e.b.ins().iconst(I32, 0) };
        let (first, end) = (e.int(0), e.int(s.depth.points()));
        let sum = e.fold(first, end, 1, &[zero], |e, k, sum| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.depth, k);
            let mut ev = self.evaluator(&point);
            let (x, y) = (ev.scalar(e, lhs), ev.scalar(e, rhs));
            if dtype == DType::F32 {
                return vec![e.multiply_add(x, y, sum[0])];
            }
            let product = e.b.ins().imul(x, y);
            vec![e.b.ins().iadd(sum[0], product)]
        });
        if dtype == DType::U8 { e.b.ins().band_imm_u(sum[0], 255) } else { sum[0] }
    }

    /// Some points of the output, one by one, of each line up to its tail.
    fn dots(&self, e: &mut Emitter, begin: Value, end: Value) {
        let s = self.schedule;
        let mut origin = self.origin(e);
        let Some(Ends { tail, .. }) = &s.reach.points else {
            return e.for_each(begin, end, 1, |e, unit| {
                e.set_axes(&mut origin, &s.out, unit);
                self.dot(e, &origin);
            });
        };
        e.for_runs(&s.out, &origin, begin, end, |e, point, run| {
            let (axis, mut point) = (tail.axis.0 as usize, point.clone());
            point[axis] = e.int(0);
            let kept = e.before_tail(tail, &point, (run.start, run.end));
            e.store_tail(tail, &s.stores, &point, (kept, run.end));
            e.for_each(run.start, kept, 1, |e, at| {
                point[axis] = at;
                self.dot(e, &point);
            });
        });
    }

    /// One point of the output, with its sum if that is needed.
    fn dot(&self, e: &mut Emitter, point: &Point) {
        let mut ev = self.evaluator(point);
        let sum = match self.schedule.reach.needed {
            None => self.dot_sum(e, point),
            Some(mask) => {
                let mask = ev.scalar(e, mask);
                let sum = |e: &mut Emitter| vec![self.dot_sum(e, point)];
                e.choose(mask, sum, |e| vec![e.float(0.0)])[0]
            }
        };
        self.store(e, &mut ev, &[Val::Uniform(sum)]);
    }

    /// One sum, a vector of partial sums along the depth.
    fn dot_sum(&self, e: &mut Emitter, point: &Point) -> Value {
        let s = self.schedule;
        let (lhs, rhs) = (s.rows.operand, s.columns.operand);
        let sums: [_; 4] = std::array::from_fn(|_| e.b.declare_var(F32X4));
        let rest = e.b.declare_var(F32);
        let zeros = e.floats(0.0);
        sums.iter().for_each(|&sum| e.b.def_var(sum, zeros));
        let zero = e.float(0.0);
        e.b.def_var(rest, zero);
        let (first, end) = (e.int(0), e.int(s.depth.points()));
        let axis = s.depth.last().expect("a dot product is along an axis");
        e.for_runs(&s.depth, point, first, end, |e, point, run| {
            self.for_points(
                e,
                &[lhs, rhs],
                point,
                (axis, run),
                &[4 * LANES, LANES],
                |e, ev, step| {
                    let (x, y, sum) = match step.lanes {
                        1 => (ev.scalar(e, lhs), ev.scalar(e, rhs), rest),
                        _ => (ev.vector(e, lhs), ev.vector(e, rhs), sums[step.part]),
                    };
                    let before = e.b.use_var(sum);
                    let after = e.multiply_add(x, y, before);
                    e.b.def_var(sum, after);
                },
            );
        });
        let (sums, rest) = (sums.map(|sum| e.b.use_var(sum)), e.b.use_var(rest));
        add_all(e, sums, rest)
    }

    /// A run of columns, summed in this worker's workspace.
    fn sweep(&self, e: &mut Emitter, length: i64, unit: Value) {
        let s = self.schedule;
        let axis = s.columns.axes.last().expect("a sweep is along an axis");
        let extent = s.columns.axes.last_extent();
        let (row, chunk) = e.divide(unit, div_ceil(extent, length));
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.without(axis), row);
        let start = e.b.ins().imul_imm_s(chunk, length);
        let limit = e.int(extent);
        let end = e.b.ins().iadd_imm_s(start, length);
        let end = e.b.ins().smin(end, limit);
        let along = (axis, Run { flat: start, start, end });
        let sums = e.scratch();
        self.for_points(e, &[], &point, along, &[LANES], |e, _, step| {
            let zero = if step.lanes == 1 { e.float(0.0) } else { e.floats(0.0) };
            let to = e.add_scaled(sums, step.at, 4);
            e.b.ins().store(NOTRAP, zero, to, 0);
        });
        let (first, terms) = (e.int(0), e.int(s.depth.points()));
        let last = match &s.reach.terms {
            Some(Ends { tail, .. }) => e.before_tail(tail, &point, (first, terms)),
            None => terms,
        };
        e.for_each(first, last, 1, |e, k| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.depth, k);
            self.sweep_term(e, &point, along, sums);
        });
        self.store_run(e, &point, along, sums);
    }

    /// Adds one term of the depth to a run of sums.
    fn sweep_term(&self, e: &mut Emitter, point: &Point, along: (Axis, Run), sums: Value) {
        let (lhs, rhs) = (self.schedule.rows.operand, self.schedule.columns.operand);
        self.for_points(e, &[lhs, rhs], point, along, &[LANES], |e, ev, step| {
            let at = e.add_scaled(sums, step.at, 4);
            let (x, y, ty) = match step.lanes {
                1 => (ev.scalar(e, lhs), ev.scalar(e, rhs), F32),
                _ => (ev.vector(e, lhs), ev.vector(e, rhs), F32X4),
            };
            let before = e.b.ins().load(ty, NOTRAP, at, 0);
            let after = e.multiply_add(x, y, before);
            e.b.ins().store(NOTRAP, after, at, 0);
        });
    }

    /// The stores of a run of columns whose sums begin at `sums`.
    fn store_run(&self, e: &mut Emitter, point: &Point, (axis, run): (Axis, Run), sums: Value) {
        let s = self.schedule;
        if let Some(leaf) = &s.ending {
            let room = room_of(e, run, sums);
            let count = e.b.ins().isub(run.end, run.start);
            stretch::call_in(e, &mut self.evaluator(point), leaf, room, [run.start, count]);
            return;
        }
        let distance = s.bundle.map_or(0, |bundle| 4 * bundle.points);
        let values = self.values();
        self.for_points(e, &values, point, (axis, run), &[LANES], |e, ev, step| {
            let at = e.add_scaled(sums, step.at, 4);
            let mut sum = |k: i64| {
                let at = e.b.ins().iadd_imm_s(at, k * distance);
                match step.lanes {
                    1 => Val::Uniform(e.b.ins().load(F32, NOTRAP, at, 0)),
                    _ => Val::Varying(e.b.ins().load(F32X4, NOTRAP, at, 0)),
                }
            };
            let sums: Vec<Val> = (0..s.sums.points()).map(&mut sum).collect();
            self.store(e, ev, &sums);
        });
    }
}

/// Where a leaf's scratch room begins that has the sums of a run at `sums`.
fn room_of(e: &mut Emitter, run: Run, sums: Value) -> Value {
    let before = e.b.ins().ineg(run.start);
    e.add_scaled(sums, before, 4)
}

/// The sum of all lanes and `rest`.
fn add_all(e: &mut Emitter, [a, b, c, d]: [Value; 4], rest: Value) -> Value {
    let (ab, cd) = (e.b.ins().fadd(a, b), e.b.ins().fadd(c, d));
    let lanes = e.b.ins().fadd(ab, cd);
    (0..4).fold(rest, |sum, lane| {
        let lane = e.b.ins().extractlane(lanes, lane);
        e.b.ins().fadd(sum, lane)
    })
}
