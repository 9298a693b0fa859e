//! Arithmetic on numbers of any kind.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::Value;
use dlc_graph::op::{Op, View};
use dlc_kernel::{BinaryOp, DType, UnaryOp};

pub const RULES: &[Rule] = &[
    Rule { name: "constant last", exactness: Exact, apply: order },
    Rule { name: "neutral element", exactness: Exact, apply: neutral },
    Rule { name: "absorbing element", exactness: Exact, apply: absorbing },
    Rule { name: "twice the same", exactness: Exact, apply: idempotent },
    Rule { name: "undone twice", exactness: Exact, apply: involution },
    Rule { name: "negation moves out", exactness: Exact, apply: negation },
    Rule { name: "division by a constant", exactness: Reassociates, apply: divide_by_constant },
    Rule { name: "small powers", exactness: Reassociates, apply: power },
    Rule { name: "root then reciprocal", exactness: Reassociates, apply: rsqrt },
    Rule { name: "one reciprocal per row", exactness: Reassociates, apply: reciprocal },
    Rule { name: "stopped gradient", exactness: Exact, apply: stop_gradient },
    Rule { name: "cast to the same type", exactness: Exact, apply: same_cast },
    Rule { name: "cast of a lossless cast", exactness: Exact, apply: double_cast },
];

fn order(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, a, b) = at.as_binary()?;
    let commutes = matches!(
        op,
        BinaryOp::Add
            | BinaryOp::Mul
            | BinaryOp::Max
            | BinaryOp::Min
            | BinaryOp::Eq
            | BinaryOp::Ne
            | BinaryOp::And
            | BinaryOp::Or
    );
    let key = |v: Value| (r.number(v).is_some(), v);
    (commutes && key(a) > key(b)).then(|| r.binary(op, b, a, at.origin))
}

/// `x + 0`, `x - 0`, `x * 1`, `x / 1`, `x ^ 1`, `x and true`, `x or false`.
fn neutral(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, x, c) = at.as_binary()?;
    let element = match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Or => 0.0,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow | BinaryOp::And => 1.0,
        BinaryOp::Max => f64::NEG_INFINITY,
        BinaryOp::Min => f64::INFINITY,
        _ => return None,
    };
    let float = r.g.ty(x).dtype.is_float();
    let fits = float || !matches!(op, BinaryOp::Max | BinaryOp::Min);
    (fits && r.number(c)? == element).then_some(x)
}

/// `n * 0` for integers, `x and false`, `x or true`.
fn absorbing(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, x, c) = at.as_binary()?;
    let element = match op {
        BinaryOp::Mul if r.g.ty(x).dtype.is_int() => 0.0,
        BinaryOp::And => 0.0,
        BinaryOp::Or => 1.0,
        _ => return None,
    };
    (r.number(c)? == element).then_some(c)
}

fn idempotent(_: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, a, b) = at.as_binary()?;
    let same = matches!(op, BinaryOp::Max | BinaryOp::Min | BinaryOp::And | BinaryOp::Or);
    (same && a == b).then_some(a)
}

/// `--x`, `not not x`, `|-x|`, `||x||`.
fn involution(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, x) = at.as_unary()?;
    match op {
        UnaryOp::Neg | UnaryOp::Not => r.operand_of(op, x),
        UnaryOp::Abs if r.operand_of(UnaryOp::Abs, x).is_some() => Some(x),
        UnaryOp::Abs => {
            let inner = r.operand_of(UnaryOp::Neg, x)?;
            Some(r.unary(UnaryOp::Abs, inner, at.origin))
        }
        _ => None,
    }
}

/// `a + -b = a - b`, `a - -b = a + b`, `-a * -b = a * b`, `a * -1 = -a`, `-a / -b = a / b`.
fn negation(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (op, a, b) = at.as_binary()?;
    let (na, nb) = (r.operand_of(UnaryOp::Neg, a), r.operand_of(UnaryOp::Neg, b));
    match (op, na, nb) {
        (BinaryOp::Add, _, Some(b)) => Some(r.binary(BinaryOp::Sub, a, b, at.origin)),
        (BinaryOp::Add, Some(a), None) => Some(r.binary(BinaryOp::Sub, b, a, at.origin)),
        (BinaryOp::Sub, _, Some(b)) => Some(r.binary(BinaryOp::Add, a, b, at.origin)),
        (BinaryOp::Mul | BinaryOp::Div, Some(a), Some(b)) => Some(r.binary(op, a, b, at.origin)),
        (BinaryOp::Mul, _, None) if r.number(b) == Some(-1.0) => {
            Some(r.unary(UnaryOp::Neg, a, at.origin))
        }
        (BinaryOp::Mul, Some(a), None) => {
            let negated = -r.number(b)?;
            let ty = r.g.ty(b).clone();
            let negated = r.splat(&ty, negated, at.origin);
            Some(r.binary(BinaryOp::Mul, a, negated, at.origin))
        }
        _ => None,
    }
}

/// `x / c = x * (1/c)`, if `1/c` is an ordinary number.
fn divide_by_constant(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (BinaryOp::Div, x, c) = at.as_binary()? else { return None };
    let reciprocal = 1.0 / r.number(c)?;
    let ty = r.g.ty(x).clone();
    if ty.dtype != DType::F32 || !(reciprocal as f32).is_normal() {
        return None;
    }
    let reciprocal = r.splat(&ty, reciprocal, at.origin);
    Some(r.binary(BinaryOp::Mul, x, reciprocal, at.origin))
}

/// Powers 2, 3, 1/2, -1 and -1/2 within 2 ulp; infinities under a root keep their sign.
fn power(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (BinaryOp::Pow, x, c) = at.as_binary()? else { return None };
    let ty = r.g.ty(x).clone();
    let exponent = r.number(c)?;
    Some(match exponent {
        0.0 => r.splat(&ty, 1.0, at.origin),
        2.0 => r.binary(BinaryOp::Mul, x, x, at.origin),
        3.0 => {
            let square = r.binary(BinaryOp::Mul, x, x, at.origin);
            r.binary(BinaryOp::Mul, square, x, at.origin)
        }
        0.5 => r.unary(UnaryOp::Sqrt, x, at.origin),
        -0.5 => r.unary(UnaryOp::Rsqrt, x, at.origin),
        -1.0 => {
            let one = r.splat(&ty, 1.0, at.origin);
            r.binary(BinaryOp::Div, one, x, at.origin)
        }
        _ => return None,
    })
}

/// `1 / sqrt(x)` and `sqrt(1 / x)`.
fn rsqrt(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    if let Some((UnaryOp::Sqrt, y)) = at.as_unary() {
        let (one, x) = r.operands_of(BinaryOp::Div, y)?;
        return (r.number(one)? == 1.0).then(|| r.unary(UnaryOp::Rsqrt, x, at.origin));
    }
    let (BinaryOp::Div, one, root) = at.as_binary()? else { return None };
    let x = r.operand_of(UnaryOp::Sqrt, root)?;
    (r.number(one)? == 1.0).then(|| r.unary(UnaryOp::Rsqrt, x, at.origin))
}

/// `x / s = x * (1/s)` where `s` repeats the elements of a smaller tensor.
fn reciprocal(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let (BinaryOp::Div, x, s) = at.as_binary()? else { return None };
    let Op::View(view) = r.g.op(s).clone() else { return None };
    let small = r.g.operands(s)[0];
    let ty = r.g.ty(small).clone();
    let inside = view.is_inside(&ty.shape);
    let repeats = (0..view.axes.len() as u32).any(|a| {
        !view.access.uses(dlc_kernel::Axis(a)) && view.axes[a as usize].as_const() != Some(1)
    });
    if !ty.dtype.is_float() || !inside || !repeats {
        return None;
    }
    let one = r.splat(&ty, 1.0, at.origin);
    let inverse = r.binary(BinaryOp::Div, one, small, at.origin);
    let spread = r.make(View { ..view }, &[inverse], at.origin);
    Some(r.binary(BinaryOp::Mul, x, spread, at.origin))
}

fn stop_gradient(_: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    matches!(at.op, Op::StopGradient(_)).then(|| at.operands[0])
}

fn same_cast(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Cast(to) = at.op else { return None };
    (r.g.ty(at.operands[0]).dtype == to.0).then(|| at.operands[0])
}

fn double_cast(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Cast(_) = at.op else { return None };
    let Op::Cast(via) = r.g.op(at.operands[0]) else { return None };
    let x = r.g.operands(at.operands[0])[0];
    let lossless = match r.g.ty(x).dtype {
        DType::Bool => true,
        DType::U8 => matches!(via.0, DType::I32 | DType::F32),
        _ => false,
    };
    lossless.then(|| r.make(at.op.clone(), &[x], at.origin))
}
