//! Contractions whose terms are written out: a map that says each of them.
//!
//! Where no element of an operand meets two of the other, as in a depthwise convolution, a register
//! tile would have nothing to keep. If the terms of a sum are few, a map computes neighbouring sums
//! in vectors: what moves along with them is read by its neighbours, the rest is the same for all.
//! An operand whose neighbours lie elsewhere (weights beside channels), or that a window leaves, gets a
//! copy in which they are neighbours, with the edges written out. Where neighbours are `s` elements
//! apart (a convolution in steps), a second copy puts every `s`-th of the first side by side.

use super::entries::{add_temporary, copy_kernel, replace_kernels};
use super::substitute::Substitution;
use dlc_kernel::{
    Access, Axis, BinaryOp, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program,
    Scalar, Segment, Size,
};
use smallvec::SmallVec;

/// The most terms that are written out.
const MOST_TERMS: i64 = 64;

/// Writes out the terms of contractions that use every element once.
pub(super) fn write_out(program: Program) -> Program {
    replace_kernels(program, |program, _, kernel| match written_out(program, &kernel) {
        Some(kernels) => kernels,
        None => vec![kernel],
    })
}

/// The map that does what a contraction does, after the copies that it reads.
fn written_out(program: &mut Program, kernel: &Kernel) -> Option<Vec<Kernel>> {
    let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = &kernel.form else {
        return None;
    };
    let taps: Vec<i64> = reduce.iter().map(Size::as_const).collect::<Option<_>>()?;
    let terms = taps.iter().try_fold(1i64, |n, &extent| n.checked_mul(extent))?;
    let few = (1..=MOST_TERMS).contains(&terms) && !kernel.form.has_several_sums();
    let few = few && exprs.dtype(*lhs) == DType::F32;
    if !few || is_reused(out, exprs, [*lhs, *rhs]) {
        return None;
    }
    let lane = stores.first()?.access.coords.last()?.as_axis()?;
    let points = out.iter().try_fold(terms, |n, extent| n.checked_mul(extent.as_const()?))?;
    let (written, sum) = sum_of_products(out.len(), &taps, exprs, [*lhs, *rhs]);
    let mut walks = Walk::all(program, &written, out, lane)?;
    walks.retain(|walk| !walk.is_in_place(program));
    let is_read_once = |walk: &Walk| walk.length().saturating_mul(walk.others_points()) >= points;
    if walks.iter().any(is_read_once) {
        return None;
    }
    let (mut kernels, mut copies) = (Vec::new(), Vec::new());
    for walk in walks {
        let copy = walk.copy(program, kernel, &mut kernels);
        copies.push((walk, copy));
    }
    let mut written = redirected(&written, &copies);
    let identity: Vec<Index> = (0..out.len() as u32).map(Index::axis).collect();
    let mut after = Substitution::new(exprs, &identity);
    after.replace_sum(sum);
    let stores = stores.iter().map(|store| after.store(&mut written, store)).collect();
    let segment = Segment { axes: out.iter().cloned().collect(), exprs: written, stores };
    let form = Form::Map { segments: vec![segment] };
    kernels.push(Kernel { name: kernel.name.clone(), origin: kernel.origin.clone(), form });
    Some(kernels)
}

/// Whether elements of both operands are used for several results.
fn is_reused(out: &[Size], exprs: &Exprs, operands: [ExprId; 2]) -> bool {
    let [left, right] = operands.map(|operand| {
        let uses = |axis: Axis| exprs.loads([operand]).any(|(_, access)| access.uses(axis));
        (0..out.len() as u32).map(|axis| uses(Axis(axis))).collect::<Vec<bool>>()
    });
    let alone = |own: &[bool], other: &[bool]| {
        let axes = out.iter().zip(own.iter().zip(other));
        axes.into_iter().any(|(n, (&a, &b))| a && !b && n.as_const() != Some(1))
    };
    alone(&left, &right) && alone(&right, &left)
}

/// The sum of all products of two operands over the axes of the results, term by term.
fn sum_of_products(
    outs: usize,
    taps: &[i64],
    exprs: &Exprs,
    operands: [ExprId; 2],
) -> (Exprs, ExprId) {
    let mut written = Exprs::new();
    let mut sum: Option<ExprId> = None;
    for term in 0..taps.iter().product::<i64>() {
        let mut axes: Vec<Index> = (0..outs as u32).map(Index::axis).collect();
        let mut inner = 1;
        for &extent in taps.iter().rev() {
            axes.insert(outs, Index::constant(term / inner % extent));
            inner *= extent;
        }
        let mut of_term = Substitution::new(exprs, &axes);
        let [left, right] = operands.map(|operand| of_term.copy(&mut written, operand));
        let product = written.add(Expr::Binary(BinaryOp::Mul, left, right));
        sum = Some(match sum {
            Some(sum) => written.add(Expr::Binary(BinaryOp::Add, sum, product)),
            None => product,
        });
    }
    (written, sum.expect("there are terms"))
}

/// What some loads read that walk alike: they differ by constants alone.
struct Walk {
    buffer: BufferId,
    fill: Scalar,
    /// By dim, how its coordinate moves.
    terms: Vec<SmallVec<[(Axis, i64); 2]>>,
    /// By dim, the first coordinate that is read, and how many are from there on.
    frame: Vec<(i64, i64)>,
    /// The dim that moves along the lanes.
    dim: usize,
    /// By how much.
    step: i64,
}

impl Walk {
    /// All walks that move along the lanes; `None` if one of them does so in another way than by
    /// steps along one dim.
    fn all(program: &Program, exprs: &Exprs, out: &[Size], lane: Axis) -> Option<Vec<Walk>> {
        let mut walks: Vec<Walk> = Vec::new();
        for (_, expr) in exprs.iter() {
            let Expr::Load { buffer, access, lookups, fill } = expr else { continue };
            if !access.uses(lane) && lookups.is_empty() {
                continue;
            }
            let plain = lookups.is_empty() && access.guards.is_empty();
            if !plain || program.buffer(*buffer).dtype != DType::F32 {
                return None;
            }
            let walk = Walk::of(*buffer, access, *fill, out, lane)?;
            match walks.iter_mut().find(|known| known.is_like(&walk)) {
                Some(known) => known.include(&walk),
                None => walks.push(walk),
            }
        }
        Some(walks)
    }

    fn of(
        buffer: BufferId,
        access: &Access,
        fill: Scalar,
        out: &[Size],
        lane: Axis,
    ) -> Option<Walk> {
        let mut moving = access.coords.iter().enumerate().filter(|(_, c)| c.uses(lane));
        let (dim, coord) = moving.next().filter(|_| moving.next().is_none())?;
        let &[(_, step)] = coord.terms.as_slice() else { return None };
        let reach = |coord: &Index| {
            let (low, high) = coord.range(out).filter(|_| coord.div == 1)?;
            Some((low, high - low + 1))
        };
        let frame = access.coords.iter().map(reach).collect::<Option<_>>()?;
        let terms = access.coords.iter().map(|c| c.terms.clone()).collect();
        (step > 0).then_some(Walk { buffer, fill, terms, frame, dim, step })
    }

    fn is_like(&self, other: &Walk) -> bool {
        (self.buffer, self.fill, &self.terms) == (other.buffer, other.fill, &other.terms)
    }

    /// Widens the frame.
    fn include(&mut self, other: &Walk) {
        for (own, new) in self.frame.iter_mut().zip(&other.frame) {
            let first = own.0.min(new.0);
            let end = (own.0 + own.1).max(new.0 + new.1);
            *own = (first, end - first);
        }
    }

    /// Whether vectors can be read where the operand lies.
    fn is_in_place(&self, program: &Program) -> bool {
        let shape = &program.buffer(self.buffer).shape;
        let inside = |(&(first, length), extent): (&(i64, i64), &Size)| {
            first >= 0 && extent.as_const().is_some_and(|n| first + length <= n)
        };
        let is_last = self.dim + 1 == shape.len() && self.step == 1;
        is_last && self.frame.iter().zip(shape).all(inside)
    }

    /// The dims beside the one that moves.
    fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.frame.len()).filter(|&dim| dim != self.dim)
    }

    fn others_points(&self) -> i64 {
        self.others().fold(1, |n, dim| n.saturating_mul(self.frame[dim].1))
    }

    /// How many elements a copy has along the lanes: whole steps.
    fn length(&self) -> i64 {
        (self.frame[self.dim].1 + self.step - 1) / self.step * self.step
    }

    /// Adds the kernels that make a copy: the other dims; the position along the lanes, in which
    /// elements whole steps apart are neighbours.
    fn copy(&self, program: &mut Program, kernel: &Kernel, kernels: &mut Vec<Kernel>) -> BufferId {
        let name = program.buffer(self.buffer).name.clone();
        let others: Vec<i64> = self.others().map(|dim| self.frame[dim].1).collect();
        let mut make = |suffix: &str, source: (BufferId, Access), shape: Vec<i64>| {
            let copy = add_temporary(program, format!("{name}_{suffix}"), shape.iter().copied());
            let name = format!("{}_{suffix}{}", kernel.name, kernels.len() + 1);
            kernels.push(copy_kernel(name, &kernel.origin, source, self.fill, (copy, shape)));
            copy
        };
        let mut coords: SmallVec<[Index; 4]> = self.frame.iter().map(|_| Index::axis(0)).collect();
        for (axis, dim) in self.others().chain([self.dim]).enumerate() {
            coords[dim] = Index::affine([(axis as u32, 1)], self.frame[dim].0);
        }
        let access = Access { coords, guards: SmallVec::new() };
        let (lanes, length) = (others.len() as u32, self.length());
        let shape = others.iter().copied().chain([length]).collect();
        let framed = make("framed", (self.buffer, access), shape);
        if self.step == 1 {
            return framed;
        }
        let position = Index::affine([(lanes, 1), (lanes + 1, self.step)], 0i64);
        let access = Access::new((0..lanes).map(Index::axis).chain([position]));
        let shape = others.into_iter().chain([self.step, length / self.step]).collect();
        make("apart", (framed, access), shape)
    }

    /// Where a load of this walk finds its element in the copy.
    fn in_copy(&self, access: &Access) -> Access {
        let from_first = |dim: usize| {
            let coord = &access.coords[dim];
            let offset = coord.offset.clone() - Size::from(self.frame[dim].0);
            Index { offset, ..coord.clone() }
        };
        let position = from_first(self.dim);
        let offset = position.offset.as_const().expect("sizes are bound");
        let (axis, _) = position.terms[0];
        let remainder = (self.step > 1).then(|| Index::constant(offset % self.step));
        let steps = Index::affine([(axis.0, 1)], offset / self.step);
        let coords = self.others().map(from_first).chain(remainder).chain([steps]).collect();
        Access { coords, guards: SmallVec::new() }
    }
}

/// The same expressions, with loads from copies where there are any.
fn redirected(exprs: &Exprs, copies: &[(Walk, BufferId)]) -> Exprs {
    exprs.changed(|_, expr| {
        let Expr::Load { buffer, access, fill, .. } = expr else { return };
        let reads = |walk: &Walk| {
            let moves = access.coords.iter().map(|c| &c.terms).eq(&walk.terms);
            (walk.buffer, walk.fill) == (*buffer, *fill) && moves
        };
        if let Some((walk, copy)) = copies.iter().find(|(walk, _)| reads(walk)) {
            *access = walk.in_copy(access);
            *buffer = *copy;
        }
    })
}
