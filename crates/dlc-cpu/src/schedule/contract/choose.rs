//! The decisions: roles of axes, tiles, blocks.

use super::tiling::{Extents, Supplies, even_block};
use super::{Algorithm, Axes, BareLoad, ContractSchedule, PackOrder, Side, Steps, Supply};
use super::{Tile, Tiling};
use crate::schedule::domain::{AxisSet, Domain};
use crate::schedule::{PlacedStore, Site};
use dlc_kernel::{Axis, DType, Expr, ExprId, OptLevel};

const SMALL_WORK: i64 = 512;
/// Packed copies of parameters may be so many times larger than the parameters.
const MAX_LASTING_GROWTH: i64 = 2;
/// Tiles of rows up to which a column panel is used too seldom to be packed.
const FEW_TILES: i64 = 2;

/// What the decisions look at.
pub(super) struct Nest<'s, 'k> {
    pub site: Site<'s>,
    pub stores: Vec<PlacedStore>,
    pub domain: Domain<'k>,
    pub out: usize,
}

impl<'k> Nest<'_, 'k> {
    pub fn schedule(self, lhs: ExprId, rhs: ExprId) -> ContractSchedule<'k> {
        let config = self.site.config;
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
                self.algorithm(&rows, &columns, &batch, &depth)
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
        let plain = self.site.program.buffer(buffer).dtype == DType::F32 && place.found.is_empty();
        plain.then_some(BareLoad { buffer, place, fill })
    }

    /// Rows and columns: the side that is contiguous in the output is vectorized, unless it is so
    /// short that the other one is faster all the same.
    fn assign(&self, left: Side, right: Side) -> (Side, Side) {
        let cost = |rows: &Side, columns: &Side| {
            let (r, c) = (rows.axes.points(), columns.axes.points());
            let contiguous = columns.axes.last().is_some_and(|a| self.store_coef(a) == 1);
            let level = self.site.config.level;
            let time = Tile::best(level, r, c, i64::MAX).time(level, r, c);
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

    fn algorithm(&self, rows: &Side, columns: &Side, batch: &Axes, depth: &Axes) -> Algorithm {
        let points = |axes: &Axes| axes.points();
        let (r, c, d) = (points(&rows.axes), points(&columns.axes), points(depth));
        if points(batch) * r * c * d < SMALL_WORK {
            return Algorithm::Plain;
        }
        let supplies = self.supplies(rows, columns, batch, depth);
        if r.min(c) == 1 && supplies.columns != Some(Supply::AtLoad) {
            return self.without_reuse(rows, columns, depth);
        }
        let inner_depth = depth.extents.iter().skip(1).product();
        let extents = Extents { batch: points(batch), rows: r, columns: c, depth: d, inner_depth };
        Algorithm::Tiled(Tiling::choose(self.site.config.level, extents, supplies))
    }

    /// Which panels need no packing in a call, and whether sums are the result.
    fn supplies(&self, rows: &Side, columns: &Side, batch: &Axes, depth: &Axes) -> Supplies {
        let at_load = |side: &Side| {
            let positions = batch.points() * side.axes.points() * depth.points();
            self.is_fixed(side.operand, positions).then_some(Supply::AtLoad)
        };
        let direct = |side: &Side, fits: &dyn Fn(Steps) -> bool| {
            self.steps(side, depth).filter(|s| fits(*s)).map(Supply::Direct)
        };
        let few_rows = rows.axes.points() <= FEW_TILES * 6;
        Supplies {
            rows: at_load(rows).or(direct(rows, &|s| s.side == 1 || s.depth == 1 && !s.collide())),
            columns: at_load(columns).or(direct(columns, &|s| s.side == 1 && few_rows)),
            result_step: self.result_step(rows, columns),
        }
    }

    /// Whether an operand depends on nothing but parameters that the entry leaves as they are, and
    /// is not much larger than they are.
    fn is_fixed(&self, operand: ExprId, positions: i64) -> bool {
        let (mut elements, mut fixed) = (0, true);
        for id in self.domain.reachable(&[operand]) {
            match self.domain.exprs.get(id) {
                Expr::Load { buffer, .. } => {
                    fixed &= self.site.fixed.contains(buffer);
                    elements += self.site.program.buffer(*buffer).elements().unwrap_or(0) as i64;
                }
                Expr::Random { .. } => fixed = false,
                _ => {}
            }
        }
        fixed && positions <= MAX_LASTING_GROWTH * elements
    }

    /// How an operand is walked through, if side and depth are one axis each and nothing is outside.
    fn steps(&self, side: &Side, depth: &Axes) -> Option<Steps> {
        let bare = side.bare.as_ref()?;
        let plain = bare.place.is_inside() && bare.place.quotients.is_empty();
        let step = |axes: &Axes| match axes.axes[..] {
            [] => Some(1),
            [axis] => Some(bare.place.linear.coef(axis)),
            _ => None,
        };
        plain.then_some(Steps { side: step(&side.axes)?, depth: step(depth)? })
    }

    /// Floats from one row of the result to the next, if the only store is the sums themselves,
    /// column by column.
    fn result_step(&self, rows: &Side, columns: &Side) -> Option<i64> {
        let [store] = &self.stores[..] else { return None };
        let is_sum = matches!(self.domain.exprs.get(store.value), Expr::Folded(0));
        let only = |axes: &Axes| match axes.axes[..] {
            [] => Some(1),
            [axis] => Some(store.place.linear.coef(axis)),
            _ => None,
        };
        let (row, column) = (only(&rows.axes)?, only(&columns.axes)?);
        (is_sum && store.dtype == DType::F32 && column == 1).then_some(row)
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
