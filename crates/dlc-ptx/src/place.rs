//! Where a kernel reads and writes memory.
//!
//! A [`Domain`] is one domain of points with all its loads and stores. Axes that always go together
//! are one axis there ([`Domain::merge`]), so that pointwise work on tensors of any rank is work on
//! lines. The steps of loops around a kernel are the same at all points of a launch: they come after
//! all axes of points, and have no part in merging.

use dlc_kernel::place::{Check, Linear, Place, extent, extents, strides};
use dlc_kernel::{Access, Axis, BufferId, Expr, ExprId, Exprs, Lookup, Program, Size, Store};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Where an access goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The buffer.
    pub buffer: BufferId,
    /// Where in it.
    pub place: Place,
}

impl Spot {
    /// Whether points that differ along `axis` alone are all inside or all outside.
    pub fn is_checked_alike(&self, axis: usize) -> bool {
        self.place.checks.iter().all(|c| coef(&c.index, axis) == 0)
    }

    /// How many elements the place moves for a step along `axis`, if always as many.
    pub fn step(&self, axis: usize) -> Option<i64> {
        let even = self.place.quotients.iter().all(|q| coef(&q.index, axis) == 0);
        (even && self.place.found.is_empty()).then(|| coef(&self.place.linear, axis))
    }

    /// Elements from the first to the last place in a domain, if no data and no quotient decides of
    /// them.
    pub fn span(&self, domain: &Domain<'_>) -> Option<i64> {
        let along =
            |(axis, extent): (usize, &i64)| coef(&self.place.linear, axis).abs() * (extent - 1);
        let even = self.place.found.is_empty() && self.place.quotients.is_empty();
        even.then(|| 1 + domain.extents.iter().enumerate().map(along).sum::<i64>())
    }

    /// Whether `lanes` neighbours along `axis`, the first at a multiple of `lanes`, are that many
    /// elements of the buffer, the first of them as aligned.
    pub fn is_vector(&self, axis: usize, lanes: i64) -> bool {
        let even = |stride: i64| stride % lanes == 0;
        self.step(axis) == Some(1)
            && self.is_checked_alike(axis)
            && is_multiple(&self.place.linear, lanes, axis)
            && self.place.quotients.iter().all(|q| even(q.stride))
    }

    /// Whether the place or its checks depend on the axis, other than through lookups.
    pub fn uses(&self, axis: usize) -> bool {
        coef(&self.place.linear, axis) != 0 || self.uses_unevenly(axis)
    }

    fn uses_unevenly(&self, axis: usize) -> bool {
        let divided = self.place.quotients.iter().any(|q| coef(&q.index, axis) != 0);
        divided || !self.is_checked_alike(axis)
    }
}

/// The coefficient of the axis of that position.
pub fn coef(linear: &Linear, axis: usize) -> i64 {
    linear.coef(Axis(axis as u32))
}

/// Whether it is a multiple of `n` wherever the axis is one.
pub fn is_multiple(linear: &Linear, n: i64, axis: usize) -> bool {
    let even = |&(a, c): &(Axis, i64)| a.0 as usize == axis || c % n == 0;
    linear.offset % n == 0 && linear.terms.iter().all(even)
}

/// What is written to: a buffer, where, and what data decides of that.
pub type Destination<'s> = (BufferId, &'s Access, &'s [Lookup]);

/// The destination of a store.
pub fn destination(store: &Store) -> Destination<'_> {
    (store.buffer, &store.access, &[])
}

/// A domain of points with everything that happens at them.
#[derive(Clone, Debug)]
pub struct Domain<'k> {
    /// Extents, in row-major order.
    pub extents: Vec<i64>,
    /// So many loops are around: their steps, outermost first, are the axes after the last.
    pub loops: usize,
    /// What is computed.
    pub exprs: &'k Exprs,
    /// The loads among the expressions.
    pub loads: FxHashMap<ExprId, Spot>,
    /// The guards among the expressions; `None` for one that always holds.
    pub guards: FxHashMap<ExprId, Option<Check>>,
    /// The axes among the expressions.
    pub axes: FxHashMap<ExprId, usize>,
    /// Where stores go.
    pub stores: Vec<Spot>,
}

impl<'k> Domain<'k> {
    /// The points of `axes`, of which the first are the steps of `loops` loops around: there `roots`
    /// are computed and `destinations` are written.
    pub fn new<'s>(
        program: &Program,
        (axes, loops): (&[Size], usize),
        exprs: &'k Exprs,
        roots: impl IntoIterator<Item = ExprId>,
        destinations: impl IntoIterator<Item = Destination<'s>>,
    ) -> Domain<'k> {
        let mut domain = Domain {
            extents: axes[loops..].iter().map(bound).collect(),
            loops,
            exprs,
            loads: FxHashMap::default(),
            guards: FxHashMap::default(),
            axes: FxHashMap::default(),
            stores: Vec::new(),
        };
        let all = extents(axes).expect(BOUND);
        for id in exprs.reachable(roots) {
            domain.expect(program, &all, id);
        }
        let spot = |to| spot(program, to, &all);
        domain.stores = destinations.into_iter().map(spot).collect();
        let points = domain.extents.len();
        let behind = |axis: usize| if axis < loops { axis + points } else { axis - loops };
        domain.renumber(&(0..axes.len()).map(|axis| Some(behind(axis))).collect::<Vec<_>>());
        domain
    }

    fn expect(&mut self, program: &Program, all: &[i64], id: ExprId) {
        match self.exprs.get(id) {
            Expr::Load { buffer, access, lookups, .. } => {
                self.loads.insert(id, spot(program, (*buffer, access, lookups), all));
            }
            Expr::Inside(guard) => {
                self.guards.insert(id, Check::of_guard(guard, all).expect(BOUND));
            }
            Expr::Axis(Axis(axis)) => _ = self.axes.insert(id, *axis as usize),
            _ => {}
        }
    }

    /// An `I32` expression as an affine function of the axes, modulo 2^32.
    pub fn linear(&self, id: ExprId) -> Option<Linear> {
        match self.exprs.get(id) {
            Expr::Axis(_) => Some(Linear::axis(Axis(self.axes[&id] as u32))),
            expr => Linear::of_expr(expr, |id| self.linear(id)).expect(BOUND),
        }
    }

    /// The number of points.
    pub fn points(&self) -> i64 {
        self.extents.iter().product()
    }

    /// Makes one axis of neighbours that every place walks through in row-major order, as long as
    /// both are at or above, or both below, `border`; gives the new border. Axes of extent 1 go.
    pub fn merge(&mut self, border: usize) -> usize {
        let mut border = border;
        let mut axis = 0;
        while axis < self.extents.len() {
            if self.extents[axis] == 1 && self.is_free(axis) {
                self.remove(axis);
            } else if axis + 1 < self.extents.len() && axis + 1 != border && self.go_together(axis)
            {
                self.extents[axis + 1] *= self.extents[axis];
                self.remove(axis);
            } else {
                axis += 1;
                continue;
            }
            border -= usize::from(axis < border);
        }
        border
    }

    /// Whether no expression speaks of the axis itself.
    fn is_free(&self, axis: usize) -> bool {
        self.axes.values().all(|&a| a != axis)
    }

    fn go_together(&self, axis: usize) -> bool {
        let inner = axis + 1;
        let even = |spot: &Spot| {
            let linear = &spot.place.linear;
            !spot.uses_unevenly(axis)
                && !spot.uses_unevenly(inner)
                && coef(linear, axis) == coef(linear, inner) * self.extents[inner]
        };
        let apart = |c: &Check| coef(&c.index, axis) == 0 && coef(&c.index, inner) == 0;
        self.is_free(axis)
            && self.is_free(inner)
            && self.loads.values().chain(&self.stores).all(even)
            && self.guards.values().flatten().all(apart)
    }

    /// Takes out an axis that stands at 0.
    fn remove(&mut self, axis: usize) {
        let new = |a: usize| (a != axis).then(|| a - usize::from(a > axis));
        let map: Vec<Option<usize>> = (0..self.extents.len() + self.loops).map(new).collect();
        self.extents.remove(axis);
        self.renumber(&map);
    }

    /// The same domain with its axes in another order: `order[i]` becomes axis `i`.
    pub fn permuted(&self, order: &[usize]) -> Domain<'k> {
        let position = |axis: usize| match order.iter().position(|&a| a == axis) {
            None => axis,
            Some(new) => new,
        };
        let map: Vec<Option<usize>> =
            (0..order.len() + self.loops).map(|axis| Some(position(axis))).collect();
        let mut new = self.clone();
        new.extents = order.iter().map(|&a| self.extents[a]).collect();
        new.renumber(&map);
        new
    }

    /// Whether any of these expressions, or what they are computed from, depends on the axis.
    pub fn uses(&self, roots: impl IntoIterator<Item = ExprId>, axis: usize) -> bool {
        self.exprs.reachable(roots).iter().any(|id| {
            let load = self.loads.get(id).is_some_and(|spot| spot.uses(axis));
            let guard = self.guards.get(id).and_then(Option::as_ref);
            load || guard.is_some_and(|check| coef(&check.index, axis) != 0)
                || self.axes.get(id) == Some(&axis)
        })
    }

    fn renumber(&mut self, map: &[Option<usize>]) {
        let new: Vec<Option<Axis>> = map.iter().map(|a| a.map(|a| Axis(a as u32))).collect();
        let spots = self.loads.values_mut().chain(&mut self.stores);
        spots.flat_map(|s| s.place.forms()).for_each(|linear| linear.renumber(&new));
        self.guards.values_mut().flatten().for_each(|check| check.index.renumber(&new));
        self.axes.values_mut().for_each(|a| *a = map[*a].expect("free axes are not named"));
    }
}

/// What holds of all sizes here.
const BOUND: &str = "sizes are bound when a program is built";

/// Where an access goes, on axes of these extents.
fn spot(program: &Program, (buffer, access, lookups): Destination<'_>, extents: &[i64]) -> Spot {
    let shape: SmallVec<[i64; 4]> = program.buffer(buffer).shape.iter().map(bound).collect();
    let place = Place::new((&shape, &strides(&shape)), access, lookups, extents);
    Spot { buffer, place: place.expect(BOUND) }
}

/// A size of a program that is being built.
///
/// # Panics
/// If it is not bound.
pub fn bound(size: &Size) -> i64 {
    extent(size).expect(BOUND)
}
