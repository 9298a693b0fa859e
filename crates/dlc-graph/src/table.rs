//! The operations of a graph, each once, numbered in the order in which they come.
//!
//! Passes build graph after graph of mostly the same operations. Tables share them, with their hashes, so
//! that handing one on costs neither a copy nor another look at its attributes.

use crate::op::Op;
use indexmap::{Equivalent, IndexSet};
use rustc_hash::{FxBuildHasher, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The operations of a graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    ops: IndexSet<Shared, FxBuildHasher>,
}

/// An operation that tables share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    hash: u64,
    op: Arc<Op>,
}

/// An operation that may be in a table.
struct Sought<'a> {
    hash: u64,
    op: &'a Op,
}

impl Table {
    /// An empty table with room for `count` operations.
    pub fn with_capacity(count: usize) -> Table {
        Table { ops: IndexSet::with_capacity_and_hasher(count, FxBuildHasher) }
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The operation of that number.
    pub fn get(&self, number: u32) -> &Op {
        &self.shared(number).op
    }

    /// The operation of that number, for another table.
    pub fn shared(&self, number: u32) -> &Shared {
        &self.ops[number as usize]
    }

    /// All operations, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter().map(|shared| &*shared.op)
    }

    /// The number of `op`, and whether it is new.
    pub fn add(&mut self, op: Op) -> (u32, bool) {
        let mut hasher = FxHasher::default();
        op.hash(&mut hasher);
        let hash = hasher.finish();
        match self.ops.get_index_of(&Sought { hash, op: &op }) {
            Some(number) => (number as u32, false),
            None => self.add_shared(Shared { hash, op: Arc::new(op) }),
        }
    }

    /// The number of an operation of another table, and whether it is new.
    pub fn add_shared(&mut self, shared: Shared) -> (u32, bool) {
        let (number, is_new) = self.ops.insert_full(shared);
        (number as u32, is_new)
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.op, &other.op) || self.hash == other.hash && self.op == other.op
    }
}

impl Eq for Shared {}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Shared> for Sought<'_> {
    fn equivalent(&self, shared: &Shared) -> bool {
        self.hash == shared.hash && *self.op == *shared.op
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Binary, Unary};
    use dlc_kernel::{BinaryOp, UnaryOp};

    #[test]
    fn an_operation_has_one_number_wherever_it_comes_from() {
        let (exp, log) = (Unary(UnaryOp::Exp), Unary(UnaryOp::Log));
        let mut one = Table::default();
        assert_eq!([one.add(exp.into()), one.add(log.into())], [(0, true), (1, true)]);
        assert_eq!(one.add(Unary(UnaryOp::Exp).into()), (0, false));
        let mut other = Table::with_capacity(one.len());
        assert_eq!(other.add_shared(one.shared(1).clone()), (0, true));
        assert_eq!(other.add(Unary(UnaryOp::Log).into()), (0, false));
        assert_eq!(other.add_shared(one.shared(1).clone()), (0, false));
        assert_eq!(other.add(Binary(BinaryOp::Add).into()), (1, true));
        assert_eq!(other.get(0), one.get(1));
    }
}
