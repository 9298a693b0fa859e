//! Copies for kernels that read along vectors: an operand whose neighbours lie elsewhere (weights beside
//! channels), or that a window leaves, gets a copy in which they are neighbours, with the edges written
//! out. Where they are read in steps of `s`, every `s`-th of them are neighbours.

use super::entries::{add_temporary, copy_kernel};
use crate::leaf::loops::MAX_STRIDE;
use dlc_kernel::{
    Access, Axis, BufferId, DType, Expr, Exprs, Index, Kernel, Program, Scalar, Size,
};
use smallvec::SmallVec;

/// Expressions over `axes`, read along `lane`, with all that does not lie so read from copies: the kernels
/// that make these, and the new expressions. `None` if copies would not serve, or not pay for `points`
/// multiply-adds.
pub(super) fn with_copies(
    program: &mut Program,
    kernel: &Kernel,
    exprs: &Exprs,
    (axes, lane): (&[Size], Axis),
    points: i64,
) -> Option<(Vec<Kernel>, Exprs)> {
    let mut walks = Walk::all(program, exprs, axes, lane)?;
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
    Some((kernels, redirected(exprs, &copies)))
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
        let is_last = self.dim + 1 == shape.len() && self.step <= MAX_STRIDE.into();
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

    /// Adds the kernel that makes a copy: for each remainder of a step, the other dims, then what is
    /// whole steps apart along the lanes.
    fn copy(&self, program: &mut Program, kernel: &Kernel, kernels: &mut Vec<Kernel>) -> BufferId {
        let others = self.others().map(|dim| self.frame[dim].1);
        let shape: Vec<i64> =
            [self.step].into_iter().chain(others).chain([self.length() / self.step]).collect();
        let mut coords: SmallVec<[Index; 4]> = self.frame.iter().map(|_| Index::axis(0)).collect();
        for (axis, dim) in (1..).zip(self.others()) {
            coords[dim] = Index::affine([(axis, 1)], self.frame[dim].0);
        }
        let lanes = shape.len() as u32 - 1;
        let position = Index::affine([(0, 1), (lanes, self.step)], self.frame[self.dim].0);
        coords[self.dim] = position;
        let source = (self.buffer, Access { coords, guards: SmallVec::new() });
        let name = format!("{}_framed", program.buffer(self.buffer).name);
        let copy = add_temporary(program, name, shape.iter().copied());
        let name = format!("{}_framed{}", kernel.name, kernels.len() + 1);
        kernels.push(copy_kernel(name, &kernel.origin, source, self.fill, (copy, shape)));
        copy
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
        let remainder = Index::constant(offset % self.step);
        let steps = Index::affine([(axis.0, 1)], offset / self.step);
        Access::new([remainder].into_iter().chain(self.others().map(from_first)).chain([steps]))
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
