//! Sums of deviations.
//!
//! What the numbers of a row deviate from their mean adds up to nothing. The gradient of a normalization
//! is `a*g + c*d` less the mean of that, for the gradient `g` of its result, the deviations `d`, and `a`
//! and `c` that are the same for a row. So that mean is `a` times the one of `g`, and no fold over the row
//! waits for `c`, which is known after another. The gradient of a bias that the mean takes away is 0.
//! Gradients that come from a pool have dims of its windows, and see deviations in that shape.

use super::folds::is_constant_along;
use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::Value;
use dlc_graph::op::{Op, Reduce, View};
use dlc_kernel::{Axis, BinaryOp, FoldOp, Index, Size, UnaryOp};

pub const RULES: &[Rule] =
    &[Rule { name: "deviations add up to nothing", exactness: Reassociates, apply: left_out }];

/// How deep in a sum deviations are looked for.
const MAX_DEPTH: u32 = 6;

/// How far a factor may be from one over the length of a row: its rounding.
const ROUNDING: f64 = 1e-6;

/// What a sum of terms comes to once those that add up to nothing are left out.
enum Rest {
    Nothing,
    Term { value: Value, negative: bool },
}

/// `sum(x + c*d) = sum(x)` and `sum(c*d) = 0` for deviations `d`, where `c` is the same for the whole row.
fn left_out(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reduce(reduce) = at.op else { return None };
    let body = at.operands[0];
    if reduce.op != FoldOp::Sum || !r.g.ty(body).dtype.is_float() {
        return None;
    }
    match rest(r, at, reduce, body, MAX_DEPTH) {
        Rest::Nothing => {
            let mut ty = r.g.ty(body).clone();
            let folded = |d: &u32| reduce.axes.contains(d);
            let kept = (0..ty.rank() as u32).filter(|d| !folded(d));
            ty.shape = kept.map(|d| ty.shape[d as usize].clone()).collect();
            Some(r.splat(&ty, 0.0, at.origin))
        }
        Rest::Term { value, .. } if value == body => None,
        Rest::Term { value, negative } => {
            let sum = r.make(reduce.clone(), &[value], at.origin);
            Some(if negative { r.unary(UnaryOp::Neg, sum, at.origin) } else { sum })
        }
    }
}

/// What is left of `value`; all of it if that is more than one term.
fn rest(r: &mut Rewriter<'_>, at: &At<'_>, reduce: &Reduce, value: Value, depth: u32) -> Rest {
    if vanishes(r, at, reduce, value, depth) {
        return Rest::Nothing;
    }
    let whole = Rest::Term { value, negative: false };
    let mut sums = [BinaryOp::Add, BinaryOp::Sub].into_iter().filter(|_| depth > 0);
    let Some((op, (a, b))) = sums.find_map(|op| Some((op, r.operands_of(op, value)?))) else {
        return whole;
    };
    match [a, b].map(|term| rest(r, at, reduce, term, depth - 1)) {
        [Rest::Nothing, Rest::Term { value, negative }] => {
            Rest::Term { value, negative: negative ^ (op == BinaryOp::Sub) }
        }
        [rest, Rest::Nothing] => rest,
        _ => whole,
    }
}

/// Whether `value` is the deviation from a mean, that times what is the same for the whole row, or either in
/// another shape.
fn vanishes(r: &mut Rewriter<'_>, at: &At<'_>, reduce: &Reduce, value: Value, depth: u32) -> bool {
    if let Op::View(view) = r.g.op(value) {
        let read = r.g.operands(value)[0];
        let row = row_read(view, r.shape(read), reduce);
        return depth > 0 && row.is_some_and(|row| vanishes(r, at, &row, read, depth - 1));
    }
    let Some((a, b)) = r.operands_of(BinaryOp::Mul, value) else {
        return deviates(r, at, reduce, value);
    };
    let inner = match [a, b].map(|factor| is_constant_along(r, factor, &reduce.axes)) {
        [false, true] => a,
        [true, false] => b,
        _ => return false,
    };
    depth > 0 && vanishes(r, at, reduce, inner, depth - 1)
}

/// The row of what `view` reads that a row of the view is, if it reads each element of that once.
fn row_read(view: &View, shape: &[Size], reduce: &Reduce) -> Option<Reduce> {
    let coords = &view.access.coords;
    let mut seen: Vec<Axis> = coords.iter().flat_map(|c| &c.terms).map(|term| term.0).collect();
    seen.sort_unstable();
    let each_once = seen.into_iter().eq((0..view.axes.len() as u32).map(Axis));
    let counts =
        coords.iter().zip(shape).all(|(index, extent)| counts_up(index, &view.axes, extent));
    if !each_once || !counts || !view.access.guards.is_empty() {
        return None;
    }
    let mut axes = Vec::new();
    for (dim, index) in (0..).zip(coords) {
        let folded = index.terms.iter().filter(|term| reduce.axes.contains(&term.0.0)).count();
        match index.terms.len() {
            all if folded == all && all > 0 => axes.push(dim),
            _ if folded > 0 => return None,
            _ => {}
        }
    }
    Some(Reduce { axes: axes.into(), ..reduce.clone() })
}

/// Whether an index is each number below `extent` once.
fn counts_up(index: &Index, axes: &[Size], extent: &Size) -> bool {
    let mut terms = index.terms.clone();
    terms.sort_unstable_by_key(|term| term.1);
    let mut next = Size::ONE;
    let is_next = |(axis, coef): &(Axis, i64)| {
        let fits = next == Size::from(*coef);
        next = next.clone() * axes[axis.0 as usize].clone();
        fits
    };
    index.div == 1 && index.offset == Size::ZERO && terms.iter().all(is_next) && next == *extent
}

/// Whether `value` is `x - mean(x)` for the mean over a row.
fn deviates(r: &mut Rewriter<'_>, at: &At<'_>, reduce: &Reduce, value: Value) -> bool {
    let (x, mean, sign) = match r.operands_of(BinaryOp::Sub, value) {
        Some((x, mean)) => (x, mean, 1.0),
        None => match r.operands_of(BinaryOp::Add, value) {
            Some((x, mean)) => (x, mean, -1.0),
            None => return false,
        },
    };
    let Op::View(view) = r.g.op(mean) else { return false };
    let kept = (0..view.axes.len() as u32).filter(|axis| !reduce.axes.contains(axis));
    let by_row = view.access.coords.iter().cloned().eq(kept.map(Index::axis));
    let terms = reduce.axes.iter().map(|&axis| view.axes[axis as usize].clone()).product::<Size>();
    let mean = r.g.operands(mean)[0];
    let Some((sum, factor)) = r.operands_of(BinaryOp::Mul, mean) else { return false };
    let (Some(factor), Some(terms)) = (r.number(factor), terms.as_const()) else { return false };
    let one = sign * factor * terms as f64;
    by_row && (one - 1.0).abs() < ROUNDING && r.make(reduce.clone(), &[x], at.origin) == sum
}
