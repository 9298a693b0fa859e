//! Calls of loop leaves: the argument block of a [`Stretch`] is filled, and its folds are read.

use super::expr::{Evaluator, Val};
use super::{Emitter, NOTRAP, load};
use crate::leaf::Leaf;
use crate::leaf::loops::Loop;
use crate::schedule::stretch::Stretch;
use cranelift_codegen::ir::types::{F32, I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value};
use dlc_kernel::DType;

/// Computes `count` points of the stretch from `start` on; gives the results of its folds.
pub(super) fn call(
    e: &mut Emitter,
    ev: &mut Evaluator,
    stretch: &Stretch,
    [start, count]: [Value; 2],
) -> Vec<Value> {
    let leaf = &*stretch.leaf;
    let data = StackSlotData::new(StackSlotKind::ExplicitSlot, leaf.args_bytes(), 3);
    let slot = e.b.create_sized_stack_slot(data);
    let args = e.b.ins().stack_addr(I64, slot, 0);
    e.b.ins().store(NOTRAP, count, args, Loop::COUNT);
    ev.enter();
    ev.set_axis(stretch.axis, start);
    let lanes = ev.lanes();
    ev.set_lanes(None);
    for (k, stream) in stretch.addresses.iter().enumerate() {
        let (offset, _) = load::place_offset(ev, e, &stream.place, None, None);
        let base = match stream.buffer {
            Some(buffer) => e.base(buffer),
            None => e.scratch(),
        };
        let address = e.add_scaled(base, offset, stream.dtype.bytes() as i64);
        e.b.ins().store(NOTRAP, address, args, leaf.address_at(k));
    }
    for (k, &id) in stretch.uniforms.iter().enumerate() {
        let Val::Uniform(value) = ev.value(e, id) else { unreachable!("there are no lanes") };
        let is_truth = e.b.func.dfg.value_type(value) == I8;
        let value = if is_truth { e.b.ins().bmask(I32, value) } else { value };
        e.b.ins().store(NOTRAP, value, args, leaf.uniform_at(k));
    }
    ev.set_lanes(lanes);
    ev.leave();
    e.call_leaf(Leaf::Loop(stretch.leaf.clone()), args);
    let result = |(k, fold): (usize, &crate::leaf::loops::Fold)| {
        let ty = if fold.dtype == DType::F32 { F32 } else { I32 };
        e.b.ins().load(ty, NOTRAP, args, leaf.fold_at(k))
    };
    leaf.folds.iter().enumerate().map(result).collect()
}
