//! Folds over axes.

use super::positions::of_one_position;
use super::views::merged_dims;
use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Contract, Extent, Op, Reduce, Reshape, View};
use dlc_graph::{Shape, Value};
use dlc_kernel::{Access, Axis, BinaryOp, FoldOp, Guard, Index, Scalar, Size, UnaryOp};
use smallvec::SmallVec;

pub const RULES: &[Rule] = &[
    Rule { name: "fold over nothing", exactness: Exact, apply: over_nothing },
    Rule { name: "fold over axes of extent 1", exactness: Exact, apply: over_units },
    Rule { name: "fold of a fold", exactness: Reassociates, apply: double },
    Rule { name: "fold of repeats", exactness: Reassociates, apply: repeats },
    Rule { name: "fold of a reshape", exactness: Exact, apply: reshaped },
    Rule { name: "sum of tiles", exactness: Exact, apply: tiles },
    Rule { name: "sum of what one position gets", exactness: Exact, apply: of_one_position },
    Rule { name: "factor out of a sum", exactness: Reassociates, apply: factor_out },
    Rule { name: "sum of products", exactness: Finite, apply: contraction },
];

fn as_reduce<'a>(at: &At<'a>) -> Option<(&'a Reduce, Value)> {
    match at.op {
        Op::Reduce(reduce) => Some((reduce, at.operands[0])),
        _ => None,
    }
}

fn over_nothing(_: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, x) = as_reduce(at)?;
    (reduce.axes.is_empty() && !reduce.op.is_position()).then_some(x)
}

fn over_units(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, x) = as_reduce(at)?;
    let shape = r.shape(x).clone();
    let unit = |a: &u32| shape[*a as usize] == Size::ONE;
    if reduce.op.is_position() || !reduce.axes.iter().any(unit) {
        return None;
    }
    let dropped = |a: u32| reduce.axes.contains(&a) && unit(&a);
    let kept: Vec<u32> = (0..shape.len() as u32).filter(|&a| !dropped(a)).collect();
    let position = |a: u32| kept.iter().position(|&k| k == a);
    let coord = |a: u32| position(a).map_or(Index::constant(0i64), |p| Index::axis(p as u32));
    let access = Access::new((0..shape.len() as u32).map(coord));
    let axes: Shape = kept.iter().map(|&a| shape[a as usize].clone()).collect();
    let fill = Scalar::new(r.g.ty(x).dtype, 0.0);
    let view = r.make(View { axes, access, fill }, &[x], at.origin);
    let rest = reduce.axes.iter().filter_map(|&a| position(a).map(|p| p as u32)).collect();
    Some(r.make(Reduce { op: reduce.op, axes: rest }, &[view], at.origin))
}

fn double(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (outer, folded) = as_reduce(at)?;
    let Op::Reduce(inner) = r.g.op(folded) else { return None };
    if inner.op != outer.op || outer.op.is_position() || !r.is_single_use(folded) {
        return None;
    }
    let x = r.g.operands(folded)[0];
    let kept: Vec<u32> = (0..r.shape(x).len() as u32).filter(|a| !inner.axes.contains(a)).collect();
    let mut axes: SmallVec<[u32; 4]> = outer.axes.iter().map(|&a| kept[a as usize]).collect();
    axes.extend(inner.axes.iter().copied());
    axes.sort();
    Some(r.make(Reduce { op: outer.op, axes }, &[x], at.origin))
}

/// Elements that repeat along folded axes: a sum counts them, an extreme ignores them.
fn repeats(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, folded) = as_reduce(at)?;
    let Op::View(view) = r.g.op(folded).clone() else { return None };
    let x = r.g.operands(folded)[0];
    let repeated = |a: &&u32| !view.access.uses(Axis(**a));
    let dropped: Vec<u32> = reduce.axes.iter().filter(repeated).copied().collect();
    let count: Size = dropped.iter().map(|&a| view.axes[a as usize].clone()).product();
    match reduce.op {
        _ if dropped.is_empty() => return None,
        FoldOp::Sum => {}
        FoldOp::Max | FoldOp::Min if count.as_const().is_some_and(|n| n > 0) => {}
        _ => return None,
    }
    let smaller = r.make(without_axes(&view, &dropped), &[x], at.origin);
    let position = |a: u32| a - dropped.iter().filter(|&&d| d < a).count() as u32;
    let rest = reduce.axes.iter().filter(|a| !dropped.contains(a)).map(|&a| position(a)).collect();
    let fold = r.make(Reduce { op: reduce.op, axes: rest }, &[smaller], at.origin);
    if reduce.op != FoldOp::Sum {
        return Some(fold);
    }
    let ty = r.g.ty(fold).clone();
    let times = r.make(Extent { size: count, dtype: ty.dtype }, &[], at.origin);
    let times = r.g.splat(times, ty.shape, at.origin);
    Some(r.binary(BinaryOp::Mul, fold, times, at.origin))
}

/// A fold of a reshape that merges dims is a fold over what they were; of the others, what is kept is
/// merged in the result.
fn reshaped(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, folded) = as_reduce(at)?;
    let Op::Reshape(_) = r.g.op(folded) else { return None };
    let x = r.g.operands(folded)[0];
    let merged = merged_dims(r.shape(x), r.shape(folded))?;
    if reduce.op.is_position() {
        return None;
    }
    let axes = reduce.axes.iter().flat_map(|&d| merged[d as usize].clone()).map(|d| d as u32);
    let kept = (0..merged.len()).filter(|d| !reduce.axes.contains(&(*d as u32)));
    let shape = kept.map(|d| r.shape(folded)[d].clone()).collect();
    let fold = r.make(Reduce { op: reduce.op, axes: axes.collect() }, &[x], at.origin);
    Some(r.make(Reshape { shape }, &[fold], at.origin))
}

/// The sum over all windows that hold an element, where windows tile the tensor: there is one, and
/// the windows side by side are the tensor. What is the same in all of a window is repeated in it.
fn tiles(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, windows) = as_reduce(at)?;
    let Op::View(view) = r.g.op(windows) else { return None };
    let x = r.g.operands(windows)[0];
    let shape = r.shape(x).clone();
    let coords = &view.access.coords;
    let own = |g: &Guard| coords.iter().zip(&shape).any(|(c, n)| *c == g.index && *n == g.extent);
    if reduce.op != FoldOp::Sum || !view.access.guards.iter().all(own) {
        return None;
    }
    let dim_of = |index: &Index, extent: &Size| {
        coords.iter().zip(&shape).position(|(c, n)| c == index && n == extent)
    };
    // The dims of `x` in the order of the result, and repetitions.
    let mut order: Vec<(Option<usize>, Size)> = Vec::new();
    for axis in (0..view.axes.len() as u32).filter(|a| !reduce.axes.contains(a)) {
        let extent = &view.axes[axis as usize];
        if let Some(dim) = dim_of(&Index::axis(axis), extent) {
            order.push((Some(dim), extent.clone()));
            continue;
        }
        // `(axis - window) / n` beside `window`, which is in 0..n, or without.
        let tile = coords.iter().position(|c| c.coef(Axis(axis)) == 1 && c.div > 1)?;
        let n = Size::from(coords[tile].div);
        let window = coords[tile].terms.iter().find(|t| t.1 == -1 && t.0 != Axis(axis))?.0.0;
        let expected =
            Index { div: coords[tile].div, ..Index::affine([(axis, 1), (window, -1)], 0i64) };
        let fits = coords[tile] == expected
            && reduce.axes.contains(&window)
            && view.axes[window as usize] == n
            && *extent == shape[tile].clone() * n.clone();
        let inner = dim_of(&Index::axis(window), &n);
        let uses = coords.iter().filter(|c| c.uses(Axis(window))).count();
        if !fits || uses != 1 + usize::from(inner.is_some()) {
            return None;
        }
        order.extend([(Some(tile), shape[tile].clone()), (inner, n)]);
    }
    let mut dims: Vec<usize> = order.iter().filter_map(|(dim, _)| *dim).collect();
    dims.sort();
    if dims != (0..shape.len()).collect::<Vec<_>>() {
        return None;
    }
    let kept = (0..view.axes.len()).filter(|a| !reduce.axes.contains(&(*a as u32)));
    let result: Shape = kept.map(|a| view.axes[a].clone()).collect();
    let mut access = Access::identity(shape.len());
    for (to, dim) in (0u32..).zip(&order) {
        dim.0.iter().for_each(|&dim| access.coords[dim] = Index::axis(to));
    }
    let axes = order.into_iter().map(|(_, extent)| extent).collect();
    let fill = Scalar::new(r.g.ty(x).dtype, 0.0);
    let side_by_side = r.make(View { axes, access, fill }, &[x], at.origin);
    Some(r.make(Reshape { shape: result }, &[side_by_side], at.origin))
}

/// `sum(x * c) = sum(x) * c` where `c` is the same for the whole row; `sum(-x) = -sum(x)`. Of a product
/// that others read, too, only if `sum(x)` is known.
fn factor_out(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, body) = as_reduce(at)?;
    let is_known = |r: &Rewriter<'_>, x: Value| {
        let is_sum = |user: &Value| matches!(r.g.op(*user), Op::Reduce(other) if other == reduce);
        r.g.users(x).iter().any(is_sum)
    };
    let pays = |r: &Rewriter<'_>, x: Value| r.is_single_use(body) || is_known(r, x);
    if reduce.op != FoldOp::Sum {
        return None;
    }
    if let Some(x) = r.operand_of(UnaryOp::Neg, body).filter(|&x| pays(r, x)) {
        let sum = r.make(at.op.clone(), &[x], at.origin);
        return Some(r.unary(UnaryOp::Neg, sum, at.origin));
    }
    let (a, b) = r.operands_of(BinaryOp::Mul, body)?;
    let (x, factor) = match [a, b].map(|factor| is_constant_along(r, factor, &reduce.axes)) {
        [_, true] => (a, b),
        [true, false] => (b, a),
        [false, false] => return None,
    };
    let Op::View(view) = r.g.op(factor).clone() else { return None };
    if !pays(r, x) {
        return None;
    }
    let small = r.g.operands(factor)[0];
    let factor = r.make(without_axes(&view, &reduce.axes), &[small], at.origin);
    let sum = r.make(at.op.clone(), &[x], at.origin);
    Some(r.binary(BinaryOp::Mul, sum, factor, at.origin))
}

/// Whether `value` is the same along `axes`, and made of something smaller.
pub(super) fn is_constant_along(r: &Rewriter<'_>, value: Value, axes: &[u32]) -> bool {
    match r.g.op(value) {
        Op::View(view) => !axes.iter().any(|&axis| view.access.uses(Axis(axis))),
        _ => false,
    }
}

/// A sum of products in which each factor is used for several results is a contraction.
fn contraction(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (reduce, body) = as_reduce(at)?;
    if reduce.op != FoldOp::Sum || !r.is_single_use(body) || !r.g.ty(body).dtype.is_float() {
        return None;
    }
    let (a, b) = r.operands_of(BinaryOp::Mul, body)?;
    let shape = r.shape(body).clone();
    let (lhs, x) = factor(r, a, &reduce.axes, &shape)?;
    let (rhs, y) = factor(r, b, &reduce.axes, &shape)?;
    let (reduced, kept): (Vec<u32>, Vec<u32>) =
        (0..shape.len() as u32).partition(|a| reduce.axes.contains(a));
    let order: Vec<u32> = kept.iter().chain(&reduced).copied().collect();
    let new =
        |a: Axis| Axis(order.iter().position(|&o| o == a.0).expect("all axes are there") as u32);
    let extents = |axes: &[u32]| axes.iter().map(|&a| shape[a as usize].clone()).collect();
    let op = Contract {
        out: extents(&kept),
        reduce: extents(&reduced),
        lhs: lhs.renumber(&new),
        rhs: rhs.renumber(&new),
    };
    Some(r.make(op, &[x, y], at.origin))
}

/// The read that `value` is, if it gives 0 outside and is the same along some axis that is kept.
fn factor(
    r: &Rewriter<'_>,
    value: Value,
    reduced: &[u32],
    shape: &Shape,
) -> Option<(Access, Value)> {
    let Op::View(view) = r.g.op(value) else { return None };
    let x = r.g.operands(value)[0];
    let zero_outside = view.fill.value() == 0.0 || view.is_inside(r.shape(x));
    let mut kept = (0..shape.len() as u32).filter(|a| !reduced.contains(a));
    let reused = kept.any(|a| !view.access.uses(Axis(a)) && shape[a as usize] != Size::ONE);
    (zero_outside && reused).then(|| (view.access.clone(), x))
}

/// The view without `dropped` of its axes, none of which it uses.
pub(super) fn without_axes(view: &View, dropped: &[u32]) -> View {
    let new = |a: Axis| Axis(a.0 - dropped.iter().filter(|&&d| d < a.0).count() as u32);
    let kept = view.axes.iter().enumerate().filter(|(i, _)| !dropped.contains(&(*i as u32)));
    let axes = kept.map(|(_, extent)| extent.clone()).collect();
    View { axes, access: view.access.renumber(&new), fill: view.fill }
}
