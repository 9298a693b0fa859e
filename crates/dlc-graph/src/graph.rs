//! The graph: append-only, hash-consed, well-typed by construction.

use crate::op::{Op, Source};
use crate::table::Table;
use crate::{ShapeError, Type};
use dlc_kernel::Origin;
use indexmap::IndexSet;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHasher};
use smallvec::SmallVec;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

/// A value of a [`Graph`], printed `%3`. Operands have smaller numbers than their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// The values an operation reads, in order.
pub type Operands = SmallVec<[Value; 3]>;

/// What becomes of a result of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Handed to the caller under its name.
    Output,
    /// The next value of the parameter or state of that name.
    Update,
    /// Must be finite, or the call fails and updates nothing. Loss and gradients are checked;
    /// these results are the cut between gradients and optimizer.
    Check,
}

/// A named result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Unique within its role.
    pub name: String,
    /// What is returned.
    pub value: Value,
    /// What for.
    pub role: Role,
}

/// The most operations a graph may have when it is built from text.
pub const MAX_NODES: usize = 1_000_000;

/// Operations and types are large and repeat, so nodes name them by number.
#[derive(Clone, Debug)]
struct Node {
    op: u32,
    ty: u32,
    origin: Origin,
}

const _: () = assert!(size_of::<Node>() == 16);

/// The port of an edge: which operand of its target the source is.
type Port = u32;

/// A dataflow graph of tensors. See the [crate] page for what it means.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: DiGraph<Node, Port>,
    ops: Table,
    types: IndexSet<Type, FxBuildHasher>,
    /// Values by the hash of their operation's number and operands.
    known: FxHashMap<u64, SmallVec<[Value; 1]>>,
    sources: FxHashMap<String, Value>,
    results: Vec<Outcome>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// An empty graph with room for what `other` holds.
    pub fn like(other: &Graph) -> Graph {
        Graph {
            nodes: DiGraph::with_capacity(other.nodes.node_count(), other.nodes.edge_count()),
            ops: Table::with_capacity(other.ops.len()),
            types: IndexSet::with_capacity_and_hasher(other.types.len(), FxBuildHasher),
            known: FxHashMap::with_capacity_and_hasher(other.len(), FxBuildHasher),
            ..Graph::default()
        }
    }

    /// Adds an operation, or finds the equal one. Refuses what has no type.
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        operands: &[Value],
        origin: Origin,
    ) -> Result<Value, ShapeError> {
        if self.len() >= MAX_NODES {
            return Err(ShapeError::new(format!("the graph exceeds {MAX_NODES} operations")));
        }
        let op = self.ops.add(op.into());
        self.insert(op, operands, origin)
    }

    /// As [`Graph::add`], for passes and rules, whose operations always have a type. The limit on
    /// the number of operations is not theirs to keep.
    ///
    /// # Panics
    /// If the operation is refused.
    #[track_caller]
    pub fn push(&mut self, op: impl Into<Op>, operands: &[Value], origin: Origin) -> Value {
        let op = self.ops.add(op.into());
        well_typed(self.insert(op, operands, origin))
    }

    /// As [`Graph::push`], of the operation of a value of another graph.
    ///
    /// # Panics
    /// If the operation is refused.
    #[track_caller]
    pub fn copy(&mut self, from: &Graph, value: Value, operands: &[Value]) -> Value {
        let node = from.node(value);
        let added = self.ops.add_shared(from.ops.shared(node.op).clone());
        well_typed(self.insert(added, operands, node.origin.clone()))
    }

    /// Adds the operation of that number, which may be new. If it is refused, its number stays.
    fn insert(
        &mut self,
        (op, is_new): (u32, bool),
        operands: &[Value],
        origin: Origin,
    ) -> Result<Value, ShapeError> {
        let hash = hash_of(op, operands);
        if !is_new && let Some(value) = self.find(hash, op, operands) {
            return Ok(value);
        }
        let ty = self.infer(self.ops.get(op), operands)?;
        let value = Value(self.len() as u32);
        if let Op::Source(source) = self.ops.get(op) {
            claim(&mut self.sources, source, value)?;
        }
        let ty = self.types.insert_full(ty).0 as u32;
        let index = self.nodes.add_node(Node { op, ty, origin });
        for (port, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(NodeIndex::new(operand.0 as usize), index, port as Port);
        }
        self.known.entry(hash).or_default().push(value);
        Ok(value)
    }

    /// The type `op` would have on these operands.
    pub fn infer(&self, op: &Op, operands: &[Value]) -> Result<Type, ShapeError> {
        let ty = match op {
            // Rules see types alone, and an operation with parts has several.
            Op::Part(part) => self.part_of(operands, part.0)?,
            _ => {
                let types: SmallVec<[&Type; 4]> = operands.iter().map(|&v| self.ty(v)).collect();
                op.rules().shape(&types)?
            }
        };
        match ty.broken_limit() {
            Some(limit) => {
                let name = op.rules().text().name;
                Err(ShapeError::new(format!("the result of `{name}`: {limit}")))
            }
            None => Ok(ty),
        }
    }

    fn part_of(&self, operands: &[Value], part: u32) -> Result<Type, ShapeError> {
        let ty = operands.first().and_then(|&fused| self.part_type(fused, part));
        ty.ok_or_else(|| ShapeError::new(format!("there is no part {part} of this operation")))
    }

    /// Names a result. Results keep their order.
    pub fn add_result(&mut self, name: impl Into<String>, value: Value, role: Role) {
        self.results.push(Outcome { name: name.into(), value, role });
    }

    /// The named results, in order.
    pub fn results(&self) -> &[Outcome] {
        &self.results
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, operands before users.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = Value> + use<> {
        (0..self.len() as u32).map(Value)
    }

    /// The operation that makes `value`.
    pub fn op(&self, value: Value) -> &Op {
        self.ops.get(self.node(value).op)
    }

    /// The type of `value`. An operation with several results has the type of the first, and
    /// is only read through [`Part`](crate::op::Part).
    pub fn ty(&self, value: Value) -> &Type {
        &self.types[self.node(value).ty as usize]
    }

    /// Where `value` comes from.
    pub fn origin(&self, value: Value) -> &Origin {
        &self.node(value).origin
    }

    /// What the operation of `value` reads, in order.
    pub fn operands(&self, value: Value) -> Operands {
        let edges = self.nodes.edges_directed(index(value), Direction::Incoming);
        let mut operands = Operands::new();
        for edge in edges {
            // petgraph lists edges in reverse order of insertion, so the first has the last port.
            let port = *edge.weight() as usize;
            if operands.is_empty() {
                operands.resize(port + 1, Value(u32::MAX));
            }
            operands[port] = Value(edge.source().index() as u32);
        }
        operands
    }

    /// Who reads `value`; ascending, one entry for each reading operand.
    pub fn users(&self, value: Value) -> SmallVec<[Value; 4]> {
        let edges = self.nodes.edges_directed(index(value), Direction::Outgoing);
        let mut users: SmallVec<[Value; 4]> =
            edges.map(|e| Value(e.target().index() as u32)).collect();
        users.sort();
        users
    }

    /// Every operation once, with its attributes, however often it is used; also those that were
    /// refused.
    pub fn distinct_ops(&self) -> impl Iterator<Item = &Op> {
        self.ops.iter()
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<Value> {
        self.sources.get(name).copied()
    }

    /// All sources, in order of appearance.
    pub fn sources(&self) -> impl Iterator<Item = (Value, &Source)> {
        self.values().filter_map(|v| match self.op(v) {
            Op::Source(source) => Some((v, source)),
            _ => None,
        })
    }

    /// Which values some result depends on.
    pub fn live(&self) -> Vec<bool> {
        self.live_with(&[])
    }

    /// Which values some result or one of `kept` depends on, those included.
    pub fn live_with(&self, kept: &[Value]) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        kept.iter().for_each(|v| live[v.0 as usize] = true);
        for result in &self.results {
            live[result.value.0 as usize] = true;
        }
        for i in (0..self.len()).rev() {
            if live[i] {
                for operand in self.operands(Value(i as u32)) {
                    live[operand.0 as usize] = true;
                }
            }
        }
        live
    }

    /// The type of part `part` of a fused operation or a scan.
    pub fn part_type(&self, fused: Value, part: u32) -> Option<Type> {
        match self.op(fused) {
            Op::Fused(f) => f.body.results().get(part as usize).map(|r| f.body.ty(r.value).clone()),
            Op::Scan(scan) => scan.part_type(part),
            _ => None,
        }
    }

    fn node(&self, value: Value) -> &Node {
        &self.nodes[index(value)]
    }

    fn find(&self, hash: u64, op: u32, operands: &[Value]) -> Option<Value> {
        let same = |v: &Value| self.node(*v).op == op && self.operands(*v).as_slice() == operands;
        self.known.get(&hash)?.iter().copied().find(same)
    }
}

#[track_caller]
fn well_typed(added: Result<Value, ShapeError>) -> Value {
    match added {
        Ok(value) => value,
        Err(error) => panic!("a pass built an ill-typed operation: {error}"),
    }
}

fn claim(
    sources: &mut FxHashMap<String, Value>,
    source: &Source,
    value: Value,
) -> Result<(), ShapeError> {
    match sources.entry(source.name.to_string()) {
        Entry::Occupied(taken) => Err(ShapeError::new(format!(
            "`{}` is already the name of another input, parameter or state",
            taken.key()
        ))),
        Entry::Vacant(free) => {
            free.insert(value);
            Ok(())
        }
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        self.len() == other.len()
            && self.results == other.results
            && self
                .values()
                .all(|v| self.op(v) == other.op(v) && self.operands(v) == other.operands(v))
    }
}

impl Eq for Graph {}

impl Hash for Graph {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for v in self.values() {
            self.op(v).hash(state);
            self.operands(v).hash(state);
        }
        self.results.hash(state);
    }
}

fn index(value: Value) -> NodeIndex {
    NodeIndex::new(value.0 as usize)
}

fn hash_of(op: u32, operands: &[Value]) -> u64 {
    let mut hasher = FxHasher::default();
    op.hash(&mut hasher);
    operands.hash(&mut hasher);
    hasher.finish()
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{}", self.0)
    }
}
