//! Packing of neighbours that are all inside: whole vectors, and no conditions.

use super::{Packing, offset};
use crate::codegen::contract::Contraction;
use crate::codegen::nest::Point;
use crate::codegen::turn::{Columns, rows_to_columns};
use crate::codegen::{Emitter, LANES, NOTRAP};
use crate::schedule::contract::{BareLoad, PackOrder, Side};
use cranelift_codegen::ir::types::{F32, F32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

impl Contraction<'_, '_> {
    /// The load of a side that is read along an axis whose elements are neighbours, all of them inside: its
    /// own axis if it is read along the side.
    pub(super) fn all_neighbours<'s>(&self, side: &'s Side) -> Option<&'s BareLoad> {
        let bare = side.bare.as_ref().filter(|bare| bare.place.is_inside())?;
        let axis = match side.order {
            PackOrder::Side if !side.axes.is_one(&bare.place) => return None,
            PackOrder::Side => side.axes.last()?,
            PackOrder::Depth => self.schedule.depth.last()?,
        };
        bare.place.is_unit_along(axis).then_some(bare)
    }

    /// Packs lines of neighbours along the side, one for each step of the depth.
    pub(super) fn pack_lines(
        &self,
        e: &mut Emitter,
        side: &Side,
        bare: &BareLoad,
        point: &Point,
        Packing { base, first, width, depth }: Packing,
    ) {
        let mut point = point.clone();
        e.set_axes(&mut point, &side.axes, first);
        self.for_depth(e, &point, depth, |e, point, k| {
            let from = e.address(bare.buffer, &bare.place, point, 4);
            let to = offset(e, base, k, depth.0, 4 * width);
            copy_known(e, from, to, width);
        });
    }

    /// Packs rows of neighbours along the depth, four at a time.
    pub(super) fn pack_rows(
        &self,
        e: &mut Emitter,
        side: &Side,
        bare: &BareLoad,
        point: &Point,
        Packing { base, first, width, depth }: Packing,
    ) {
        let rows = |e: &mut Emitter, position: Value, count: i64| {
            let column = offset(e, base, position, first, 4);
            let axes = &self.schedule.depth;
            let length = axes.even_run(&bare.place.linear);
            e.for_runs_of(length, axes, point, depth, |e, point, run| {
                let mut row = |r: i64| {
                    let (mut point, at) = (point.clone(), e.b.ins().iadd_imm_s(position, r));
                    e.set_axes(&mut point, &side.axes, at);
                    e.address(bare.buffer, &bare.place, &point, 4)
                };
                let from: Vec<Value> = (0..count).map(&mut row).collect();
                let at = offset(e, column, run.flat, depth.0, 4 * width);
                let steps = e.b.ins().isub(run.end, run.start);
                rows_to_columns(e, &from, Columns { at, step: 4 * width }, steps);
            });
        };
        let end = e.b.ins().iadd_imm_s(first, width - width % 4);
        if width >= 4 {
            e.for_each(first, end, 4, |e, position| rows(e, position, 4));
        }
        if width % 4 >= 2 {
            rows(e, end, 2);
        }
        if width % 2 == 1 {
            let last = e.b.ins().iadd_imm_s(first, width - 1);
            rows(e, last, 1);
        }
    }
}

/// Copies `count` neighbours.
fn copy_known(e: &mut Emitter, from: Value, to: Value, count: i64) {
    let mut at = 0;
    for (ty, floats) in [(F32X4, LANES), (I64, 2), (F32, 1)] {
        while at + floats <= count {
            let value = e.b.ins().load(ty, NOTRAP, from, 4 * at as i32);
            e.b.ins().store(NOTRAP, value, to, 4 * at as i32);
            at += floats;
        }
    }
}
