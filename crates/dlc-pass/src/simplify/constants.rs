//! Operations on numbers that are known.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Binary, Op};
use dlc_graph::{Type, Value};
use dlc_kernel::{BinaryOp, DType, FoldOp, Scalar, cast};

pub const RULES: &[Rule] = &[
    Rule { name: "known size", exactness: Exact, apply: known_size },
    Rule { name: "pointwise on constants", exactness: Exact, apply: pointwise },
    Rule { name: "cast of a constant", exactness: Exact, apply: cast_constant },
    Rule { name: "comparison that all random numbers pass", exactness: Exact, apply: random },
    Rule { name: "fold of a constant", exactness: Reassociates, apply: fold },
    Rule { name: "constant seen through views", exactness: Exact, apply: moved },
];

fn known_size(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Extent(extent) = at.op else { return None };
    let n = extent.size.as_const()?;
    Some(r.g.constant(Scalar::new(extent.dtype, n as f64), at.origin))
}

fn pointwise(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let number = |k: usize| r.number(*at.operands.get(k)?);
    if at.operands.is_empty() {
        return None;
    }
    let x = number(0)?;
    let dtype = r.g.ty(at.operands[0]).dtype;
    let value = match at.op {
        Op::Unary(u) => u.0.eval(dtype, x),
        Op::Binary(b) => b.0.eval(dtype, x, number(1)?),
        _ => return None,
    };
    let rank0: Vec<&Type> = at.operands.iter().map(|&v| r.g.ty(v)).collect();
    let ty = at.op.rules().shape(&rank0).ok()?;
    Some(r.splat(&ty, value, at.origin))
}

fn cast_constant(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Cast(to) = at.op else { return None };
    let value = cast(to.0, r.number(at.operands[0])?);
    let ty = Type { dtype: to.0, shape: r.shape(at.operands[0]).clone() };
    Some(r.splat(&ty, value, at.origin))
}

/// Comparisons that hold for all numbers in [0, 1), as under a dropout of nothing.
fn random(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Binary(Binary(op)) = *at.op else { return None };
    let &[x, y] = at.operands else { return None };
    let is_random = |v: Value| matches!(r.g.op(v), Op::Random(_));
    let holds = match op {
        BinaryOp::Le => is_random(y) && r.number(x)? <= 0.0,
        BinaryOp::Lt => is_random(x) && r.number(y)? >= 1.0,
        _ => false,
    };
    let ty = Type { dtype: DType::Bool, shape: r.shape(x).clone() };
    holds.then(|| r.splat(&ty, 1.0, at.origin))
}

/// Sums and extremes of one number repeated.
fn fold(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reduce(reduce) = at.op else { return None };
    let x = at.operands[0];
    let value = r.number(x)?;
    let extents = reduce.axes.iter().map(|&a| r.shape(x)[a as usize].as_const());
    let count = extents.product::<Option<i64>>().filter(|&n| n > 0)?;
    let folded = match reduce.op {
        FoldOp::Sum => value * count as f64,
        FoldOp::Prod => value.powf(count as f64),
        FoldOp::Max | FoldOp::Min => value,
        FoldOp::ArgMax | FoldOp::ArgMin => 0.0,
    };
    let ty = at.op.rules().shape(&[r.g.ty(x)]).ok()?;
    if ty.dtype.is_int() && folded.abs() > f64::from(1 << 30) {
        return None;
    }
    Some(r.splat(&ty, folded, at.origin))
}

/// A view, reshape or anything else that only moves one repeated number.
fn moved(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let shape = match at.op {
        Op::View(view) => {
            let scalar = r.g.as_splat(at.operands[0])?;
            let inside = view.is_inside(r.shape(at.operands[0]));
            let canonical = view.access == Default::default() && r.shape(at.operands[0]).is_empty();
            if canonical || (!inside && scalar != view.fill) {
                return None;
            }
            view.axes.clone()
        }
        Op::Reshape(reshape) => reshape.shape.clone(),
        _ => return None,
    };
    let ty = Type { dtype: r.g.ty(at.operands[0]).dtype, shape };
    let value = r.number(at.operands[0])?;
    Some(r.splat(&ty, value, at.origin))
}
