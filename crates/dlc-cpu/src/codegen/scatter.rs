//! Scatters: points update elements of the destination in row-major order of the domain.

use super::expr::Evaluator;
use super::load::{all_hold, lane_value, load_scalar, place_offset, place_offset_or, store_scalar};
use super::map::set_axes;
use super::{Emitter, LANES, NOTRAP, Part, emit, ops, stretch};
use crate::schedule::scatter::{Lines, ScatterSchedule};
use cranelift_codegen::ir::types::{F32X4, I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{Axis, BinaryOp, ScatterMode};

/// The code of a scatter.
pub fn part(schedule: &ScatterSchedule, frontend: TargetFrontendConfig) -> Part {
    let operands = schedule.operands();
    let code = emit(schedule.config, frontend, &operands, |e| emit_scatter(e, schedule));
    Part { code, operands, units: schedule.units(), unit_cost: schedule.unit_cost() }
}

fn emit_scatter(e: &mut Emitter, schedule: &ScatterSchedule) {
    let (begin, end) = (e.begin, e.end);
    e.for_each(begin, end, 1, |e, unit| match &schedule.lines {
        Some(lines) => emit_lines(e, schedule, lines, unit),
        None => emit_points(e, schedule, unit),
    });
}

/// A step, point by point.
fn emit_points(e: &mut Emitter, schedule: &ScatterSchedule, step: Value) {
    let bytes = schedule.dtype.bytes() as i64;
    if schedule.mode == ScatterMode::Add {
        let base = step_base(e, schedule, step);
        clear(e, base, schedule.elements * bytes);
    }
    let axes = schedule.axes();
    for_points(e, schedule, &axes, step, |e, ev| {
        // What is computed only where there is an update is not known after it.
        ev.value(e, schedule.value);
        let value = lane_value(ev, e, schedule.value, None);
        update(e, ev, schedule, |e, _, address| {
            let new = match schedule.mode {
                ScatterMode::Add => {
                    let old = load_scalar(e, schedule.dtype, address);
                    ops::binary(e, BinaryOp::Add, schedule.dtype, old, value)
                }
                ScatterMode::Overwrite => value,
            };
            store_scalar(e, schedule.dtype, new, address);
        });
    });
}

/// Some columns of a step, line by line.
fn emit_lines(e: &mut Emitter, schedule: &ScatterSchedule, lines: &Lines, unit: Value) {
    let (step, block) = e.divide(unit, lines.units());
    let first = e.b.ins().imul_imm_s(block, lines.columns);
    let (length, columns) = (e.int(lines.length), e.int(lines.columns));
    let left = e.b.ins().isub(length, first);
    let count = e.b.ins().smin(left, columns);
    if schedule.mode == ScatterMode::Add {
        let base = step_base(e, schedule, step);
        clear_columns(e, base, (schedule.elements, lines.length), (first, count));
    }
    let mut axes = schedule.axes();
    axes.pop();
    for_points(e, schedule, &axes, step, |e, ev| {
        let zero = e.int(0);
        ev.set_axis(lines.leaf.axis, zero);
        update(e, ev, schedule, |e, ev, line| {
            stretch::call_in(e, ev, &lines.leaf, line, [first, count]);
        });
    });
}

/// The points of a step along `axes`, its first ones.
fn for_points(
    e: &mut Emitter,
    schedule: &ScatterSchedule,
    axes: &[Axis],
    step: Value,
    body: impl FnOnce(&mut Emitter, &mut Evaluator),
) {
    let mut ev = Evaluator::new(&schedule.domain);
    let extents = &schedule.domain.extents[..axes.len()];
    if axes.is_empty() {
        return body(e, &mut ev);
    }
    let points = extents.iter().product::<i64>() / schedule.steps.max(1);
    let first = e.b.ins().imul_imm_s(step, points);
    let last = e.b.ins().iadd_imm_s(first, points);
    e.for_points(first, last, extents, |e, point| {
        ev.enter();
        set_axes(&mut ev, axes, point);
        body(e, &mut ev);
        ev.leave();
    });
}

/// Finds where the update at a point goes, and makes it there, if that is inside.
fn update(
    e: &mut Emitter,
    ev: &mut Evaluator,
    schedule: &ScatterSchedule,
    make: impl FnOnce(&mut Emitter, &mut Evaluator, Value),
) {
    let place = &schedule.place;
    place.found.iter().for_each(|found| _ = ev.value(e, found.index));
    let inside = all_hold(ev, e, &place.checks, None);
    let (offset, inside) = match schedule.mode {
        ScatterMode::Add => place_offset(ev, e, place, None, inside),
        ScatterMode::Overwrite => place_offset_or(ev, e, place, None, (inside, |_, _, _, _| {})),
    };
    let base = e.base(schedule.buffer);
    let address = e.add_scaled(base, offset, schedule.dtype.bytes() as i64);
    let inside = inside.unwrap_or_else(|| e.b.ins().iconst(I8, 1));
    e.when(inside, |e| make(e, ev, address));
}

/// Where the destination of a step begins.
fn step_base(e: &mut Emitter, schedule: &ScatterSchedule, step: Value) -> Value {
    let base = e.base(schedule.buffer);
    e.add_scaled(base, step, schedule.elements * schedule.dtype.bytes() as i64)
}

/// Sets some columns of all lines to 0; elements are of four bytes.
fn clear_columns(
    e: &mut Emitter,
    base: Value,
    (elements, length): (i64, i64),
    (first, count): (Value, Value),
) {
    let (start, lines) = (e.int(0), e.int(elements / length.max(1)));
    let whole = e.b.ins().band_imm_s(count, -LANES);
    e.for_each(start, lines, 1, |e, line| {
        let line = e.add_scaled(base, line, 4 * length);
        let line = e.add_scaled(line, first, 4);
        e.for_each(start, whole, LANES, |e, at| {
            let zero = e.lanes([0; 4], F32X4);
            let address = e.add_scaled(line, at, 4);
            e.b.ins().store(NOTRAP, zero, address, 0);
        });
        e.for_each(whole, count, 1, |e, at| {
            let zero = e.b.ins().iconst(I32, 0);
            let address = e.add_scaled(line, at, 4);
            e.b.ins().store(NOTRAP, zero, address, 0);
        });
    });
}

/// Sets `bytes` bytes to 0, and the padding after them.
fn clear(e: &mut Emitter, base: Value, bytes: i64) {
    let (from, to) = (e.int(0), e.int(bytes));
    e.for_each(from, to, 16, |e, at| {
        let zero = e.lanes([0; 4], F32X4);
        let address = e.b.ins().iadd(base, at);
        e.b.ins().store(NOTRAP, zero, address, 0);
    });
}
