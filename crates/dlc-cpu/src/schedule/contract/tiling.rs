//! How [`Algorithm::Tiled`](super::Algorithm::Tiled) cuts its work: tiles, blocks, panels.
//!
//! Both operands are read in *panels*: for every step of the depth, the values at as many
//! neighbouring positions of a side as a tile is high or wide. A panel is packed, or read where the
//! operand lies. The last panel of a side is as narrow as what is left.

use super::{Which, div_ceil};
use crate::level::Level;
use std::fmt;

/// Rows and columns of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Positions of the side that is broadcast.
    pub rows: i64,
    /// Positions of the side that becomes vectors.
    pub columns: i64,
}

/// How a contraction in register tiles cuts its work. A unit is a block of rows and columns of one
/// batch, or a share of its depth if that is split.
#[derive(Clone, Debug)]
pub struct Tiling {
    /// The register tile; what is left over at the edges takes smaller ones.
    pub tile: Tile,
    /// Rows of a unit, a multiple of the tile's.
    pub row_block: i64,
    /// Columns of a unit, a multiple of the tile's.
    pub column_block: i64,
    /// Terms summed between two packings.
    pub depth_block: i64,
    /// Shares of the depth, summed apart and then added in order.
    pub splits: i64,
    /// Where the panels of rows come from.
    pub rows: Supply,
    /// Where the panels of columns come from.
    pub columns: Supply,
    /// Where the sums go.
    pub sums: Sums,
}

/// Where the panels of a side come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How far apart neighbours are, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Along the side's only axis.
    pub side: i64,
    /// Along the depth's only axis.
    pub depth: i64,
}

impl Steps {
    /// Whether neighbouring positions fall into one set of a first-level cache.
    pub(super) fn collide(self) -> bool {
        self.side % 1024 == 0
    }
}

/// Where tiles put their sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Into the result, which is nothing but the sums: floats from one row to the next.
    Result(i64),
    /// Into the unit's workspace; the stores follow when all terms are summed.
    Workspace,
    /// Into the share's place in the shared workspace, to be added up in a stage of its own.
    Shares,
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub batch: i64,
    pub rows: i64,
    pub columns: i64,
    pub depth: i64,
    /// Steps of the depth for one step of its first axis.
    pub inner_depth: i64,
}

/// Which panels are already there, and what may be done about the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supplies {
    /// `Direct` or `AtLoad`, if it can be.
    pub rows: Option<Supply>,
    /// The same.
    pub columns: Option<Supply>,
    /// Whether the result is nothing but the sums: floats from one row to the next.
    pub result_step: Option<i64>,
}

/// Half a second-level cache, in floats: the rows of a block stay there while strips of columns
/// pass by.
const ROW_FLOATS: i64 = 64 << 10;
/// Most columns of a block.
const MOST_COLUMNS: i64 = 512;
/// A panel of columns stays in the first-level cache while it meets all rows of a block.
const DEPTH: i64 = 384;
const MAX_PER_CALL_BYTES: i64 = 64 << 20;
/// Units that are enough to share out.
const ENOUGH_UNITS: i64 = 8;

impl Tile {
    const fn new(rows: i64, columns: i64) -> Tile {
        Tile { rows, columns }
    }

    /// Positions of a side.
    pub fn extent(self, which: Which) -> i64 {
        if which == Which::Rows { self.rows } else { self.columns }
    }

    /// The tiles of a level: they fill its registers and leave room for what a step needs.
    const fn all(level: Level) -> &'static [Tile] {
        const WIDE: [Tile; 6] = [
            Tile::new(6, 16),
            Tile::new(4, 24),
            Tile::new(12, 8),
            Tile::new(3, 32),
            Tile::new(2, 48),
            Tile::new(1, 96),
        ];
        const PORTABLE: [Tile; 3] = [Tile::new(2, 16), Tile::new(4, 8), Tile::new(1, 32)];
        if level.has_avx2() { &WIDE } else { &PORTABLE }
    }

    /// The fastest one for a product of this size.
    pub(super) fn best(level: Level, rows: i64, columns: i64, most_rows: i64) -> Tile {
        let fitting = Tile::all(level).iter().filter(|t| t.rows <= most_rows);
        let time = |t: &&Tile| t.time(level, rows, columns);
        *fitting.min_by(|a, b| time(a).total_cmp(&time(b))).expect("there is one of a single row")
    }

    /// Cycles for one term of the depth over all tiles of a product.
    pub(super) fn time(self, level: Level, rows: i64, columns: i64) -> f64 {
        let strip = |columns: i64| {
            let vectors = div_ceil(columns, level.lanes());
            let (whole, rest) = (rows / self.rows, rows % self.rows);
            whole as f64 * cycles(self.rows, vectors) + cycles(rest, vectors)
        };
        let (whole, rest) = (columns / self.columns, columns % self.columns);
        whole as f64 * strip(self.columns) + if rest > 0 { strip(rest) } else { 0.0 }
    }
}

/// Cycles for one term of a tile: two multiply-adds a cycle, two loads a cycle, and four cycles for
/// an addition to be ready.
fn cycles(rows: i64, vectors: i64) -> f64 {
    let (multiplies, loads) = (rows * vectors, rows + vectors);
    if rows == 0 { 0.0 } else { (multiplies.max(loads) as f64 / 2.0).max(4.0) + 0.3 }
}

impl Supply {
    /// Whether the operand is packed whole, in a stage of its own.
    pub fn is_whole(self) -> bool {
        matches!(self, Supply::AtLoad | Supply::PerCall)
    }
}

impl Tiling {
    /// Where the panels of a side come from.
    pub fn supply(&self, which: Which) -> Supply {
        if which == Which::Rows { self.rows } else { self.columns }
    }

    /// Tiles and blocks from the sizes alone: never from the number of threads.
    pub(super) fn choose(level: Level, extents: Extents, supplies: Supplies) -> Tiling {
        let Extents { batch, rows, columns, depth, inner_depth } = extents;
        let strided = matches!(supplies.rows, Some(Supply::Direct(steps)) if steps.side != 1);
        let tile = Tile::best(level, rows, columns, if strided { 6 } else { i64::MAX });
        let whole = if inner_depth <= 128 { inner_depth } else { 1 };
        let depth_block = even_block(depth, DEPTH, whole);
        let mut column_block = even_block(columns, MOST_COLUMNS, tile.columns);
        let most_rows = (ROW_FLOATS / depth_block.max(1)).max(tile.rows);
        let mut row_block = even_block(rows, most_rows, tile.rows);
        let units = |row_block, column_block| {
            batch * div_ceil(rows, row_block) * div_ceil(columns, column_block)
        };
        while units(row_block, column_block) < ENOUGH_UNITS
            && column_block >= 64.max(2 * tile.columns)
        {
            column_block = even_block(columns, column_block / 2, tile.columns);
        }
        while units(row_block, column_block) < ENOUGH_UNITS && row_block >= 8 * tile.rows {
            row_block = even_block(rows, row_block / 2, tile.rows);
        }
        let splits = splits(units(row_block, column_block), div_ceil(depth, depth_block));
        // What several units share is packed once, if it is not too much.
        let packed = |extent: i64, others: i64| match others > 1 {
            true if 4 * batch * extent * depth <= MAX_PER_CALL_BYTES => Supply::PerCall,
            _ => Supply::PerUnit,
        };
        let sums = match (splits, supplies.result_step) {
            (1, Some(step)) => Sums::Result(step),
            (1, None) => Sums::Workspace,
            _ => Sums::Shares,
        };
        Tiling {
            tile,
            row_block,
            column_block,
            depth_block,
            splits,
            rows: supplies.rows.unwrap_or(packed(rows, div_ceil(columns, column_block))),
            columns: supplies.columns.unwrap_or(packed(columns, div_ceil(rows, row_block))),
            sums,
        }
    }
}

/// How many shares a depth of `blocks` blocks is cut into, where there are too few units.
fn splits(units: i64, blocks: i64) -> i64 {
    let wanted = if units < 4 { 8 / units.max(1) } else { 1 };
    let share = div_ceil(blocks, wanted.min(blocks).max(1));
    div_ceil(blocks, share.max(1)).max(1)
}

/// `extent` cut into as few blocks as `limit` allows, all of about the same size.
pub(super) fn even_block(extent: i64, limit: i64, multiple: i64) -> i64 {
    let blocks = div_ceil(extent, limit.max(1));
    div_ceil(div_ceil(extent, blocks.max(1)), multiple) * multiple
}

impl fmt::Display for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Supply::Direct(steps) => write!(f, "read by {} and {}", steps.side, steps.depth),
            Supply::AtLoad => f.write_str("packed at load"),
            Supply::PerCall => f.write_str("packed per call"),
            Supply::PerUnit => f.write_str("packed per unit"),
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sums::Result(step) => write!(f, "sums in the result by {step}"),
            Sums::Workspace => f.write_str("sums in workspace"),
            Sums::Shares => f.write_str("sums in shares"),
        }
    }
}
