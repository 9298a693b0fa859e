//! Sums that exchange their order, where one of the two is known.
//!
//! The gradient of a softmax wants, for each query, the sum over all keys of weights `w` times their
//! gradients, which are sums over features: `sum[k] w[k] * sum[c] g[c] * v[k,c]`. That is
//! `sum[c] g[c] * sum[k] w[k] * v[k,c]`, and the inner sum is the result of attention. It is exchanged where
//! that leaves fewer terms: more keys than features.

use super::folds::without_axes;
use super::views::without_unit_axes;
use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Contract, Op, Reduce, View};
use dlc_graph::{MAX_RANK, Shape, Value};
use dlc_kernel::{Access, Axis, BinaryOp, FoldOp, Index, Scalar, Size};

pub const RULES: &[Rule] =
    &[Rule { name: "sum over a known sum", exactness: Reassociates, apply: over_known }];

/// The most factors that a product is taken apart into.
const MAX_FACTORS: usize = 16;

/// A factor of a product: a number, or 1 where a condition holds and 0 elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Factor {
    Number(Value),
    Holds(Value),
}

/// A contraction by one of its two factors.
struct Side<'a> {
    contract: &'a Contract,
    own: (&'a Access, Value),
    other: (&'a Access, Value),
}

/// A contraction that sums all but some factors of a product.
struct Known {
    /// The axes that its results go along.
    axes: Vec<Axis>,
    /// The factors that it does not have, without the axes of the sum.
    outside: Vec<(View, Value)>,
}

fn over_known(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reduce(reduce) = at.op else { return None };
    if reduce.op != FoldOp::Sum {
        return None;
    }
    let factors = factors(r, at.operands[0])?;
    for (k, factor) in factors.iter().enumerate() {
        let Factor::Number(value) = factor else { continue };
        let Op::Contract(contract) = r.g.op(*value).clone() else { continue };
        let (operands, mut rest) = (r.g.operands(*value), factors.clone());
        rest.remove(k);
        let found = sides(&contract, &operands).into_iter();
        let mut found = found.filter_map(|side| exchanged(r, at, reduce, &side, &rest));
        if let Some(sum) = found.next() {
            return Some(sum);
        }
    }
    None
}

/// The sum over `reduce` of `rest` times a contraction whose factor `side.own` those axes go along, if
/// a contraction of that factor with `rest`, or a part of it, is known.
fn exchanged(
    r: &mut Rewriter<'_>,
    at: &At<'_>,
    reduce: &Reduce,
    side: &Side<'_>,
    rest: &[Factor],
) -> Option<Value> {
    if reduce.axes.iter().any(|&axis| side.other.0.uses(Axis(axis))) {
        return None;
    }
    // The last comes first: an earlier one may have been rearranged into it.
    let (value, known) = r.g.users(side.own.1).into_iter().rev().find_map(|user| {
        let Op::Contract(known) = r.g.op(user) else { return None };
        let sides = sides(known, &r.g.operands(user));
        let found = sides.iter().find_map(|known| known_sum(r, reduce, side, known, rest))?;
        Some((user, found))
    })?;
    let sum = sum(r, at, reduce, side, (value, &known.axes))?;
    Some(known.outside.into_iter().fold(sum, |product, (view, small)| {
        let factor = r.make(view, &[small], at.origin);
        r.binary(BinaryOp::Mul, product, factor, at.origin)
    }))
}

/// What `known` is to the product of `side` and `rest`, if it sums what it has of them over `reduce` and
/// the others are the same along that.
fn known_sum(
    r: &Rewriter<'_>,
    reduce: &Reduce,
    side: &Side<'_>,
    known: &Side<'_>,
    rest: &[Factor],
) -> Option<Known> {
    if known.own.1 != side.own.1 || r.shape(known.other.1)[..] != side.contract.out[..] {
        return None;
    }
    let axes = same_sum(reduce, side, known)?;
    let left = without(rest, &factors(r, known.other.1)?)?;
    let outside = left.into_iter().map(|factor| constant_along(r, factor, &reduce.axes));
    Some(Known { axes, outside: outside.collect::<Option<_>>()? })
}

/// The sum over the terms of `side` of its other factor times the known sums, whose axes are `axes` of
/// the contraction, if these are fewer terms than those of `reduce`.
fn sum(
    r: &mut Rewriter<'_>,
    at: &At<'_>,
    reduce: &Reduce,
    side: &Side<'_>,
    (known, axes): (Value, &[Axis]),
) -> Option<Value> {
    let all = side.contract.axes();
    let kept: Vec<u32> = (0..all.len() as u32).filter(|a| !reduce.axes.contains(a)).collect();
    let terms = |axes: &[u32]| axes.iter().map(|&a| all[a as usize].clone()).product::<Size>();
    let summed: Vec<u32> = (side.contract.out.len() as u32..all.len() as u32).collect();
    let fewer = terms(&summed).as_const()? < terms(&reduce.axes).as_const()?;
    if !fewer || kept.len() > MAX_RANK {
        return None;
    }
    let new = |axis: Axis| Axis(kept.iter().position(|&k| k == axis.0).expect("it is kept") as u32);
    let shape: Shape = kept.iter().map(|&a| all[a as usize].clone()).collect();
    let fill = Scalar::new(r.g.ty(known).dtype, 0.0);
    let (access, axes_of_terms) = (side.other.0.renumber(&new), shape.clone());
    let x = r.make(View { axes: axes_of_terms, access, fill }, &[side.other.1], at.origin);
    // As it is: a rule would compute the known sum again, in another order.
    let known_at = Access::new(axes.iter().map(|&axis| Index::axis(new(axis).0)));
    let y = r.g.view(known, shape, known_at, at.origin);
    let product = r.binary(BinaryOp::Mul, x, y, at.origin);
    let axes = summed.iter().map(|&axis| new(Axis(axis)).0).collect();
    Some(r.make(Reduce { op: FoldOp::Sum, axes }, &[product], at.origin))
}

/// The axes of `side` that the results of `known` go along, if `known` sums its own factor, the same
/// elements, over `reduce`, times what lies along the contraction of `side`. Nobody reads by axes of
/// extent 1, so any of them is as good as another.
fn same_sum(reduce: &Reduce, side: &Side<'_>, known: &Side<'_>) -> Option<Vec<Axis>> {
    let (axes, known_axes) = (side.contract.axes(), known.contract.axes());
    let mut to: Vec<Option<Axis>> = vec![None; known_axes.len()];
    let along = known.other.0.coords.iter().enumerate().map(|(d, c)| (c, Index::axis(d as u32)));
    let both = known.own.0.coords.iter().zip(side.own.0.coords.iter().cloned());
    for (own, target) in along.chain(both) {
        let (Some(own), Some(target)) = (own.as_axis(), target.as_axis()) else { continue };
        to[own.0 as usize].get_or_insert(target);
    }
    let is_long = |axis: &u32| axes[*axis as usize] != Size::ONE;
    let unit = (0..axes.len() as u32).find(|axis| !is_long(axis)).map(Axis);
    let open = to.iter_mut().zip(&known_axes).filter(|(to, n)| to.is_none() && **n == Size::ONE);
    open.for_each(|(to, _)| *to = unit);
    let to = to.into_iter().collect::<Option<Vec<Axis>>>()?;
    let mut targets: Vec<u32> = to.iter().map(|axis| axis.0).collect();
    targets.retain(|axis| is_long(axis));
    targets.sort();
    let map: Vec<Index> = to.iter().map(|axis| Index::axis(axis.0)).collect();
    let same = |own: &Access, there: &Access| {
        let composed = Access::new(own.coords.iter().map(|c| c.compose(&map)));
        own.guards.is_empty()
            && there.guards.is_empty()
            && without_unit_axes(&composed, &axes) == without_unit_axes(there, &axes)
    };
    let (out, summed) = to.split_at(known.contract.out.len());
    let mut summed: Vec<u32> = summed.iter().map(|axis| axis.0).collect();
    summed.sort();
    let fits = targets.into_iter().eq((0..axes.len() as u32).filter(is_long))
        && to.iter().zip(&known_axes).all(|(axis, extent)| axes[axis.0 as usize] == *extent)
        && summed == reduce.axes[..]
        && same(known.own.0, side.own.0)
        && same(known.other.0, &Access::identity(side.contract.out.len()));
    fits.then(|| out.to_vec())
}

fn sides<'a>(contract: &'a Contract, operands: &[Value]) -> [Side<'a>; 2] {
    let [lhs, rhs] = [(&contract.lhs, operands[0]), (&contract.rhs, operands[1])];
    [Side { contract, own: lhs, other: rhs }, Side { contract, own: rhs, other: lhs }]
}

/// The factors of a value.
fn factors(r: &Rewriter<'_>, value: Value) -> Option<Vec<Factor>> {
    let (mut found, mut pending) = (Vec::new(), vec![value]);
    while let Some(value) = pending.pop() {
        let operands = r.g.operands(value);
        match r.g.op(value) {
            Op::Binary(op) if op.0 == BinaryOp::Mul => pending.extend(operands),
            Op::Select(_) if r.number(operands[2]) == Some(0.0) => {
                found.push(Factor::Holds(operands[0]));
                pending.push(operands[1]);
            }
            _ => found.push(Factor::Number(value)),
        }
        if found.len() + pending.len() > MAX_FACTORS {
            return None;
        }
    }
    Some(found)
}

/// `all` without `some`, if it has them all.
fn without(all: &[Factor], some: &[Factor]) -> Option<Vec<Factor>> {
    let mut left = all.to_vec();
    for factor in some {
        left.swap_remove(left.iter().position(|f| f == factor)?);
    }
    Some(left)
}

/// A number that is the same along `axes`, without these.
fn constant_along(r: &Rewriter<'_>, factor: Factor, axes: &[u32]) -> Option<(View, Value)> {
    let Factor::Number(value) = factor else { return None };
    let Op::View(view) = r.g.op(value) else { return None };
    let constant = !axes.iter().any(|&axis| view.access.uses(Axis(axis)));
    constant.then(|| (without_axes(view, axes), r.g.operands(value)[0]))
}
