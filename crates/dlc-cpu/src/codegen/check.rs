//! Checks: every element of some buffers must be finite.
//!
//! There is one part for each buffer, and all run the same function: units are elements.

use super::{Emitter, NOTRAP, Part, emit};
use crate::abi::{ContextField, ErrorKind};
use crate::schedule::CheckSchedule;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::BufferId;

/// The bits of an infinity: no finite number has all of them.
const EXPONENT: i32 = 0x7f80_0000;

/// The code of a check; the first part that notes an error has the first offender.
pub fn parts(schedule: &CheckSchedule, frontend: TargetFrontendConfig) -> Vec<Part> {
    let any = BufferId(0);
    let code = emit(schedule.config, frontend, &[any], |e| check(e, any));
    let part = |checked: &crate::schedule::CheckedBuffer| Part {
        code: code.clone(),
        operands: vec![checked.buffer],
        units: checked.elements,
        unit_cost: 0.1,
    };
    schedule.buffers.iter().map(part).collect()
}

fn check(e: &mut Emitter, buffer: BufferId) {
    let base = e.base(buffer);
    let (begin, end) = (e.begin, e.end);
    let count = e.b.ins().isub(end, begin);
    let whole = e.b.ins().band_imm_s(count, -4);
    let whole = e.b.ins().iadd(begin, whole);
    let none = e.ints(0);
    let found = e.fold(begin, whole, 4, &[none], |e, i, found| {
        let address = e.add_scaled(base, i, 4);
        let bits = e.b.ins().load(I32X4, NOTRAP, address, 0);
        let exponent = e.ints(EXPONENT);
        let bad = is_bad(e, bits, exponent);
        vec![e.b.ins().bor(found[0], bad)]
    });
    let found = e.b.ins().vany_true(found[0]);
    let found = e.fold(whole, end, 1, &[found], |e, i, found| {
        let address = e.add_scaled(base, i, 4);
        let bits = e.b.ins().load(I32, NOTRAP, address, 0);
        let exponent = e.b.ins().iconst(I32, i64::from(EXPONENT));
        let bad = is_bad(e, bits, exponent);
        vec![e.b.ins().bor(found[0], bad)]
    });
    let part = e.context(ContextField::Part);
    e.fail_if(found[0], ErrorKind::NotFinite, part, 0);
}

fn is_bad(e: &mut Emitter, bits: Value, exponent: Value) -> Value {
    let masked = e.b.ins().band(bits, exponent);
    e.b.ins().icmp(IntCC::Equal, masked, exponent)
}
