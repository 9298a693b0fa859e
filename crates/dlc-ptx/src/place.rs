//! Where a kernel reads and writes memory: accesses become element offsets, affine in the axes,
//! and the checks that decide whether a point is inside.
//!
//! A [`Domain`] is one domain of points with all its loads and stores. Axes that always go together
//! are one axis there ([`Domain::merge`]), so that pointwise work on tensors of any rank is work on
//! lines. The steps of loops around a kernel are the same at all points of a launch: they come after
//! all axes of points, and have no part in merging.

use dlc_kernel::{
    Access, Axis, BinaryOp, BufferId, DType, Expr, ExprId, Exprs, Guard, Index, Lookup, Program,
    Size, Store,
};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

/// An integer that is affine in the axes of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affine {
    /// By axis, none twice, no coefficient 0.
    pub terms: SmallVec<[(usize, i64); 4]>,
    /// The constant part.
    pub constant: i64,
}

/// A condition: the value is a multiple of `div`, and the quotient lies in `0..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The value.
    pub value: Affine,
    /// At least 1.
    pub div: i64,
    /// The exclusive upper bound.
    pub extent: i64,
}

/// A coordinate that must be divided before it counts: adds `value / div * stride` to an offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quotient {
    /// The dividend.
    pub value: Affine,
    /// More than 1.
    pub div: i64,
    /// Elements from one quotient to the next.
    pub stride: i64,
}

/// A coordinate that data decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// The `I32` index.
    pub index: ExprId,
    /// Its exclusive upper bound.
    pub extent: i64,
    /// Elements from one index to the next.
    pub stride: i64,
}

/// Where an access goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The buffer.
    pub buffer: BufferId,
    /// Its elements.
    pub elements: i64,
    /// In elements from the buffer's start, without what follows.
    pub offset: Affine,
    /// Further parts of the offset.
    pub quotients: Vec<Quotient>,
    /// Further parts of the offset.
    pub found: Vec<Found>,
    /// What must hold for the point to be inside, as far as it is not known to.
    pub checks: Vec<Check>,
}

/// What is written to: a buffer, where, and what data decides of that.
pub type Target<'s> = (BufferId, &'s Access, &'s [Lookup]);

/// The target of a store.
pub fn target(store: &Store) -> Target<'_> {
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
    pub loads: FxHashMap<ExprId, Place>,
    /// The guards among the expressions; `None` for one that always holds.
    pub guards: FxHashMap<ExprId, Option<Check>>,
    /// The axes among the expressions.
    pub axes: FxHashMap<ExprId, usize>,
    /// Where stores go.
    pub stores: Vec<Place>,
}

impl Affine {
    /// The value of an index's numerator.
    pub fn of(index: &Index) -> Affine {
        let terms = index.terms.iter().map(|&(axis, coef)| (axis.0 as usize, coef)).collect();
        Affine { terms, constant: bound(&index.offset) }
    }

    /// The coefficient of an axis.
    pub fn coef(&self, axis: usize) -> i64 {
        self.terms.iter().find(|t| t.0 == axis).map_or(0, |t| t.1)
    }

    /// Adds `factor * other`.
    pub fn add(&mut self, other: &Affine, factor: i64) {
        for &(axis, coef) in &other.terms {
            match self.terms.iter_mut().find(|t| t.0 == axis) {
                Some(term) => term.1 += coef * factor,
                None => self.terms.push((axis, coef * factor)),
            }
        }
        self.terms.retain(|t| t.1 != 0);
        self.terms.sort_unstable();
        self.constant += other.constant * factor;
    }

    /// With every number changed.
    fn map(mut self, change: impl Fn(i64) -> i64) -> Affine {
        self.terms.iter_mut().for_each(|term| term.1 = change(term.1));
        self.terms.retain(|term| term.1 != 0);
        self.constant = change(self.constant);
        self
    }

    /// Whether it is a multiple of `n` wherever `axis` is one.
    pub fn is_multiple(&self, n: i64, axis: usize) -> bool {
        self.constant % n == 0 && self.terms.iter().all(|&(a, c)| a == axis || c % n == 0)
    }

    fn renumber(&mut self, new: &[Option<usize>]) {
        self.terms = self.terms.iter().filter_map(|&(a, c)| Some((new[a]?, c))).collect();
        self.terms.sort_unstable();
    }
}

impl Check {
    /// The condition that an index is inside `0..extent`; `None` if it is known to be.
    pub fn of(index: &Index, extent: &Size, axes: &[Size]) -> Option<Check> {
        let inside = index.is_inside(axes, extent);
        let check = Check { value: Affine::of(index), div: index.div, extent: bound(extent) };
        (!inside).then_some(check)
    }
}

impl Place {
    /// Where `access` to a buffer goes; `lookups` decide some of its coordinates.
    pub fn new(
        program: &Program,
        buffer: BufferId,
        access: &Access,
        lookups: &[Lookup],
        axes: &[Size],
    ) -> Place {
        let shape: Vec<i64> = program.buffer(buffer).shape.iter().map(bound).collect();
        let mut place = Place {
            buffer,
            elements: shape.iter().product(),
            offset: Affine::default(),
            quotients: Vec::new(),
            found: Vec::new(),
            checks: Vec::new(),
        };
        let mut stride = 1;
        for (dim, index) in access.coords.iter().enumerate().rev() {
            let extent = shape[dim];
            match lookups.iter().find(|l| l.dim as usize == dim) {
                Some(lookup) => place.found.push(Found { index: lookup.index, extent, stride }),
                None => place.coordinate(index, &program.buffer(buffer).shape[dim], stride, axes),
            }
            stride *= extent;
        }
        let guards = access.guards.iter();
        place
            .checks
            .extend(guards.filter_map(|Guard { index, extent }| Check::of(index, extent, axes)));
        place
    }

    fn coordinate(&mut self, index: &Index, extent: &Size, stride: i64, axes: &[Size]) {
        let value = Affine::of(index);
        if index.div == 1 {
            self.offset.add(&value, stride);
        } else {
            self.quotients.push(Quotient { value, div: index.div, stride });
        }
        self.checks.extend(Check::of(index, extent, axes));
    }

    /// Whether points that differ along `axis` alone are all inside or all outside.
    pub fn is_checked_alike(&self, axis: usize) -> bool {
        self.checks.iter().all(|c| c.value.coef(axis) == 0)
    }

    /// How many elements the place moves for a step along `axis`, if always as many.
    pub fn step(&self, axis: usize) -> Option<i64> {
        let even = self.quotients.iter().all(|q| q.value.coef(axis) == 0);
        (even && self.found.is_empty()).then(|| self.offset.coef(axis))
    }

    /// Whether `lanes` neighbours along `axis`, the first at a multiple of `lanes`, are that many
    /// elements of the buffer, the first of them as aligned.
    pub fn is_vector(&self, axis: usize, lanes: i64) -> bool {
        let even = |stride: i64| stride % lanes == 0;
        self.step(axis) == Some(1)
            && self.is_checked_alike(axis)
            && self.offset.is_multiple(lanes, axis)
            && self.quotients.iter().all(|q| even(q.stride))
    }

    fn affines(&mut self) -> impl Iterator<Item = &mut Affine> {
        let quotients = self.quotients.iter_mut().map(|q| &mut q.value);
        let checks = self.checks.iter_mut().map(|c| &mut c.value);
        [&mut self.offset].into_iter().chain(quotients).chain(checks)
    }

    /// Whether the place or its checks depend on the axis, other than through lookups.
    pub fn uses(&self, axis: usize) -> bool {
        self.offset.coef(axis) != 0 || self.uses_unevenly(axis)
    }

    fn uses_unevenly(&self, axis: usize) -> bool {
        !self.is_checked_alike(axis) || self.quotients.iter().any(|q| q.value.coef(axis) != 0)
    }
}

impl<'k> Domain<'k> {
    /// The points of `axes`, of which the first are the steps of `loops` loops around: there `roots`
    /// are computed and `targets` are written.
    pub fn new<'s>(
        program: &Program,
        (axes, loops): (&[Size], usize),
        exprs: &'k Exprs,
        roots: impl IntoIterator<Item = ExprId>,
        targets: impl IntoIterator<Item = Target<'s>>,
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
        for id in exprs.reachable(roots) {
            domain.expect(program, axes, id);
        }
        let place = |(buffer, access, lookups): Target<'s>| {
            Place::new(program, buffer, access, lookups, axes)
        };
        domain.stores = targets.into_iter().map(place).collect();
        let points = domain.extents.len();
        let behind = |axis: usize| if axis < loops { axis + points } else { axis - loops };
        domain.renumber(&(0..axes.len()).map(|axis| Some(behind(axis))).collect::<Vec<_>>());
        domain
    }

    fn expect(&mut self, program: &Program, axes: &[Size], id: ExprId) {
        match self.exprs.get(id) {
            Expr::Load { buffer, access, lookups, .. } => {
                self.loads.insert(id, Place::new(program, *buffer, access, lookups, axes));
            }
            Expr::Inside(guard) => {
                self.guards.insert(id, Check::of(&guard.index, &guard.extent, axes));
            }
            Expr::Axis(Axis(axis)) => _ = self.axes.insert(id, *axis as usize),
            _ => {}
        }
    }

    /// An integer expression as an affine function of the axes, up to multiples of 2^32.
    pub fn affine(&self, id: ExprId) -> Option<Affine> {
        let of_constant = |constant: i64| Affine { constant, ..Affine::default() };
        let wrapped = |value: Affine| value.map(|n| i64::from(n as i32));
        if self.exprs.dtype(id) != DType::I32 {
            return None;
        }
        match self.exprs.get(id) {
            Expr::Const(scalar) => Some(of_constant(scalar.value() as i64)),
            Expr::Extent(size, _) => Some(of_constant(bound(size))),
            Expr::Axis(_) => Some(Affine { terms: smallvec![(self.axes[&id], 1)], constant: 0 }),
            Expr::Binary(BinaryOp::Add, x, y) => {
                let mut sum = self.affine(*x)?;
                sum.add(&self.affine(*y)?, 1);
                Some(wrapped(sum))
            }
            Expr::Binary(BinaryOp::Mul, x, y) => {
                let (x, y) = (self.affine(*x)?, self.affine(*y)?);
                let (factor, other) = if x.terms.is_empty() { (x, y) } else { (y, x) };
                let scaled = |n: i64| n.wrapping_mul(factor.constant);
                factor.terms.is_empty().then(|| wrapped(other.map(scaled)))
            }
            _ => None,
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
        let even = |place: &Place| {
            !place.uses_unevenly(axis)
                && !place.uses_unevenly(inner)
                && place.offset.coef(axis) == place.offset.coef(inner) * self.extents[inner]
        };
        let apart = |c: &Check| c.value.coef(axis) == 0 && c.value.coef(inner) == 0;
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
            let load = self.loads.get(id).is_some_and(|place| place.uses(axis));
            let guard = self.guards.get(id).and_then(Option::as_ref);
            load || guard.is_some_and(|check| check.value.coef(axis) != 0)
                || self.axes.get(id) == Some(&axis)
        })
    }

    fn renumber(&mut self, map: &[Option<usize>]) {
        let places = self.loads.values_mut().chain(&mut self.stores);
        places.flat_map(Place::affines).for_each(|affine| affine.renumber(map));
        self.guards.values_mut().flatten().for_each(|check| check.value.renumber(map));
        self.axes.values_mut().for_each(|a| *a = map[*a].expect("free axes are not named"));
    }
}

/// A size of a program that is being built.
///
/// # Panics
/// If it is not bound.
pub fn bound(size: &Size) -> i64 {
    size.as_const().expect("sizes are bound when a program is built")
}
