//! Parts of blocks beyond which masks that data decides leave nothing.

use super::Contraction;
use super::bands::Range;
use crate::codegen::Emitter;
use crate::codegen::nest::Point;
use crate::schedule::contract::{Ends, Tiling, Which};
use cranelift_codegen::ir::{InstBuilder, Value};

impl Contraction<'_, '_> {
    /// The rows and columns of a block that matter, in whole tiles; makes the stores of the others.
    pub(super) fn open_points(
        &self,
        e: &mut Emitter,
        t: &Tiling,
        point: &Point,
        (rows, columns): (Range, Range),
    ) -> (Range, Range) {
        let Some(ends) = &self.schedule.reach.points else { return (rows, columns) };
        let cut = |e: &mut Emitter, lines: Range, all: Range| {
            let kept = self.longest(e, ends, (point, lines), all);
            let kept = e.whole_tiles(t.tile.extent(ends.of.other()), all, kept);
            self.store_fixed(e, ends, point, (lines, (kept, all.1)));
            (all.0, kept)
        };
        match ends.of {
            Which::Rows => (rows, cut(e, rows, columns)),
            Which::Columns => (cut(e, columns, rows), columns),
        }
    }

    /// Those of some terms that matter to a block, one at least.
    pub(super) fn open_terms(
        &self,
        e: &mut Emitter,
        point: &Point,
        (rows, columns): (Range, Range),
        terms: Range,
    ) -> Range {
        let Some(ends) = &self.schedule.reach.terms else { return terms };
        let lines = if ends.of == Which::Rows { rows } else { columns };
        let least = e.b.ins().iadd_imm_s(terms.0, 1);
        (terms.0, self.longest(e, ends, (point, lines), (least, terms.1)))
    }

    /// Where the longest of some lines ends, within a range.
    fn longest(
        &self,
        e: &mut Emitter,
        Ends { of, tail }: &Ends,
        (point, lines): (&Point, Range),
        range: Range,
    ) -> Value {
        let longest = e.fold(lines.0, lines.1, 1, &[range.0], |e, line, longest| {
            let mut point = point.clone();
            e.set_axes(&mut point, &self.schedule.side(*of).axes, line);
            vec![e.before_tail(tail, &point, (longest[0], range.1))]
        });
        longest[0]
    }

    /// What is stored at the positions of some lines where all is masked.
    fn store_fixed(
        &self,
        e: &mut Emitter,
        Ends { of, tail }: &Ends,
        point: &Point,
        (lines, masked): (Range, Range),
    ) {
        let s = self.schedule;
        e.for_each(lines.0, lines.1, 1, |e, line| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.side(*of).axes, line);
            e.store_tail(tail, &s.stores, &point, masked);
        });
    }
}
