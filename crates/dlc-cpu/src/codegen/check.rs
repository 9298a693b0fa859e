//! Checks: every element of some buffers must be finite.

use super::{Emitter, NOTRAP, Part, emit};
use crate::abi::ErrorKind;
use crate::schedule::{CheckSchedule, CheckedBuffer};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32X4;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::BufferId;

/// The bits of an infinity: no number has all of them.
const EXPONENT: i32 = 0x7f80_0000;

/// The code of a check: one unit, as the first offender is named.
pub fn part(schedule: &CheckSchedule, frontend: TargetFrontendConfig) -> Part {
    let buffers = &schedule.buffers;
    let mut operands: Vec<BufferId> = buffers.iter().map(|b| b.buffer).collect();
    operands.sort_unstable();
    operands.dedup();
    let code = emit(schedule.config, frontend, &operands, |e| {
        buffers.iter().for_each(|b| check(e, b));
    });
    let elements: i64 = buffers.iter().map(|b| b.elements).sum();
    Part { code, operands, units: 1, unit_cost: elements as f64 * 0.2 }
}

fn check(e: &mut Emitter, checked: &CheckedBuffer) {
    let base = e.base(checked.buffer);
    let none = e.ints(0);
    let whole = checked.elements & !3;
    let found = e.repeat(0, whole, 4, &[none], |e, i, found| {
        let address = e.add_scaled(base, i, 4);
        let bad = bad_lanes(e, address, 4);
        vec![e.b.ins().bor(found[0], bad)]
    });
    let address = e.b.ins().iadd_imm_s(base, 4 * whole);
    let rest = bad_lanes(e, address, checked.elements - whole);
    let found = e.b.ins().bor(found[0], rest);
    let bad = e.b.ins().vany_true(found);
    let position = e.int(checked.position as i64);
    e.fail_if(bad, ErrorKind::NotFinite, position, 0);
}

/// Which of the first `count` of four elements are not finite; the others may be padding.
fn bad_lanes(e: &mut Emitter, address: Value, count: i64) -> Value {
    let bits = e.b.ins().load(I32X4, NOTRAP, address, 0);
    let exponent = e.ints(EXPONENT);
    let looked_at = [0, 1, 2, 3].map(|lane| if lane < count { EXPONENT as u32 } else { 0 });
    let looked_at = e.lanes(looked_at, I32X4);
    let masked = e.b.ins().band(bits, looked_at);
    e.b.ins().icmp(IntCC::Equal, masked, exponent)
}
