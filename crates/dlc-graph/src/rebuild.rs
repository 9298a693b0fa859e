//! Rebuilding a graph in one forward walk.

use crate::op::Op;
use crate::{Graph, Operands, Value};

impl Graph {
    /// The graph without what no result needs; sources stay.
    pub fn prune(&self) -> Graph {
        let live = self.live();
        let mut pruned = Rebuild::new(self);
        for value in self.values() {
            if live[value.0 as usize] || matches!(self.op(value), Op::Source(_)) {
                pruned.copy(self, value);
            }
        }
        pruned.finish(self)
    }
}

/// A graph in the making, and what became of the old one's values.
pub(crate) struct Rebuild {
    pub graph: Graph,
    new: Vec<Option<Value>>,
}

impl Rebuild {
    pub fn new(old: &Graph) -> Rebuild {
        Rebuild { graph: Graph::like(old), new: vec![None; old.len()] }
    }

    /// What became of an old value.
    pub fn at(&self, old: Value) -> Value {
        self.new[old.0 as usize].expect("operands are rebuilt before their users")
    }

    /// What became of the operands of an old value.
    pub fn operands(&self, old: &Graph, value: Value) -> Operands {
        old.operands(value).iter().map(|&v| self.at(v)).collect()
    }

    /// The old value is now `new`.
    pub fn set(&mut self, old: Value, new: Value) {
        self.new[old.0 as usize] = Some(new);
    }

    /// Copies the old value's operation.
    pub fn copy(&mut self, old: &Graph, value: Value) {
        let operands = self.operands(old, value);
        let new = self.graph.copy(old, value, &operands);
        self.set(value, new);
    }

    /// Puts `op` in the place of the old value's operation.
    pub fn replace(&mut self, old: &Graph, value: Value, op: Op) {
        let operands = self.operands(old, value);
        let new = self.graph.push(op, &operands, old.origin(value).clone());
        self.set(value, new);
    }

    /// The new graph, with the old one's results.
    pub fn finish(mut self, old: &Graph) -> Graph {
        for result in old.results() {
            let value = self.at(result.value);
            self.graph.add_result(result.name.clone(), value, result.role);
        }
        self.graph
    }
}
