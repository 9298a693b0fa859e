//! What a value is to fusion and lowering, and whether computing it can fail.

use dlc_graph::op::{Fused, Lowering, Op, Scan};
use dlc_graph::{Graph, Value};

/// What a value is to fusion and lowering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// From outside: a buffer that exists already.
    Source,
    /// Costs nothing where it is read (a constant, a size, a position, a view), so it takes part in
    /// every kernel that reads it and is stored only for those who need it in memory.
    Free,
    /// An expression of its operands at each point.
    Point,
    /// A fold over axes.
    Fold,
    /// A contraction.
    Contract,
    /// Has a kernel of its own.
    Whole,
}

/// The class of `value`.
pub fn class(graph: &Graph, value: Value) -> Class {
    match graph.op(value) {
        Op::View(_) | Op::Const(_) | Op::Extent(_) | Op::Iota(_) => return Class::Free,
        _ => {}
    }
    match graph.op(value).rules().lower() {
        Lowering::Source => Class::Source,
        Lowering::Each(_) | Lowering::Point(_) => Class::Point,
        Lowering::Fold(_) => Class::Fold,
        Lowering::Contract(_) => Class::Contract,
        _ => Class::Whole,
    }
}

/// Whether the kernel of an operation can fail: it looks up what data decides.
pub fn may_fail(op: &Op) -> bool {
    match op {
        Op::Gather(_) | Op::ScatterAdd(_) => true,
        Op::Overwrite(overwrite) => !overwrite.in_place,
        Op::Fused(Fused { body, .. }) | Op::Scan(Scan { body, .. }) => {
            body.distinct_ops().any(may_fail)
        }
        _ => false,
    }
}
