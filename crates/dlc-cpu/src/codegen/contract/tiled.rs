//! Register tiles over panels.

use super::Contraction;
use super::panels::{Panels, block_range};
use crate::abi::ContextField;
use crate::codegen::nest::Point;
use crate::codegen::pack::offset;
use crate::codegen::{Emitter, LANES, NOTRAP};
use crate::leaf::{GEMM_ARGS_BYTES, GemmField, GemmTile, Leaf, Left};
use crate::schedule::contract::{Sums, Supply, Tile, Tiling, Which};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value};

/// A block of sums: that of row `r` and column `c` is at
/// `base + (r - rows.0) * step + (c - columns.0) * 4`.
#[derive(Clone, Copy, Debug)]
struct Block {
    base: Value,
    step: i64,
    rows: (Value, Value),
    columns: (Value, Value),
}

/// Some terms of the sums of a block.
pub(super) struct Terms<'p> {
    /// Has the batch axes set.
    pub point: &'p Point,
    pub batch: Value,
    /// A range of the depth.
    pub depth: (Value, Value),
    /// 0 if they are the first of their sums, else 1.
    pub accumulate: Value,
}

impl Contraction<'_, '_> {
    /// The stores of a block of sums; `point` has the batch axes set.
    fn store_block(&self, e: &mut Emitter, point: &Point, block: Block) {
        let s = self.schedule;
        e.for_each(block.rows.0, block.rows.1, 1, |e, r| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.rows.axes, r);
            let row = offset(e, block.base, r, block.rows.0, block.step);
            let (first, end) = block.columns;
            e.for_runs(&s.columns.axes, &point, first, end, |e, point, run| {
                let sums = offset(e, row, run.flat, first, 4);
                let axis = s.columns.axes.last().expect("columns are along an axis");
                self.store_run(e, point, (axis, run), sums);
            });
        });
    }

    /// A block of the output, or one share of its depth.
    pub(super) fn sum_block(&self, e: &mut Emitter, t: &Tiling, unit: Value) {
        let s = self.schedule;
        let (rest, split) = e.divide(unit, t.splits);
        let (rest, column_block) = e.divide(rest, s.column_blocks(t));
        let (batch, row_block) = e.divide(rest, s.row_blocks(t));
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.batch, batch);
        let columns = block_range(e, column_block, t.column_block, s.columns.axes.points());
        let rows = block_range(e, row_block, t.row_block, s.rows.axes.points());
        let share = block_range(e, split, s.split_depth(t), s.depth.points());
        let (base, step) = match t.sums {
            Sums::Workspace => {
                let scratch = e.scratch();
                (e.b.ins().iadd_imm_s(scratch, s.scratch().sums), 4 * t.column_block)
            }
            Sums::Result(step) => (self.result(e, &point, rows.0, columns.0), 4 * step),
            Sums::Shares => {
                let row = self.share_row(e, t, split, batch, rows.0);
                (e.add_scaled(row, columns.0, 4), 4 * s.share_step(t))
            }
        };
        let block = Block { base, step, rows, columns };
        e.for_each(share.0, share.1, t.depth_block, |e, k| {
            let end = e.b.ins().iadd_imm_s(k, t.depth_block);
            let end = e.b.ins().smin(end, share.1);
            let accumulate = e.b.ins().icmp(IntCC::SignedGreaterThan, k, share.0);
            let accumulate = e.b.ins().uextend(I64, accumulate);
            let terms = Terms { point: &point, batch, depth: (k, end), accumulate };
            self.sum_terms(e, t, &terms, block);
        });
        if t.sums == Sums::Workspace {
            self.store_block(e, &point, block);
        }
    }

    /// The address of the only store at a row and a column; `point` has the batch axes set.
    fn result(&self, e: &mut Emitter, point: &Point, row: Value, column: Value) -> Value {
        let s = self.schedule;
        let mut point = point.clone();
        e.set_axes(&mut point, &s.rows.axes, row);
        e.set_axes(&mut point, &s.columns.axes, column);
        e.address(s.stores[0].buffer, &s.stores[0].place, &point, 4)
    }

    /// The row `row` of a batch in a share of the sums.
    fn share_row(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        split: Value,
        batch: Value,
        row: Value,
    ) -> Value {
        let s = self.schedule;
        let shared = e.context(ContextField::Shared);
        let shares = e.b.ins().iadd_imm_s(shared, s.shares_offset());
        let share = e.add_scaled(shares, split, 4 * s.share_floats(t));
        let batch_step = 4 * s.rows.axes.points() * s.share_step(t);
        let first = e.add_scaled(share, batch, batch_step);
        e.add_scaled(first, row, 4 * s.share_step(t))
    }

    /// Adds some terms to a block of sums.
    fn sum_terms(&self, e: &mut Emitter, t: &Tiling, terms: &Terms, block: Block) {
        let rows = self.panels(e, t, Which::Rows, terms, block.rows);
        let columns = self.panels(e, t, Which::Columns, terms, block.columns);
        let depth = e.b.ins().isub(terms.depth.1, terms.depth.0);
        let left = match t.rows {
            Supply::Direct(steps) if steps.side != 1 => Left::Strided,
            _ => Left::Packed,
        };
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, GEMM_ARGS_BYTES, 3);
        let slot = e.b.create_sized_stack_slot(data);
        let args = e.b.ins().stack_addr(I64, slot, 0);
        let tiles = Tiles { rows, columns, left, depth, accumulate: terms.accumulate, args };
        self.call_leaves(e, t.tile, &tiles, block);
    }

    /// All tiles of a block, one strip of columns after the other.
    fn call_leaves(&self, e: &mut Emitter, tile: Tile, tiles: &Tiles, block: Block) {
        let rest = self.schedule.columns.axes.points() % tile.columns;
        let count = e.b.ins().isub(block.columns.1, block.columns.0);
        let whole = e.divide(count, tile.columns).0;
        let whole = e.add_scaled(block.columns.0, whole, tile.columns);
        e.for_each(block.columns.0, whole, tile.columns, |e, column| {
            self.call_strip(e, tile, tiles, block, column);
        });
        if rest > 0 {
            let is_last = e.b.ins().icmp(IntCC::SignedLessThan, whole, block.columns.1);
            let narrow = Tile { columns: rest, ..tile };
            e.when(is_last, |e| self.call_strip(e, narrow, tiles, block, whole));
        }
    }

    /// The tiles of a block that begin at `column`, one below the other.
    fn call_strip(&self, e: &mut Emitter, tile: Tile, tiles: &Tiles, block: Block, column: Value) {
        let rest = self.schedule.rows.axes.points() % tile.rows;
        let count = e.b.ins().isub(block.rows.1, block.rows.0);
        let whole = e.divide(count, tile.rows).0;
        let c = offset(e, block.base, column, block.columns.0, 4);
        if self.schedule.rows.axes.points() >= tile.rows {
            tiles.call(e, tile, (block.rows.0, column), (c, block.step), whole);
        }
        if rest > 0 {
            let above = e.b.ins().imul_imm_s(whole, tile.rows);
            let c = e.add_scaled(c, above, block.step);
            let row = e.b.ins().iadd(block.rows.0, above);
            let one = e.b.ins().icmp(IntCC::SignedLessThan, row, block.rows.1);
            let one = e.b.ins().uextend(I64, one);
            let low = Tile { rows: rest, ..tile };
            tiles.call(e, low, (row, column), (c, block.step), one);
        }
    }

    /// Adds the shares of a row and makes its stores.
    pub(super) fn finish_row(&self, e: &mut Emitter, t: &Tiling, unit: Value) {
        let s = self.schedule;
        let (batch, row) = e.divide(unit, s.rows.axes.points());
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.batch, batch);
        let (zero, splits) = (e.int(0), e.int(t.splits));
        let base = self.share_row(e, t, zero, batch, row);
        let (one, width) = (e.int(1), e.int(s.share_step(t)));
        e.for_each(zero, width, LANES, |e, column| {
            let at = e.add_scaled(base, column, 4);
            let first = e.b.ins().load(F32X4, NOTRAP, at, 0);
            let sum = e.fold(one, splits, 1, &[first], |e, split, sum| {
                let share = e.add_scaled(at, split, 4 * s.share_floats(t));
                let term = e.b.ins().load(F32X4, NOTRAP, share, 0);
                vec![e.b.ins().fadd(sum[0], term)]
            });
            e.b.ins().store(NOTRAP, sum[0], at, 0);
        });
        let (end, columns) = (e.b.ins().iadd_imm_s(row, 1), e.int(s.columns.axes.points()));
        let step = 4 * s.share_step(t);
        let block = Block { base, step, rows: (row, end), columns: (zero, columns) };
        self.store_block(e, &point, block);
    }
}

/// What all leaf calls of a block share.
struct Tiles {
    rows: Panels,
    columns: Panels,
    left: Left,
    /// Terms to be summed.
    depth: Value,
    accumulate: Value,
    args: Value,
}

impl Tiles {
    /// Calls the leaf of this tile for `count` tiles, one below the other, from a row and a column
    /// on; the sums are at an address and step.
    fn call(
        &self,
        e: &mut Emitter,
        tile: Tile,
        (row, column): (Value, Value),
        (c, c_step): (Value, i64),
        count: Value,
    ) {
        let a = self.rows.panel(e, row, tile.rows);
        let b = self.columns.panel(e, column, tile.columns);
        let a_tile = self.rows.distance(e, tile.rows);
        let [a_row, a_step, b_step, c_step] =
            [a.side_step, a.depth_step, b.depth_step, c_step].map(|bytes| e.int(bytes));
        for (field, value) in [
            (GemmField::A, a.at),
            (GemmField::B, b.at),
            (GemmField::C, c),
            (GemmField::Depth, self.depth),
            (GemmField::ARow, a_row),
            (GemmField::AStep, a_step),
            (GemmField::BStep, b_step),
            (GemmField::CStep, c_step),
            (GemmField::Tiles, count),
            (GemmField::ATile, a_tile),
            (GemmField::Accumulate, self.accumulate),
        ] {
            e.b.ins().store(NOTRAP, value, self.args, field as i32);
        }
        let [rows, columns] =
            [tile.rows, tile.columns].map(|n| u8::try_from(n).expect("tiles are small"));
        e.call_leaf(Leaf::Gemm(GemmTile { rows, columns, left: self.left }), self.args);
    }
}
