//! A kernel's points, with every access resolved to element offsets.
//!
//! A [`Domain`] is what code generation reads instead of accesses: extents are numbers, a load is
//! a [`Place`] (a linear offset and the conditions that are not provably true), an integer
//! expression that is affine in the axes is a [`Linear`]. Neighbouring axes that every access walks
//! through as one are one axis ([`Domain::merge`]).

use super::PlacedStore;
use dlc_kernel::{
    Access, Axis, BinaryOp, Buffer, DType, Expr, ExprId, Exprs, Guard, Index, Program, Size,
};
use smallvec::SmallVec;

/// The most axes a kernel may have.
pub const MAX_AXES: usize = 63;

/// `sum of coef * axis + offset`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Sorted by axis; no zero coefficient.
    pub terms: SmallVec<[(Axis, i64); 4]>,
    /// The constant part.
    pub offset: i64,
}

/// A condition that is not provably true: `index` divides exactly by `div` and lies in `0..extent`
/// after that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// Before the division.
    pub index: Linear,
    /// At least 1.
    pub div: i64,
    /// The exclusive upper bound.
    pub extent: i64,
}

/// A summand of an offset: `index / div * stride`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quotient {
    /// Before the division, which a [`Check`] of the same place proves exact.
    pub index: Linear,
    /// At least 2.
    pub div: i64,
    /// Elements.
    pub stride: i64,
}

/// A summand of an offset that data decides: `index * stride`, outside unless in `0..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// An `I32` expression.
    pub index: ExprId,
    /// The exclusive upper bound; beyond it the run fails.
    pub extent: i64,
    /// Elements.
    pub stride: i64,
}

/// Where an access lands, in elements from the start of the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The affine part of the offset.
    pub linear: Linear,
    /// The divided parts.
    pub quotients: SmallVec<[Quotient; 1]>,
    /// All must hold for the point to be inside.
    pub checks: SmallVec<[Check; 2]>,
    /// What data decides.
    pub found: SmallVec<[Found; 1]>,
}

/// A set of axes. Bit 63 stands for the folds of a row and the sum of a contraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AxisSet(pub u64);

/// A kernel's axes and expressions, resolved.
#[derive(Clone, Debug)]
pub struct Domain<'k> {
    /// The expressions; their own axes and accesses are replaced by the fields below.
    pub exprs: &'k Exprs,
    /// The extent of every axis.
    pub extents: SmallVec<[i64; 8]>,
    /// By expression: a load's place.
    pub places: Vec<Option<Place>>,
    /// By expression: the checks of an `Inside`.
    pub guards: Vec<Option<SmallVec<[Check; 1]>>>,
    /// By expression: its value, if it is an `I32` affine in the axes.
    pub affine: Vec<Option<Linear>>,
    /// By expression: the axes its value depends on.
    pub uses: Vec<AxisSet>,
}

impl AxisSet {
    /// The folds of a row, or the sum of a contraction.
    pub const FOLDED: AxisSet = AxisSet(1 << 63);

    /// One axis.
    pub fn of(axis: Axis) -> AxisSet {
        AxisSet(1 << axis.0)
    }

    /// The axes `from..to`.
    pub fn range(from: usize, to: usize) -> AxisSet {
        (from..to).fold(AxisSet::default(), |s, a| s.union(AxisSet(1 << a)))
    }

    /// Whether `axis` is in it.
    pub fn contains(self, axis: Axis) -> bool {
        self.0 >> axis.0 & 1 == 1
    }

    /// The members of either.
    pub fn union(self, other: AxisSet) -> AxisSet {
        AxisSet(self.0 | other.0)
    }

    /// Whether some member is in `other`.
    pub fn meets(self, other: AxisSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all members are in `other`.
    pub fn within(self, other: AxisSet) -> bool {
        self.0 & !other.0 == 0
    }
}

impl Linear {
    /// A constant.
    pub fn constant(offset: i64) -> Linear {
        Linear { terms: SmallVec::new(), offset }
    }

    /// The coefficient of `axis`.
    pub fn coef(&self, axis: Axis) -> i64 {
        self.terms.iter().find(|t| t.0 == axis).map_or(0, |t| t.1)
    }

    /// The axes it depends on.
    pub fn uses(&self) -> AxisSet {
        self.terms.iter().fold(AxisSet::default(), |s, t| s.union(AxisSet::of(t.0)))
    }

    /// `self + factor * other`; wraps at the ends of `i64`.
    pub fn plus(&self, other: &Linear, factor: i64) -> Linear {
        let mut sum = self.clone();
        sum.offset = sum.offset.wrapping_add(other.offset.wrapping_mul(factor));
        for &(axis, coef) in &other.terms {
            sum.add(axis, coef.wrapping_mul(factor));
        }
        sum
    }

    fn add(&mut self, axis: Axis, coef: i64) {
        match self.terms.binary_search_by_key(&axis, |t| t.0) {
            Ok(at) => {
                self.terms[at].1 = self.terms[at].1.wrapping_add(coef);
                if self.terms[at].1 == 0 {
                    self.terms.remove(at);
                }
            }
            Err(at) if coef != 0 => self.terms.insert(at, (axis, coef)),
            Err(_) => {}
        }
    }

    fn of_index(index: &Index) -> Result<Linear, String> {
        let mut sum = Linear::constant(extent(&index.offset)?);
        for &(axis, coef) in &index.terms {
            sum.add(axis, coef);
        }
        Ok(sum)
    }

    /// Replaces every axis by `new[axis]`, or drops it.
    fn renumber(&mut self, new: &[Option<Axis>]) {
        let renumbered = |&(axis, coef): &(Axis, i64)| Some((new[axis.0 as usize]?, coef));
        self.terms = self.terms.iter().filter_map(renumbered).collect();
    }
}

impl Place {
    /// Whether every point of the domain is provably inside.
    pub fn is_inside(&self) -> bool {
        self.checks.is_empty() && self.found.is_empty()
    }

    /// The axes that offset or conditions depend on; lookups depend on more.
    pub fn uses(&self) -> AxisSet {
        let quotients = self.quotients.iter().map(|q| q.index.uses());
        let checks = self.checks.iter().map(|c| c.index.uses());
        quotients.chain(checks).fold(self.linear.uses(), AxisSet::union)
    }

    /// Whether a step along `axis` is a step of one element, and only the linear part and
    /// undivided checks see it.
    pub fn is_unit_along(&self, axis: Axis) -> bool {
        self.linear.coef(axis) == 1
            && self.quotients.iter().all(|q| q.index.coef(axis) == 0)
            && self.checks.iter().all(|c| c.div == 1 || c.index.coef(axis) == 0)
    }

    /// Every linear form in it.
    fn forms(&mut self) -> impl Iterator<Item = &mut Linear> {
        let quotients = self.quotients.iter_mut().map(|q| &mut q.index);
        let checks = self.checks.iter_mut().map(|c| &mut c.index);
        std::iter::once(&mut self.linear).chain(quotients).chain(checks)
    }
}

/// The number of elements from one step of every dim to the next, row-major.
pub fn strides(shape: &[i64]) -> SmallVec<[i64; 4]> {
    let mut strides: SmallVec<[i64; 4]> = shape.iter().map(|_| 1).collect();
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim].saturating_mul(shape[dim]);
    }
    strides
}

/// The number a size stands for.
///
/// # Errors
/// If a dim is not bound.
pub fn extent(size: &Size) -> Result<i64, String> {
    size.as_const().ok_or_else(|| format!("size `{size}` is not bound"))
}

/// The numbers a shape stands for.
///
/// # Errors
/// If a dim is not bound.
pub fn extents(shape: &[Size]) -> Result<SmallVec<[i64; 8]>, String> {
    shape.iter().map(extent).collect()
}

impl<'k> Domain<'k> {
    /// Resolves all expressions over `axes`.
    ///
    /// # Errors
    /// If a size is not bound or there are more than [`MAX_AXES`] axes.
    pub fn new(
        program: &Program,
        exprs: &'k Exprs,
        axes: SmallVec<[i64; 8]>,
    ) -> Result<Domain<'k>, String> {
        if axes.len() > MAX_AXES {
            return Err(format!("{} axes are more than the {MAX_AXES} there may be", axes.len()));
        }
        let n = exprs.len();
        let mut domain = Domain {
            exprs,
            extents: axes,
            places: vec![None; n],
            guards: vec![None; n],
            affine: vec![None; n],
            uses: vec![AxisSet::default(); n],
        };
        for (id, expr) in exprs.iter() {
            domain.resolve_expr(program, id, expr)?;
        }
        domain.find_uses();
        Ok(domain)
    }

    /// Where `access` lands in `buffer`.
    ///
    /// # Errors
    /// If a size is not bound.
    pub fn resolve(
        &self,
        buffer: &Buffer,
        access: &Access,
        lookups: &[dlc_kernel::Lookup],
    ) -> Result<Place, String> {
        let shape = extents(&buffer.shape)?;
        let strides = strides(&shape);
        let mut place = Place::default();
        for (dim, coord) in access.coords.iter().enumerate() {
            let stride = strides[dim];
            if let Some(lookup) = lookups.iter().find(|l| l.dim as usize == dim) {
                place.found.push(Found { index: lookup.index, extent: shape[dim], stride });
                continue;
            }
            let index = Linear::of_index(coord)?;
            if coord.div == 1 {
                place.linear = place.linear.plus(&index, stride);
            } else {
                place.quotients.push(Quotient { index: index.clone(), div: coord.div, stride });
            }
            place.checks.extend(self.check(index, coord.div, shape[dim]));
        }
        for guard in &access.guards {
            place.checks.extend(self.guard(guard)?);
        }
        Ok(place)
    }

    /// The smallest and largest value over all points; `None` if there is no point.
    pub fn range(&self, linear: &Linear) -> Option<(i64, i64)> {
        let (mut low, mut high) = (linear.offset, linear.offset);
        for &(axis, coef) in &linear.terms {
            let last = self.extents[axis.0 as usize] - 1;
            if last < 0 {
                return None;
            }
            let reach = coef.saturating_mul(last);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        Some((low, high))
    }

    /// The number of points.
    pub fn points(&self) -> i64 {
        self.extents.iter().fold(1, |n, &e| n.saturating_mul(e))
    }

    /// `roots` and everything they read, operands first; affine values are not looked into.
    pub fn reachable(&self, roots: &[ExprId]) -> Vec<ExprId> {
        self.reachable_beside(roots, &[])
    }

    /// [`Domain::reachable`] without what only `known` values read.
    pub fn reachable_beside(&self, roots: &[ExprId], known: &[ExprId]) -> Vec<ExprId> {
        let mut seen = vec![false; self.exprs.len()];
        let mut open = roots.to_vec();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut seen[id.0 as usize], true)
                && self.affine[id.0 as usize].is_none()
                && !known.contains(&id)
            {
                open.extend(self.exprs.get(id).operands());
            }
        }
        (0..seen.len()).filter(|&i| seen[i]).map(|i| ExprId(i as u32)).collect()
    }

    /// Drops axes of extent 1 and merges neighbours within `groups` (which partition the axes in
    /// order) that all accesses walk through as one. Gives the number of axes left in each group.
    pub fn merge(
        &mut self,
        roots: &[ExprId],
        stores: &mut [PlacedStore],
        groups: &[usize],
    ) -> SmallVec<[usize; 2]> {
        let used = self.reachable(roots);
        let mut kept: SmallVec<[usize; 2]> = SmallVec::new();
        let mut new: Vec<Option<Axis>> = vec![None; self.extents.len()];
        let mut extents: SmallVec<[i64; 8]> = SmallVec::new();
        let mut first = 0;
        for &count in groups {
            let start = extents.len();
            let mut last: Option<usize> = None;
            for axis in first..first + count {
                if self.extents[axis] == 1 {
                    continue;
                }
                match last.filter(|&l| self.walks_as_one(&used, stores, l, axis)) {
                    Some(outer) => {
                        new[outer] = None;
                        *extents.last_mut().expect("the outer axis was kept") *= self.extents[axis];
                    }
                    None => extents.push(self.extents[axis]),
                }
                new[axis] = Some(Axis(extents.len() as u32 - 1));
                last = Some(axis);
            }
            kept.push(extents.len() - start);
            first += count;
        }
        self.extents = extents;
        self.renumber(&used, &new);
        stores.iter_mut().flat_map(|s| s.place.forms()).for_each(|l| l.renumber(&new));
        kept
    }

    /// Cuts `axis` into stretches of `block` points: the stretches become a new axis at position
    /// `at`, which comes before `axis`. The block divides the extent.
    pub fn split(&mut self, axis: Axis, at: usize, block: i64, stores: &mut [PlacedStore]) {
        let (old, new) = (axis.0 as usize, Axis(at as u32));
        self.extents[old] /= block;
        let stretches = std::mem::replace(&mut self.extents[old], block);
        self.extents.insert(at, stretches);
        let shift = |linear: &mut Linear| {
            let coef = linear.coef(axis);
            linear.terms.iter_mut().filter(|t| t.0 >= new).for_each(|t| t.0.0 += 1);
            linear.add(new, coef.wrapping_mul(block));
        };
        self.affine.iter_mut().flatten().for_each(shift);
        self.places.iter_mut().flatten().flat_map(Place::forms).for_each(shift);
        self.guards.iter_mut().flatten().flatten().for_each(|c| shift(&mut c.index));
        stores.iter_mut().flat_map(|s| s.place.forms()).for_each(shift);
        self.find_uses();
    }

    /// Whether `outer`, `inner` can be one axis: in all offsets a step of `outer` is a whole walk
    /// along `inner`, and neither occurs anywhere else.
    fn walks_as_one(
        &self,
        used: &[ExprId],
        stores: &[PlacedStore],
        outer: usize,
        inner: usize,
    ) -> bool {
        let extent = self.extents[inner];
        let (outer, inner) = (Axis(outer as u32), Axis(inner as u32));
        let as_one = |l: &Linear| l.coef(outer) == l.coef(inner).wrapping_mul(extent);
        let absent = |l: &Linear| l.coef(outer) == 0 && l.coef(inner) == 0;
        let place_fits = |p: &Place| {
            as_one(&p.linear)
                && p.quotients.iter().all(|q| absent(&q.index))
                && p.checks.iter().all(|c| absent(&c.index))
        };
        stores.iter().all(|s| place_fits(&s.place))
            && used.iter().all(|id| {
                let id = id.0 as usize;
                self.affine[id].as_ref().is_none_or(as_one)
                    && self.places[id].as_ref().is_none_or(place_fits)
                    && self.guards[id].iter().flatten().all(|c| absent(&c.index))
            })
    }

    fn renumber(&mut self, used: &[ExprId], new: &[Option<Axis>]) {
        for id in used.iter().map(|id| id.0 as usize) {
            self.affine[id].iter_mut().for_each(|l| l.renumber(new));
            self.places[id].iter_mut().flat_map(Place::forms).for_each(|l| l.renumber(new));
            self.guards[id].iter_mut().flatten().for_each(|c| c.index.renumber(new));
        }
        self.find_uses();
    }

    fn resolve_expr(&mut self, program: &Program, id: ExprId, expr: &Expr) -> Result<(), String> {
        let at = id.0 as usize;
        match expr {
            Expr::Load { buffer, access, lookups, .. } => {
                self.places[at] = Some(self.resolve(program.buffer(*buffer), access, lookups)?);
            }
            Expr::Inside(guard) => self.guards[at] = Some(self.guard(guard)?),
            _ => self.affine[at] = self.find_affine(expr)?,
        }
        Ok(())
    }

    fn guard(&self, guard: &Guard) -> Result<SmallVec<[Check; 1]>, String> {
        let index = Linear::of_index(&guard.index)?;
        Ok(self.check(index, guard.index.div, extent(&guard.extent)?).into_iter().collect())
    }

    /// The condition, unless it is provably true.
    fn check(&self, index: Linear, div: i64, extent: i64) -> Option<Check> {
        let inside = |(low, high): (i64, i64)| div == 1 && low >= 0 && high < extent;
        let proved = self.range(&index).is_some_and(inside);
        (!proved).then_some(Check { index, div, extent })
    }

    fn find_affine(&self, expr: &Expr) -> Result<Option<Linear>, String> {
        let known = |id: &ExprId| self.affine[id.0 as usize].as_ref();
        Ok(match expr {
            Expr::Const(s) if s.dtype == DType::I32 => Some(Linear::constant(s.value() as i64)),
            Expr::Extent(size, DType::I32) => Some(Linear::constant(extent(size)?)),
            Expr::Axis(axis) => {
                let mut linear = Linear::default();
                linear.add(*axis, 1);
                Some(linear)
            }
            Expr::Binary(op, a, b) => match (op, known(a), known(b)) {
                (BinaryOp::Add, Some(a), Some(b)) => Some(a.plus(b, 1)),
                (BinaryOp::Sub, Some(a), Some(b)) => Some(a.plus(b, -1)),
                (BinaryOp::Mul, Some(a), Some(b)) if b.terms.is_empty() => {
                    Some(Linear::default().plus(a, b.offset))
                }
                (BinaryOp::Mul, Some(a), Some(b)) if a.terms.is_empty() => {
                    Some(Linear::default().plus(b, a.offset))
                }
                _ => None,
            },
            _ => None,
        })
    }

    fn find_uses(&mut self) {
        for (id, expr) in self.exprs.iter() {
            let at = id.0 as usize;
            let own = match (&self.affine[at], &self.places[at], &self.guards[at]) {
                (Some(linear), _, _) => linear.uses(),
                (_, Some(place), _) => place.uses(),
                (_, _, Some(checks)) => {
                    checks.iter().fold(AxisSet::default(), |s, c| s.union(c.index.uses()))
                }
                _ if matches!(expr, Expr::Folded(_)) => AxisSet::FOLDED,
                _ => AxisSet::default(),
            };
            let operands =
                if self.affine[at].is_some() { SmallVec::new() } else { expr.operands() };
            let used = operands.iter().map(|o| self.uses[o.0 as usize]);
            self.uses[at] = used.fold(own, AxisSet::union);
        }
    }
}
