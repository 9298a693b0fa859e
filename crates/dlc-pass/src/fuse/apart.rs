//! Why kernels that touch are apart: refusals, noted as they happen and followed from pass to pass.

use super::{fuse, merge};
use crate::class::{Class, class};
use crate::reason::Reason;
use dlc_graph::op::{FusedKind, Op};
use dlc_graph::{Graph, Value};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Two operations that did not become one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The one that was growing.
    pub kernel: Value,
    /// The one that stayed outside.
    pub neighbour: Value,
    /// Why.
    pub reason: Reason,
}

/// A graph with its clusters as fused operations.
pub struct Fusion {
    /// The new graph.
    pub graph: Graph,
    /// By operation of the old graph: the one of the new graph that computes it.
    pub homes: FxHashMap<Value, Value>,
    /// What was refused, in terms of the old graph.
    pub refusals: Vec<Apart>,
}

impl Fusion {
    /// Notes that `value` of the old graph is computed by `made` of the new one.
    pub fn settle(&mut self, value: Value, made: Value) {
        self.homes.insert(value, whole(&self.graph, made));
    }
}

/// All passes of fusion over a simplified graph: what they make of it, and why its operations are
/// apart. Reasons that say more than what a kernel is come alone.
pub fn explain(graph: &Graph) -> (Graph, Vec<Apart>) {
    let passes: [fn(&Graph) -> Fusion; 5] = [
        |graph| fuse(graph, FusedKind::Contract),
        |graph| fuse(graph, FusedKind::Row),
        |graph| fuse(graph, FusedKind::Map),
        merge::merge_preparations,
        merge::merge_updates,
    ];
    let (mut graph, mut apart) = (graph.clone(), Vec::new());
    for pass in passes {
        let fusion = pass(&graph);
        apart.extend(fusion.refusals);
        let home = |value: Value| fusion.homes.get(&whole(&graph, value)).copied();
        apart = apart.into_iter().filter_map(|a| follow(a, home)).collect();
        graph = fusion.graph;
    }
    apart.extend(graph.values().flat_map(|value| alone(&graph, value)));
    (graph, distinct(&apart))
}

/// An operation that has a kernel of its own begins no cluster, so nobody has refused it what it reads,
/// through views or not.
fn alone(graph: &Graph, kernel: Value) -> Vec<Apart> {
    let is_fused = matches!(graph.op(kernel), Op::Fused(_) | Op::Part(_));
    if is_fused || class(graph, kernel) != Class::Whole {
        return Vec::new();
    }
    let (mut found, mut open) = (Vec::new(), graph.operands(kernel).to_vec());
    while let Some(operand) = open.pop() {
        let neighbour = whole(graph, operand);
        found.push(Apart { kernel, neighbour, reason: Reason::Alone });
        if class(graph, operand) == Class::Free {
            open.extend(graph.operands(operand));
        }
    }
    found
}

/// The same pair in a new graph, unless it has become one or is gone.
fn follow(apart: Apart, home: impl Fn(Value) -> Option<Value>) -> Option<Apart> {
    let (kernel, neighbour) = (home(apart.kernel)?, home(apart.neighbour)?);
    (kernel != neighbour).then_some(Apart { kernel, neighbour, ..apart })
}

/// Each reason of a pair once, and of several only those that are not general.
fn distinct(apart: &[Apart]) -> Vec<Apart> {
    let mut reasons: BTreeMap<(Value, Value), BTreeSet<Reason>> = BTreeMap::new();
    for a in apart {
        let pair = (a.kernel.min(a.neighbour), a.kernel.max(a.neighbour));
        reasons.entry(pair).or_default().insert(a.reason);
    }
    let mut found = Vec::new();
    for ((kernel, neighbour), reasons) in reasons {
        let telling = reasons.iter().any(|r| !r.is_general());
        let kept = reasons.into_iter().filter(|r| !telling || !r.is_general());
        let kept = kept.take(if telling { usize::MAX } else { 1 });
        found.extend(kept.map(|reason| Apart { kernel, neighbour, reason }));
    }
    found
}

/// The operation that `value` is a result of.
fn whole(graph: &Graph, value: Value) -> Value {
    match graph.op(value) {
        Op::Part(_) => graph.operands(value)[0],
        _ => value,
    }
}
