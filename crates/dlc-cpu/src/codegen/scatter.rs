//! Scatters: points update elements of the destination in row-major order of the domain.

use super::expr::Evaluator;
use super::load::{all_hold, lane_value, load_scalar, place_offset, place_offset_or, store_scalar};
use super::map::set_axes;
use super::{Emitter, NOTRAP, Part, emit, ops};
use crate::schedule::lanes;
use crate::schedule::scatter::ScatterSchedule;
use cranelift_codegen::ir::types::{F32X4, I8};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{BinaryOp, ScatterMode};

/// The code of a scatter: one unit for each step of the loops around.
pub fn part(schedule: &ScatterSchedule, frontend: TargetFrontendConfig) -> Part {
    let operands = schedule.operands();
    let code = emit(schedule.config, frontend, &operands, |e| emit_scatter(e, schedule));
    let each = lanes::vector_cost(&schedule.domain, &schedule.roots(), &[], None);
    let points = schedule.domain.points() as f64;
    let points = points / schedule.units.max(1) as f64;
    let unit_cost = lanes::nanoseconds(points * (each + 5.0));
    Part { code, operands, units: schedule.units, unit_cost }
}

fn emit_scatter(e: &mut Emitter, schedule: &ScatterSchedule) {
    let (begin, end) = (e.begin, e.end);
    let (units, bytes) = (schedule.units.max(1), schedule.dtype.bytes() as i64);
    e.for_each(begin, end, 1, |e, unit| {
        if schedule.mode == ScatterMode::Add {
            let base = e.base(schedule.buffer);
            let base = e.add_scaled(base, unit, schedule.elements * bytes);
            clear(e, base, schedule.elements * bytes);
        }
        let points = schedule.domain.points() / units;
        let first = e.b.ins().imul_imm_s(unit, points);
        let last = e.b.ins().iadd_imm_s(first, points);
        let (extents, axes) = (schedule.domain.extents.clone(), schedule.axes());
        let mut ev = Evaluator::new(&schedule.domain);
        e.for_points(first, last, &extents, |e, point| {
            ev.enter();
            set_axes(&mut ev, &axes, point);
            update(e, &mut ev, schedule);
            ev.leave();
        });
    });
}

fn update(e: &mut Emitter, ev: &mut Evaluator, schedule: &ScatterSchedule) {
    for id in schedule.roots() {
        ev.value(e, id);
    }
    let place = &schedule.place;
    let inside = all_hold(ev, e, &place.checks, None);
    let (offset, inside) = match schedule.mode {
        ScatterMode::Add => place_offset(ev, e, place, None, inside),
        ScatterMode::Overwrite => place_offset_or(ev, e, place, None, (inside, |_, _, _, _| {})),
    };
    let value = lane_value(ev, e, schedule.value, None);
    let base = e.base(schedule.buffer);
    let address = e.add_scaled(base, offset, schedule.dtype.bytes() as i64);
    let inside = inside.unwrap_or_else(|| e.b.ins().iconst(I8, 1));
    e.when(inside, |e| {
        let new = match schedule.mode {
            ScatterMode::Add => {
                let old = load_scalar(e, schedule.dtype, address);
                ops::binary(e, BinaryOp::Add, schedule.dtype, old, value)
            }
            ScatterMode::Overwrite => value,
        };
        store_scalar(e, schedule.dtype, new, address);
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
