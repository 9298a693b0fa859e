//! Register tiles.

use super::{Bundle, Origin, Which};
use crate::caches::Caches;
use crate::datapath::Datapath;
use crate::leaf::wide::Width;
use crate::leaf::wide::gemm::fits;
use crate::level::Level;
use crate::schedule::Config;

/// Most terms summed between two packings.
pub const DEPTH: i64 = 384;
/// Floats of a panel of columns that any first level holds: three quarters of 32 KiB.
const LEAST_PANEL: i64 = 6 << 10;
/// Panels of columns that a second level holds, if they are read from there again and again.
const NEAR_PANELS: usize = 32;

/// Rows and columns of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Positions of the side that is broadcast.
    pub rows: i64,
    /// Positions of the side that becomes vectors.
    pub columns: i64,
}

impl Tile {
    const fn new(rows: i64, columns: i64) -> Tile {
        Tile { rows, columns }
    }

    /// Whether its vectors are half as wide as those of the level, if these are the widest: narrow tiles
    /// fill no more, and two of them take less time than one that is computed in halves.
    pub fn is_short(self, config: Config) -> bool {
        let most = if config.datapath == Datapath::Halves { Width::Zmm } else { Width::Ymm };
        let enough = self.columns <= most.lanes().into();
        config.level == Level::X86_64V4 && enough && fits(Width::Ymm, self.rows, self.columns)
    }

    /// Positions of a side.
    pub fn extent(self, which: Which) -> i64 {
        if which == Which::Rows { self.rows } else { self.columns }
    }

    /// The most terms between two packings where there are so many rows: a panel of columns stays in
    /// the first level while it meets all rows of a block. More than half of a level that is large
    /// leaves too little for the rows. If columns come from a core's own caches, nothing else is on its
    /// way from the second level, and a part of that is as good.
    pub fn most_depth(self, rows: i64, columns: Origin, caches: Caches) -> i64 {
        let near = if columns == Origin::Near { caches.second / NEAR_PANELS } else { 0 };
        let panel = ((caches.first / 2).max(near) as i64 / 4).max(LEAST_PANEL);
        if rows <= self.rows { DEPTH } else { DEPTH.min(panel / self.columns) }
    }

    /// The tiles of a level, of these the ones that divide bundles, or are several, if there are any.
    pub fn that_suit(level: Level, bundle: Option<Bundle>) -> Vec<Tile> {
        let all = Tile::all(level);
        let is_whole = |tile: &&Tile| {
            let columns = bundle.map_or(1, Bundle::columns);
            columns % tile.columns == 0 || tile.columns % columns == 0
        };
        let suit: Vec<Tile> = all.iter().filter(is_whole).copied().collect();
        if suit.is_empty() { all.to_vec() } else { suit }
    }

    /// The tiles of a level: they fill its registers and leave room for what a step needs.
    const fn all(level: Level) -> &'static [Tile] {
        const ZMM: [Tile; 8] = [
            Tile::new(14, 32),
            Tile::new(9, 48),
            Tile::new(6, 64),
            Tile::new(28, 16),
            Tile::new(4, 96),
            Tile::new(3, 128),
            Tile::new(2, 192),
            Tile::new(1, 240),
        ];
        const YMM: [Tile; 7] = [
            Tile::new(6, 16),
            Tile::new(4, 24),
            Tile::new(12, 8),
            Tile::new(3, 32),
            Tile::new(2, 48),
            Tile::new(1, 64),
            Tile::new(1, 96),
        ];
        const PORTABLE: [Tile; 3] = [Tile::new(2, 16), Tile::new(4, 8), Tile::new(1, 32)];
        match level {
            Level::X86_64V4 => &ZMM,
            Level::X86_64V3 => &YMM,
            Level::X86_64V2 | Level::Aarch64 => &PORTABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dlc_kernel::OptLevel;

    #[test]
    fn narrow_tiles_are_short_where_that_is_no_slower() {
        let is_short = |level, datapath, rows, columns| {
            let (caches, opt_level) = (Caches::USUAL, OptLevel::O2);
            let config = Config { level, caches, datapath, opt_level, exact_conv: false };
            Tile { rows, columns }.is_short(config)
        };
        let whole = |rows, columns| is_short(Level::X86_64V4, Datapath::Whole, rows, columns);
        let halves = |rows, columns| is_short(Level::X86_64V4, Datapath::Halves, rows, columns);
        assert!(whole(6, 8) && !whole(6, 9) && !whole(28, 8), "28 sums fit whole registers only");
        assert!(halves(6, 16) && !halves(6, 17) && !halves(10, 16));
        assert!(!is_short(Level::X86_64V3, Datapath::Halves, 6, 8), "nothing is shorter");
    }
}
