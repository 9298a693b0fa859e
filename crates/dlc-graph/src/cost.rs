//! What an operation costs at a point.

use crate::op::Op;
use crate::{Graph, Value};
use dlc_kernel::{BinaryOp, UnaryOp};

/// From here on an operation is rather stored than computed twice.
pub const EXPENSIVE: i64 = 10;

/// What one evaluation costs, in additions.
pub fn cost(graph: &Graph, value: Value) -> i64 {
    match graph.op(value) {
        Op::Unary(u) => match u.0 {
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not => 1,
            UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => 2,
            UnaryOp::Sqrt | UnaryOp::Rsqrt => 4,
            _ => 10,
        },
        Op::Binary(b) => match b.0 {
            BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv => 4,
            BinaryOp::Pow => 20,
            _ => 1,
        },
        Op::Select(_) | Op::Cast(_) | Op::StopGradient(_) => 1,
        Op::Gather(_) | Op::Overwrite(_) => 4,
        _ => 20,
    }
}
