//! Precedence: the one order that reading and printing expressions share.

use super::{BinaryOp, ExprKind, UnaryOp};

/// How tightly a form binds, loosest first: an operand is parenthesized if it binds looser than its
/// place asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// `a, b` and `a where c else b`.
    Anything,
    /// `a if c else b`.
    Select,
    Pipe,
    Or,
    And,
    Not,
    Comparison,
    Sum,
    /// A reduction's body is one product.
    Reduction,
    Product,
    Sign,
    /// What a call or bracket may follow.
    Postfix,
}

impl Level {
    pub(super) fn of(kind: &ExprKind) -> Level {
        match kind {
            ExprKind::Where { .. } => Level::Anything,
            ExprKind::Select { .. } => Level::Select,
            ExprKind::Pipe { .. } => Level::Pipe,
            ExprKind::Chain { rest, .. } => Level::of_operator(rest[0].op),
            ExprKind::Unary { op: UnaryOp::Not, .. } => Level::Not,
            ExprKind::Unary { op: UnaryOp::Neg, .. } => Level::Sign,
            ExprKind::Reduce { .. } => Level::Reduction,
            _ => Level::Postfix,
        }
    }

    pub(crate) fn of_operator(op: BinaryOp) -> Level {
        match op {
            BinaryOp::Or => Level::Or,
            BinaryOp::And => Level::And,
            BinaryOp::Add | BinaryOp::Sub => Level::Sum,
            op if op.is_comparison() => Level::Comparison,
            _ => Level::Product,
        }
    }

    /// The level one step tighter, for the operands of a chain.
    pub(super) fn tighter(self) -> Level {
        match self {
            Level::Or => Level::And,
            Level::And => Level::Not,
            Level::Comparison => Level::Sum,
            Level::Sum => Level::Reduction,
            Level::Product => Level::Sign,
            other => other,
        }
    }
}
