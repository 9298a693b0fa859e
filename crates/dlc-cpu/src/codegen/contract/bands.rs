//! Bands of rows, each with what matters to it.

use super::Contraction;
use super::tiled::Terms;
use crate::codegen::Emitter;
use crate::codegen::nest::Point;
use crate::schedule::contract::{Axes, Reach, Tiling};
use crate::schedule::domain::{Check, Linear};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::Scalar;

/// From the first to before the last.
pub(super) type Range = (Value, Value);

impl Emitter<'_> {
    /// The end of the tiles that reach up to `high`, of those of that extent that begin with a range and
    /// stay in it.
    pub(super) fn whole_tiles(&mut self, extent: i64, range: Range, high: Value) -> Value {
        let high = self.b.ins().smax(high, range.0);
        let inside = self.b.ins().isub(high, range.0);
        let inside = self.b.ins().iadd_imm_s(inside, extent - 1);
        let tiles = self.divide(inside, extent).0;
        let high = self.add_scaled(range.0, tiles, extent);
        self.b.ins().smin(high, range.1)
    }
}

impl Contraction<'_, '_> {
    /// `body` for all rows of a block at once, or for one band after the other, with the terms and the
    /// rows and columns that matter to it.
    pub(super) fn for_bands(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        terms: &Terms,
        (rows, columns): (Range, Range),
        body: impl Fn(&mut Emitter, &Terms, (Range, Range)),
    ) {
        let Some((reach, height)) = self.schedule.bands() else {
            return body(e, terms, (rows, columns));
        };
        e.for_each(rows.0, rows.1, height, |e, first| {
            let end = e.b.ins().iadd_imm_s(first, height);
            let band = (first, e.b.ins().smin(end, rows.1));
            let strips = self.reached_columns(e, t, (reach, terms.point), band, columns);
            if !self.schedule.zeros().is_empty() {
                e.when(terms.finish, |e| {
                    self.store_zeros(e, t, terms.point, (band, (columns.0, strips.0)));
                    self.store_zeros(e, t, terms.point, (band, (strips.1, columns.1)));
                });
            }
            if reach.depth.is_empty() {
                return body(e, terms, (band, strips));
            }
            self.with_reached_terms(e, t, (reach, terms), band, |e, terms| {
                body(e, terms, (band, strips));
            });
        });
    }

    /// The strips of some columns that matter to a band.
    fn reached_columns(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        (reach, point): (&Reach, &Point),
        band: Range,
        columns: Range,
    ) -> Range {
        let conditions = [&reach.columns, self.schedule.zeros()].concat();
        if conditions.is_empty() {
            return columns;
        }
        let (low, high) = self.reached(e, (&conditions, &self.schedule.columns.axes), point, band);
        let width = t.tile.columns;
        let low = e.b.ins().smax(low, columns.0);
        let before = e.b.ins().isub(low, columns.0);
        let before = e.divide(before, width).1;
        let low = e.b.ins().isub(low, before);
        let high = e.whole_tiles(width, columns, high);
        (e.b.ins().smin(low, high), high)
    }

    /// Zeros in the place of everything that tiles would store for some rows and columns.
    fn store_zeros(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        point: &Point,
        (rows, columns): (Range, Range),
    ) {
        let (s, epilogue) = (self.schedule, t.epilogue().expect("tiles make the stores"));
        let count = e.b.ins().isub(columns.1, columns.0);
        for &(stream, _) in &epilogue.leaf.stores {
            let stream = &epilogue.streams[usize::from(stream)].stream;
            let bytes = stream.dtype.bytes() as i64;
            let buffer = stream.buffer.expect("what a tile touches is in buffers");
            e.for_each(rows.0, rows.1, 1, |e, row| {
                let mut point = point.clone();
                e.set_axes(&mut point, &s.rows.axes, row);
                e.set_axes(&mut point, &s.columns.axes, columns.0);
                let first = e.address(buffer, &stream.place, &point, bytes);
                e.fill(first, count, Scalar::new(stream.dtype, 0.0));
            });
        }
    }

    /// `body` with those of some terms that matter to a band, if there are any. A band's sums begin
    /// with the first terms that matter to it, and there is one at least.
    fn with_reached_terms(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        (reach, terms): (&Reach, &Terms),
        band: Range,
        body: impl Fn(&mut Emitter, &Terms),
    ) {
        let depth = &self.schedule.depth;
        let (low, high) = self.reached(e, (&reach.depth, depth), terms.point, band);
        let last = e.int(depth.points() - 1);
        let low = e.b.ins().smin(low, last);
        let after = e.b.ins().iadd_imm_s(low, 1);
        let high = e.b.ins().smax(high, after);
        let within = e.divide(low, t.depth_block).1;
        let low = e.b.ins().isub(low, within);
        let (begin, end) = terms.depth;
        let begun = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, begin, low);
        let open = e.b.ins().icmp(IntCC::SignedLessThan, begin, high);
        let matters = e.b.ins().band(begun, open);
        e.when(matters, |e| {
            let accumulate = e.b.ins().icmp(IntCC::SignedGreaterThan, begin, low);
            let finish = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, end, high);
            let [accumulate, finish] = [accumulate, finish].map(|x| e.b.ins().uextend(I64, x));
            let depth = (begin, e.b.ins().smin(end, high));
            body(e, &Terms { depth, accumulate, finish, ..*terms });
        });
    }

    /// The positions along the one axis of `along` at which conditions hold for some row of a band.
    fn reached(
        &self,
        e: &mut Emitter,
        (conditions, along): (&[Check], &Axes),
        point: &Point,
        band: Range,
    ) -> Range {
        let axis = along.last().expect("conditions are over an axis");
        let rows = &self.schedule.rows.axes;
        let row = rows.axes[0];
        let last = e.b.ins().iadd_imm_s(band.1, -1);
        let (zero, all) = (e.int(0), e.int(along.points()));
        let (mut low, mut high) = (zero, all);
        for Check { index, extent, .. } in conditions {
            let rest = Linear {
                terms: index.terms.iter().filter(|t| t.0 != axis).copied().collect(),
                offset: index.offset,
            };
            let mut ends = [band.0, last].map(|at| {
                let mut point = point.clone();
                e.set_axes(&mut point, rows, at);
                e.linear_at(&rest, &point, None)
            });
            if index.coef(row) < 0 {
                ends.reverse();
            }
            // `least + c * axis < extent` and `largest + c * axis >= 0`, where `c` is 1 or -1.
            let [least, largest] = ends;
            let (from, to) = match index.coef(axis) > 0 {
                true => {
                    let extent = e.int(*extent);
                    (e.b.ins().ineg(largest), e.b.ins().isub(extent, least))
                }
                false => {
                    (e.b.ins().iadd_imm_s(least, 1 - extent), e.b.ins().iadd_imm_s(largest, 1))
                }
            };
            low = e.b.ins().smax(low, from);
            high = e.b.ins().smin(high, to);
        }
        (low, high)
    }
}
