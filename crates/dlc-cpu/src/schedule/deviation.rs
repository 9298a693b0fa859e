//! Sums of squares of what numbers deviate from their mean, in the walk that adds up the numbers.
//!
//! They wait for the mean, so they would take a walk of their own. A block of `n` points has its own mean `m_b`
//! when its walk ends, and is still near then: `sum (v - m)^2` is the sum over blocks of
//! `sum (v - m_b)^2 + n (m_b - m)^2` (Chan, Golub and LeVeque, 1979).

use super::domain::Place;
use super::row::{Pass, RowFold, RowSchedule};
use super::stretch::Kept;
use crate::leaf::lanes::{Lanes, Vector};
use dlc_kernel::{BinaryOp, Expr, ExprId, Exprs, FoldOp};

/// A fold of such squares.
#[derive(Clone, Debug)]
pub struct Deviation {
    /// The fold that adds up the numbers, among all.
    pub sum: usize,
    /// Where their mean is, once it is known.
    pub mean: Place,
}

impl Deviation {
    /// By fold of `pass`, if it does nothing but fold deviations from means of what `before` adds up. `known` is
    /// what is the same at all points of a row, `folds` are all folds.
    pub fn all(
        rows: &RowSchedule,
        [before, pass]: [&Pass; 2],
        known: &[Kept],
        folds: &[RowFold],
    ) -> Option<Vec<Deviation>> {
        let (exprs, points) = (&rows.domain.exprs, rows.row_points());
        let of = |fold: &RowFold| {
            let (value, mean) = deviation(exprs, fold)?;
            let step = mean_of(exprs, mean, points)?;
            let is_sum = |f: &RowFold| f.step == step && f.op == FoldOp::Sum && f.value == value;
            before.folds.iter().find(|f| is_sum(f))?;
            let sum = folds.iter().position(|f| f.step == step)?;
            Some(Deviation { sum, mean: known.iter().find(|k| k.id == mean)?.place.clone() })
        };
        let only_folds = pass.stores.is_empty() && !pass.folds.is_empty();
        if only_folds { pass.folds.iter().map(of).collect() } else { None }
    }
}

/// `v` and `m` of a fold that adds up `(v - m)^2`.
fn deviation(exprs: &Exprs, fold: &RowFold) -> Option<(ExprId, ExprId)> {
    let Expr::Binary(BinaryOp::Mul, a, b) = exprs.get(fold.value) else { return None };
    match exprs.get(*a) {
        Expr::Binary(BinaryOp::Sub, v, m) if a == b && fold.op == FoldOp::Sum => Some((*v, *m)),
        _ => None,
    }
}

/// The fold that `mean` is the `points`th part of.
fn mean_of(exprs: &Exprs, mean: ExprId, points: i64) -> Option<u32> {
    let constant = |id: &ExprId| match exprs.get(*id) {
        Expr::Const(scalar) => Some(scalar.value()),
        _ => None,
    };
    let points = points as f64;
    // A reciprocal is rounded to f32.
    let is_part = |factor: f64| (factor * points - 1.0).abs() < 1e-6;
    let folded = match exprs.get(mean) {
        Expr::Binary(BinaryOp::Div, sum, count) => (constant(count)? == points).then_some(sum)?,
        Expr::Binary(BinaryOp::Mul, a, b) => match (constant(a), constant(b)) {
            (_, Some(factor)) if is_part(factor) => a,
            (Some(factor), _) if is_part(factor) => b,
            _ => return None,
        },
        _ => return None,
    };
    match exprs.get(*folded) {
        Expr::Folded(step) => Some(*step),
        _ => None,
    }
}

/// What a block of `points` points, whose numbers add up to `sum` and have `squares` about their own mean, has about
/// `mean`.
pub fn about(l: &mut Lanes, points: i64, [squares, sum, mean]: [Vector; 3]) -> Vector {
    let (count, part) = (l.float(points as f32), l.float(1.0 / points as f32));
    let own = l.product(sum, part);
    let distance = l.difference(own, mean);
    let all = l.product(distance, count);
    l.fma(all, distance, squares)
}
