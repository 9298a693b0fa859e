//! The decisions: roles of axes, tiles, blocks.

use super::{
    Algorithm, Axes, BareLoad, ContractSchedule, PackOrder, RowsPacked, Side, Tiling, div_ceil,
};
use crate::leaf::GemmTile;
use crate::schedule::domain::{AxisSet, Domain};
use crate::schedule::{Config, PlacedStore};
use dlc_kernel::{Axis, DType, Expr, ExprId, OptLevel, Program};

const MAX_ROWS_PER_CALL_BYTES: i64 = 64 << 20;
const SMALL_WORK: i64 = 512;

/// What the decisions look at.
pub(super) struct Nest<'p, 'k> {
    pub program: &'p Program,
    pub stores: Vec<PlacedStore>,
    pub domain: Domain<'k>,
    pub out: usize,
}

impl<'k> Nest<'_, 'k> {
    pub fn schedule(self, lhs: ExprId, rhs: ExprId, config: Config) -> ContractSchedule<'k> {
        let (in_lhs, in_rhs) = (self.uses(lhs), self.uses(rhs));
        let all = self.domain.extents.len();
        let of = |l: bool, r: bool| {
            self.axes(0..self.out, |a| in_lhs.contains(a) == l && in_rhs.contains(a) == r)
        };
        let (left, right) = (self.side(lhs, of(true, false)), self.side(rhs, of(false, true)));
        let batch = self.axes(0..self.out, |a| in_lhs.contains(a) == in_rhs.contains(a));
        let depth = self.axes(self.out..all, |_| true);
        let (mut rows, mut columns) = self.assign(left, right);
        rows.order = self.pack_order(&rows, &depth);
        columns.order = self.pack_order(&columns, &depth);
        let out = self.axes(0..self.out, |_| true);
        let algorithm = match self.domain.exprs.dtype(lhs) {
            DType::F32 if config.opt_level != OptLevel::O0 => {
                self.algorithm(&rows, &columns, batch.points(), &depth)
            }
            _ => Algorithm::Plain,
        };
        let (stores, domain) = (self.stores, self.domain);
        ContractSchedule { config, domain, stores, out, rows, columns, batch, depth, algorithm }
    }

    fn uses(&self, operand: ExprId) -> AxisSet {
        self.domain.uses[operand.0 as usize]
    }

    fn axes(&self, range: std::ops::Range<usize>, keep: impl Fn(Axis) -> bool) -> Axes {
        let axes: Vec<Axis> = range.map(|a| Axis(a as u32)).filter(|&a| keep(a)).collect();
        let extents = axes.iter().map(|a| self.domain.extents[a.0 as usize]).collect();
        Axes { axes, extents }
    }

    fn side(&self, operand: ExprId, axes: Axes) -> Side {
        Side { operand, bare: self.bare(operand), axes, order: PackOrder::Side }
    }

    fn bare(&self, operand: ExprId) -> Option<BareLoad> {
        let Expr::Load { buffer, fill, .. } = *self.domain.exprs.get(operand) else { return None };
        let place = self.domain.places[operand.0 as usize].clone()?;
        let plain = self.program.buffer(buffer).dtype == DType::F32 && place.found.is_empty();
        plain.then_some(BareLoad { buffer, place, fill })
    }

    /// Rows and columns: the side that is contiguous in the output is vectorized, unless it is so
    /// short that the other one is faster all the same.
    fn assign(&self, left: Side, right: Side) -> (Side, Side) {
        let cost = |rows: &Side, columns: &Side| {
            let (r, c) = (rows.axes.points(), columns.axes.points());
            let contiguous = columns.axes.last().is_some_and(|a| self.store_coef(a) == 1);
            let time = tile_time(best_tile(r, c), r, c);
            if contiguous { time } else { time * 1.15 }
        };
        if cost(&right, &left) < cost(&left, &right) { (right, left) } else { (left, right) }
    }

    fn store_coef(&self, axis: Axis) -> i64 {
        self.stores.first().map_or(0, |s| s.place.linear.coef(axis))
    }

    /// Long contiguous runs win; across the depth they are stored one by one.
    fn pack_order(&self, side: &Side, depth: &Axes) -> PackOrder {
        let cost = |axes: &Axes, contiguous: f64| {
            let run = axes.last_extent().max(1) as f64;
            let unit = axes.last().is_some_and(|a| self.step(side.operand, a) == Some(1));
            16.0 / run + if unit { contiguous } else { 3.0 }
        };
        let by_side = cost(&side.axes, 0.75);
        if by_side <= cost(depth, 2.0) { PackOrder::Side } else { PackOrder::Depth }
    }

    /// How all loads of an operand move along `axis`: 0 if none does, 1 if each is contiguous or
    /// does not, `None` otherwise.
    fn step(&self, operand: ExprId, axis: Axis) -> Option<i64> {
        let mut step = 0;
        for id in self.domain.reachable(&[operand]) {
            let Some(place) = &self.domain.places[id.0 as usize] else { continue };
            if !place.found.is_empty() {
                return None;
            }
            if place.uses().contains(axis) {
                step = place.is_unit_along(axis).then_some(1)?;
            }
        }
        Some(step)
    }

    fn algorithm(&self, rows: &Side, columns: &Side, batch: i64, depth: &Axes) -> Algorithm {
        let (r, c, d) = (rows.axes.points(), columns.axes.points(), depth.points());
        if batch * r * c * d < SMALL_WORK {
            Algorithm::Plain
        } else if r.min(c) > 1 {
            Algorithm::Tiled(tile(batch, r, c, depth))
        } else {
            self.without_reuse(rows, columns, depth)
        }
    }

    /// Where an element of an operand is used once, packing does not pay.
    fn without_reuse(&self, rows: &Side, columns: &Side, depth: &Axes) -> Algorithm {
        let along = |axis: Option<Axis>| {
            axis.is_some_and(|axis| {
                [rows, columns].iter().all(|s| self.step(s.operand, axis).is_some())
            })
        };
        let (run, sum) = (columns.axes.last_extent(), depth.last_extent());
        if run >= 8 && along(columns.axes.last()) {
            Algorithm::Sweep(even_block(run, 256, 4))
        } else if sum >= 8 && along(depth.last()) {
            Algorithm::Dot
        } else {
            Algorithm::Plain
        }
    }
}

/// The tiles there are: they fill the registers well and compile to good code.
const TILES: [GemmTile; 3] = [
    GemmTile { rows: 2, columns: 16 },
    GemmTile { rows: 4, columns: 8 },
    GemmTile { rows: 1, columns: 32 },
];

fn best_tile(rows: i64, columns: i64) -> GemmTile {
    let time = |t: &GemmTile| tile_time(*t, rows, columns);
    let best = TILES.into_iter().min_by(|a, b| time(a).total_cmp(&time(b)));
    best.expect("there are tiles")
}

/// Cycles for one term of the depth over all tiles: two multiply-adds a cycle, two loads a cycle,
/// and four cycles for an addition to be ready.
fn tile_time(tile: GemmTile, rows: i64, columns: i64) -> f64 {
    let cycles = |rows: i64| {
        let vectors = i64::from(tile.columns) / 4;
        let (multiplies, loads) = (rows * vectors, rows + vectors);
        (multiplies.max(loads) as f64 / 2.0).max(4.0) + 0.3
    };
    let height = i64::from(tile.rows);
    let (whole, rest) = (rows / height, rows % height);
    let one = whole as f64 * cycles(height) + if rest > 0 { cycles(rest) } else { 0.0 };
    one * div_ceil(columns, tile.columns.into()) as f64
}

/// Blocks from cache sizes: the packed columns take a quarter of a small second-level cache.
fn tile(batch: i64, rows: i64, columns: i64, depth: &Axes) -> Tiling {
    let inner: i64 = depth.extents.iter().skip(1).product();
    let depth = depth.points();
    let tile = best_tile(rows, columns);
    let (height, width) = (i64::from(tile.rows), i64::from(tile.columns));
    let depth_block = even_block(depth, 384, if inner <= 128 { inner } else { 1 });
    let mut column_block = even_block(columns, (32768 / depth_block).clamp(64, 512), width);
    let row_block = even_block(rows, (131_072 / column_block).max(height), height);
    let row_blocks = div_ceil(rows, row_block);
    let units = |block: i64| batch * row_blocks * div_ceil(columns, block);
    while units(column_block) < 8 && column_block >= 64.max(2 * width) {
        column_block = even_block(columns, column_block / 2, width);
    }
    let blocks = div_ceil(depth, depth_block);
    let wanted = if units(column_block) < 4 { 8 / units(column_block) } else { 1 };
    let splits = wanted.min(blocks);
    let share = div_ceil(blocks, splits);
    let splits = div_ceil(blocks, share);
    let shared = batch * rows * depth * 4 <= MAX_ROWS_PER_CALL_BYTES;
    let rows_packed = match div_ceil(columns, column_block) > 1 && shared {
        true => RowsPacked::PerCall,
        false => RowsPacked::PerUnit,
    };
    Tiling { tile, row_block, column_block, depth_block, splits, rows_packed }
}

/// `extent` cut into as few blocks as `limit` allows, all of about the same size.
fn even_block(extent: i64, limit: i64, multiple: i64) -> i64 {
    let blocks = div_ceil(extent, limit.max(1));
    div_ceil(div_ceil(extent, blocks.max(1)), multiple) * multiple
}
