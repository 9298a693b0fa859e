//! Masks that say where something is: conditions on positions become conditions of views.
//!
//! Then kernels know where they hold, compute nothing elsewhere, and nobody stores a mask. Such a
//! mask is a *window*: a view of truth under guards. Numbers of positions that are read elsewhere are
//! counted there again, so that nobody stores them either.

use super::{At, Exactness::*, Rewriter, Rule};
use dlc_graph::op::{Binary, Iota, Op, Reduce, Select, View};
use dlc_graph::{Shape, Type, Value};
use dlc_kernel::{Access, BinaryOp, DType, FoldOp, Guard, Index, Scalar, Size, UnaryOp};

pub const RULES: &[Rule] = &[
    Rule { name: "comparison of positions", exactness: Exact, apply: compared },
    Rule { name: "windows that hold together", exactness: Exact, apply: together },
    Rule { name: "select by a window", exactness: Exact, apply: selected },
];

type Guards = smallvec::SmallVec<[Guard; 1]>;

fn compared(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Binary(Binary(op)) = *at.op else { return None };
    let axes = r.shape(*at.operands.first()?).clone();
    let difference = |x: i64, y: i64, offset: i64| -> Option<Index> {
        let [a, b] = [0, 1].map(|k| position(r, at.operands[k]));
        Some(Index::affine([(0, x), (1, y)], offset).compose(&[a?, b?]))
    };
    let index = match op {
        BinaryOp::Le => difference(-1, 1, 0)?,
        BinaryOp::Lt => difference(-1, 1, -1)?,
        BinaryOp::Eq => difference(-1, 1, 0)?,
        _ => return None,
    };
    let (low, high) = index.range(&axes)?;
    let most = if op == BinaryOp::Eq { 0 } else { high };
    if low > most || high < 0 {
        return Some(r.splat(&Type { dtype: DType::Bool, shape: axes }, 0.0, at.origin));
    }
    let guard = Guard { index, extent: Size::from(most + 1) };
    Some(window(r, &axes, [guard].into_iter().collect(), at))
}

/// A number that follows from where it is: affine in its axes, and an `i32` everywhere.
fn position(r: &Rewriter<'_>, value: Value) -> Option<Index> {
    let ty = r.g.ty(value);
    if ty.dtype != DType::I32 {
        return None;
    }
    if let Some(number) = r.number(value) {
        return Some(Index::constant(number as i64));
    }
    let operand = |k: usize| position(r, r.g.operands(value)[k]);
    let sum = |x: i64, y: i64| {
        Some(Index::affine([(0, x), (1, y)], 0i64).compose(&[operand(0)?, operand(1)?]))
    };
    let index = match r.g.op(value) {
        Op::Iota(_) => Index::axis(0),
        Op::View(view) if view.is_inside(r.shape(r.g.operands(value)[0])) => {
            operand(0)?.compose(&view.access.coords)
        }
        Op::Unary(u) if u.0 == UnaryOp::Neg => {
            Index::affine([(0, -1)], 0i64).compose(&[operand(0)?])
        }
        Op::Binary(Binary(BinaryOp::Add)) => sum(1, 1)?,
        Op::Binary(Binary(BinaryOp::Sub)) => sum(1, -1)?,
        Op::Binary(Binary(BinaryOp::Mul)) => {
            let by = r.number(r.g.operands(value)[1])? as i64;
            Index::affine([(0, by)], 0i64).compose(&[operand(0)?])
        }
        _ => return None,
    };
    let (low, high) = index.range(&ty.shape)?;
    let fits = i32::try_from(low).is_ok() && i32::try_from(high).is_ok();
    (index.div == 1 && fits).then_some(index)
}

/// True where all guards hold.
fn window(r: &mut Rewriter<'_>, axes: &[Size], guards: Guards, at: &At<'_>) -> Value {
    let truth = r.g.constant(Scalar::new(DType::Bool, 1.0), at.origin);
    let access = Access { guards, ..Access::default() };
    let fill = Scalar::new(DType::Bool, 0.0);
    r.make(View { axes: axes.into(), access, fill }, &[truth], at.origin)
}

/// The guards of a window.
fn guards(r: &Rewriter<'_>, value: Value) -> Option<Guards> {
    let Op::View(view) = r.g.op(value) else { return None };
    let truth = r.number(r.g.operands(value)[0])? != 0.0;
    let found = &view.access.guards;
    let is_window = truth && view.fill.value() == 0.0 && !found.is_empty();
    (is_window && view.access.coords.is_empty()).then(|| found.clone())
}

fn together(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Binary(Binary(BinaryOp::And)) = at.op else { return None };
    let mut all = guards(r, at.operands[0])?;
    all.extend(guards(r, at.operands[1])?);
    all.sort();
    all.dedup();
    let axes = r.shape(at.operands[0]).clone();
    Some(window(r, &axes, all, at))
}

/// What is one number outside of a window, which may be one of two conditions.
fn selected(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Select(_) = at.op else { return None };
    let (condition, inside, outside) = (at.operands[0], at.operands[1], at.operands[2]);
    let fill = r.g.as_splat(outside)?;
    let (guards, inside) = match (guards(r, condition), r.operands_of(BinaryOp::And, condition)) {
        (Some(guards), _) => (guards, inside),
        (None, Some((x, y))) => {
            let (own, other) =
                [(x, y), (y, x)].into_iter().find_map(|(w, c)| Some((guards(r, w)?, c)))?;
            (own, r.make(Select, &[other, inside, outside], at.origin))
        }
        _ => return None,
    };
    let axes = r.shape(inside).clone();
    let access = Access { guards, ..Access::identity(axes.len()) };
    Some(r.make(View { axes, access, fill }, &[inside], at.origin))
}

/// A sum over a view of `x where w == p else 0`, which is 0 outside, for a position `p`: the way back of
/// a maximum. `x` and `w` are read where the view reads, and what the position is there is said anew.
pub(super) fn of_one_position(r: &mut Rewriter<'_>, at: &At<'_>) -> Option<Value> {
    let Op::Reduce(sum @ Reduce { op: FoldOp::Sum, .. }) = at.op else { return None };
    let Op::View(view) = r.g.op(at.operands[0]).clone() else { return None };
    let chosen = r.g.operands(at.operands[0])[0];
    let (Op::Select(_), choice) = (r.g.op(chosen), r.g.operands(chosen)) else { return None };
    let (x, otherwise) = (choice[1], r.number(choice[2])?);
    let used_once = r.is_single_use(at.operands[0]) && r.is_single_use(chosen);
    if view.fill.value() != 0.0 || otherwise != 0.0 || !used_once {
        return None;
    }
    let (a, b) = r.operands_of(BinaryOp::Eq, choice[0])?;
    let (w, index) = [(a, b), (b, a)].into_iter().find_map(|(w, p)| Some((w, position(r, p)?)))?;
    let index = index.compose(&view.access.coords);
    let position = counted(r, &index, &view.axes, at)?;
    let mut read = |x: Value| {
        let fill = Scalar::new(r.g.ty(x).dtype, 0.0);
        r.make(View { fill, ..view.clone() }, &[x], at.origin)
    };
    let (w, x) = (read(w), read(x));
    let condition = r.binary(BinaryOp::Eq, w, position, at.origin);
    let zero = r.splat(&r.g.ty(x).clone(), 0.0, at.origin);
    let terms = r.make(Select, &[condition, x, zero], at.origin);
    Some(r.make(sum.clone(), &[terms], at.origin))
}

/// The position `index` over `axes`, if it is an `i32` everywhere.
fn counted(r: &mut Rewriter<'_>, index: &Index, axes: &Shape, at: &At<'_>) -> Option<Value> {
    let (low, high) = index.range(axes)?;
    if index.div != 1 || i32::try_from(low).is_err() || i32::try_from(high).is_err() {
        return None;
    }
    let ty = Type { dtype: DType::I32, shape: axes.clone() };
    let mut sum = r.splat(&ty, index.offset.as_const()? as f64, at.origin);
    for &(axis, coef) in &index.terms {
        let iota = r.make(Iota { extent: axes[axis.0 as usize].clone() }, &[], at.origin);
        let (access, fill) = (Access::new([Index::axis(axis.0)]), Scalar::new(DType::I32, 0.0));
        let along = r.make(View { axes: axes.clone(), access, fill }, &[iota], at.origin);
        let coef = r.splat(&ty, coef as f64, at.origin);
        let term = r.binary(BinaryOp::Mul, along, coef, at.origin);
        sum = r.binary(BinaryOp::Add, sum, term, at.origin);
    }
    Some(sum)
}
