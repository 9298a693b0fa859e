//! Planes: a block's rows and, tile by tile, columns. What threads hold of a tile goes to shared memory
//! as words that a sum over columns multiplies.

use super::contract::fill::{fresh_word, line_place, row_place, store_words, word};
use super::contract::finish::{Line, line};
use super::contract::tiled::{Held, Task, both, point_axes};
use super::map::coordinates;
use super::point::Point;
use super::writer::Writer;
use crate::Math;
use crate::ir::{Address, B32, Compare, F32, IntOp, LogicOp, Pred, Special, Value};
use crate::place::coef;
use crate::schedule::contract::{Tiling, WORDS};
use crate::schedule::plane::{Plane, TILE};
use dlc_kernel::place::Check;

/// A block: some rows.
pub struct Block<'s, 'k> {
    plane: &'s Plane<'k>,
    batch: Vec<Value<B32>>,
    batch_at: B32,
    /// The first row.
    first: B32,
    /// 0.
    pub zero: B32,
    thread: B32,
    /// In shared memory: stages of all contractions, which take turns.
    pub stages: B32,
}

impl<'s, 'k> Block<'s, 'k> {
    /// A block whose contractions are those.
    pub fn new<'t>(
        w: &mut Writer<'_>,
        plane: &'s Plane<'k>,
        contractions: impl IntoIterator<Item = &'t Tiling<'k>>,
    ) -> Block<'s, 'k>
    where
        'k: 't,
    {
        let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
        let tile = w.b.int(IntOp::RemU, block, plane.row_tiles());
        let batch_at = w.b.int(IntOp::DivU, block, plane.row_tiles());
        let bytes = contractions.into_iter().map(|t| t.stages() * t.stage_bytes()).max();
        let stages = reserve(w, bytes.expect("there are contractions"));
        let batch = coordinates(w, batch_at.into(), &plane.groups[0].extents, 1);
        let (first, zero) = (w.b.int(IntOp::Mul, tile, TILE), w.b.mov32(0));
        Block { plane, batch, batch_at, first, zero, thread, stages }
    }

    /// Does `step` for the columns of each tile, from its first on, but for tiles that no row needs.
    pub fn each_tile(&self, w: &mut Writer<'_>, step: impl Fn(&mut Writer<'_>, B32)) {
        let columns = self.plane.groups[2].points() as u32;
        w.for_range(self.zero, columns, TILE, |w, column| match self.is_needed(w, column) {
            Some(needed) => w.if_(needed, |w| step(w, column)),
            None => step(w, column),
        });
    }

    /// The columns of the tile from `column` on, as a range of a sum.
    pub fn range(&self, w: &mut Writer<'_>, column: B32) -> [B32; 2] {
        let until = w.b.int(IntOp::Add, column, TILE);
        [column, w.b.int(IntOp::MinU, until, self.plane.groups[2].points() as u32)]
    }

    /// A contraction for the block's rows, from that column on.
    pub fn task<'t>(&self, tiling: &'t Tiling<'k>, column: B32) -> Task<'t, 'k> {
        let (batch, batch_at, thread) = (self.batch.clone(), self.batch_at, self.thread);
        Task { tiling, batch, batch_at, origin: [self.first, column], part: self.zero, thread }
    }

    /// Points of a row and some columns.
    pub fn point(&self, row: &[Value<B32>], column: &[Value<B32>], lanes: usize) -> Point<'s, 'k> {
        let Plane { view, groups: [batch, rows, columns], .. } = self.plane;
        let groups: [(_, &[_]); 3] = [(batch, &self.batch), (rows, row), (columns, column)];
        Point::new(&view.domain, point_axes(view, &groups), lanes)
    }

    /// Points of a contraction's results, which go with those of a row and some columns.
    pub fn result<'t>(
        &self,
        tiling: &'t Tiling<'k>,
        [row, column]: [&Line; 2],
        lanes: usize,
    ) -> Point<'t, 'k> {
        let [rows, columns] = &tiling.sides;
        let groups: [(_, &[_]); 3] = [
            (&tiling.batch, &self.batch),
            (&rows.group, &row.axes),
            (&columns.group, &column.axes),
        ];
        Point::new(&tiling.result.domain, point_axes(&tiling.result, &groups), lanes)
    }

    /// Whether any of the block's rows needs any of a tile's columns; `None` if it surely does.
    fn is_needed(&self, w: &mut Writer<'_>, column: B32) -> Option<Pred> {
        let [_, rows, columns] = &self.plane.groups;
        let [row, column] = [(rows, self.first), (columns, column)]
            .map(|(group, at)| coordinates(w, at.into(), &group.extents, 1));
        let point = self.point(&row, &column, 1);
        let mut needed = None;
        for check in &self.plane.needs {
            let Some((low, high)) = self.reach(check) else { continue };
            let first = point.linear(w, &check.index, 0);
            let last = w.b.int(IntOp::Add, first, high);
            let above = w.b.set_int(Compare::Ge, last, 0);
            let least = w.b.int(IntOp::Add, first, low);
            let below = w.b.set_int(Compare::Lt, least, check.extent as i32);
            let own = w.b.logic(LogicOp::And, above, below);
            needed = both(w, needed, Some(own));
        }
        needed
    }

    /// How far the index of a check goes down and up within a tile, from where its first row meets its
    /// first column; `None` where that is not the least or the most along each axis.
    fn reach(&self, check: &Check) -> Option<(i32, i32)> {
        let Plane { view, groups, .. } = self.plane;
        let (mut low, mut high) = (0, 0);
        for group in &groups[1..] {
            let axes = group.axes.iter().map(|axis| view.order.iter().position(|a| a == axis));
            let coefs = axes.flatten().map(|axis| coef(&check.index, axis));
            let coefs: Vec<i64> = coefs.filter(|&c| c != 0).collect();
            if coefs.is_empty() {
                continue;
            }
            let &[coef] = coefs.as_slice() else { return None };
            let far = coef.checked_mul(i64::from(TILE - 1)).filter(|_| group.axes.len() == 1)?;
            (low, high) = (low + far.min(0), high + far.max(0));
        }
        (check.div == 1).then_some((i32::try_from(low).ok()?, i32::try_from(high).ok()?))
    }
}

/// Reserves shared memory.
pub fn reserve(w: &mut Writer<'_>, bytes: u32) -> B32 {
    let offset = w.b.reserve_shared(bytes);
    w.b.shared_base(offset)
}

/// The rows of what a thread holds, by distance from its first.
pub fn rows(w: &mut Writer<'_>, task: &Task<'_, '_>, held: &Held) -> Vec<(u32, Line)> {
    let mut rows = Vec::new();
    for fragment in &held.fragments {
        line(w, task, held, 0, fragment.row, &mut rows);
    }
    rows
}

/// Where threads put what they hold of a tile, as the rows' factor of sums over its columns.
pub struct Factor<'t, 'k> {
    /// The sums.
    tiling: &'t Tiling<'k>,
    /// Where it begins in shared memory.
    pub base: B32,
    /// Where a thread's words go: of each column of the first fragment, or of the first.
    places: Vec<B32>,
}

impl<'t, 'k> Factor<'t, 'k> {
    /// Room for the factor of these sums, of tiles that threads hold so.
    pub fn new(w: &mut Writer<'_>, tiling: &'t Tiling<'k>, held: &Held) -> Factor<'t, 'k> {
        let base = reserve(w, TILE / tiling.depth() * tiling.part_bytes(0));
        let by_line = tiling.math == Math::F32;
        let count = if by_line { held.fragments[0].sums.len() as u32 } else { 1 };
        let places = (0..count).map(|i| place(w, tiling, base, held.first, i)).collect();
        Factor { tiling, base, places }
    }

    /// Puts values there, by fragment.
    pub fn put(&self, w: &mut Writer<'_>, held: &Held, values: &[Vec<F32>]) {
        let tiling = self.tiling;
        if tiling.math == Math::F32 {
            // Neighbours along a line are rows.
            for (col, &place) in self.places.iter().enumerate() {
                let rows: Vec<_> = values.iter().map(|row| row[col].into()).collect();
                store_words(w, Address::shared(place, 0), &rows);
            }
            return;
        }
        for (fragment, values) in held.fragments.iter().zip(values) {
            let words = values.chunks(tiling.math.per_word() as usize).map(|parts| {
                let to = fresh_word(w, tiling.math);
                word(w, tiling.math, to, parts);
                to
            });
            let words: Vec<_> = words.collect();
            let first = fragment.col / tiling.math.per_word();
            let place = w.b.int(IntOp::Xor, self.places[0], 4 * (first % WORDS));
            let offset = first / WORDS * tiling.part_bytes(0) + 4 * WORDS * fragment.row;
            store_words(w, Address::shared(place, offset as i32), &words);
        }
    }
}

/// Where the word of a thread's first row and of the column `i` from its first goes.
fn place(w: &mut Writer<'_>, tiling: &Tiling<'_>, base: B32, [row, col]: [B32; 2], i: u32) -> B32 {
    let col = w.b.int(IntOp::Add, col, i);
    let word = w.b.int(IntOp::DivU, col, tiling.math.per_word());
    let (stage, word) = (w.b.int(IntOp::DivU, word, WORDS), w.b.int(IntOp::RemU, word, WORDS));
    let within = match tiling.math {
        Math::F32 => line_place(w, TILE, row, word),
        _ => row_place(w, row, word),
    };
    let within = w.b.int(IntOp::Add, within, base);
    w.b.mad(stage, tiling.part_bytes(0), within)
}
