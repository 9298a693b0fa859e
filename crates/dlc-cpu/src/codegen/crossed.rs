//! Maps in blocks of two axes: what lies along the second one is turned, by way of the scratch room.

use super::expr::Evaluator;
use super::map::{of_block, set_axes};
use super::nest::Point;
use super::turn::{Columns, columns_to_rows, rows_to_columns};
use super::{Emitter, stretch};
use crate::schedule::crossed::{Crossed, Turn};
use crate::schedule::map::MapSchedule;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Units are blocks, for every point of the other axes.
pub(super) fn emit_crossed(
    e: &mut Emitter,
    ev: &mut Evaluator,
    schedule: &MapSchedule,
    crossed: &Crossed,
) {
    let outer = schedule.outer();
    let extents = outer.iter().map(|&a| schedule.extent(a));
    let extents: Vec<i64> = extents.chain(crossed.blocks(&schedule.domain)).collect();
    e.for_units(&extents, |e, unit| {
        let mut point = e.origin(schedule.domain.extents.len());
        outer.iter().zip(unit).for_each(|(axis, &at)| point[axis.0 as usize] = at);
        let runs = [0, 1].map(|k| {
            let (axis, block) = (crossed.axes[k], crossed.block[k]);
            let run = of_block(e, unit[outer.len() + k], schedule.extent(axis), block);
            point[axis.0 as usize] = run[0];
            run
        });
        ev.enter();
        set_axes(ev, &outer, unit);
        emit_block(e, ev, crossed, &point, runs);
        ev.leave();
    });
}

/// A block that begins at `point`: where it begins along both axes, and how many points it has there.
fn emit_block(
    e: &mut Emitter,
    ev: &mut Evaluator,
    crossed: &Crossed,
    point: &Point,
    [along, down]: [[Value; 2]; 2],
) {
    let scratch = e.scratch();
    let counts = [along[1], down[1]];
    for turn in &crossed.loads {
        for_rows(e, crossed, (turn, point), (scratch, counts), |e, rows, columns| {
            rows_to_columns(e, rows, columns, counts[1]);
        });
    }
    // The leaf counts from the origin of both axes.
    let before = e.add_scaled(along[0], down[0], crossed.block[0]);
    let room = e.add_scaled(scratch, before, -4);
    match crossed.stretch.lines {
        Some(_) => _ = stretch::call_lines_in(e, ev, &crossed.stretch, room, along, down),
        None => {
            let end = e.b.ins().iadd(down[0], down[1]);
            e.for_each(down[0], end, 1, |e, line| {
                ev.enter();
                ev.set_axis(crossed.axes[1], line);
                stretch::call_in(e, ev, &crossed.stretch, room, along);
                ev.leave();
            });
        }
    }
    for turn in &crossed.stores {
        for_rows(e, crossed, (turn, point), (scratch, counts), |e, rows, columns| {
            columns_to_rows(e, columns, rows, counts[1]);
        });
    }
}

/// `body` for the rows of a buffer in a block, four or one at a time, and their columns in the scratch room.
fn for_rows(
    e: &mut Emitter,
    crossed: &Crossed,
    (turn, point): (&Turn, &Point),
    (scratch, [along, _]): (Value, [Value; 2]),
    body: impl Fn(&mut Emitter, &[Value], Columns),
) {
    let first = e.address(turn.buffer, &turn.place, point, 4);
    let step = 4 * turn.place.linear.coef(crossed.axes[0]);
    let room = e.b.ins().iadd_imm_s(scratch, 4 * turn.room);
    let (zero, whole) = (e.int(0), e.b.ins().band_imm_s(along, -4));
    for (range, count) in [((zero, whole), 4), ((whole, along), 1)] {
        e.for_each(range.0, range.1, count, |e, row| {
            let rows: Vec<Value> = (0..count)
                .map(|r| {
                    let row = e.b.ins().iadd_imm_s(row, r);
                    e.add_scaled(first, row, step)
                })
                .collect();
            let at = e.add_scaled(room, row, 4);
            body(e, &rows, Columns { at, step: 4 * crossed.block[0] });
        });
    }
}
