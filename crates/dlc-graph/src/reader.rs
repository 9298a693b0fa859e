//! Walking an [`Access`] over the points of an iteration space, for the reference evaluation.

use crate::op::known;
use dlc_kernel::{Access, Index, Size};
use smallvec::SmallVec;

/// An access with its sizes known, over one operand's elements.
pub(crate) struct Reader {
    /// The row-major position, as far as coordinates cannot leave their dims.
    inside: Sum,
    tests: Vec<Test>,
}

/// An affine function of a point.
struct Sum {
    terms: Vec<(usize, i64)>,
    offset: i64,
}

/// A coordinate or guard whose numerator must divide and lie in range.
struct Test {
    numerator: Sum,
    div: i64,
    extent: i64,
    /// Row-major stride of the dim; 0 for a guard.
    stride: i64,
}

impl Reader {
    /// `access` into a row-major tensor of shape `shape`, over `axes`.
    pub fn new(access: &Access, shape: &[usize], axes: &[Size]) -> Reader {
        let mut reader = Reader { inside: Sum { terms: vec![], offset: 0 }, tests: vec![] };
        let mut stride = 1;
        for (coord, &extent) in access.coords.iter().zip(shape).rev() {
            if coord.is_inside(axes, &extent.into()) {
                reader.inside.add(coord, stride);
            } else {
                reader.tests.push(Test::new(coord, extent as i64, stride));
            }
            stride *= extent as i64;
        }
        let guards = access.guards.iter();
        reader.tests.extend(guards.map(|g| Test::new(&g.index, known(&g.extent), 0)));
        reader
    }

    /// The read at `point` and at the points that follow along `axis`.
    pub fn run(&self, point: &[i64], axis: usize) -> Run<'_> {
        let start = |sum: &Sum| (sum.at(point), sum.step(axis));
        let tests = self.tests.iter().map(|test| (start(&test.numerator), test)).collect();
        Run { inside: start(&self.inside), tests }
    }
}

/// A read along one axis: sums as start and step.
pub(crate) struct Run<'a> {
    inside: (i64, i64),
    tests: SmallVec<[((i64, i64), &'a Test); 4]>,
}

impl Run<'_> {
    /// The position of the element `k` steps on, `None` outside.
    #[inline]
    pub fn at(&self, k: i64) -> Option<usize> {
        let mut position = self.inside.0 + k * self.inside.1;
        for ((start, step), test) in &self.tests {
            position += test.quotient(start + k * step)? * test.stride;
        }
        Some(position as usize)
    }
}

impl Sum {
    fn add(&mut self, index: &Index, scale: i64) {
        self.terms.extend(index.terms.iter().map(|&(axis, c)| (axis.0 as usize, c * scale)));
        self.offset += known(&index.offset) * scale;
    }

    fn at(&self, point: &[i64]) -> i64 {
        self.terms.iter().map(|&(axis, coef)| coef * point[axis]).sum::<i64>() + self.offset
    }

    /// How much it grows along `axis`.
    fn step(&self, axis: usize) -> i64 {
        self.terms.iter().filter(|t| t.0 == axis).map(|t| t.1).sum()
    }
}

impl Test {
    fn new(index: &Index, extent: i64, stride: i64) -> Test {
        let mut numerator = Sum { terms: vec![], offset: 0 };
        numerator.add(index, 1);
        Test { numerator, div: index.div, extent, stride }
    }

    #[inline]
    fn quotient(&self, numerator: i64) -> Option<i64> {
        let quotient = if self.div == 1 { numerator } else { numerator / self.div };
        let inside = quotient * self.div == numerator && 0 <= quotient && quotient < self.extent;
        inside.then_some(quotient)
    }
}

/// All points of `extents` in row-major order; none if an extent is 0.
///
/// Along the last axis, runs are cheaper than points: see [`Points::rows`].
pub(crate) struct Points {
    extents: Vec<i64>,
    point: Vec<i64>,
    started: bool,
}

impl Points {
    /// Over these extents.
    pub fn new(extents: impl IntoIterator<Item = i64>) -> Points {
        let extents: Vec<i64> = extents.into_iter().collect();
        Points { point: vec![0; extents.len()], extents, started: false }
    }

    /// Over these sizes, which are known.
    pub fn of(sizes: &[Size]) -> Points {
        Points::new(sizes.iter().map(known))
    }

    /// The first point of every run along the last axis, which is `0` in it, and the length of a
    /// run. Rank 0 has one run, of length 1.
    pub fn rows(sizes: &[Size]) -> (Points, i64) {
        let mut extents: Vec<i64> = sizes.iter().map(known).collect();
        let length = extents.last_mut().map_or(1, |last| std::mem::replace(last, (*last).min(1)));
        (Points::new(extents), length)
    }

    /// The next point.
    pub fn advance(&mut self) -> Option<&[i64]> {
        if !self.started {
            self.started = true;
            return (!self.extents.contains(&0)).then_some(&self.point);
        }
        for axis in (0..self.point.len()).rev() {
            self.point[axis] += 1;
            if self.point[axis] < self.extents[axis] {
                return Some(&self.point);
            }
            self.point[axis] = 0;
        }
        None
    }
}
