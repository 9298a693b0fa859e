//! Rows side by side: fold states in the scratch room, and leaves along the rows, point below point.

use super::expr::Evaluator;
use super::map::set_axes;
use super::{Emitter, LANES, NOTRAP, load, stretch};
use crate::leaf::Leaf;
use crate::leaf::loops::Loop;
use crate::schedule::abreast::{Abreast, BLOCK, Blocks, Merge, Walk};
use crate::schedule::deviation::Deviation;
use crate::schedule::row::RowSchedule;
use cranelift_codegen::ir::types::{F32X4, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, Scalar, merge_op};
use std::ops::Range;

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

/// The walks `phase` over this call's units, blocks of points: all that is known before them, then their leaves.
pub(super) fn emit_blocks<'s>(
    e: &mut Emitter,
    ev: &mut Evaluator<'s>,
    rows: &'s RowSchedule,
    (abreast, blocks): (&'s Abreast, &'s Blocks),
    phase: &Range<usize>,
) {
    gather(e, ev, rows, (abreast, blocks), phase.start);
    let run = [e.int(0), e.int(rows.extent(abreast.axis))];
    e.for_units(&[blocks.count], |e, block| {
        let mut first: usize = abreast.walks[..phase.start].iter().map(|w| w.folds).sum();
        for at in phase.clone() {
            let walk = &abreast.walks[at];
            let folds = first..first + walk.folds;
            if at > phase.start {
                scale_sums(e, (abreast, blocks), walk.deviations.iter().flatten(), run);
                if let Some(before) = &walk.before {
                    stretch::call(e, ev, before, run);
                }
            }
            clear_states(e, rows, abreast, folds.clone(), run);
            emit_walk(e, ev, rows, walk, run, Some((blocks, block[0])));
            for fold in folds {
                let [at, step] = abreast.partials(fold);
                let shared = e.shared();
                let to = e.b.ins().iadd_imm_s(shared, at);
                let to = e.add_scaled(to, block[0], step);
                let from = state_address(e, abreast, fold);
                map_words(e, from, to, run, |_, words| words);
            }
            first += walk.folds;
        }
    });
}

/// Makes sums of a block what they would be if all blocks were alike: what follows takes their means.
fn scale_sums<'s>(
    e: &mut Emitter,
    (abreast, blocks): (&Abreast, &Blocks),
    deviations: impl Iterator<Item = &'s Deviation>,
    run: [Value; 2],
) {
    let factor = e.b.ins().f32const(blocks.count as f32);
    let factor = e.splat(factor);
    let mut sums: Vec<usize> = deviations.map(|deviation| deviation.sum).collect();
    sums.sort_unstable();
    sums.dedup();
    for sum in sums {
        let state = state_address(e, abreast, sum);
        map_words(e, state, state, run, |e, sum| {
            let sum = e.cast_bits(sum, F32X4);
            e.b.ins().fmul(sum, factor)
        });
    }
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
    let Merge { leaf, deviation } = &blocks.merges[fold];
    let args = e.argument_block(leaf.args_bytes());
    let shared = e.shared();
    let partials = e.b.ins().iadd_imm_s(shared, abreast.partials(fold)[0]);
    let (states, lines) = (state_address(e, abreast, fold), e.int(blocks.count));
    let mut addresses = vec![partials];
    if let Some(Deviation { sum, mean }) = deviation {
        addresses.push(e.b.ins().iadd_imm_s(shared, abreast.partials(*sum)[0]));
        let scratch = e.scratch();
        addresses.push(e.b.ins().iadd_imm_s(scratch, 4 * mean.linear.offset));
    }
    addresses.push(states);
    let addresses = addresses.into_iter().enumerate();
    let given = addresses.map(|(k, address)| (address, leaf.address_at(k)));
    for (value, at) in [(count, Loop::COUNT), (lines, Loop::LINES)].into_iter().chain(given) {
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
    // Points of a block are lines, where there are several axes; a walk point by point has those of a line apart.
    let apart = match (down, &axes[..]) {
        (None, [_, .., last]) => rows.extent(*last),
        _ => 1,
    };
    let of_block = |e: &mut Emitter, all: i64| {
        let Some((blocks, block)) = block else { return [e.int(0), e.int(all)] };
        let points = blocks.points * apart;
        let start = e.b.ins().imul_imm_s(block, points);
        let (end, last) = (e.b.ins().iadd_imm_s(start, points), e.int(all));
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
    folds: Range<usize>,
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

/// Stores at `to` what `change` makes of rows `start..end` of what takes a word for each, whole vectors.
fn map_words(
    e: &mut Emitter,
    from: Value,
    to: Value,
    [start, end]: [Value; 2],
    change: impl Fn(&mut Emitter, Value) -> Value,
) {
    e.for_each(start, end, LANES, |e, row| {
        let [from, to] = [from, to].map(|base| e.add_scaled(base, row, 4));
        let words = e.b.ins().load(I32X4, NOTRAP, from, 0);
        let words = change(e, words);
        e.b.ins().store(NOTRAP, words, to, 0);
    });
}
