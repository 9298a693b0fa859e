//! The adjoint of an affine read, which is an affine read again.
//!
//! An operation reads a tensor `x` of shape `S` at `read(p)` for every point `p` of its space, and
//! multiplies with other reads at the same point. What flows back to `x[s]` is the sum over all
//! points with `read(p) = s`. Solving `read(p) = s` for as many axes as there are coordinates
//! turns that into a sum over the remaining axes: the convolution's `s*h + r - p = i` gives
//! `h = (i - r + p)/s` and leaves `r`. An [`Index`] that is not exact or leaves its tensor is
//! outside, so most conditions need no words; [`Guard`]s say the rest.

use crate::op::{Contract, Site, View};
use crate::ty::MAX_RANK;
use crate::{Graph, Shape, Value};
use dlc_kernel::{Access, Axis, Guard, Index, Scalar, Size};

/// A sum: axes of the reads are the dims of the tensor that is differentiated for, then `reduce`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjoint {
    /// The extents summed over.
    pub reduce: Shape,
    /// The other reads, over the new axes.
    pub reads: Vec<Access>,
}

/// For each element `s` of a tensor of shape `shape`: the points of `space` at which `read` gives
/// `s`, as a sum; a term is skipped where one of `others`, each with the shape it reads, is
/// outside. There is at least one other.
pub fn adjoint(
    space: &[Size],
    read: &Access,
    shape: &[Size],
    others: &[(&Access, &[Size])],
) -> Adjoint {
    let mut system = System::new(space, shape.len());
    system.solve(read, others);
    let map = system.map();
    let axes: Shape = shape.iter().cloned().chain(system.reduce()).collect();
    let mut reads: Vec<Access> =
        others.iter().map(|(access, _)| access.compose(&map, &[], &axes)).collect();
    let mut guards = system.equalities();
    let own = read.guards.iter();
    guards.extend(own.map(|g| Guard { index: g.index.compose(&map), extent: g.extent.clone() }));
    for ((solved, index), extent) in system.solved.iter().zip(&map).zip(space) {
        if solved.is_some() {
            guards.push(Guard { index: index.clone(), extent: extent.clone() });
        }
    }
    guards.retain(|g| !g.index.is_inside(&axes, &g.extent) && !implied(g, &reads, others));
    reads[0].guards.extend(guards);
    for read in &mut reads {
        read.guards.sort();
        read.guards.dedup();
    }
    Adjoint { reduce: system.reduce().collect(), reads }
}

/// Whether some read is outside wherever the guard fails.
fn implied(guard: &Guard, reads: &[Access], others: &[(&Access, &[Size])]) -> bool {
    reads.iter().zip(others).any(|(read, (_, shape))| {
        read.coords.iter().zip(*shape).any(|(c, n)| *c == guard.index && *n == guard.extent)
    })
}

/// Equations `coordinate = dim`, solved one after the other. Its axes are the dims of the tensor,
/// then the axes of the space.
struct System<'a> {
    space: &'a [Size],
    rank: usize,
    /// What each axis of the space is, once solved for: a function of dims and unsolved axes.
    solved: Vec<Option<Index>>,
    /// Equations without an axis to solve for: this is 0.
    zeros: Vec<Index>,
}

impl<'a> System<'a> {
    fn new(space: &'a [Size], rank: usize) -> System<'a> {
        System { space, rank, solved: vec![None; space.len()], zeros: Vec::new() }
    }

    fn solve(&mut self, read: &Access, others: &[(&Access, &[Size])]) {
        for (dim, coord) in read.coords.iter().enumerate() {
            let rest = &read.coords[dim + 1..];
            let equation = coord.compose(&self.current().collect::<Vec<_>>());
            match self.choose(&equation, rest, others) {
                Some(axis) => self.eliminate(axis, &equation, dim),
                None => self.zeros.push(difference(&equation, dim)),
            }
        }
    }

    /// The axis to solve `equation` for: one that no later coordinate needs, that another read
    /// keeps in range anyway, that leaves the fewest terms (the extents of the others are summed
    /// over, and of an axis with the coefficient `s` one element in `s` has a solution), with the
    /// coefficient 1, in this order.
    fn choose(
        &self,
        equation: &Index,
        rest: &[Index],
        others: &[(&Access, &[Size])],
    ) -> Option<usize> {
        let candidates = equation.terms.iter().filter(|(a, _)| a.0 as usize >= self.rank);
        let best = candidates.max_by_key(|&&(axis, coef)| {
            let own = axis.0 as usize - self.rank;
            let free = !rest.iter().any(|c| c.uses(Axis(own as u32)));
            let extent = self.space[own].as_const().unwrap_or(i64::MAX);
            let terms_less = extent.saturating_mul(coef.abs());
            let bounded = others.iter().any(|(a, shape)| self.bounds(a, shape, own));
            (free, bounded, terms_less, coef.abs() == 1, std::cmp::Reverse(own))
        });
        best.map(|(axis, _)| axis.0 as usize - self.rank)
    }

    /// Whether `access` is outside wherever axis `own` of the space leaves its range.
    fn bounds(&self, access: &Access, shape: &[Size], own: usize) -> bool {
        let mut coords = access.coords.iter().zip(shape);
        coords.any(|(c, n)| c.as_axis() == Some(Axis(own as u32)) && *n == self.space[own])
    }

    /// Solves `(c*x + rest)/d = dim` for `x`: `x = (d*dim - rest)/c`.
    fn eliminate(&mut self, own: usize, equation: &Index, dim: usize) {
        let axis = Axis((self.rank + own) as u32);
        let coef = equation.coef(axis);
        let sign = coef.signum();
        let rest = equation.terms.iter().filter(|t| t.0 != axis).map(|t| (t.0.0, -sign * t.1));
        let terms: Vec<_> = rest.chain([(dim as u32, sign * equation.div)]).collect();
        let offset = equation.offset.clone() * Size::from(-sign);
        let solution = Index { div: coef.abs(), ..Index::affine(terms, offset) };
        self.solved[own] = Some(solution);
        let map: Vec<Index> = self.identity().chain(self.current()).collect();
        for index in self.solved.iter_mut().flatten() {
            *index = index.compose(&map);
        }
    }

    /// The space's axes as functions of dims and unsolved axes.
    fn current(&self) -> impl Iterator<Item = Index> {
        let own = |i: usize| Index::axis((self.rank + i) as u32);
        let solved = self.solved.iter().enumerate();
        solved.map(move |(i, s)| s.clone().unwrap_or_else(|| own(i)))
    }

    fn identity(&self) -> impl Iterator<Item = Index> + use<> {
        (0..self.rank as u32).map(Index::axis)
    }

    /// The unsolved axes' extents.
    fn reduce(&self) -> impl Iterator<Item = Size> {
        let unsolved = self.space.iter().zip(&self.solved).filter(|(_, s)| s.is_none());
        unsolved.map(|(extent, _)| extent.clone())
    }

    /// The space's axes as functions of the final axes: dims, then unsolved axes.
    fn map(&self) -> Vec<Index> {
        let renamed = self.renaming();
        self.current().map(|index| index.renumber(&|a| renamed[a.0 as usize])).collect()
    }

    fn renaming(&self) -> Vec<Axis> {
        let mut next = self.rank as u32;
        let mut renamed: Vec<Axis> = (0..next).map(Axis).collect();
        for solved in &self.solved {
            renamed.push(Axis(next));
            next += u32::from(solved.is_none());
        }
        renamed
    }

    fn equalities(&self) -> Vec<Guard> {
        let renamed = self.renaming();
        let zero = |index: &Index| Guard {
            index: index.renumber(&|a| renamed[a.0 as usize]),
            extent: Size::ONE,
        };
        self.zeros.iter().map(zero).collect()
    }
}

/// `div*dim - numerator`, which is 0 where the equation holds.
fn difference(equation: &Index, dim: usize) -> Index {
    let terms = equation.terms.iter().map(|t| (t.0.0, -t.1));
    let offset = Size::ZERO - equation.offset.clone();
    Index::affine(terms.chain([(dim as u32, equation.div)]), offset)
}

/// The cotangent of a view's operand.
pub(crate) fn of_view(g: &mut Graph, view: &View, at: &Site<'_>) -> Value {
    let shape = g.ty(at.operands[0]).shape.clone();
    let own = Access::identity(view.axes.len());
    let Adjoint { reduce, reads } =
        adjoint(&view.axes, &view.access, &shape, &[(&own, &view.axes)]);
    let (dy, read, reduce) = sum_repeated(g, at, &reads[0], reduce, shape.len());
    let rank = shape.len();
    let axes: Shape = shape.iter().chain(&reduce).cloned().collect();
    if axes.len() > MAX_RANK {
        let one = g.constant(Scalar::new(g.ty(dy).dtype, 1.0), at.origin);
        let sum = Contract { out: shape, reduce, lhs: read, rhs: Access::default() };
        return g.push(sum, &[dy, one], at.origin.clone());
    }
    let terms = g.view(dy, axes.clone(), read, at.origin);
    let summed: Vec<u32> = (rank as u32..axes.len() as u32).collect();
    g.sum(terms, &summed, at.origin)
}

/// Sums the cotangent over those of its dims that the view merely repeated over, and drops them
/// from `read` and `reduce`.
fn sum_repeated(
    g: &mut Graph,
    at: &Site<'_>,
    read: &Access,
    reduce: Shape,
    rank: usize,
) -> (Value, Access, Shape) {
    let shape = g.ty(at.cotangent).shape.clone();
    let repeated = |dim: usize| {
        let axis = read.coords[dim].as_axis().filter(|a| a.0 as usize >= rank)?;
        let alone = read.coords.iter().filter(|c| c.uses(axis)).count() == 1
            && !read.guards.iter().any(|g| g.index.uses(axis));
        (alone && reduce[axis.0 as usize - rank] == shape[dim]).then_some(axis)
    };
    let found: Vec<(usize, Axis)> =
        (0..shape.len()).filter_map(|dim| Some((dim, repeated(dim)?))).collect();
    let dims: Vec<u32> = found.iter().map(|f| f.0 as u32).collect();
    let dy = g.sum(at.cotangent, &dims, at.origin);

    let gone = |axis: Axis| found.iter().any(|f| f.1 == axis);
    let renumber =
        |axis: Axis| Axis(axis.0 - (0..axis.0).filter(|&a| gone(Axis(a))).count() as u32);
    let kept = read.coords.iter().enumerate().filter(|(dim, _)| !dims.contains(&(*dim as u32)));
    let coords = kept.map(|(_, c)| c.renumber(&renumber)).collect();
    let guards = read.guards.iter();
    let guards =
        guards.map(|g| Guard { index: g.index.renumber(&renumber), extent: g.extent.clone() });
    let access = Access { coords, guards: guards.collect() };
    let left = reduce.into_iter().enumerate().filter(|(i, _)| !gone(Axis((rank + i) as u32)));
    (dy, access, left.map(|(_, extent)| extent).collect())
}

/// The cotangents of a contraction's operands, which are contractions.
pub(crate) fn of_contract(g: &mut Graph, op: &Contract, at: &Site<'_>) -> [Option<Value>; 2] {
    let (axes, own) = (op.axes(), Access::identity(op.out.len()));
    let mut cotangent = |read: &Access, x: Value, other: &Access, factor: Value| {
        let (shape, factor_shape) = (g.ty(x).shape.clone(), g.ty(factor).shape.clone());
        let others = [(&own, &op.out[..]), (other, &factor_shape[..])];
        let Adjoint { reduce, reads } = adjoint(&axes, read, &shape, &others);
        let [lhs, rhs] = <[Access; 2]>::try_from(reads).expect("two reads in, two out");
        let op = Contract { out: shape, reduce, lhs, rhs };
        Some(g.push(op, &[at.cotangent, factor], at.origin.clone()))
    };
    let (lhs, rhs) = (at.operands[0], at.operands[1]);
    [cotangent(&op.lhs, lhs, &op.rhs, rhs), cotangent(&op.rhs, rhs, &op.lhs, lhs)]
}
