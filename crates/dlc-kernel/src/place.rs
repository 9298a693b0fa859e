//! Where accesses go in memory that is row-major: element offsets, affine in the axes of a domain, and
//! the conditions that decide whether a point is inside, as far as they are not known to hold.
//!
//! Targets read places instead of accesses. Sizes are bound by then.

use crate::{Access, Axis, BinaryOp, DType, Expr, ExprId, Guard, Index, Lookup, Size};
use smallvec::SmallVec;

/// `sum of coef * axis + offset`; wraps at the ends of `i64`.
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

    /// The axis itself.
    pub fn axis(axis: Axis) -> Linear {
        let mut linear = Linear::default();
        linear.add(axis, 1);
        linear
    }

    /// The numerator of an index.
    ///
    /// # Errors
    /// If a dim is not bound.
    pub fn of_index(index: &Index) -> Result<Linear, String> {
        let mut sum = Linear::constant(extent(&index.offset)?);
        for &(axis, coef) in &index.terms {
            sum.add(axis, coef);
        }
        Ok(sum)
    }

    /// The value of an `I32` expression that is affine in the axes, modulo 2^32; `known` gives those
    /// of its operands.
    ///
    /// # Errors
    /// If a dim is not bound.
    pub fn of_expr(
        expr: &Expr,
        known: impl Fn(ExprId) -> Option<Linear>,
    ) -> Result<Option<Linear>, String> {
        Ok(match expr {
            Expr::Const(s) if s.dtype == DType::I32 => Some(Linear::constant(s.value() as i64)),
            Expr::Extent(size, DType::I32) => Some(Linear::constant(extent(size)?)),
            Expr::Axis(axis) => Some(Linear::axis(*axis)),
            Expr::Binary(op, a, b) => match (op, known(*a), known(*b)) {
                (BinaryOp::Add, Some(a), Some(b)) => Some(a.plus(&b, 1)),
                (BinaryOp::Sub, Some(a), Some(b)) => Some(a.plus(&b, -1)),
                (BinaryOp::Mul, Some(a), Some(b)) if b.terms.is_empty() => {
                    Some(Linear::default().plus(&a, b.offset))
                }
                (BinaryOp::Mul, Some(a), Some(b)) if a.terms.is_empty() => {
                    Some(Linear::default().plus(&b, a.offset))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The coefficient of `axis`.
    pub fn coef(&self, axis: Axis) -> i64 {
        self.terms.iter().find(|t| t.0 == axis).map_or(0, |t| t.1)
    }

    /// The axes it depends on.
    pub fn uses(&self) -> AxisSet {
        self.terms.iter().fold(AxisSet::default(), |s, t| s.union(AxisSet::of(t.0)))
    }

    /// `self + factor * other`.
    pub fn plus(&self, other: &Linear, factor: i64) -> Linear {
        let mut sum = self.clone();
        sum.offset = sum.offset.wrapping_add(other.offset.wrapping_mul(factor));
        for &(axis, coef) in &other.terms {
            sum.add(axis, coef.wrapping_mul(factor));
        }
        sum
    }

    /// Adds `coef * axis`.
    pub fn add(&mut self, axis: Axis, coef: i64) {
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

    /// Replaces every axis by `new[axis]`, or drops it.
    pub fn renumber(&mut self, new: &[Option<Axis>]) {
        let renumbered = |&(axis, coef): &(Axis, i64)| Some((new[axis.0 as usize]?, coef));
        self.terms = self.terms.iter().filter_map(renumbered).collect();
        self.terms.sort_unstable();
    }

    /// The smallest and largest value where axes have these extents; `None` if there is no point.
    pub fn range(&self, extents: &[i64]) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.offset, self.offset);
        for &(axis, coef) in &self.terms {
            let last = extents[axis.0 as usize] - 1;
            if last < 0 {
                return None;
            }
            let reach = coef.saturating_mul(last);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        Some((low, high))
    }
}

impl Check {
    /// The condition, unless it is provably true where axes have these extents.
    pub fn new(index: Linear, div: i64, extent: i64, extents: &[i64]) -> Option<Check> {
        let inside = |(low, high): (i64, i64)| div == 1 && low >= 0 && high < extent;
        let proved = index.range(extents).is_some_and(inside);
        (!proved).then_some(Check { index, div, extent })
    }

    /// What a guard asks, unless it is provably true.
    ///
    /// # Errors
    /// If a dim is not bound.
    pub fn of_guard(guard: &Guard, extents: &[i64]) -> Result<Option<Check>, String> {
        let index = Linear::of_index(&guard.index)?;
        Ok(Check::new(index, guard.index.div, extent(&guard.extent)?, extents))
    }
}

impl Place {
    /// Where `access` lands in a buffer of that shape whose elements are so far apart along its dims;
    /// `lookups` decide some coordinates, and axes have these extents.
    ///
    /// # Errors
    /// If a dim is not bound.
    pub fn new(
        (shape, strides): (&[i64], &[i64]),
        access: &Access,
        lookups: &[Lookup],
        extents: &[i64],
    ) -> Result<Place, String> {
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
            place.checks.extend(Check::new(index, coord.div, shape[dim], extents));
        }
        for guard in &access.guards {
            place.checks.extend(Check::of_guard(guard, extents)?);
        }
        Ok(place)
    }

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
    pub fn forms(&mut self) -> impl Iterator<Item = &mut Linear> {
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
