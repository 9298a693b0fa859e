//! Choices: selects, masks, and scatters that are selects.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Binary, Iota, Op, ScatterAdd, Select, View};
use dlc_graph::{Shape, Type, Value};
use dlc_kernel::{Access, BinaryOp, Index, Scalar, UnaryOp};

pub const RULES: &[Rule] = &[
    Rule { name: "select by a constant", exactness: Exact, apply: known_condition },
    Rule { name: "select between equals", exactness: Exact, apply: equal_sides },
    Rule { name: "select by a negation", exactness: Exact, apply: negated },
    Rule { name: "select twice by one condition", exactness: Exact, apply: nested },
    Rule { name: "rectifier's mask from its result", exactness: Exact, apply: mask_of_result },
    Rule { name: "scatter of one id per row", exactness: Exact, apply: one_hot },
];

fn as_select(at: &At<'_>) -> Option<(Value, Value, Value)> {
    let Op::Select(_) = at.op else { return None };
    Some((at.operands[0], at.operands[1], at.operands[2]))
}

fn known_condition(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (c, a, b) = as_select(at)?;
    Some(if r.number(c)? != 0.0 { a } else { b })
}

fn equal_sides(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (_, a, b) = as_select(at)?;
    let same_number = r.g.as_splat(a).is_some_and(|a| r.g.as_splat(b) == Some(a));
    (a == b || same_number).then_some(a)
}

fn negated(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (c, a, b) = as_select(at)?;
    let condition = r.operand_of(UnaryOp::Not, c)?;
    Some(r.make(Select, &[condition, b, a], at.origin))
}

fn nested(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (c, a, b) = as_select(at)?;
    let side = |v: Value, k: usize| match r.g.op(v) {
        Op::Select(_) if r.g.operands(v)[0] == c => Some(r.g.operands(v)[k]),
        _ => None,
    };
    let (inner_a, inner_b) = (side(a, 1), side(b, 2));
    if inner_a.is_none() && inner_b.is_none() {
        return None;
    }
    Some(r.make(Select, &[c, inner_a.unwrap_or(a), inner_b.unwrap_or(b)], at.origin))
}

/// Where `y = max(x, 0)` is there, a select by `0 < x` asks `0 < y` instead (the same truth, NaN
/// included), so that the backward pass needs `y` alone.
fn mask_of_result(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (c, a, b) = as_select(at)?;
    let (zero, x) = r.operands_of(BinaryOp::Lt, c)?;
    if r.number(zero)? != 0.0 || a == x {
        return None;
    }
    let rectifier = |v: &Value| {
        let operands = r.operands_of(BinaryOp::Max, *v);
        operands.is_some_and(|(p, q)| p == x && r.number(q) == Some(0.0))
    };
    let y = r.g.users(x).into_iter().find(rectifier)?;
    let condition = r.binary(BinaryOp::Lt, zero, y, at.origin);
    Some(r.make(Select, &[condition, a, b], at.origin))
}

/// A scatter-add whose ids have no dims but the batch puts each update alone into its row:
/// `select(iota == id, update, 0)`. Only where a gather checks the same ids, since a select does
/// not.
fn one_hot(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::ScatterAdd(ScatterAdd { axis, batch, extent }) = at.op else { return None };
    let (ids, updates) = (at.operands[0], at.operands[1]);
    let checks = |v: &Value| match r.g.op(*v) {
        Op::Gather(gather) => {
            let operands = r.g.operands(*v);
            operands[1] == ids && r.shape(operands[0])[gather.axis as usize] == *extent
        }
        _ => false,
    };
    if r.shape(ids).len() != *batch as usize || !r.g.users(ids).iter().any(checks) {
        return None;
    }
    let ty = r.g.ty(updates).clone();
    let mut shape: Shape = ty.shape.clone();
    shape.insert(*axis as usize, extent.clone());
    let spread = |r: &mut Rewriter<'_>, x: Value, coords: Vec<Index>| {
        let fill = Scalar::new(r.g.ty(x).dtype, 0.0);
        let access = Access::new(coords);
        r.make(View { axes: shape.clone(), access, fill }, &[x], at.origin)
    };
    let without_axis = (0..=ty.rank() as u32).filter(|d| d != axis).map(Index::axis);
    let updates = spread(r, updates, without_axis.collect());
    let ids = spread(r, ids, (0..*batch).map(Index::axis).collect());
    let iota = r.make(Iota { extent: extent.clone() }, &[], at.origin);
    let position = spread(r, iota, vec![Index::axis(*axis)]);
    let here = r.make(Binary(BinaryOp::Eq), &[position, ids], at.origin);
    let zero = r.splat(&Type { dtype: ty.dtype, shape: shape.clone() }, 0.0, at.origin);
    Some(r.make(Select, &[here, updates, zero], at.origin))
}
