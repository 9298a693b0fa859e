//! Rows side by side: fold states in the scratch room, and leaves along the rows, point below point.

use super::expr::Evaluator;
use super::map::set_axes;
use super::{Emitter, LANES, NOTRAP, load, stretch};
use crate::leaf::Leaf;
use crate::leaf::loops::Loop;
use crate::schedule::abreast::{Abreast, BLOCK, Blocks, Walk};
use crate::schedule::row::RowSchedule;
use cranelift_codegen::ir::types::I32X4;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, Scalar, merge_op};

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
    clear_states(e, rows, abreast, 0..abreast.states.len(), [start, end]);
    for walk in &abreast.walks {
        if let Some(before) = &walk.before {
            stretch::call(e, ev, before, [start, count]);
        }
        emit_walk(e, ev, rows, walk, [start, count], None);
    }
    if let Some(last) = &abreast.last {
        stretch::call(e, ev, last, [start, count]);
    }
}

/// Walk `walk` over this call's units, blocks of points: all that is known before it, then its leaves.
pub(super) fn emit_blocks<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    (abreast, blocks): (&'s Abreast, &'s Blocks),
    walk: usize,
) {
    gather(e, ev, rows, (abreast, blocks), walk);
    let run = [e.int(0), e.int(rows.extent(abreast.axis))];
    let first: usize = abreast.walks[..walk].iter().map(|w| w.folds).sum();
    let walk = &abreast.walks[walk];
    let folds = first..first + walk.folds;
    e.for_units(&[blocks.count], |e, block| {
        clear_states(e, rows, abreast, folds.clone(), run);
        emit_walk(e, ev, rows, walk, run, Some((blocks, block[0])));
        for fold in folds {
            let [at, step] = abreast.partials(fold);
            let shared = e.shared();
            let to = e.b.ins().iadd_imm_s(shared, at);
            let to = e.add_scaled(to, block[0], step);
            let from = state_address(e, abreast, fold);
            copy_words(e, from, to, run);
        }
    });
}

/// What is stored once for each row, after all walks over blocks.
pub(super) fn emit_last<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    (abreast, blocks): (&'s Abreast, &'s Blocks),
) {
    e.for_units(&[1], |e, _| {
        gather(e, ev, rows, (abreast, blocks), abreast.walks.len());
        let run = [e.int(0), e.int(rows.extent(abreast.axis))];
        if let Some(last) = &abreast.last {
            stretch::call(e, ev, last, run);
        }
    });
}

/// Merges what blocks come to in the walks before `walk`, and computes what these and it share.
fn gather<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    (abreast, blocks): (&'s Abreast, &'s Blocks),
    walk: usize,
) {
    let run = [e.int(0), e.int(rows.extent(abreast.axis))];
    let mut fold = 0;
    for (at, own) in abreast.walks.iter().enumerate().take(walk + 1) {
        if let Some(before) = &own.before {
            stretch::call(e, ev, before, run);
        }
        if at == walk {
            break;
        }
        clear_states(e, rows, abreast, fold..fold + own.folds, run);
        for merged in fold..fold + own.folds {
            merge_blocks(e, abreast, blocks, merged, run[1]);
        }
        fold += own.folds;
    }
}

/// Merges what a fold comes to in all blocks into its states.
fn merge_blocks(e: &mut Emitter, abreast: &Abreast, blocks: &Blocks, fold: usize, count: Value) {
    let leaf = &blocks.merges[fold];
    let args = e.argument_block(leaf.args_bytes());
    let shared = e.shared();
    let partials = e.b.ins().iadd_imm_s(shared, abreast.partials(fold)[0]);
    let (states, lines) = (state_address(e, abreast, fold), e.int(blocks.count));
    let given = [
        (count, Loop::COUNT),
        (lines, Loop::LINES),
        (partials, leaf.address_at(0)),
        (states, leaf.address_at(1)),
    ];
    for (value, at) in given {
        e.b.ins().store(NOTRAP, value, args, at);
    }
    e.call_leaf(Leaf::Loop(leaf.clone()), args);
}

/// The leaves of a walk over rows `start..start + count`, at all points or those of a block.
fn emit_walk<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    walk: &'s Walk,
    run: [Value; 2],
    block: Option<(&Blocks, Value)>,
) {
    let down = walk.each.lines;
    let mut axes = rows.inner_loops();
    axes.retain(|&axis| down != Some(axis));
    let extents: Vec<i64> = axes.iter().map(|&a| rows.extent(a)).collect();
    let all = extents.iter().product();
    let whole = |e: &mut Emitter, axis: Axis| [e.int(0), e.int(rows.extent(axis))];
    let of_block = |e: &mut Emitter, all: i64| {
        let Some((blocks, block)) = block else { return [e.int(0), e.int(all)] };
        let start = e.b.ins().imul_imm_s(block, blocks.points);
        let (end, last) = (e.b.ins().iadd_imm_s(start, blocks.points), e.int(all));
        [start, e.b.ins().smin(end, last)]
    };
    let mut lines = down.map(|axis| whole(e, axis));
    if let (true, Some(axis)) = (axes.is_empty(), down) {
        let [start, end] = of_block(e, rows.extent(axis));
        lines = Some([start, e.b.ins().isub(end, start)]);
    }
    let call = |e: &mut Emitter, ev: &mut Evaluator<'s>| match lines {
        Some(lines) => stretch::call_lines(e, ev, &walk.each, run, lines),
        None => stretch::call(e, ev, &walk.each, run),
    };
    if axes.is_empty() {
        call(e, ev);
        return;
    }
    let [start, end] = of_block(e, all);
    e.for_each(start, end, 1, |e, position| {
        let point = e.coordinates(position, &extents);
        ev.enter();
        set_axes(ev, &axes, &point);
        call(e, ev);
        ev.leave();
    });
}

/// Where the states of a fold begin.
fn state_address(e: &mut Emitter, abreast: &Abreast, fold: usize) -> Value {
    let scratch = e.scratch();
    e.b.ins().iadd_imm_s(scratch, 4 * abreast.states[fold].1.linear.offset)
}

/// The states of some folds, of rows `start..end`, before the first point; whole vectors.
fn clear_states(
    e: &mut Emitter,
    rows: &RowSchedule,
    abreast: &Abreast,
    folds: std::ops::Range<usize>,
    [start, end]: [Value; 2],
) {
    for at in folds {
        let fold = &abreast.states[at].0;
        let dtype = rows.domain.exprs.dtype(fold.value);
        debug_assert!(merge_op(fold.op).is_some(), "positions are not folded by leaves");
        let neutral = load::constant(e, Scalar::new(dtype, fold.op.empty(dtype)));
        let base = state_address(e, abreast, at);
        let neutral = e.splat(neutral);
        e.for_each(start, end, LANES, |e, row| {
            let address = e.add_scaled(base, row, 4);
            e.b.ins().store(NOTRAP, neutral, address, 0);
        });
    }
}

/// Copies rows `start..end` of what takes a word for each, whole vectors.
fn copy_words(e: &mut Emitter, from: Value, to: Value, [start, end]: [Value; 2]) {
    e.for_each(start, end, LANES, |e, row| {
        let [from, to] = [from, to].map(|base| e.add_scaled(base, row, 4));
        let words = e.b.ins().load(I32X4, NOTRAP, from, 0);
        e.b.ins().store(NOTRAP, words, to, 0);
    });
}
