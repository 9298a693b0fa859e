//! Maps: one function for each segment.

use super::crossed::emit_crossed;
use super::expr::{Evaluator, Lanes};
use super::{Emitter, Part, emit, load, stretch};
use crate::schedule::domain::AxisSet;
use crate::schedule::map::{FLAT_UNIT, MapSchedule, MapShape, Tail};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::Axis;

/// The code of one segment.
pub fn part(schedule: &MapSchedule, frontend: TargetFrontendConfig) -> Part {
    let operands = schedule.operands();
    let code = emit(schedule.config, frontend, &operands, |e| emit_map(e, schedule));
    Part { code, operands, units: schedule.units(), unit_cost: schedule.unit_cost() }
}

fn emit_map(e: &mut Emitter, schedule: &MapSchedule) {
    let mut ev = Evaluator::new(&schedule.domain);
    match &schedule.shape {
        MapShape::Flat => emit_flat(e, &mut ev, schedule),
        MapShape::Crossed(crossed) => emit_crossed(e, &mut ev, schedule, crossed),
        MapShape::Scalar => {
            let extents = schedule.domain.extents.clone();
            e.for_units(&extents, |e, point| {
                ev.enter();
                set_axes(&mut ev, &schedule.outer(), point);
                emit_point(e, &mut ev, schedule);
                ev.leave();
            });
        }
        &MapShape::Nested { lanes, block, tail } => {
            emit_nested(e, &mut ev, schedule, lanes, block, tail);
        }
    }
}

/// Units are stretches of the only axis.
fn emit_flat(e: &mut Emitter, ev: &mut Evaluator, schedule: &MapSchedule) {
    let lanes = Axis(0);
    let (begin, end) = (e.begin, e.end);
    let [first, last] = [begin, end].map(|unit| e.b.ins().imul_imm_s(unit, FLAT_UNIT));
    if let Some(leaf) = &schedule.stretch {
        let count = e.b.ins().isub(last, first);
        stretch::call(e, ev, leaf, [first, count]);
        return;
    }
    ev.set_lanes(Some(Lanes { axis: lanes, active: 4, multiple_of: 4 }));
    hoist(e, ev, schedule, AxisSet::default());
    e.for_each(first, last, 4, |e, i| emit_vector(e, ev, schedule, lanes, i));
}

/// Units are blocks of the lane axis, for every point of the others.
fn emit_nested(
    e: &mut Emitter,
    ev: &mut Evaluator,
    schedule: &MapSchedule,
    lanes: Axis,
    block: i64,
    tail: Tail,
) {
    let outer = schedule.outer();
    let extent = schedule.domain.extents[lanes.0 as usize];
    let blocks = schedule.blocks(block);
    let extents: Vec<i64> = outer
        .iter()
        .map(|&a| schedule.extent(a))
        .chain(schedule.line_blocks())
        .chain((blocks > 1).then_some(blocks))
        .collect();
    e.for_units(&extents, |e, point| {
        ev.enter();
        set_axes(ev, &outer, point);
        let start = match blocks {
            1 => e.int(0),
            _ => e.b.ins().imul_imm_s(point[point.len() - 1], block),
        };
        let stop = if blocks > 1 { e.b.ins().iadd_imm_s(start, block) } else { e.int(extent) };
        if let Some(leaf) = &schedule.stretch {
            let end = e.int(extent);
            let stop = if extent % block == 0 { stop } else { e.b.ins().smin(stop, end) };
            let count = e.b.ins().isub(stop, start);
            match schedule.lines.zip(leaf.lines) {
                Some((most, axis)) => {
                    let extent = schedule.extent(axis);
                    let lines = of_block(e, point[outer.len()], extent, most);
                    stretch::call_lines(e, ev, leaf, [start, count], lines)
                }
                None => stretch::call(e, ev, leaf, [start, count]),
            };
        } else {
            let multiple_of = if tail == Tail::Overlap { 1 } else { 4 };
            ev.set_lanes(Some(Lanes { axis: lanes, active: 4, multiple_of }));
            hoist(e, ev, schedule, axes_of(&outer));
            emit_run(e, ev, schedule, lanes, [start, stop], tail);
        }
        ev.leave();
    });
}

/// The first of the `most` points or lines of a block, of `extent` in all, and how many there are.
pub(super) fn of_block(e: &mut Emitter, block: Value, extent: i64, most: i64) -> [Value; 2] {
    let first = e.b.ins().imul_imm_s(block, most);
    let (all, most) = (e.int(extent), e.int(most));
    let left = e.b.ins().isub(all, first);
    [first, e.b.ins().smin(left, most)]
}

/// The points `start..stop` of the lane axis, as far as it goes.
fn emit_run(
    e: &mut Emitter,
    ev: &mut Evaluator,
    schedule: &MapSchedule,
    lanes: Axis,
    [start, stop]: [Value; 2],
    tail: Tail,
) {
    let extent = schedule.domain.extents[lanes.0 as usize];
    let whole = if tail == Tail::Overlap { extent } else { extent & !3 };
    let end = e.int(whole);
    let end = e.b.ins().smin(stop, end);
    if whole > 0 {
        e.for_each(start, end, 4, |e, i| {
            let last = e.int(extent - 4);
            let i = if tail == Tail::Overlap { e.b.ins().smin(i, last) } else { i };
            emit_vector(e, ev, schedule, lanes, i);
        });
    }
    if let Tail::Partial(active) = tail {
        let reached = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, stop, extent);
        e.when(reached, |e| {
            ev.enter();
            ev.set_lanes(Some(Lanes { axis: lanes, active, multiple_of: 4 }));
            let first = e.int(whole);
            emit_vector(e, ev, schedule, lanes, first);
            ev.leave();
        });
    }
}

fn emit_vector(e: &mut Emitter, ev: &mut Evaluator, schedule: &MapSchedule, lanes: Axis, i: Value) {
    ev.enter();
    ev.set_axis(lanes, i);
    emit_point(e, ev, schedule);
    ev.leave();
}

/// All values before any store: a store may overwrite what another value is loaded from.
fn emit_point(e: &mut Emitter, ev: &mut Evaluator, schedule: &MapSchedule) {
    for store in &schedule.stores {
        ev.value(e, store.value);
    }
    for store in &schedule.stores {
        load::store(ev, e, store.buffer, &store.place, store.value);
    }
}

/// Computes what only depends on `known` axes, unless it could fail where there is no point.
fn hoist(e: &mut Emitter, ev: &mut Evaluator, schedule: &MapSchedule, known: AxisSet) {
    ev.hoist(e, &schedule.roots(), known);
}

/// The set of some axes.
pub(super) fn axes_of(axes: &[Axis]) -> AxisSet {
    axes.iter().fold(AxisSet::default(), |s, &a| s.union(AxisSet::of(a)))
}

/// Sets axes to coordinates; further coordinates are ignored.
pub(super) fn set_axes(ev: &mut Evaluator, axes: &[Axis], point: &[Value]) {
    axes.iter().zip(point).for_each(|(&axis, &value)| ev.set_axis(axis, value));
}
