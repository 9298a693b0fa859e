//! The one way a pass makes its result: a forward walk that builds a new graph.
//!
//! Dead nodes are left behind, sources are kept in order (they are the signature of the graph), and
//! the new graph hash-conses, so common subexpressions merge by themselves.

use dlc_graph::op::{Op, Part};
use dlc_graph::{Graph, Operands, Value};
use dlc_kernel::Origin;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A node of the old graph whose operands are already values of the new one.
pub struct Node<'a> {
    /// The old graph.
    pub graph: &'a Graph,
    /// Its value in the old graph.
    pub old: Value,
    /// Its operation.
    pub op: &'a Op,
    /// What it reads, in the new graph.
    pub operands: Operands,
    /// Where it comes from.
    pub origin: &'a Origin,
}

/// Builds a new graph with `make(new, node)` for every live node of `old`, in order, and the same
/// results.
pub fn rebuild(old: &Graph, mut make: impl FnMut(&mut Graph, Node<'_>) -> Value) -> Graph {
    let live = old.live();
    let mut new = Graph::like(old);
    let mut image: Vec<Option<Value>> = vec![None; old.len()];
    for value in old.values() {
        let op = old.op(value);
        if !live[value.0 as usize] && !matches!(op, Op::Source(_)) {
            continue;
        }
        let operands = old.operands(value).iter().map(|&v| mapped(&image, v)).collect();
        let node = Node { graph: old, old: value, op, operands, origin: old.origin(value) };
        image[value.0 as usize] = Some(make(&mut new, node));
    }
    for result in old.results() {
        new.add_result(result.name.clone(), mapped(&image, result.value), result.role);
    }
    new
}

/// The node as it is.
pub fn copy(new: &mut Graph, node: &Node<'_>) -> Value {
    new.copy(node.graph, node.old, &node.operands)
}

/// Without dead nodes.
pub fn eliminate_dead_code(graph: &Graph) -> Graph {
    rebuild(graph, |new, node| copy(new, &node))
}

/// With the bodies of all fused operations in their place.
pub fn inline(graph: &Graph) -> Graph {
    let mut parts: FxHashMap<Value, Vec<Value>> = FxHashMap::default();
    rebuild(graph, |new, node| match node.op {
        Op::Fused(fused) => {
            let results = new.inline(&fused.body, &node.operands);
            parts.insert(node.old, results.clone());
            results[0]
        }
        Op::Part(Part(k)) => parts[&graph.operands(node.old)[0]][*k as usize],
        _ => copy(new, &node),
    })
}

/// An order of `values` in which each comes after those `before` it; otherwise as given. Values with
/// one `place` count as one, named by it, and come together.
///
/// # Panics
/// If there is none.
pub fn schedule<I: Iterator<Item = Value>>(
    values: impl Iterator<Item = Value>,
    place: impl Fn(Value) -> Value,
    before: impl Fn(Value) -> I,
) -> Vec<Value> {
    let mut waits: FxHashMap<Value, usize> = FxHashMap::default();
    let mut followers: FxHashMap<Value, Vec<Value>> = FxHashMap::default();
    for value in values {
        let user = place(value);
        let count = waits.entry(user).or_default();
        for earlier in before(value).map(&place).filter(|&earlier| earlier != user) {
            *count += 1;
            followers.entry(earlier).or_default().push(user);
        }
    }
    let ready = waits.iter().filter(|(_, n)| **n == 0).map(|(&v, _)| Reverse(v));
    let mut ready: BinaryHeap<Reverse<Value>> = ready.collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(value)) = ready.pop() {
        order.push(value);
        for follower in followers.remove(&value).unwrap_or_default() {
            let left = waits.get_mut(&follower).expect("it waits");
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse(follower));
            }
        }
    }
    assert_eq!(order.len(), waits.len(), "what is to come together depends on itself");
    order
}

fn mapped(image: &[Option<Value>], value: Value) -> Value {
    image[value.0 as usize].expect("operands come before users")
}
