//! Index maps: where a tensor is read, as affine functions of iteration axes.
//!
//! The one class of maps is closed under substitution and under solving for an axis, so that the
//! adjoint of a read is a read again (`s*h + r - p = i` gives `h = (i - r + p) / s`). A coordinate
//! whose division leaves a remainder is *outside*, exactly as one that leaves the tensor.

use crate::Size;
use smallvec::SmallVec;

/// An iteration axis of an operation or kernel, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(pub u32);

/// One coordinate: `(sum of coef*axis + offset) / div`, outside unless the division is exact.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    /// Sorted by axis, no axis twice, no zero coefficient.
    pub terms: SmallVec<[(Axis, i64); 2]>,
    /// The constant part.
    pub offset: Size,
    /// At least 1.
    pub div: i64,
}

/// A condition: the index divides exactly and lies in `0..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guard {
    /// The value that is tested.
    pub index: Index,
    /// The exclusive upper bound.
    pub extent: Size,
}

/// A read: one coordinate for each dim of the tensor, and further conditions.
/// A point is *outside* if any coordinate leaves its dim, is not exact, or a guard fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Access {
    /// One per dim of the tensor that is read.
    pub coords: SmallVec<[Index; 4]>,
    /// All must hold.
    pub guards: SmallVec<[Guard; 1]>,
}

impl Index {
    /// The axis itself.
    pub fn axis(axis: u32) -> Index {
        Index { terms: [(Axis(axis), 1)].into_iter().collect(), offset: Size::ZERO, div: 1 }
    }

    /// A constant.
    pub fn constant(value: impl Into<Size>) -> Index {
        Index { terms: SmallVec::new(), offset: value.into(), div: 1 }
    }

    /// `sum of coef*axis + offset`; terms in any order, repeated axes add up.
    pub fn affine(terms: impl IntoIterator<Item = (u32, i64)>, offset: impl Into<Size>) -> Index {
        let mut sum = Index::constant(offset);
        for (axis, coef) in terms {
            sum.add_term(Axis(axis), coef);
        }
        sum
    }

    /// The axis, if the index is just that.
    pub fn as_axis(&self) -> Option<Axis> {
        match self.terms.as_slice() {
            [(axis, 1)] if self.div == 1 && self.offset == Size::ZERO => Some(*axis),
            _ => None,
        }
    }

    /// The coefficient of `axis` (before the division), 0 if it does not occur.
    pub fn coef(&self, axis: Axis) -> i64 {
        self.terms.iter().find(|t| t.0 == axis).map_or(0, |t| t.1)
    }

    /// Whether `axis` occurs.
    pub fn uses(&self, axis: Axis) -> bool {
        self.coef(axis) != 0
    }

    /// The value at a point, `None` where the division is not exact. `point[a]` is axis `a`.
    ///
    /// # Panics
    /// If the offset is symbolic.
    pub fn at(&self, point: &[i64]) -> Option<i64> {
        let offset = self.offset.as_const().expect("sizes are bound before a point is evaluated");
        let terms = self.terms.iter().map(|&(a, c)| c.saturating_mul(point[a.0 as usize]));
        let sum = terms.fold(offset, i64::saturating_add);
        (sum % self.div == 0).then_some(sum / self.div)
    }

    /// Replaces every axis `a` by `map[a]`. Exact wherever all of `map` is.
    pub fn compose(&self, map: &[Index]) -> Index {
        let common = self.terms.iter().fold(1, |d, (a, _)| lcm(d, map[a.0 as usize].div));
        let mut sum = Index::constant(self.offset.clone() * Size::from(common));
        for &(axis, coef) in &self.terms {
            let inner = &map[axis.0 as usize];
            let scale = coef.saturating_mul(common / inner.div);
            for &(a, c) in &inner.terms {
                sum.add_term(a, c.saturating_mul(scale));
            }
            sum.offset = sum.offset + inner.offset.clone() * Size::from(scale);
        }
        sum.div = self.div.saturating_mul(common);
        sum.reduced()
    }

    /// The smallest and largest numerator over all points of `axes`, if sizes are known and no
    /// axis is empty.
    pub fn range(&self, axes: &[Size]) -> Option<(i64, i64)> {
        let offset = self.offset.as_const()?;
        let (mut low, mut high) = (offset, offset);
        for &(axis, coef) in &self.terms {
            let last = axes[axis.0 as usize].as_const().filter(|&n| n > 0)? - 1;
            let reach = coef.saturating_mul(last);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        Some((low, high))
    }

    /// Whether it is known to divide exactly and lie in `0..extent` at every point of `axes`.
    pub fn is_inside(&self, axes: &[Size], extent: &Size) -> bool {
        if self.as_axis().is_some_and(|a| &axes[a.0 as usize] == extent) {
            return true;
        }
        match (self.range(axes), extent.as_const()) {
            (Some((low, high)), Some(extent)) => self.div == 1 && low >= 0 && high < extent,
            _ => false,
        }
    }

    /// The same index with axes renumbered.
    pub fn renumber(&self, new: &dyn Fn(Axis) -> Axis) -> Index {
        let mut sum = Index { terms: SmallVec::new(), offset: self.offset.clone(), div: self.div };
        for &(axis, coef) in &self.terms {
            sum.add_term(new(axis), coef);
        }
        sum
    }

    fn add_term(&mut self, axis: Axis, coef: i64) {
        match self.terms.binary_search_by_key(&axis, |t| t.0) {
            Ok(at) => {
                self.terms[at].1 = self.terms[at].1.saturating_add(coef);
                if self.terms[at].1 == 0 {
                    self.terms.remove(at);
                }
            }
            Err(at) if coef != 0 => self.terms.insert(at, (axis, coef)),
            Err(_) => {}
        }
    }

    /// Divides numerator and divisor by their common factor.
    fn reduced(mut self) -> Index {
        let Some(offset) = self.offset.as_const() else { return self };
        let common = self.terms.iter().fold(gcd(self.div, offset), |g, t| gcd(g, t.1));
        if common > 1 {
            self.terms.iter_mut().for_each(|t| t.1 /= common);
            self.offset = (offset / common).into();
            self.div /= common;
        }
        self
    }
}

impl Access {
    /// Reads `tensor[axis0, axis1, ..]`.
    pub fn identity(rank: usize) -> Access {
        Access::new((0..rank as u32).map(Index::axis))
    }

    /// A read without guards.
    pub fn new(coords: impl IntoIterator<Item = Index>) -> Access {
        Access { coords: coords.into_iter().collect(), guards: SmallVec::new() }
    }

    /// Whether it reads every element at its own place.
    pub fn is_identity(&self) -> bool {
        self.guards.is_empty()
            && self.coords.iter().enumerate().all(|(i, c)| c.as_axis() == Some(Axis(i as u32)))
    }

    /// The read through an intermediate tensor: its dim `a`, of extent `extents[a]`, is itself at
    /// `map[a]` of the new axes `axes`. Where `map` may leave the intermediate, a guard says so.
    pub fn compose(&self, map: &[Index], extents: &[Size], axes: &[Size]) -> Access {
        let coords = self.coords.iter().map(|c| c.compose(map)).collect();
        let own = self.guards.iter();
        let own = own.map(|g| Guard { index: g.index.compose(map), extent: g.extent.clone() });
        let mut guards: Vec<Guard> = own.collect();
        for (index, extent) in map.iter().zip(extents) {
            if !index.is_inside(axes, extent) {
                guards.push(Guard { index: index.clone(), extent: extent.clone() });
            }
        }
        guards.sort();
        guards.dedup();
        Access { coords, guards: guards.into_iter().collect() }
    }

    /// The same read of a tensor of shape `shape`, without guards that its coordinates are.
    pub fn without_doubles(mut self, shape: &[Size]) -> Access {
        let Access { coords, guards } = &mut self;
        guards.retain(|guard| {
            let is = |(c, n): (&Index, &Size)| *c == guard.index && *n == guard.extent;
            !coords.iter().zip(shape).any(is)
        });
        self
    }

    /// The same read with axes renumbered.
    pub fn renumber(&self, new: &dyn Fn(Axis) -> Axis) -> Access {
        let guard = |g: &Guard| Guard { index: g.index.renumber(new), extent: g.extent.clone() };
        Access {
            coords: self.coords.iter().map(|c| c.renumber(new)).collect(),
            guards: self.guards.iter().map(guard).collect(),
        }
    }

    /// Whether `axis` occurs in a coordinate or a guard.
    pub fn uses(&self, axis: Axis) -> bool {
        self.coords.iter().any(|c| c.uses(axis)) || self.guards.iter().any(|g| g.index.uses(axis))
    }

    /// The coordinates at a point, `None` outside a tensor of shape `shape`.
    pub fn at(&self, point: &[i64], shape: &[i64]) -> Option<SmallVec<[i64; 4]>> {
        for guard in &self.guards {
            let extent = guard.extent.as_const().expect("sizes are bound before evaluation");
            guard.index.at(point).filter(|v| (0..extent).contains(v))?;
        }
        let inside = |(c, &n): (&Index, &i64)| c.at(point).filter(|v| (0..n).contains(v));
        self.coords.iter().zip(shape).map(inside).collect()
    }
}

pub(crate) fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.saturating_abs(), b.saturating_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least number that both divide; they are at least 1.
pub fn lcm(a: i64, b: i64) -> i64 {
    (a / gcd(a, b)).saturating_mul(b)
}
