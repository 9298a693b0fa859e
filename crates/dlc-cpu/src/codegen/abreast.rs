//! Rows side by side: fold states in the scratch room, and leaves along the rows at every point.

use super::expr::Evaluator;
use super::map::set_axes;
use super::{Emitter, load, stretch};
use crate::schedule::abreast::{Abreast, BLOCK};
use crate::schedule::row::RowSchedule;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Scalar, merge_op};

/// All steps of block `block` of the rows; the other outer axes are set.
pub(super) fn emit<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    abreast: &'s Abreast,
    block: Value,
) {
    let start = e.b.ins().imul_imm_s(block, BLOCK);
    let (end, extent) = (e.b.ins().iadd_imm_s(start, BLOCK), e.int(rows.extent(abreast.axis)));
    let end = e.b.ins().smin(end, extent);
    let count = e.b.ins().isub(end, start);
    clear_states(e, rows, abreast, [start, end]);
    let axes = rows.inner_loops();
    let extents: Vec<i64> = axes.iter().map(|&a| rows.extent(a)).collect();
    for walk in &abreast.walks {
        if let Some(before) = &walk.before {
            stretch::call(e, ev, before, [start, count]);
        }
        e.repeat(0, extents.iter().product(), 1, &[], |e, position, _| {
            let point = e.coordinates(position, &extents);
            ev.enter();
            set_axes(ev, &axes, &point);
            stretch::call(e, ev, &walk.each, [start, count]);
            ev.leave();
            Vec::new()
        });
    }
    if let Some(last) = &abreast.last {
        stretch::call(e, ev, last, [start, count]);
    }
}

/// The states of a block of rows before the first point.
fn clear_states(e: &mut Emitter, rows: &RowSchedule, abreast: &Abreast, [start, end]: [Value; 2]) {
    let scratch = e.scratch();
    for (fold, place) in &abreast.states {
        let dtype = rows.domain.exprs.dtype(fold.value);
        debug_assert!(merge_op(fold.op).is_some(), "positions are not folded by leaves");
        let neutral = load::constant(e, Scalar::new(dtype, fold.op.empty(dtype)));
        let base = e.b.ins().iadd_imm_s(scratch, 4 * place.linear.offset);
        e.for_each(start, end, 1, |e, row| {
            let address = e.add_scaled(base, row, 4);
            load::store_scalar(e, dtype, neutral, address);
        });
    }
}
