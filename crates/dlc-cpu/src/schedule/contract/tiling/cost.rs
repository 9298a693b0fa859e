//! The estimate that tilings are chosen by, in cycles of one thread.
//!
//! It knows a processor of the usual kind, and of a particular one no more than the caches.

use super::{Cut, LINE, Problem, Supply, Tile, depth_block};
use crate::level::Level;
use crate::schedule::contract::{Origin, div_ceil};

/// Cycles that a load costs a tile that does not wait for it.
const LOAD_IN_THE_WAY: f64 = 0.04;
/// Cycles to begin and end a tile, besides its sums.
const VISIT: f64 = 10.0;
/// Cycles for a row of sums: its lines are where no other row's are, or where all of them are.
const A_ROW: f64 = 2.0;
/// Cycles to set up a call of a leaf.
const CALL: f64 = 25.0;
/// Lines of the cache that its first level holds beside what else a tile needs.
const FEW_LINES: f64 = 448.0;
/// Cycles to bring a line from memory that is asked for ahead. Other work hides them, if it needs
/// nothing from there.
const LINE_FROM_MEMORY: f64 = 12.0;
/// The same of a line in order that the largest cache has.
const LINE_FROM_LAST_CACHE: f64 = 5.0;
/// The same of a line from memory that only the processor may guess.
const LINE_UNASKED: f64 = 16.0;
/// Floats that are too many for the caches of a core.
const FAR_FLOATS: i64 = 256 << 10;
/// Lines that share a place in the first level: as many as it has ways, at least.
const WAYS: i64 = 8;
/// Places in the first level.
const SETS: i64 = 64;
/// Positions of a side with which the other may take longer to come from memory than to be
/// multiplied.
const FEW: i64 = 32;

/// About how many cycles a product takes.
pub(super) fn cost(problem: Problem, tile: Tile, rows: Cut, columns: Cut) -> f64 {
    let depth = problem.depth.points() as f64;
    let most = tile.most_depth(rows.offer.points, columns.offer.origin, problem.caches);
    let blocks = (depth / most as f64).ceil().max(1.0);
    let lines = if columns.supply.is_direct() { crossed_lines(problem.level) } else { 1.0 };
    let ((row_run, row_runs), (column_run, column_runs)) = (rows.runs(), columns.runs());
    let strip = |width: i64| {
        let vectors = div_ceil(width, problem.level.lanes());
        let tiles = |height: i64, count: i64| {
            let visit = (height * vectors) as f64 + A_ROW * height as f64 + VISIT;
            count as f64 * (depth * cycles(height, vectors, lines) + blocks * visit)
        };
        let (whole, rest) = (row_run / tile.rows, row_run % tile.rows);
        let calls = blocks * CALL * (i64::from(whole > 0) + i64::from(rest > 0)) as f64;
        row_runs * (tiles(tile.rows, whole) + tiles(rest, i64::from(rest > 0)) + calls)
    };
    let (whole, rest) = (column_run / tile.columns, column_run % tile.columns);
    let last = if rest > 0 { strip(rest) } else { 0.0 };
    let sums = column_runs * (whole as f64 * strip(tile.columns) + last);
    let points = rows.offer.points as f64 * columns.offer.points as f64;
    let stores = points * problem.ending.store_cost(rows, columns);
    let packing = rows.packing(depth) + columns.packing(depth);
    problem.batch as f64
        * (sums
            + stores
            + packing
            + beyond_first_level(problem, tile, rows, columns)
            + waiting(problem, tile, rows, columns))
}

/// Cycles to bring cache lines from the second level, where a block of the depth has more of them
/// than the first level holds, or panels are used once: those of panels that are read in place across
/// the lines of an operand, each for one term, take longer than lines in order. If nothing else is on its
/// way from there, half of the work hides them.
fn beyond_first_level(problem: Problem, tile: Tile, rows: Cut, columns: Cut) -> f64 {
    let in_place = rows.supply.is_direct() || columns.supply.is_direct();
    let terms = depth_block(problem, tile, [rows, columns].map(|cut| cut.offer), in_place);
    let [row_lines, column_lines] = [rows.lines(tile.rows), columns.lines(tile.columns)];
    let few = terms as f64 * (row_lines.0 + column_lines.0) <= FEW_LINES;
    let again = rows.offer.points > tile.rows && columns.offer.points > tile.columns;
    if few && again && !rows.supply.crowds(terms) && !columns.supply.crowds(terms) {
        return 0.0;
    }
    let tiles = |cut: Cut, extent: i64| div_ceil(cut.offer.points, extent) as f64;
    let tiles = tiles(rows, tile.rows) * tiles(columns, tile.columns);
    let vectors = div_ceil(tile.columns.min(columns.offer.points), problem.level.lanes());
    let height = tile.rows.min(rows.offer.points);
    let hidden = match columns.offer.origin {
        Origin::Near if again => cycles(height, vectors, 1.0) / 2.0,
        _ => 0.0,
    };
    let lines = (row_lines.1 + column_lines.1 - hidden).max(0.0);
    tiles * problem.depth.points() as f64 * lines
}

impl Supply {
    /// Whether so many terms of a panel that is read in place, all in other lines, want the same few
    /// places in the first level.
    fn crowds(&self, terms: i64) -> bool {
        let Supply::Direct(steps) = self else { return false };
        let step = steps.depth.last().map_or(0, |step| step.abs());
        if step < LINE || step % LINE != 0 {
            return false;
        }
        let places = (SETS >> (step / LINE).trailing_zeros().min(SETS.trailing_zeros())).max(1);
        terms > WAYS * places
    }
}

/// Cycles that the few positions of one side wait for the other to come from beyond a core's own caches:
/// meanwhile, one tile of every panel can be computed.
fn waiting(problem: Problem, tile: Tile, rows: Cut, columns: Cut) -> f64 {
    let terms = problem.depth.points();
    let few = [rows, columns].map(|cut| cut.offer.points <= FEW);
    let height = tile.rows.min(rows.offer.points);
    let width = tile.columns.min(columns.offer.points);
    let step = cycles(height, div_ceil(width, problem.level.lanes()), 1.0);
    let wait = |cut: Cut, extent: i64, line: f64| {
        let steps = cut.offer.points as f64 / extent.max(1) as f64 * terms as f64;
        let is_far = cut.offer.points.saturating_mul(terms) > FAR_FLOATS;
        let one = (extent as f64 / LINE as f64 * line - step).max(0.0);
        if is_far { steps * one } else { 0.0 }
    };
    let is_packed = !columns.supply.is_direct() || columns.is_dense(width);
    let is_cached = is_packed && columns.offer.origin != Origin::Memory;
    let line = if is_cached { LINE_FROM_LAST_CACHE } else { LINE_FROM_MEMORY };
    match few {
        [true, false] => wait(columns, width, line),
        [false, true] => wait(rows, height, LINE_UNASKED),
        _ => 0.0,
    }
}

/// Lines of the cache that a vector is in, where it is read in place.
fn crossed_lines(level: Level) -> f64 {
    1.0 + level.lanes() as f64 / 16.0
}

/// Cycles for one term of a tile: two multiply-adds a cycle, two lines of the cache a cycle, and
/// four cycles for an addition to be ready. Loads are a little in the way of the others.
fn cycles(rows: i64, vectors: i64, lines: f64) -> f64 {
    let loads = rows as f64 + vectors as f64 * lines;
    (((rows * vectors) as f64).max(loads) / 2.0).max(4.0) + LOAD_IN_THE_WAY * loads
}
