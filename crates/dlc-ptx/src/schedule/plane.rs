//! Planes: what a block computes tile by tile of a plane of rows and columns, and sums over the columns
//! at once, so that the plane is never in memory. Its tiles are results of contractions ([`Product`]);
//! the sums are contractions with what becomes of tiles.

use super::contract::{Group, Side, THIN, Tiling, View, threads};
use crate::Math;
use crate::place::{Domain, bound, destination};
use dlc_kernel::place::Check;
use dlc_kernel::{Access, Axis, BufferId, Expr, ExprId, Form, Guard, Kernel, Program, Store};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// Rows of a block, and columns that it takes at once.
pub const TILE: u32 = 64;

/// Rows that leave most of a tile empty, and columns that are many tiles.
const FEW_ROWS: i64 = TILE as i64 / 4;
const MANY_COLUMNS: i64 = TILE as i64 * 4;

/// The most columns of sums: those of a block's rows are held in registers.
pub const MOST_FEATURES: u32 = 128;

/// By axis of a plane, the axis of a product that goes with it.
pub type AxisMap = FxHashMap<usize, usize>;

/// The points of a plane.
#[derive(Clone, Debug)]
pub struct Plane<'k> {
    /// The points, along columns.
    pub view: View<'k>,
    /// Their axes: those of batches, rows and columns.
    pub groups: [Group; 3],
    /// Conditions at those points, without which sums do not change.
    pub needs: Vec<Check>,
}

impl<'k> Plane<'k> {
    /// The plane of those axes of a domain; `needs` are conditions over all of them.
    pub fn new(domain: &Domain<'k>, groups: [Group; 3], needs: &[Guard], math: Math) -> Plane<'k> {
        let view = View::new(domain, groups[2].axes.last().copied(), lanes(&groups[2], math));
        let place = |axis: usize| view.order.iter().position(|&a| a == axis);
        let new: Vec<Option<Axis>> =
            (0..domain.extents.len()).map(|axis| place(axis).map(|a| Axis(a as u32))).collect();
        let check = |guard: &Guard| {
            let check = Check::of_guard(guard, &domain.extents).expect("sizes are bound");
            check.map(|mut check| {
                check.index.renumber(&new);
                check
            })
        };
        let needs = needs.iter().filter_map(check).collect();
        Plane { view, groups, needs }
    }

    /// Blocks.
    pub fn blocks(&self) -> u32 {
        self.groups[0].points() as u32 * self.row_tiles()
    }

    /// Tiles along rows.
    pub fn row_tiles(&self) -> u32 {
        (self.groups[1].points() as u64).div_ceil(u64::from(TILE)) as u32
    }

    /// Whether it has fewer rows or columns than tiles are for, or few rows for its columns: a block goes
    /// along all of them, and there are few blocks.
    pub fn is_thin(&self) -> bool {
        let [rows, columns] = [1, 2].map(|at| self.groups[at].points());
        rows.min(columns) < THIN || (rows < FEW_ROWS && columns > MANY_COLUMNS)
    }
}

/// How many neighbouring points of a thread are taken at once.
pub fn lanes(columns: &Group, math: Math) -> usize {
    let even = |n: &i64| columns.extents.last().is_some_and(|extent| extent % n == 0);
    let widest = if math == Math::F32 { 4 } else { 2 };
    [widest, 2].into_iter().find(even).unwrap_or(1) as usize
}

/// A contraction whose axes are known by those of a plane.
#[derive(Clone, Debug)]
pub struct Product<'k> {
    /// All points.
    pub domain: Domain<'k>,
    /// The number of axes of the result.
    pub border: usize,
    /// What is multiplied.
    pub factors: [ExprId; 2],
    /// What becomes of sums.
    pub stores: &'k [Store],
}

impl<'k> Product<'k> {
    /// The contraction that a kernel is, if it is one without errors.
    pub fn new(program: &Program, kernel: &'k Kernel) -> Option<Product<'k>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = &kernel.form else {
            return None;
        };
        let axes = [&out[..], reduce].concat();
        let roots = [*lhs, *rhs].into_iter().chain(stores.iter().map(|s| s.value));
        let destinations = stores.iter().map(destination);
        let domain = Domain::new(program, (&axes, 0), exprs, roots, destinations);
        let product = Product { domain, border: out.len(), factors: [*lhs, *rhs], stores };
        (product.domain.points() > 0 && !kernel.may_fail()).then_some(product)
    }

    /// Whether it has every axis of a plane that is longer than 1, and as long.
    pub fn has(&self, extents: &[i64], map: &AxisMap) -> bool {
        let same = |(axis, &n): (usize, &i64)| match map.get(&axis) {
            Some(&own) => self.domain.extents[own] == n,
            None => n == 1,
        };
        extents.iter().enumerate().all(same)
    }

    /// Whether a factor depends on an axis.
    pub fn uses(&self, factor: usize, axis: usize) -> bool {
        self.domain.uses([self.factors[factor]], axis)
    }

    /// The factor that is a buffer as it is, all of it, and how it is read.
    pub fn plain_factor(&self, buffer: BufferId) -> Option<(usize, &'k Access)> {
        let Product { domain, factors, .. } = self;
        let all = |factor: &ExprId| domain.loads[factor].place.checks.is_empty();
        factors.iter().enumerate().find_map(|(at, factor)| match domain.exprs.get(*factor) {
            Expr::Load { buffer: read, access, .. } if *read == buffer && all(factor) => {
                Some((at, access))
            }
            _ => None,
        })
    }

    /// The axes among `all` that are longer than 1 and do not go with an axis of the plane.
    fn own(&self, map: &AxisMap, all: Range<usize>) -> Vec<usize> {
        let is_own = |axis: &usize| !map.values().any(|known| known == axis);
        all.filter(|&axis| self.domain.extents[axis] > 1).filter(is_own).collect()
    }

    fn groups(&self, groups: &[Group; 3], map: &AxisMap) -> [Group; 3] {
        let own = |group: &Group| group.axes.iter().map(|axis| map[axis]).collect();
        [0, 1, 2].map(|at| Group::new(&self.domain, own(&groups[at])))
    }

    /// A tile of the plane: summed over axes of its own, none of which is left. The factor `key` has
    /// its columns.
    pub fn scores(
        &self,
        groups: &[Group; 3],
        map: &AxisMap,
        key: usize,
        (math, lanes): (Math, usize),
    ) -> Option<Tiling<'k>> {
        let Product { domain, border, factors, .. } = self;
        let is_summed = |group: &Group| group.axes.iter().any(|axis| map[axis] >= *border);
        if !self.own(map, 0..*border).is_empty() || groups.iter().any(is_summed) {
            return None;
        }
        let [batch, rows, columns] = self.groups(groups, map);
        let sum = Group::new(domain, self.own(map, *border..domain.extents.len()));
        let result = View::new(domain, columns.axes.last().copied(), lanes);
        let side =
            |factor: usize, group| Side::new(domain, factors[factor], group, (&sum, math), TILE);
        let sides = [side(1 - key, rows), side(key, columns)];
        let threads = threads(math, [TILE, TILE]);
        Some(Tiling { math, batch, sum, sides, result, split: 1, threads })
    }

    /// Sums over the plane's columns, which the factor `weights` has by rows.
    pub fn sums(
        &self,
        groups: &[Group; 3],
        map: &AxisMap,
        weights: usize,
        math: Math,
    ) -> Option<Tiling<'k>> {
        let Product { domain, border, factors, .. } = self;
        let is_summed = |axis: &usize| map[axis] >= *border;
        let [batch, rows, columns] = groups;
        let along = |group: &Group| group.axes.iter().any(is_summed);
        let own = self.own(map, *border..domain.extents.len());
        if along(batch) || along(rows) || !columns.axes.iter().all(is_summed) || !own.is_empty() {
            return None;
        }
        let [batch, rows, sum] = self.groups(groups, map);
        let features = Group::new(domain, self.own(map, 0..*border));
        if !(THIN..=i64::from(MOST_FEATURES)).contains(&features.points()) {
            return None;
        }
        let narrowest = if math == Math::F32 { 64 } else { 32 };
        let fits = |&tile: &i64| tile >= narrowest && tile >= features.points();
        let tile = [32, 64, i64::from(MOST_FEATURES)].into_iter().find(fits)? as u32;
        let result = View::of_result(domain, &features, math);
        let value = Side::new(domain, factors[1 - weights], features, (&sum, math), tile);
        let weights = Side::resident(domain, factors[weights], rows, math, TILE);
        let threads = threads(math, [TILE, TILE]);
        let sides = [weights, value];
        Some(Tiling { math, batch, sum, sides, result, split: 1, threads })
    }
}

/// Whether one load of the domain is of the buffer.
pub fn is_read_once(domain: &Domain<'_>, buffer: BufferId) -> bool {
    domain.loads.values().filter(|spot| spot.buffer == buffer).count() == 1
}

/// Which axis of `to` goes with each axis of `from`, of two accesses to a buffer that both walk
/// through axis by axis. Dims of 1 do not count.
pub fn axis_map(
    program: &Program,
    buffer: BufferId,
    from: &Access,
    to: &Access,
) -> Option<AxisMap> {
    let mut map = AxisMap::default();
    let shape = &program.buffer(buffer).shape;
    for ((from, to), size) in from.coords.iter().zip(&to.coords).zip(shape) {
        if bound(size) == 1 {
            continue;
        }
        let (from, to) = (from.as_axis()?.0 as usize, to.as_axis()?.0 as usize);
        if map.values().any(|&known| known == to) || map.insert(from, to).is_some() {
            return None;
        }
    }
    Some(map)
}
