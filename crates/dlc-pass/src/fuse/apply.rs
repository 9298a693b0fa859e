//! Rebuilds a graph with its clusters as fused operations.

use super::apart::{Apart, Fusion};
use super::facts::{Facts, Unit};
use crate::class::{Class, class};
use crate::reads::Mode;
use crate::rewrite::schedule;
use dlc_graph::op::{Fused, FusedKind, Op, Part, Source, SourceClass};
use dlc_graph::{Graph, Operands, Role, Value};
use dlc_kernel::Scalar;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The graph with every cluster as one operation, after `refusals`.
pub fn apply(facts: &Facts<'_>, refusals: Vec<Apart>) -> Fusion {
    let graph = facts.graph;
    let looked_up = looked_up(facts);
    let mut copier = Copier::new(&looked_up);
    for (value, _) in graph.sources() {
        copier.push(graph, value);
    }
    let made = |v: &Value| facts.is_active(*v) && !matches!(graph.op(*v), Op::Source(_));
    let place = |v: Value| facts.unit_of(v).map_or(v, |u| *u.members.last().expect("not empty"));
    let before = |v: Value| facts.reads(v).iter().map(|r| r.value).filter(made);
    for value in schedule(graph.values().filter(made), place, before) {
        match facts.unit_of(value).filter(|unit| unit.members.len() > 1) {
            None => copier.ensure(graph, value, |_, v| panic!("{v} comes before its users")),
            Some(unit) => add_fused(facts, &mut copier, unit),
        }
    }
    for result in graph.results() {
        copier.graph.add_result(result.name.clone(), copier.image[&result.value], result.role);
    }
    let Copier { graph: fused, image, .. } = copier;
    let mut fusion = Fusion { graph: fused, homes: FxHashMap::default(), refusals };
    for (value, made) in image {
        fusion.settle(value, made);
    }
    fusion
}

/// A cluster as a fused operation: name its inputs in the order in which they are first read.
fn add_fused(facts: &Facts<'_>, outer: &mut Copier<'_>, unit: &Unit) {
    let (old, mut inputs) = (facts.graph, Vec::new());
    let mut body = Copier::new(outer.looked_up);
    for &member in &unit.members {
        body.ensure(old, member, |body, v| {
            inputs.push(v);
            add_input(body, inputs.len() - 1, old, v)
        });
    }
    let results: Vec<Value> =
        unit.members.iter().copied().filter(|&m| facts.is_result(&unit.members, m)).collect();
    for (k, result) in results.iter().enumerate() {
        body.graph.add_result(k.to_string(), body.image[result], Role::Output);
    }
    let operands: Operands = inputs.iter().map(|v| outer.image[v]).collect();
    let parts =
        push_fused(&mut outer.graph, unit.kind, body.graph, &operands, old.origin(unit.seed));
    // Members that only others of the cluster read are nowhere else.
    outer.image.extend(unit.members.iter().map(|&m| (m, parts[0])));
    outer.image.extend(results.into_iter().zip(parts));
}

/// Adds a fused operation; gives the values of its results.
pub fn push_fused(
    graph: &mut Graph,
    kind: FusedKind,
    body: Graph,
    operands: &[Value],
    origin: &dlc_kernel::Origin,
) -> Vec<Value> {
    let count = body.results().len();
    let fused = graph.push(Fused { kind, body: Arc::new(body) }, operands, origin.clone());
    match count {
        1 => vec![fused],
        _ => (0..count as u32).map(|k| graph.push(Part(k), &[fused], origin.clone())).collect(),
    }
}

/// The source of a fused body that stands for operand `position`.
pub fn add_input(body: &mut Graph, position: usize, old: &Graph, value: Value) -> Value {
    let ty = old.ty(value).clone();
    let default = Scalar::new(ty.dtype, 0.0);
    let name = position.to_string().into();
    body.push(Source { name, class: SourceClass::Input, ty, default }, &[], None)
}

/// By value: whether data decides where some kernel reads it.
fn looked_up(facts: &Facts<'_>) -> Vec<bool> {
    let mut found = vec![false; facts.graph.len()];
    for value in facts.graph.values().filter(|&v| facts.class(v) == Class::Point) {
        for read in facts.reads(value).iter().filter(|r| r.mode == Mode::Lookup) {
            found[read.value.0 as usize] = true;
        }
    }
    found
}

/// Copies values of one graph into another, and what they need before them.
struct Copier<'a> {
    graph: Graph,
    image: FxHashMap<Value, Value>,
    looked_up: &'a [bool],
}

impl<'a> Copier<'a> {
    fn new(looked_up: &'a [bool]) -> Copier<'a> {
        Copier { graph: Graph::default(), image: FxHashMap::default(), looked_up }
    }

    /// Whether a value is computed again wherever it is read: a free one, unless data decides where.
    fn is_copied(&self, old: &Graph, value: Value) -> bool {
        class(old, value) == Class::Free && !self.looked_up[value.0 as usize]
    }

    /// Copies `value` and the free values before it; `leaf` makes what is neither free nor copied.
    fn ensure(
        &mut self,
        old: &Graph,
        value: Value,
        mut leaf: impl FnMut(&mut Graph, Value) -> Value,
    ) {
        let mut pending = vec![value];
        while let Some(&top) = pending.last() {
            let operands = old.operands(top);
            let missing = operands.iter().copied().find(|v| !self.image.contains_key(v));
            match missing {
                _ if self.image.contains_key(&top) => {
                    pending.pop();
                }
                None => {
                    self.push(old, top);
                    pending.pop();
                }
                Some(operand) if self.is_copied(old, operand) => {
                    pending.push(operand);
                }
                Some(operand) => {
                    let made = leaf(&mut self.graph, operand);
                    self.image.insert(operand, made);
                }
            }
        }
    }

    fn push(&mut self, old: &Graph, value: Value) {
        let operands: Operands = old.operands(value).iter().map(|v| self.image[v]).collect();
        let made = self.graph.copy(old, value, &operands);
        self.image.insert(value, made);
    }
}
