//! Where the panels of a side are: packed, or read where the operand lies.

use super::Contraction;
use super::tiled::Terms;
use crate::abi::ContextField;
use crate::codegen::Emitter;
use crate::codegen::nest::Point;
use crate::codegen::pack::Packing;
use crate::leaf::MAX_LEVELS;
use crate::schedule::contract::{Steps, Supply, Tile, Tiling, Which, div_ceil};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use smallvec::SmallVec;

/// The panels of some positions of a side.
#[derive(Clone, Debug)]
pub(super) enum Panels {
    /// Packed one after the other.
    Packed {
        /// Where the panel at position `first` begins.
        base: Value,
        /// The first position.
        first: Value,
        /// Steps of the depth that are packed for every position.
        depth: Value,
        /// How many of them are skipped.
        skipped: Value,
    },
    /// Where the operand lies.
    Direct(Steps),
}

/// One panel, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// Its first element.
    pub at: Value,
    /// From one position to the next.
    pub side_step: i64,
    /// From the panel to the next one of its width.
    pub next: Value,
    /// From one step to the next along each loop of steps, outermost first.
    pub steps: SmallVec<[i64; MAX_LEVELS]>,
}

impl Contraction<'_, '_> {
    /// The panels of some positions of a side for some terms; packs them if that is to be done here.
    pub(super) fn panels(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        which: Which,
        terms: &Terms,
        positions: (Value, Value),
    ) -> Panels {
        let first = positions.0;
        match t.supply(which) {
            Supply::Direct(steps) => Panels::Direct(steps.clone()),
            Supply::PerUnit => {
                let base = self.pack_unit(e, t, which, terms, positions);
                let depth = e.b.ins().isub(terms.depth.1, terms.depth.0);
                Panels::Packed { base, first, depth, skipped: e.int(0) }
            }
            supply => {
                let batch = self.packed_position(e, which, terms.batch);
                let base = self.packed_whole(e, which, supply, batch);
                let depth = self.schedule.depth.points();
                let base = e.add_scaled(base, first, 4 * depth);
                Panels::Packed { base, first, depth: e.int(depth), skipped: terms.depth.0 }
            }
        }
    }

    /// The panel of `width` positions from `position` on.
    pub(super) fn panel(
        &self,
        e: &mut Emitter,
        which: Which,
        (panels, terms): (&Panels, &Terms),
        position: Value,
        width: i64,
    ) -> Panel {
        match *panels {
            Panels::Direct(ref steps) => Panel {
                at: self.direct_address(e, which, terms, position),
                side_step: 4 * steps.side,
                next: e.int(4 * steps.side * width),
                steps: steps.depth.iter().map(|step| 4 * step).collect(),
            },
            Panels::Packed { base, first, depth, skipped } => {
                let distance = e.b.ins().isub(position, first);
                let floats = e.b.ins().imul(distance, depth);
                let floats = e.add_scaled(floats, skipped, width);
                let at = e.add_scaled(base, floats, 4);
                let next = e.b.ins().imul_imm_s(depth, 4 * width);
                Panel { at, side_step: 4, next, steps: self.packed_steps(4 * width) }
            }
        }
    }

    /// The panel of columns that is read after the one from `position` on, if tiles ask for it: that
    /// of the next strip, or of the first one for the terms that follow. After all terms, the next block
    /// begins with the next strip.
    pub(super) fn next_panel(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        (panels, terms): (&Panels, &Terms),
        (position, width): (Value, i64),
        (first, end): (Value, Value),
    ) -> Option<Value> {
        let ahead = self.schedule.ahead(t, Tile { columns: width, ..t.tile });
        if !ahead.right.is_shared() {
            return None;
        }
        let after = e.b.ins().iadd_imm_s(position, width);
        let is_inside = e.b.ins().icmp(IntCC::SignedLessThan, after, end);
        let is_beside = e.b.ins().uextend(I64, is_inside);
        let is_beside = e.b.ins().bor(is_beside, terms.finish);
        let [beside, below] =
            [after, first].map(|at| self.panel(e, Which::Columns, (panels, terms), at, width).at);
        let summed = e.b.ins().isub(terms.depth.1, terms.depth.0);
        let below = e.add_scaled(below, summed, 4 * width);
        Some(e.b.ins().select(is_beside, beside, below))
    }

    /// The steps along all axes of the depth where the innermost is `step`.
    fn packed_steps(&self, step: i64) -> SmallVec<[i64; MAX_LEVELS]> {
        let extents = &self.schedule.depth.extents;
        (0..extents.len()).map(|at| step * extents[at + 1..].iter().product::<i64>()).collect()
    }

    /// Where an operand lies at a position and the first of some terms.
    fn direct_address(
        &self,
        e: &mut Emitter,
        which: Which,
        terms: &Terms,
        position: Value,
    ) -> Value {
        let side = self.schedule.side(which);
        let bare = side.bare.as_ref().expect("only loads are read where they lie");
        let mut point = terms.point.clone();
        e.set_axes(&mut point, &side.axes, position);
        e.set_axes(&mut point, &self.schedule.depth, terms.depth.0);
        e.address(bare.buffer, &bare.place, &point, 4)
    }

    /// The position in the batch of a side that is packed whole at that of the whole batch.
    fn packed_position(&self, e: &mut Emitter, which: Which, batch: Value) -> Value {
        let (own, same) = (self.schedule.own_batch(), self.schedule.packed_steps(which));
        if same == 1 {
            return batch;
        }
        let within = e.divide(batch, own).1;
        let step = e.divide(batch, same * own).0;
        e.add_scaled(within, step, own)
    }

    /// Where a side that is packed whole begins, at a position in its batch.
    fn packed_whole(&self, e: &mut Emitter, which: Which, supply: &Supply, batch: Value) -> Value {
        let s = self.schedule;
        let field = match supply {
            Supply::AtLoad => ContextField::Lasting,
            _ => ContextField::Shared,
        };
        let workspace = e.context(field);
        let base = e.b.ins().iadd_imm_s(workspace, s.packed_offset(which, supply));
        let (all, room) = (s.packed_batch(which).points(), s.packed_room(which, supply));
        let batch = if room == all { batch } else { e.divide(batch, room).1 };
        e.add_scaled(base, batch, 4 * s.side(which).axes.points() * s.depth.points())
    }

    /// Packs one panel of a side that is packed whole.
    pub(super) fn pack_whole(&self, e: &mut Emitter, t: &Tiling, which: Which, unit: Value) {
        let s = self.schedule;
        let (width, depth) = (t.tile.extent(which), s.depth.points());
        let (batch, panel) = e.divide(unit, div_ceil(s.side(which).axes.points(), width));
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.packed_batch(which), batch);
        let first = e.b.ins().imul_imm_s(panel, width);
        let base = self.packed_whole(e, which, t.supply(which), batch);
        let base = e.add_scaled(base, first, 4 * depth);
        let range = (e.int(0), e.int(depth));
        self.pack_panel(e, t, which, &point, (base, first), range);
    }

    /// Packs some positions of a side in the worker's own workspace; returns where.
    fn pack_unit(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        which: Which,
        terms: &Terms,
        (first, end): (Value, Value),
    ) -> Value {
        let space = self.schedule.scratch();
        let at = if which == Which::Rows { space.rows } else { space.columns };
        let scratch = e.scratch();
        let base = e.b.ins().iadd_imm_s(scratch, at);
        let depth = e.b.ins().isub(terms.depth.1, terms.depth.0);
        let bytes = e.b.ins().imul_imm_s(depth, 4);
        e.for_each(first, end, t.tile.extent(which), |e, position| {
            let distance = e.b.ins().isub(position, first);
            let distance = e.b.ins().imul(distance, bytes);
            let panel = e.b.ins().iadd(base, distance);
            self.pack_panel(e, t, which, terms.point, (panel, position), terms.depth);
        });
        base
    }

    /// Packs the panel that begins at a position, at `base`: a whole one, or the narrow last one.
    fn pack_panel(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        which: Which,
        point: &Point,
        (base, first): (Value, Value),
        depth: (Value, Value),
    ) {
        let side = self.schedule.side(which);
        let (all, width) = (side.axes.points(), t.tile.extent(which));
        let pack = |e: &mut Emitter, width: i64| {
            let packing = Packing { base, first, width, depth };
            self.pack(e, side, point, packing);
        };
        if all >= width {
            let fits = e.b.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, first, all - width);
            e.when(fits, |e| pack(e, width));
        }
        if all % width != 0 {
            let is_last = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, first, all - width);
            e.when(is_last, |e| pack(e, all % width));
        }
    }
}

/// The part of `0..extent` that is block number `index`.
pub(super) fn block_range(
    e: &mut Emitter,
    index: Value,
    length: i64,
    extent: i64,
) -> (Value, Value) {
    let start = e.b.ins().imul_imm_s(index, length);
    let limit = e.int(extent);
    let start = e.b.ins().smin(start, limit);
    let end = e.b.ins().iadd_imm_s(start, length);
    (start, e.b.ins().smin(end, limit))
}
