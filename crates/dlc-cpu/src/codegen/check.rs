//! Checks: every element of some buffers must be finite.
//!
//! There is one part for each buffer, and all run the same function: units are elements.

use super::{Emitter, NOTRAP, Part, emit};
use crate::abi::{ContextField, ErrorKind};
use crate::leaf::Leaf;
use crate::leaf::lanes::{Kind, Op};
use crate::leaf::loops::{Fold, Loop, Stream};
use crate::schedule::CheckSchedule;
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::F32;
use cranelift_codegen::isa::TargetFrontendConfig;
use dlc_kernel::{BufferId, DType, FoldOp};
use std::sync::Arc;

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
    let leaf = Arc::new(zeros());
    let args = e.argument_block(leaf.args_bytes());
    let (base, begin, end) = (e.base(buffer), e.begin, e.end);
    let (first, count) = (e.add_scaled(base, begin, 4), e.b.ins().isub(end, begin));
    e.b.ins().store(NOTRAP, count, args, Loop::COUNT);
    e.b.ins().store(NOTRAP, first, args, leaf.address_at(0));
    e.call_leaf(Leaf::Loop(leaf.clone()), args);
    let sum = e.b.ins().load(F32, NOTRAP, args, leaf.fold_at(0));
    let found = e.b.ins().fcmp(FloatCC::Unordered, sum, sum);
    let part = e.context(ContextField::Part);
    e.fail_if(found, ErrorKind::NotFinite, part, 0);
}

/// The sum of all elements times 0, which is NaN if one of them is not finite.
fn zeros() -> Loop {
    let stream = Stream { dtype: DType::F32, address: 0, offset: 0, stride: 1 };
    let mut leaf = Loop { unroll: 4, ..Loop::over(vec![stream]) };
    let [x, sum] = [Op::Input(Kind::F32, 0), Op::Carry(Kind::F32, 0)].map(|op| leaf.lanes.add(op));
    let zero = leaf.lanes.float(0.0);
    let next = leaf.lanes.fma(x, zero, sum);
    leaf.folds.push(Fold { op: FoldOp::Sum, dtype: DType::F32, next });
    leaf
}
