//! What fusion asks about a graph, computed once, and the clusters decided so far.

use crate::class::{Class, class};
use crate::reads::Read;
use crate::stored::stored;
use dlc_graph::op::{FusedKind, Op};
use dlc_graph::{Graph, Role, Value};
use smallvec::SmallVec;

/// How many operations a search for a cycle visits before it gives up and assumes one.
const MAX_VISITS: usize = 20_000;

/// Operations that become one fused operation.
pub struct Unit {
    /// The form.
    pub kind: FusedKind,
    /// What it grew from.
    pub seed: Value,
    /// Ascending.
    pub members: Vec<Value>,
}

/// The graph as fusion sees it: free values are looked through.
pub struct Facts<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// The clusters so far.
    pub units: Vec<Unit>,
    classes: Vec<Class>,
    active: Vec<bool>,
    reads: Vec<Vec<Read>>,
    users: Vec<SmallVec<[Value; 4]>>,
    returned: Vec<bool>,
    early: Vec<bool>,
    /// Whether it is a state that has been overwritten, or depends on one.
    written: Vec<bool>,
    unit_of: Vec<Option<u32>>,
    /// By value: itself, if no cluster has members both up to it and after it; else a later value, on
    /// the way to the next of which that holds.
    bridged: Vec<u32>,
    /// The search that visited a value last.
    visited: Vec<u32>,
    search: u32,
}

impl<'g> Facts<'g> {
    /// The facts of `graph`.
    pub fn new(graph: &'g Graph) -> Facts<'g> {
        let n = graph.len();
        let (active, reads) = stored(graph);
        let mut facts = Facts {
            graph,
            units: Vec::new(),
            classes: graph.values().map(|v| class(graph, v)).collect(),
            reads,
            users: vec![SmallVec::new(); n],
            returned: vec![false; n],
            early: vec![false; n],
            written: vec![false; n],
            unit_of: vec![None; n],
            bridged: (0..n as u32).collect(),
            visited: vec![0; n],
            search: 0,
            active,
        };
        facts.connect();
        facts
    }

    fn connect(&mut self) {
        for value in self.graph.values().filter(|&v| self.active[at(v)]) {
            let found = std::mem::take(&mut self.reads[at(value)]);
            for read in &found {
                let users = &mut self.users[at(read.value)];
                if users.last() != Some(&value) {
                    users.push(value);
                }
                // Also a free value in memory stands for what it reads.
                self.returned[at(read.value)] |= super::needs_memory(read.mode);
            }
            self.reads[at(value)] = found;
        }
        for result in self.graph.results() {
            self.returned[at(result.value)] = true;
            self.early[at(result.value)] |= result.role != Role::Update;
        }
        for value in self.graph.values().rev() {
            if self.early[at(value)] {
                for k in 0..self.reads[at(value)].len() {
                    let read = self.reads[at(value)][k].value;
                    self.early[at(read)] = true;
                }
            }
        }
        for value in self.graph.values() {
            let overwrites = matches!(self.graph.op(value), Op::Overwrite(o) if o.in_place);
            let mut reads = self.reads[at(value)].iter();
            self.written[at(value)] = overwrites || reads.any(|r| self.written[at(r.value)]);
        }
    }

    /// Whether `value` is computed by a kernel, alone or with others.
    pub fn is_active(&self, value: Value) -> bool {
        self.active[at(value)]
    }

    /// The class of `value`.
    pub fn class(&self, value: Value) -> Class {
        self.classes[at(value)]
    }

    /// What `value` reads, over its own axes.
    pub fn reads(&self, value: Value) -> &[Read] {
        &self.reads[at(value)]
    }

    /// Who reads `value`, ascending.
    pub fn users(&self, value: Value) -> &[Value] {
        &self.users[at(value)]
    }

    /// Whether `value` is a result of the graph, or must be in memory for another reason.
    pub fn is_returned(&self, value: Value) -> bool {
        self.returned[at(value)]
    }

    /// Whether `value` only serves the next parameters and state, or depends on a state that has been
    /// overwritten.
    pub fn is_late(&self, value: Value) -> bool {
        !self.early[at(value)] || self.written[at(value)]
    }

    /// Whether a kernel of `members` has to store `member`.
    pub fn is_result(&self, members: &[Value], member: Value) -> bool {
        let outside = |u: &Value| members.binary_search(u).is_err();
        self.is_returned(member) || self.users(member).iter().any(outside)
    }

    /// The cluster that `value` belongs to.
    pub fn unit_of(&self, value: Value) -> Option<&Unit> {
        self.unit_of[at(value)].map(|u| &self.units[u as usize])
    }

    /// Moves all members of cluster `from` to cluster `into`.
    pub fn merge_units(&mut self, into: usize, from: usize) {
        let moved = std::mem::take(&mut self.units[from].members);
        moved.iter().for_each(|&m| self.unit_of[at(m)] = Some(into as u32));
        self.units[into].members.extend(moved);
        self.units[into].members.sort();
        self.bridge(into);
    }

    /// Decides on a cluster.
    pub fn add_unit(&mut self, kind: FusedKind, seed: Value, members: Vec<Value>) {
        let id = self.units.len() as u32;
        members.iter().for_each(|&m| self.unit_of[at(m)] = Some(id));
        self.units.push(Unit { kind, seed, members });
        self.bridge(id as usize);
    }

    /// Notes which values lie between members of a cluster.
    fn bridge(&mut self, unit: usize) {
        let members = &self.units[unit].members;
        let (first, last) = (members[0], members[members.len() - 1]);
        let mut value = self.horizon(first);
        while value < last {
            self.bridged[at(value)] = value.0 + 1;
            value = self.horizon(Value(value.0 + 1));
        }
    }

    /// The last value that values up to `value` can depend on in the graph of clusters.
    fn horizon(&mut self, mut value: Value) -> Value {
        while self.bridged[at(value)] != value.0 {
            let next = self.bridged[at(value)];
            self.bridged[at(value)] = self.bridged[next as usize];
            value = Value(next);
        }
        value
    }

    /// Whether the graph of clusters would have a cycle if `a` and `b` (both ascending) were one: a
    /// path from one to the other that leaves both.
    pub fn closes_a_cycle(&mut self, a: &[Value], b: &[Value]) -> bool {
        let inside = |v: Value| a.binary_search(&v).is_ok() || b.binary_search(&v).is_ok();
        let outside = |from: &[Value]| -> Vec<Value> {
            let read = from.iter().flat_map(|&m| self.reads(m)).map(|r| r.value);
            read.filter(|&v| !inside(v)).collect()
        };
        let (from_a, from_b) = (outside(a), outside(b));
        self.reaches(from_b, a[0], |v| a.binary_search(&v).is_ok())
            || self.reaches(from_a, b[0], |v| b.binary_search(&v).is_ok())
    }

    /// Whether `is_target` holds of something that `starts` depend on, in the graph of clusters.
    /// Targets are not before `first`.
    fn reaches(
        &mut self,
        starts: Vec<Value>,
        first: Value,
        is_target: impl Fn(Value) -> bool,
    ) -> bool {
        self.search += 1;
        let mut pending = starts;
        let mut visits = 0;
        while let Some(value) = pending.pop() {
            if is_target(value) {
                return true;
            }
            if self.horizon(value) < first
                || std::mem::replace(&mut self.visited[at(value)], self.search) == self.search
            {
                continue;
            }
            visits += 1;
            if visits > MAX_VISITS {
                return true;
            }
            match self.unit_of[at(value)].map(|u| &self.units[u as usize].members) {
                None => pending.extend(self.reads[at(value)].iter().map(|r| r.value)),
                Some(members) => {
                    for &member in members {
                        self.visited[at(member)] = self.search;
                        pending.extend(self.reads[at(member)].iter().map(|r| r.value));
                    }
                }
            }
        }
        false
    }
}

fn at(value: Value) -> usize {
    value.0 as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use dlc_graph::Type;
    use dlc_graph::op::{Source, SourceClass, Unary};
    use dlc_kernel::{DType, Scalar, UnaryOp};

    #[test]
    fn a_cycle_through_a_later_member_of_a_cluster_is_found() {
        let mut graph = Graph::new();
        let ty = Type { dtype: DType::F32, shape: [4i64.into()].into_iter().collect() };
        let (name, class) = ("x".into(), SourceClass::Input);
        let x = graph.push(
            Source { name, class, ty, default: Scalar::new(DType::F32, 0.0) },
            &[],
            None,
        );
        let mut unary = |op, x| graph.push(Unary(op), &[x], None);
        let early = unary(UnaryOp::Neg, x);
        let between = unary(UnaryOp::Exp, early);
        let target = unary(UnaryOp::Sqrt, x);
        let late = unary(UnaryOp::Exp, target);
        let user = unary(UnaryOp::Neg, between);
        for value in [late, user] {
            graph.add_result(value.to_string(), value, Role::Output);
        }
        let mut facts = Facts::new(&graph);
        assert!(!facts.closes_a_cycle(&[target], &[user]));
        // `user` reads `between`, which reads `early`, which is one kernel with what reads `target`.
        facts.add_unit(FusedKind::Map, early, vec![early, late]);
        assert!(facts.closes_a_cycle(&[target], &[user]));
    }
}
