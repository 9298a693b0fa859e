//! How [`Algorithm::Tiled`](super::Algorithm::Tiled) cuts its work: tiles, blocks, panels.
//!
//! Both operands are read in *panels*: for every step of the depth, the values at as many
//! neighbouring positions of a side as a tile is high or wide. A panel is packed, or read where the
//! operand lies; then no tile goes beyond a run along the side's last axis. The last panel of a side
//! or run is as narrow as what is left.
//!
//! The choice is the cheapest of all combinations by an estimate in cycles, or what measurements have
//! chosen instead ([`super::Choices`]). It depends on sizes, the level and the caches, never on the
//! number of threads. Terms are added one after the other whatever the blocks are, but for the
//! [`Shares`] of a depth, which sizes alone decide.

mod cost;
mod ending;
mod tile;

use super::{Axes, Bundle, Epilogue, Origin, Side, Which, div_ceil};
use crate::caches::Caches;
use crate::leaf::MAX_LEVELS;
use crate::level::Level;
use cost::cost;
use dlc_kernel::lcm;
pub(super) use ending::{Ending, Neighbours};
use smallvec::SmallVec;
use std::sync::Arc;
use tile::DEPTH;
pub use tile::Tile;

/// How a contraction in register tiles cuts its work. A unit is a block of rows and columns of one
/// batch, or a share of its depth if that is split.
#[derive(Clone, Debug)]
pub struct Tiling {
    /// The register tile; what is left over at the edges takes smaller ones.
    pub tile: Tile,
    /// Rows of a unit: whole tiles, and whole runs if tiles keep to them.
    pub row_block: i64,
    /// Columns of a unit, as rows.
    pub column_block: i64,
    /// Terms summed between two packings.
    pub depth_block: i64,
    /// How the depth is shared out.
    pub shares: Shares,
    /// Where the panels of rows come from.
    pub rows: Supply,
    /// Where the panels of columns come from.
    pub columns: Supply,
    /// Where the sums go.
    pub sums: Sums,
}

/// Where the panels of a side come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// They are read where the operand lies.
    Direct(Steps),
    /// Packed whenever parameters have changed: the operand depends on nothing else.
    AtLoad,
    /// Packed once per call, before all units, as they share them.
    PerCall,
    /// Packed by the unit that uses them.
    PerUnit,
}

/// How far apart neighbours are in an operand, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Along the side's last axis.
    pub side: i64,
    /// How many positions are that far apart: tiles keep to runs of so many.
    pub run: i64,
    /// Along the axes of the depth, outermost first.
    pub depth: SmallVec<[i64; MAX_LEVELS]>,
}

/// Where tiles put their sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Nowhere: when all terms are summed, the tile makes the stores from its registers. Until then
    /// they are in the unit's workspace.
    Registers(Arc<Epilogue>),
    /// Into the unit's workspace; the stores follow when all terms are summed.
    Workspace,
    /// Into the share's place in the shared workspace, to be added up in a stage of its own.
    Shares,
}

/// Shares of a depth, summed apart and then added in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many there are.
    pub count: i64,
    /// Terms of each but the last: whole rounds of all axes but the first.
    pub depth: i64,
}

/// What the choice looks at, besides the sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem<'a> {
    pub level: Level,
    pub caches: Caches,
    pub batch: i64,
    pub depth: &'a Axes,
    pub shares: Shares,
    pub bundle: Option<Bundle>,
    pub ending: &'a Ending,
}

/// How a side can be supplied.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub points: i64,
    /// How many axes it has.
    pub axes: usize,
    /// Whether it depends on fixed parameters alone.
    pub fixed: bool,
    /// Where its elements come from.
    pub origin: Origin,
    /// Whether it is packed once for all steps of a loop.
    pub once: bool,
    /// How it is read where it lies, if it can be.
    pub steps: Option<Steps>,
    /// Cycles to pack an element.
    pub pack_cost: f64,
}

impl Offer {
    /// Whether it is a matrix that is packed long before it is used: tiles then pay for few rows.
    pub fn is_kept_matrix(&self) -> bool {
        self.points > 1 && (self.fixed || self.once)
    }
}

/// Most columns of a block.
const MOST_COLUMNS: i64 = 512;
const MAX_PER_CALL_BYTES: i64 = 64 << 20;
/// Cycles to bring a line from the second level, where the next one is not its neighbour.
const SCATTERED_LINE: f64 = 4.0;
/// The same where it is.
const LINE_IN_ORDER: f64 = 1.0;
/// Floats of a line.
pub(super) const LINE: i64 = 16;
/// Units that are enough to share out.
pub(super) const ENOUGH_UNITS: i64 = 8;
/// Numbers of threads that few units should suit.
const THREADS: [i64; 3] = [2, 4, 8];
/// What another unit costs, as a part of a whole product.
const A_UNIT: f64 = 0.0005;
/// Rows and columns that are a unit's at least, where depths are shared out.
const PIECE: i64 = 64;
/// Pieces from which on no depth is shared out.
const ENOUGH_PIECES: i64 = 4;
/// Rows that a strided panel may have.
const STRIDED_ROWS: i64 = 6;

impl Shares {
    /// How many pieces there are to share out of `batch` products with so many positions of each side.
    pub(super) fn pieces(batch: i64, points: [i64; 2]) -> i64 {
        points.into_iter().fold(batch, |n, side| n * div_ceil(side, PIECE))
    }

    /// Shares of `depth`: enough to share out what would be too few pieces, as long as each is deep.
    pub(super) fn new(pieces: i64, depth: &Axes) -> Shares {
        let wanted = if pieces < ENOUGH_PIECES { ENOUGH_UNITS / pieces.max(1) } else { 1 };
        let most = (depth.points() / DEPTH).clamp(1, wanted.max(1));
        let round = depth.extents.iter().skip(1).product::<i64>().max(1);
        let share = even_block(depth.points(), div_ceil(depth.points(), most), round).max(1);
        Shares { count: div_ceil(depth.points(), share).max(1), depth: share }
    }
}

impl Steps {
    /// Whether neighbouring positions fall into one set of a first-level cache.
    fn collide(&self) -> bool {
        self.side != 0 && self.side % 1024 == 0
    }
}

impl Supply {
    /// Whether panels are read in place.
    fn is_direct(&self) -> bool {
        matches!(self, Supply::Direct(_))
    }

    /// The length of the runs that tiles keep to of so many positions, if they do.
    fn run(&self, points: i64) -> Option<i64> {
        match self {
            Supply::Direct(steps) => Some(steps.run).filter(|&run| run < points),
            _ => None,
        }
    }

    /// The same where `sharing` units use each panel of `bytes` bytes in all: what several share is
    /// packed once, if it is not too much.
    fn shared(self, offer: &Offer, sharing: i64, bytes: i64) -> Supply {
        let shares = offer.once || sharing > 1 && bytes <= MAX_PER_CALL_BYTES;
        match self {
            Supply::PerCall if !shares => Supply::PerUnit,
            supply => supply,
        }
    }

    /// Whether the operand is packed whole, in a stage of its own.
    pub fn is_whole(&self) -> bool {
        matches!(self, Supply::AtLoad | Supply::PerCall)
    }
}

impl Tiling {
    /// Where the panels of a side come from.
    pub fn supply(&self, which: Which) -> &Supply {
        if which == Which::Rows { &self.rows } else { &self.columns }
    }

    /// Whether nothing is packed, and neighbouring columns are neighbours in memory.
    pub fn is_in_place(&self) -> bool {
        matches!(&self.columns, Supply::Direct(steps) if steps.side == 1) && self.rows.is_direct()
    }

    /// The stores that its tiles make.
    pub fn epilogue(&self) -> Option<&Epilogue> {
        match &self.sums {
            Sums::Registers(epilogue) => Some(epilogue),
            _ => None,
        }
    }

    /// The length of the runs of a side that tiles keep to, if they do.
    pub fn run(&self, which: Which, side: &Side) -> Option<i64> {
        self.supply(which).run(side.axes.points())
    }

    /// How many loops the steps of a tile are: one where both panels are evenly spaced.
    pub fn levels(&self, depth: &Axes) -> usize {
        match self.rows.is_direct() || self.columns.is_direct() {
            true => depth.axes.len().max(1),
            false => 1,
        }
    }

    /// All ways, each with about how many cycles it takes.
    pub(super) fn ways(problem: Problem, rows: &Offer, columns: &Offer) -> Vec<(Plan, f64)> {
        let mut ways = Vec::new();
        for row_supply in rows.supplies(Which::Rows) {
            for column_supply in columns.supplies(Which::Columns) {
                let strided = matches!(&row_supply, Supply::Direct(s) if s.side != 1);
                let fits = |t: &&Tile| !strided || t.rows <= STRIDED_ROWS;
                let tiles = Tile::that_suit(problem.level, problem.bundle);
                for &tile in tiles.iter().filter(fits) {
                    let (rows, columns) = (
                        Cut { offer: rows, supply: &row_supply },
                        Cut { offer: columns, supply: &column_supply },
                    );
                    let cost = cost(problem, tile, rows, columns);
                    let supplies = (row_supply.clone(), column_supply.clone());
                    ways.push((Plan { tile, supplies }, cost));
                }
            }
        }
        ways
    }
}

impl Offer {
    /// The ways worth comparing; `PerCall` stands for packing of either kind.
    fn supplies(&self, which: Which) -> SmallVec<[Supply; 2]> {
        if self.fixed {
            return [Supply::AtLoad].into_iter().collect();
        }
        if self.once {
            return [Supply::PerCall].into_iter().collect();
        }
        let usable = |s: &Steps| match which {
            Which::Columns => s.side == 1,
            Which::Rows => !s.collide(),
        };
        let direct = self.steps.clone().filter(|s| s.depth.len() <= MAX_LEVELS && usable(s));
        direct.map(Supply::Direct).into_iter().chain([Supply::PerCall]).collect()
    }
}

/// A side as one of its supplies cuts it.
#[derive(Clone, Copy)]
struct Cut<'a> {
    offer: &'a Offer,
    supply: &'a Supply,
}

impl Cut<'_> {
    /// The length of what tiles keep to, and how many there are of it.
    fn runs(&self) -> (i64, f64) {
        let run = self.supply.run(self.offer.points).unwrap_or(self.offer.points);
        (run, self.offer.points as f64 / run.max(1) as f64)
    }

    /// How it is cut into blocks for tiles of `extent`, so that `together` neighbours are in one.
    fn blocks(&self, extent: i64, together: i64) -> Divisible {
        let step = self.supply.run(self.offer.points).unwrap_or(extent);
        Divisible { points: self.offer.points, step, together }
    }

    /// Whether neighbours within a tile are always one step of the last axis apart.
    fn is_even(&self) -> bool {
        self.offer.axes <= 1 || self.supply.run(self.offer.points).is_some()
    }

    /// Lines of the cache for each term of a panel, and cycles to bring them from the second level.
    fn lines(&self, extent: i64) -> (f64, f64) {
        match self.is_in_order(extent) {
            true => (extent as f64 / LINE as f64, extent as f64 / LINE as f64 * LINE_IN_ORDER),
            false => {
                let lines = div_ceil(extent, LINE) as f64;
                (lines, lines * SCATTERED_LINE)
            }
        }
    }

    /// Whether the terms of a panel follow each other in memory.
    fn is_in_order(&self, extent: i64) -> bool {
        let Supply::Direct(steps) = self.supply else { return true };
        steps.depth.last() == Some(&1) || self.is_dense(extent)
    }

    /// Whether a panel that is read in place lies as a packed one would.
    fn is_dense(&self, extent: i64) -> bool {
        let Supply::Direct(steps) = self.supply else { return false };
        steps.side == 1 && steps.depth.last() == Some(&extent)
    }

    /// Cycles to pack `depth` steps.
    fn packing(&self, depth: f64) -> f64 {
        match self.supply {
            Supply::Direct(_) | Supply::AtLoad => 0.0,
            _ => self.offer.points as f64 * depth * self.offer.pack_cost,
        }
    }
}

/// A tile and where its panels come from.
pub(super) struct Plan {
    pub tile: Tile,
    pub supplies: (Supply, Supply),
}

impl Plan {
    /// Blocks for the plan.
    pub fn cut(&self, problem: Problem, rows: &Offer, columns: &Offer) -> Tiling {
        let (tile, depth) = (self.tile, problem.depth.points());
        let row_cut = Cut { offer: rows, supply: &self.supplies.0 };
        let column_cut = Cut { offer: columns, supply: &self.supplies.1 };
        let in_place = self.supplies.0.is_direct() || self.supplies.1.is_direct();
        let depth_block = depth_block(problem, tile, [rows, columns], in_place);
        let (row_block, column_block) = blocks(
            problem,
            depth_block,
            row_cut.blocks(tile.rows, 1),
            column_cut.blocks(tile.columns, problem.bundle.map_or(1, Bundle::columns)),
        );
        let (row_blocks, column_blocks) =
            (div_ceil(rows.points, row_block), div_ceil(columns.points, column_block));
        let shares = problem.shares;
        let sums = match (shares.count, problem.ending.of_tile(row_cut, column_cut)) {
            (1, Some(epilogue)) => Sums::Registers(epilogue.clone()),
            (1, None) => Sums::Workspace,
            _ => Sums::Shares,
        };
        let bytes = |offer: &Offer| 4 * problem.batch * offer.points * depth;
        let (row_supply, column_supply) = self.supplies.clone();
        Tiling {
            tile,
            row_block,
            column_block,
            depth_block,
            shares,
            rows: row_supply.shared(rows, column_blocks, bytes(rows)),
            columns: column_supply.shared(columns, row_blocks, bytes(columns)),
            sums,
        }
    }
}

/// Terms between two packings: whole rounds of all loops but the outermost, if a panel is read in
/// place, or if they are short.
fn depth_block(problem: Problem, tile: Tile, [rows, columns]: [&Offer; 2], in_place: bool) -> i64 {
    let inner: i64 = problem.depth.extents.iter().skip(1).product();
    let multiple = if inner <= 128 || in_place { inner } else { 1 };
    let most = tile.most_depth(rows.points, columns.origin, problem.caches);
    even_block(problem.shares.depth, most, multiple)
}

/// A side to be cut into blocks: its points, and what every block is a multiple of.
#[derive(Clone, Copy)]
struct Divisible {
    points: i64,
    step: i64,
    /// The same, but for the only block.
    together: i64,
}

impl Divisible {
    fn block(self, limit: i64) -> i64 {
        let both = lcm(self.step, self.together);
        let multiple = if both <= self.points { both } else { self.step };
        let limit = if both <= self.points { limit.max(both) } else { self.points };
        even_block(self.points, limit, multiple)
    }

    /// The block, up to `limit`, whose units can be shared out best: the last one is smaller, and of few
    /// units one more or less is a lot.
    fn shared_out(self, limit: i64) -> i64 {
        let both = lcm(self.step, self.together);
        let smaller = (1..).map(|blocks| blocks * both).take_while(|&block| block < limit);
        let cost = |&block: &i64| {
            let units = div_ceil(self.points, block);
            let longest: i64 =
                THREADS.map(|threads| self.longest_share(block, threads)).iter().sum();
            longest as f64 / self.points as f64 + A_UNIT * units as f64
        };
        smaller.chain([limit]).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(limit)
    }

    /// The most points of so many threads' shares of all units, which are cut as `share.rs` cuts them.
    fn longest_share(self, block: i64, threads: i64) -> i64 {
        let units = div_ceil(self.points, block);
        let cut = |thread: i64| {
            let unit = (units * thread) as f64 / threads as f64;
            (unit.round() as i64 * block).min(self.points)
        };
        (0..threads).map(|thread| cut(thread + 1) - cut(thread)).max().unwrap_or(0)
    }
}

/// Rows and columns of a unit, but enough units to share out: rows and sums take half of the second
/// level. Rows stay there while strips of columns pass by, sums until the terms that follow.
fn blocks(problem: Problem, depth_block: i64, rows: Divisible, columns: Divisible) -> (i64, i64) {
    let mut column_block = columns.block(MOST_COLUMNS);
    let row_floats = problem.caches.second as i64 / 2 / 4;
    let floats = |column_block| depth_block.max(1) + column_block;
    let mut row_block = rows.block((row_floats / floats(column_block)).max(rows.step));
    let too_few = |row_block, column_block| {
        let units = div_ceil(rows.points, row_block) * div_ceil(columns.points, column_block);
        problem.batch * units * problem.shares.count < ENOUGH_UNITS
    };
    let least = 64.max(2 * lcm(columns.step, columns.together));
    // A block of one side meets all of the other one, which passes by once for each.
    let passing = |&(row_block, column_block): &(i64, i64)| {
        rows.points * div_ceil(columns.points, column_block)
            + columns.points * div_ceil(rows.points, row_block)
    };
    while too_few(row_block, column_block) {
        let fewer_rows =
            (row_block >= 8 * rows.step).then(|| (rows.block(row_block / 2), column_block));
        let fewer_columns =
            (column_block >= least).then(|| (row_block, columns.block(column_block / 2)));
        let ways = [fewer_rows, fewer_columns].into_iter().flatten();
        let Some(blocks) = ways.min_by_key(passing) else { break };
        (row_block, column_block) = blocks;
    }
    if row_block >= rows.points && problem.batch * problem.shares.count == 1 {
        column_block = columns.shared_out(column_block);
    }
    (row_block, column_block)
}

/// `extent` cut into as few blocks as `limit` allows, all of about the same size.
pub(super) fn even_block(extent: i64, limit: i64, multiple: i64) -> i64 {
    let blocks = div_ceil(extent, limit.max(1));
    div_ceil(div_ceil(extent, blocks.max(1)), multiple.max(1)) * multiple.max(1)
}
