//! Contractions.

use super::views::read_through;
use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Contract, Op, Reduce, View};
use dlc_graph::{MAX_RANK, Value};
use dlc_kernel::{Access, Axis, BinaryOp, FoldOp, Index, Scalar, Size};

pub const RULES: &[Rule] = &[
    Rule { name: "sum over axes of extent 1", exactness: Exact, apply: unit_axes },
    Rule { name: "contraction of views", exactness: Finite, apply: read_views },
    Rule { name: "contraction without reuse", exactness: Finite, apply: as_fold },
    Rule { name: "sum of a contraction", exactness: Reassociates, apply: summed },
    Rule { name: "rearranged contraction", exactness: Exact, apply: rearranged },
    Rule { name: "sum over quotients", exactness: Reassociates, apply: over_quotients },
];

/// Drops summed axes of extent 1: a 1x1 convolution is a matrix product.
fn unit_axes(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Contract(c) = at.op else { return None };
    let rank = c.out.len();
    let dropped: Vec<u32> = (0..c.reduce.len())
        .filter(|&i| c.reduce[i] == Size::ONE)
        .map(|i| (rank + i) as u32)
        .collect();
    if dropped.is_empty() {
        return None;
    }
    let new = |a: Axis| Axis(a.0 - dropped.iter().filter(|&&d| d < a.0).count() as u32);
    let access = |a: &Access| {
        let mut a = a.clone();
        let without = |index: &mut Index| index.terms.retain(|t| !dropped.contains(&t.0.0));
        a.coords.iter_mut().for_each(without);
        a.guards.iter_mut().for_each(|g| without(&mut g.index));
        a.renumber(&new)
    };
    let reduce = c.reduce.iter().filter(|n| **n != Size::ONE).cloned().collect();
    let op = Contract { out: c.out.clone(), reduce, lhs: access(&c.lhs), rhs: access(&c.rhs) };
    Some(r.make(op, at.operands, at.origin))
}

/// A contraction reads through the views of its operands, if they give 0 outside.
fn read_views(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Contract(c) = at.op else { return None };
    let axes = c.axes();
    let lhs = through(r, at.operands[0], &c.lhs, &axes);
    let rhs = through(r, at.operands[1], &c.rhs, &axes);
    if lhs.is_none() && rhs.is_none() {
        return None;
    }
    let (lhs, x) = lhs.unwrap_or_else(|| (c.lhs.clone(), at.operands[0]));
    let (rhs, y) = rhs.unwrap_or_else(|| (c.rhs.clone(), at.operands[1]));
    Some(r.make(Contract { lhs, rhs, ..c.clone() }, &[x, y], at.origin))
}

fn through(
    r: &Rewriter<'_>,
    value: Value,
    read: &Access,
    axes: &[Size],
) -> Option<(Access, Value)> {
    let Op::View(view) = r.g.op(value) else { return None };
    let x = r.g.operands(value)[0];
    let zero_outside = view.fill.value() == 0.0 || view.is_inside(r.shape(x));
    zero_outside.then(|| (read_through(read, view, axes), x))
}

/// A contraction in which no element is used twice is a fold of products, which fuses better.
fn as_fold(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Contract(c) = at.op else { return None };
    let axes = c.axes();
    let uses_all = |access: &Access| {
        (0..c.out.len()).all(|a| c.out[a] == Size::ONE || access.uses(Axis(a as u32)))
    };
    if axes.len() > MAX_RANK || !uses_all(&c.lhs) || !uses_all(&c.rhs) {
        return None;
    }
    let dtype = r.g.ty(at.operands[0]).dtype;
    let mut term = |access: &Access, x: Value| {
        let (axes, fill) = (axes.iter().cloned().collect(), Scalar::new(dtype, 0.0));
        r.make(View { axes, access: access.clone(), fill }, &[x], at.origin)
    };
    let (x, y) = (term(&c.lhs, at.operands[0]), term(&c.rhs, at.operands[1]));
    let product = r.binary(BinaryOp::Mul, x, y, at.origin);
    let summed = (c.out.len() as u32..axes.len() as u32).collect();
    Some(r.make(Reduce { op: FoldOp::Sum, axes: summed }, &[product], at.origin))
}

/// A sum over dims of a contraction's result is summed with the rest.
fn summed(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reduce(reduce) = at.op else { return None };
    let Op::Contract(c) = r.g.op(at.operands[0]).clone() else { return None };
    if reduce.op != FoldOp::Sum || !r.is_single_use(at.operands[0]) {
        return None;
    }
    let (kept, folded): (Vec<u32>, Vec<u32>) =
        (0..c.out.len() as u32).partition(|a| !reduce.axes.contains(a));
    let rest = c.out.len() as u32..c.axes().len() as u32;
    let order: Vec<u32> = kept.iter().chain(&folded).copied().chain(rest).collect();
    let new = |axis: Axis| {
        let to = order.iter().position(|&a| a == axis.0).expect("every axis stays");
        Axis(to as u32)
    };
    let extent = |&a: &u32| c.out[a as usize].clone();
    let op = Contract {
        out: kept.iter().map(extent).collect(),
        reduce: folded.iter().map(extent).chain(c.reduce.iter().cloned()).collect(),
        lhs: c.lhs.renumber(&new),
        rhs: c.rhs.renumber(&new),
    };
    let operands = r.g.operands(at.operands[0]);
    Some(r.make(op, &operands, at.origin))
}

/// A view that only permutes the result of a contraction, or adds or drops dims of extent 1, is a
/// contraction with its axes in that order.
fn rearranged(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::View(view) = at.op else { return None };
    let Op::Contract(c) = r.g.op(at.operands[0]).clone() else { return None };
    if !r.is_single_use(at.operands[0]) || !view.access.guards.is_empty() {
        return None;
    }
    let mut open: Vec<bool> = view.axes.iter().map(|n| *n != Size::ONE).collect();
    for (coord, extent) in view.access.coords.iter().zip(&c.out) {
        match coord.as_axis() {
            Some(a) if view.axes[a.0 as usize] == *extent => open[a.0 as usize] = false,
            None if *extent == Size::ONE && *coord == Index::constant(0i64) => {}
            _ => return None,
        }
    }
    let once = |axis: u32| view.access.coords.iter().filter(|i| i.uses(Axis(axis))).count() <= 1;
    if open.contains(&true) || !(0..view.axes.len() as u32).all(once) {
        return None;
    }
    let rank = view.axes.len() as u32;
    let summed = (0..c.reduce.len() as u32).map(|i| Index::axis(rank + i));
    let map: Vec<Index> = view.access.coords.iter().cloned().chain(summed).collect();
    let [lhs, rhs] = [&c.lhs, &c.rhs].map(|read| read.compose(&map, &[], &[]));
    let op = Contract { out: view.axes.clone(), reduce: c.reduce, lhs, rhs };
    let operands = r.g.operands(at.operands[0]);
    Some(r.make(op, &operands, at.origin))
}

/// A sum over `h` that reads an operand at `(h + r)/d` goes over the quotients `u` instead, with `d*u - r`
/// for `h`, if these are no more than the `h` that read anything, one in `d`. Another coordinate is
/// `h` alone, and is outside where `h` has left its range.
fn over_quotients(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Contract(c) = at.op else { return None };
    let (rank, axes) = (c.out.len(), c.axes());
    let shapes = [r.shape(at.operands[0]), r.shape(at.operands[1])];
    let reads = || [&c.lhs, &c.rhs].into_iter().zip(shapes);
    let coords = || reads().flat_map(|(read, shape)| read.coords.iter().zip(shape));
    let alone = |a: Axis| {
        coords().any(|(i, extent)| i.as_axis() == Some(a) && *extent == axes[a.0 as usize])
    };
    let (index, extent, &(axis, sign)) = coords().find_map(|(index, extent)| {
        let few = |n: &Size| {
            n.as_const().zip(extent.as_const()).is_some_and(|(n, few)| (few - 1) * index.div < n)
        };
        let summed = |(a, sign): &&(Axis, i64)| {
            a.0 as usize >= rank && sign.abs() == 1 && alone(*a) && few(&axes[a.0 as usize])
        };
        let found = index.terms.iter().find(summed).filter(|_| index.div > 1);
        found.map(|term| (index, extent, term))
    })?;
    let rest = index.terms.iter().filter(|t| t.0 != axis).map(|t| (t.0.0, -sign * t.1));
    let offset = index.offset.clone() * Size::from(-sign);
    let mut map: Vec<Index> = (0..axes.len() as u32).map(Index::axis).collect();
    map[axis.0 as usize] = Index::affine(rest.chain([(axis.0, sign * index.div)]), offset);
    let mut reduce = c.reduce.clone();
    reduce[axis.0 as usize - rank] = extent.clone();
    let [lhs, rhs] = [&c.lhs, &c.rhs].map(|read| read.compose(&map, &[], &[]));
    Some(r.make(Contract { out: c.out.clone(), reduce, lhs, rhs }, at.operands, at.origin))
}
