//! Register tiles over packed panels.

use super::Contraction;
use crate::codegen::nest::Point;
use crate::codegen::pack::{Beyond, Panel, offset};
use crate::codegen::{Emitter, LANES, NOTRAP};
use crate::leaf::{GEMM_ARGS_BYTES, GemmField, GemmTile, Leaf};
use crate::schedule::contract::{RowsPacked, Tiling, div_ceil};
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
struct Terms<'p> {
    /// Has the batch axes set.
    point: &'p Point,
    batch: Value,
    /// A range of the depth.
    depth: (Value, Value),
    /// 0 if they are the first of their sums, else 1.
    accumulate: Value,
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

    /// Packs one panel of rows, at its place in the shared workspace.
    pub(super) fn pack_row_panel(&self, e: &mut Emitter, t: &Tiling, unit: Value) {
        let s = self.schedule;
        let (rows, depth) = (s.rows.axes.points(), s.depth.points());
        let height = i64::from(t.tile.rows);
        let panels = div_ceil(rows, height);
        let (batch, panel) = e.divide(unit, panels);
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.batch, batch);
        let first = e.b.ins().imul_imm_s(panel, height);
        let base = self.packed_rows(e, batch);
        let base = e.add_scaled(base, first, 4 * depth);
        let (from, to) = (e.int(0), e.int(depth));
        self.pack_panel(e, t, &point, base, first, (from, to));
    }

    /// The packed rows of a batch in the shared workspace.
    fn packed_rows(&self, e: &mut Emitter, batch: Value) -> Value {
        let s = self.schedule;
        let shared = e.shared();
        e.add_scaled(shared, batch, 4 * s.rows.axes.points() * s.depth.points())
    }

    /// Packs the panel that starts at row `first`: a whole one, or the lower last one.
    fn pack_panel(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        point: &Point,
        base: Value,
        first: Value,
        depth: (Value, Value),
    ) {
        let s = self.schedule;
        let (rows, height) = (s.rows.axes.points(), i64::from(t.tile.rows));
        let pack = |e: &mut Emitter, height: i64| {
            let end = e.b.ins().iadd_imm_s(first, height);
            let (positions, beyond) = ((first, end), Beyond::Kept);
            let panel = Panel { base, step: 4 * height, positions, depth, beyond };
            self.pack(e, &s.rows, point, panel);
        };
        if rows >= height {
            let fits = e.b.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, first, rows - height);
            e.when(fits, |e| pack(e, height));
        }
        if rows % height != 0 {
            let is_last = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, first, rows - height);
            e.when(is_last, |e| pack(e, rows % height));
        }
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
        let scratch = e.scratch();
        let mut block = Block { base: scratch, step: 4 * t.column_block, rows, columns };
        if t.splits == 1 {
            block.base = e.b.ins().iadd_imm_s(scratch, s.scratch().sums);
        } else {
            let row = self.share_row(e, t, split, batch, rows.0);
            block.base = e.add_scaled(row, columns.0, 4);
            block.step = 4 * s.share_step(t);
        }
        e.for_each(share.0, share.1, t.depth_block, |e, k| {
            let end = e.b.ins().iadd_imm_s(k, t.depth_block);
            let end = e.b.ins().smin(end, share.1);
            let accumulate = e.b.ins().icmp(IntCC::SignedGreaterThan, k, share.0);
            let accumulate = e.b.ins().uextend(I64, accumulate);
            let terms = Terms { point: &point, batch, depth: (k, end), accumulate };
            self.sum_terms(e, t, &terms, block);
        });
        if t.splits == 1 {
            self.store_block(e, &point, block);
        }
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
        let shared = e.shared();
        let shares = e.b.ins().iadd_imm_s(shared, s.shares_offset());
        let share = e.add_scaled(shares, split, 4 * s.share_floats(t));
        let batch_step = 4 * s.rows.axes.points() * s.share_step(t);
        let first = e.add_scaled(share, batch, batch_step);
        e.add_scaled(first, row, 4 * s.share_step(t))
    }

    /// Adds some terms to a block of sums.
    fn sum_terms(&self, e: &mut Emitter, t: &Tiling, terms: &Terms, block: Block) {
        let (depth, base) = (terms.depth, e.scratch());
        let (step, positions, beyond) = (4 * t.column_step(), block.columns, Beyond::Free);
        let panel = Panel { base, step, positions, depth, beyond };
        self.pack(e, &self.schedule.columns, terms.point, panel);
        self.clear_edge(e, t, panel);
        let (rows, stride) = match t.rows_packed {
            RowsPacked::PerCall => self.find_rows(e, terms, block),
            RowsPacked::PerUnit => self.pack_rows(e, t, terms, block),
        };
        let count = e.b.ins().isub(depth.1, depth.0);
        let first = match t.rows_packed {
            RowsPacked::PerCall => depth.0,
            RowsPacked::PerUnit => e.int(0),
        };
        let accumulate = terms.accumulate;
        let tiles = Tiles { t, rows, stride, first, columns: base, count, accumulate };
        self.call_leaves(e, &tiles, block);
    }

    /// Where the rows of a block are packed already, and how deep their panels are.
    fn find_rows(&self, e: &mut Emitter, terms: &Terms, block: Block) -> (Value, Value) {
        let depth = self.schedule.depth.points();
        let rows = self.packed_rows(e, terms.batch);
        (e.add_scaled(rows, block.rows.0, 4 * depth), e.int(depth))
    }

    /// Packs the rows of a block; the result is as [`Contraction::find_rows`]'.
    fn pack_rows(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        terms: &Terms,
        block: Block,
    ) -> (Value, Value) {
        let scratch = e.scratch();
        let rows = e.b.ins().iadd_imm_s(scratch, self.schedule.scratch().rows);
        let count = e.b.ins().isub(terms.depth.1, terms.depth.0);
        e.for_each(block.rows.0, block.rows.1, t.tile.rows.into(), |e, first| {
            let distance = e.b.ins().isub(first, block.rows.0);
            let floats = e.b.ins().imul(distance, count);
            let base = e.add_scaled(rows, floats, 4);
            self.pack_panel(e, t, terms.point, base, first, terms.depth);
        });
        (rows, count)
    }

    /// Zeros after the last column, up to a whole tile.
    fn clear_edge(&self, e: &mut Emitter, t: &Tiling, panel: Panel) {
        let width = i64::from(t.tile.columns);
        if self.schedule.columns.axes.points() % width == 0 {
            return;
        }
        let zero = e.float(0.0);
        let count = e.b.ins().isub(panel.positions.1, panel.positions.0);
        let padded = e.b.ins().iadd_imm_s(count, width - 1);
        let padded = e.b.ins().band_imm_s(padded, -width);
        e.for_each(panel.depth.0, panel.depth.1, 1, |e, k| {
            let row = offset(e, panel.base, k, panel.depth.0, panel.step);
            e.for_each(count, padded, 1, |e, column| {
                let at = e.add_scaled(row, column, 4);
                e.b.ins().store(NOTRAP, zero, at, 0);
            });
        });
    }

    /// All tiles of a block, one column of tiles after the other.
    fn call_leaves(&self, e: &mut Emitter, tiles: &Tiles, block: Block) {
        let t = tiles.t;
        let (height, width) = (i64::from(t.tile.rows), i64::from(t.tile.columns));
        let rest = self.schedule.rows.axes.points() % height;
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, GEMM_ARGS_BYTES, 3);
        let slot = e.b.create_sized_stack_slot(data);
        let args = e.b.ins().stack_addr(I64, slot, 0);
        let count = e.b.ins().isub(block.rows.1, block.rows.0);
        let whole = e.b.ins().udiv_imm_u(count, height);
        let above = e.b.ins().imul_imm_s(whole, height);
        e.for_each(block.columns.0, block.columns.1, width, |e, column| {
            let b = offset(e, tiles.columns, column, block.columns.0, 4);
            let c = offset(e, block.base, column, block.columns.0, 4);
            tiles.call(e, args, height, (tiles.rows, b, c), block.step, whole);
            if rest > 0 {
                let skipped = e.b.ins().imul(above, tiles.stride);
                let a = e.add_scaled(tiles.rows, skipped, 4);
                let c = e.add_scaled(c, above, block.step);
                let left = e.b.ins().isub(count, above);
                let one = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, left, 0);
                let one = e.b.ins().uextend(I64, one);
                tiles.call(e, args, rest, (a, b, c), block.step, one);
            }
        });
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
struct Tiles<'t> {
    t: &'t Tiling,
    /// The packed rows: that of row `r` of the block is `r * stride` floats further.
    rows: Value,
    stride: Value,
    /// The first term, counted from the start of a packed panel.
    first: Value,
    columns: Value,
    count: Value,
    accumulate: Value,
}

impl Tiles<'_> {
    /// Calls the leaf of this height for `tiles` tiles, one below the other.
    fn call(
        &self,
        e: &mut Emitter,
        args: Value,
        height: i64,
        (a, b, c): (Value, Value, Value),
        c_step: i64,
        tiles: Value,
    ) {
        let a = e.add_scaled(a, self.first, 4 * height);
        let a_tile = e.b.ins().imul_imm_s(self.stride, 4 * height);
        let [a_step, b_step, c_step] =
            [4 * height, 4 * self.t.column_step(), c_step].map(|bytes| e.int(bytes));
        for (field, value) in [
            (GemmField::A, a),
            (GemmField::B, b),
            (GemmField::C, c),
            (GemmField::Depth, self.count),
            (GemmField::AStep, a_step),
            (GemmField::BStep, b_step),
            (GemmField::CStep, c_step),
            (GemmField::Tiles, tiles),
            (GemmField::ATile, a_tile),
            (GemmField::Accumulate, self.accumulate),
        ] {
            e.b.ins().store(NOTRAP, value, args, field as i32);
        }
        let rows = u8::try_from(height).expect("tiles are low");
        e.call_leaf(Leaf::Gemm(GemmTile { rows, columns: self.t.tile.columns }), args);
    }
}

/// The part of `0..extent` that is block number `index`.
fn block_range(e: &mut Emitter, index: Value, length: i64, extent: i64) -> (Value, Value) {
    let start = e.b.ins().imul_imm_s(index, length);
    let limit = e.int(extent);
    let start = e.b.ins().smin(start, limit);
    let end = e.b.ins().iadd_imm_s(start, length);
    (start, e.b.ins().smin(end, limit))
}
