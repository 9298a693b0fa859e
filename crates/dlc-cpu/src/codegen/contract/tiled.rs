//! Register tiles over panels.

use super::panels::{Panel, block_range};
use super::{Contraction, room_of};
use crate::abi::ContextField;
use crate::codegen::nest::{Point, Run};
use crate::codegen::pack::offset;
use crate::codegen::{Emitter, LANES, NOTRAP, stretch};
use crate::leaf::{GEMM_ARGS_BYTES, GemmField, GemmTile, Leaf, Left, MAX_RUN};
use crate::schedule::contract::{Bundle, Epilogue, Sums, Tile, TileStream, Tiling, Which};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::Axis;

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
    /// 1 if they are the last of their sums, else 0.
    pub finish: Value,
}

impl Contraction<'_, '_> {
    /// The stores of a block of sums; `point` has the batch axes set.
    fn store_block(&self, e: &mut Emitter, point: &Point, block: Block) {
        let s = self.schedule;
        if let Some(leaf) = s.ending.as_ref().filter(|leaf| leaf.lines.is_some()) {
            // The leaf counts rows from the first one on.
            let zero = e.int(0);
            let base = offset(e, block.base, zero, block.rows.0, block.step);
            let rows = [block.rows.0, e.b.ins().isub(block.rows.1, block.rows.0)];
            return self.for_stored_runs(e, point, block, |e, point, (_, run)| {
                let sums = offset(e, base, run.flat, block.columns.0, 4);
                let room = room_of(e, run, sums);
                let run = [run.start, e.b.ins().isub(run.end, run.start)];
                stretch::call_lines_in(e, &mut self.evaluator(point), leaf, room, run, rows);
            });
        }
        e.for_each(block.rows.0, block.rows.1, 1, |e, r| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.rows.axes, r);
            let row = offset(e, block.base, r, block.rows.0, block.step);
            self.for_stored_runs(e, &point, block, |e, point, along| {
                let sums = offset(e, row, along.1.flat, block.columns.0, 4);
                self.store_run(e, point, along, sums);
            });
        });
    }

    /// The runs of a block's columns that are stored together: those of bundles, if there are any.
    fn for_stored_runs(
        &self,
        e: &mut Emitter,
        point: &Point,
        block: Block,
        mut body: impl FnMut(&mut Emitter, &Point, (Axis, Run)),
    ) {
        let axes = &self.schedule.columns.axes;
        let axis = axes.last().expect("columns are along an axis");
        let (first, end) = block.columns;
        let Some(bundle) = self.schedule.bundle else {
            return e
                .for_runs(axes, point, first, end, |e, point, run| body(e, point, (axis, run)));
        };
        e.for_each(first, end, bundle.columns(), |e, column| {
            let mut point = point.clone();
            e.set_axes(&mut point, axes, column);
            let (start, end) = (e.int(0), self.end_of_bundle(e, &point, bundle));
            body(e, &point, (axis, Run { flat: column, start, end }));
        });
    }

    /// The points of the bundle at `point`.
    fn end_of_bundle(&self, e: &mut Emitter, point: &Point, bundle: Bundle) -> Value {
        let points = e.int(bundle.points);
        if bundle.is_even() {
            return points;
        }
        // Between the axis of bundles and that of their points are those of sums.
        let axes = &self.schedule.columns.axes.axes;
        let number = axes[axes.len() - 2 - self.schedule.sums.axes.len()];
        let before = e.b.ins().imul_imm_s(point[number.0 as usize], bundle.points);
        let all = e.int(bundle.all);
        let left = e.b.ins().isub(all, before);
        e.b.ins().smin(left, points)
    }

    /// A block of the output, or one share of its depth.
    pub(super) fn sum_block(&self, e: &mut Emitter, t: &Tiling, unit: Value) {
        let s = self.schedule;
        let (rest, split) = e.divide(unit, t.shares.count);
        let (rest, column_block) = e.divide(rest, s.column_blocks(t));
        let (batch, row_block) = e.divide(rest, s.row_blocks(t));
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.batch, batch);
        let columns = block_range(e, column_block, t.column_block, s.columns.axes.points());
        let rows = block_range(e, row_block, t.row_block, s.rows.axes.points());
        let share = block_range(e, split, t.shares.depth, s.depth.points());
        let (base, step) = match &t.sums {
            Sums::Workspace | Sums::Registers(_) => {
                let scratch = e.scratch();
                (e.b.ins().iadd_imm_s(scratch, s.scratch().sums), 4 * t.column_block)
            }
            Sums::Shares => {
                let row = self.share_row(e, t, split, batch, rows.0);
                (e.add_scaled(row, columns.0, 4), 4 * s.share_step(t))
            }
        };
        let (rows, columns) = self.open_points(e, t, &point, (rows, columns));
        let share = self.open_terms(e, &point, (rows, columns), share);
        let block = Block { base, step, rows, columns };
        e.for_each(share.0, share.1, t.depth_block, |e, k| {
            let end = e.b.ins().iadd_imm_s(k, t.depth_block);
            let end = e.b.ins().smin(end, share.1);
            let accumulate = e.b.ins().icmp(IntCC::SignedGreaterThan, k, share.0);
            let finish = e.b.ins().icmp(IntCC::Equal, end, share.1);
            let [accumulate, finish] = [accumulate, finish].map(|x| e.b.ins().uextend(I64, x));
            let terms = Terms { point: &point, batch, depth: (k, end), accumulate, finish };
            self.sum_terms(e, t, &terms, block);
        });
        if t.sums == Sums::Workspace {
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
        let shared = e.context(ContextField::Shared);
        let shares = e.b.ins().iadd_imm_s(shared, s.shares_offset());
        let share = e.add_scaled(shares, split, 4 * s.share_floats(t));
        let batch_step = 4 * s.rows.axes.points() * s.share_step(t);
        let batch = if s.step_count() == 1 { batch } else { e.divide(batch, s.own_batch()).1 };
        let first = e.add_scaled(share, batch, batch_step);
        e.add_scaled(first, row, 4 * s.share_step(t))
    }

    /// Adds some terms to a block of sums.
    fn sum_terms(&self, e: &mut Emitter, t: &Tiling, terms: &Terms, block: Block) {
        let rows = self.panels(e, t, Which::Rows, terms, block.rows);
        let columns = self.panels(e, t, Which::Columns, terms, block.columns);
        let args = self.argument_block(e, t, terms);
        self.for_bands(e, t, terms, (block.rows, block.columns), |e, terms, band| {
            let tiles = Tiles { t, terms, block, args };
            self.for_strips(e, t, band.1, |e, column, width| {
                let right = self.panel(e, Which::Columns, (&columns, terms), column, width);
                let next = self.next_panel(e, t, (&columns, terms), (column, width), band.1);
                self.for_stacks(e, t, band.0, |e, row, height, count| {
                    let left = self.panel(e, Which::Rows, (&rows, terms), row, height);
                    let size = Tile { rows: height, columns: width };
                    let panels = (left, right.clone(), next);
                    self.call(e, tiles, size, (row, column, count), panels);
                });
            });
        });
    }

    /// Room for the arguments of a tile, with the values that are the same for all tiles.
    fn argument_block(&self, e: &mut Emitter, t: &Tiling, terms: &Terms) -> Value {
        let bytes = t.epilogue().map_or(GEMM_ARGS_BYTES, |epilogue| epilogue.leaf.args_bytes());
        let args = e.argument_block(bytes);
        if let Some(epilogue) = t.epilogue() {
            let mut ev = self.evaluator(terms.point);
            for (k, &id) in epilogue.values.iter().enumerate() {
                let value = ev.scalar(e, id);
                e.b.ins().store(NOTRAP, value, args, epilogue.leaf.value_at(k));
            }
        }
        args
    }

    /// `body` for every strip of columns of a block, as wide as a tile or what is left of a run.
    fn for_strips(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        range: (Value, Value),
        body: impl Fn(&mut Emitter, Value, i64),
    ) {
        let (side, width) = (&self.schedule.columns, t.tile.columns);
        if let Some(run) = t.run(Which::Columns, side) {
            return e.for_each(range.0, range.1, run, |e, start| {
                let whole = e.b.ins().iadd_imm_s(start, run / width * width);
                e.for_each(start, whole, width, |e, column| body(e, column, width));
                if run % width > 0 {
                    body(e, whole, run % width);
                }
            });
        }
        let rest = side.axes.points() % width;
        let count = e.b.ins().isub(range.1, range.0);
        let whole = e.divide(count, width).0;
        let whole = e.add_scaled(range.0, whole, width);
        e.for_each(range.0, whole, width, |e, column| body(e, column, width));
        if rest > 0 {
            let is_last = e.b.ins().icmp(IntCC::SignedLessThan, whole, range.1);
            e.when(is_last, |e| body(e, whole, rest));
        }
    }

    /// `body` for every stack of tiles of one height below one another: where it begins, the
    /// height, and how many tiles.
    fn for_stacks(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        range: (Value, Value),
        body: impl Fn(&mut Emitter, Value, i64, Value),
    ) {
        let (side, height) = (&self.schedule.rows, t.tile.rows);
        let stacks = |e: &mut Emitter, start: Value, whole: Value, points: i64, rest: Value| {
            if points >= height {
                body(e, start, height, whole);
            }
            if points % height > 0 {
                let below = e.add_scaled(start, whole, height);
                body(e, below, points % height, rest);
            }
        };
        if let Some(run) = t.run(Which::Rows, side) {
            return e.for_each(range.0, range.1, run, |e, start| {
                let (whole, one) = (e.int(run / height), e.int(1));
                stacks(e, start, whole, run, one);
            });
        }
        let count = e.b.ins().isub(range.1, range.0);
        let (whole, left) = e.divide(count, height);
        let one = e.b.ins().icmp_imm_s(IntCC::NotEqual, left, 0);
        let one = e.b.ins().uextend(I64, one);
        stacks(e, range.0, whole, side.axes.points(), one);
    }

    /// Calls the leaf of this size for `count` tiles, one below the other, from a row and a column
    /// on.
    fn call(
        &self,
        e: &mut Emitter,
        tiles: Tiles,
        size: Tile,
        (row, column, count): (Value, Value, Value),
        (left, right, next): (Panel, Panel, Option<Value>),
    ) {
        let Tiles { t, terms, block, args } = tiles;
        let nest = self.nest(e, t, terms);
        let sums = offset(e, block.base, row, block.rows.0, block.step);
        let sums = offset(e, sums, column, block.columns.0, 4);
        let [a_row, c_step] = [left.side_step, block.step].map(|bytes| e.int(bytes));
        let mut fields = vec![
            (GemmField::A.at(0), left.at),
            (GemmField::B.at(0), right.at),
            (GemmField::C.at(0), sums),
            (GemmField::ARow.at(0), a_row),
            (GemmField::CStep.at(0), c_step),
            (GemmField::Tiles.at(0), count),
            (GemmField::ATile.at(0), left.next),
            (GemmField::Accumulate.at(0), terms.accumulate),
            (GemmField::Finish.at(0), terms.finish),
        ];
        fields.extend(next.map(|next| (GemmField::Next.at(0), next)));
        let (a_moves, b_moves) = (nest.moves(&left.steps), nest.moves(&right.steps));
        for (level, &steps) in nest.counts.iter().enumerate() {
            let (a, b) = (e.int(a_moves[level]), e.int(b_moves[level]));
            fields.push((GemmField::Counts.at(level), steps));
            fields.push((GemmField::AMoves.at(level), a));
            fields.push((GemmField::BMoves.at(level), b));
        }
        if let Some(epilogue) = t.epilogue() {
            fields.extend(self.streams(e, tiles, epilogue, (row, column)));
        }
        for (field, value) in fields {
            e.b.ins().store(NOTRAP, value, args, field);
        }
        let [rows, columns] =
            [size.rows, size.columns].map(|n| u8::try_from(n).expect("tiles are small"));
        let short = size.is_short(self.schedule.config);
        let left = if left.side_step == 4 { Left::Packed } else { Left::Strided };
        let levels = nest.counts.len() as u8;
        let ahead = self.schedule.ahead(t, size);
        let tile = GemmTile { rows, columns, short, left, levels, run: nest.run, ahead };
        let epilogue = t.epilogue().map(|epilogue| epilogue.leaf.clone());
        e.call_leaf(Leaf::Gemm(tile, epilogue), args);
    }

    /// Address and step of every stream of an epilogue, for tiles from a row and a column on.
    fn streams(
        &self,
        e: &mut Emitter,
        tiles: Tiles,
        epilogue: &Epilogue,
        (row, column): (Value, Value),
    ) -> Vec<(i32, Value)> {
        let s = self.schedule;
        let mut point = tiles.terms.point.clone();
        e.set_axes(&mut point, &s.rows.axes, row);
        e.set_axes(&mut point, &s.columns.axes, column);
        let mut found = Vec::new();
        for TileStream { stream, row_step } in &epilogue.streams {
            let bytes = stream.dtype.bytes() as i64;
            let buffer = stream.buffer.expect("what a tile touches is in buffers");
            let at = e.address(buffer, &stream.place, &point, bytes);
            found.push((at, e.int(bytes * row_step)));
        }
        for linear in &epilogue.counts {
            let first = e.linear_at(linear, &point, None);
            let step = s.rows.axes.last().map_or(0, |axis| linear.coef(axis));
            found.push((first, e.int(step)));
        }
        let leaf = &epilogue.leaf;
        let fields = |(k, (at, step))| [(leaf.stream_at(k), at), (leaf.step_at(k), step)];
        found.into_iter().enumerate().flat_map(fields).collect()
    }

    /// The loops of the steps of some terms.
    fn nest(&self, e: &mut Emitter, t: &Tiling, terms: &Terms) -> Nest {
        let extents = &self.schedule.depth.extents;
        let depth = e.b.ins().isub(terms.depth.1, terms.depth.0);
        if t.levels(&self.schedule.depth) == 1 {
            return Nest { counts: vec![depth], inner: Vec::new(), run: None };
        }
        let inner: Vec<i64> = extents[1..].iter().rev().copied().collect();
        let mut counts: Vec<Value> = inner.iter().map(|&extent| e.int(extent)).collect();
        counts.push(e.divide(depth, inner.iter().product()).0);
        let run = u8::try_from(inner[0]).ok().filter(|&run| run <= MAX_RUN);
        Nest { counts, inner, run }
    }

    /// Adds the shares of a row and makes its stores.
    pub(super) fn finish_row(&self, e: &mut Emitter, t: &Tiling, unit: Value) {
        let s = self.schedule;
        let (batch, row) = e.divide(unit, s.rows.axes.points());
        let mut point = self.origin(e);
        e.set_axes(&mut point, &s.batch, batch);
        let (zero, splits) = (e.int(0), e.int(t.shares.count));
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
#[derive(Clone, Copy)]
struct Tiles<'t> {
    t: &'t Tiling,
    terms: &'t Terms<'t>,
    block: Block,
    args: Value,
}

/// The loops of a tile's steps.
struct Nest {
    /// The count of every loop, innermost first.
    counts: Vec<Value>,
    /// The counts of all loops but the outermost.
    inner: Vec<i64>,
    /// The innermost count, if it is written out.
    run: Option<u8>,
}

impl Nest {
    /// How a panel moves at every loop, innermost first, given its steps, outermost first.
    fn moves(&self, steps: &[i64]) -> Vec<i64> {
        let steps: Vec<i64> = match self.counts.len() {
            1 => vec![steps.last().copied().unwrap_or(0)],
            _ => steps.iter().rev().copied().collect(),
        };
        let back = |level: usize| match level {
            0 => 0,
            _ => self.inner[level - 1] * steps[level - 1],
        };
        (0..steps.len()).map(|level| steps[level] - back(level)).collect()
    }
}
