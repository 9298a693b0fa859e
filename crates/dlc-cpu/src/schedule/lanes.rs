//! Which axis becomes the lanes of vectors, and what a point costs.
//!
//! The estimate counts instructions: memory that is contiguous along the axis is one for four
//! points, anything else one or two for each. Only its order matters.

use super::PlacedStore;
use super::domain::{Domain, Place};
use dlc_kernel::{Axis, BinaryOp, DType, Expr, ExprId, UnaryOp};

/// Instructions to compute `roots` and make `stores` at four points along `axis`, or at one point
/// without it.
pub fn vector_cost(
    domain: &Domain,
    roots: &[ExprId],
    stores: &[PlacedStore],
    axis: Option<Axis>,
) -> f64 {
    let nodes = domain.reachable(roots);
    let varies = |id: ExprId| axis.is_none_or(|a| domain.uses[id.0 as usize].contains(a));
    // What does not vary is computed once for many vectors.
    let weight = |id| if varies(id) { 1.0 } else { 0.25 };
    let computed = nodes.iter().map(|&id| weight(id) * node_cost(domain, id, axis)).sum::<f64>();
    let stored = stores.iter().map(|s| access_cost(&s.place, axis)).sum::<f64>();
    computed + stored
}

/// Nanoseconds for `instructions`, at about two a nanosecond and a half.
pub fn nanoseconds(instructions: f64) -> f64 {
    instructions * 0.15
}

fn node_cost(domain: &Domain, id: ExprId, axis: Option<Axis>) -> f64 {
    if domain.affine[id.0 as usize].is_some() {
        return 1.0;
    }
    let integer = domain.exprs.dtype(id) != DType::F32;
    match domain.exprs.get(id) {
        Expr::Const(_) | Expr::Extent(..) | Expr::Folded(_) => 0.0,
        Expr::Axis(_) => 1.0,
        Expr::Inside(_) => 4.0,
        Expr::Load { .. } => {
            access_cost(domain.places[id.0 as usize].as_ref().expect("a load has a place"), axis)
        }
        Expr::Unary(op, _) => unary_cost(*op),
        Expr::Binary(op, ..) => binary_cost(*op, integer),
        Expr::Select(..) | Expr::Cast(..) => 2.0,
        Expr::Random { .. } => 80.0,
    }
}

fn unary_cost(op: UnaryOp) -> f64 {
    match op {
        UnaryOp::Exp | UnaryOp::Log => 25.0,
        UnaryOp::Tanh | UnaryOp::Sigmoid => 40.0,
        UnaryOp::Erf | UnaryOp::NormalCdf | UnaryOp::Sin | UnaryOp::Cos => 55.0,
        UnaryOp::Sqrt | UnaryOp::Rsqrt => 8.0,
        _ => 1.5,
    }
}

fn binary_cost(op: BinaryOp, integer: bool) -> f64 {
    match op {
        BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv if integer => 60.0,
        BinaryOp::Pow => 90.0,
        BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv => 6.0,
        BinaryOp::Max | BinaryOp::Min => 2.0,
        _ => 1.0,
    }
}

fn access_cost(place: &Place, axis: Option<Axis>) -> f64 {
    let checks = 3.0 * place.checks.len() as f64;
    let Some(axis) = axis else { return 1.0 + checks + 3.0 * place.found.len() as f64 };
    let affine = place.quotients.iter().all(|q| q.index.coef(axis) == 0) && place.found.is_empty();
    match place.linear.coef(axis) {
        0 if affine => 0.3 + checks,
        1 if place.is_unit_along(axis) && place.found.is_empty() => 1.0 + checks,
        2 | -1 if affine => 3.0 + 3.0 * checks,
        _ => 8.0 + 4.0 * (checks + 3.0 * place.found.len() as f64),
    }
}
