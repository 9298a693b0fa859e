//! Kernels side by side: maps that do not depend on one another become segments of one kernel.

use super::apart::Fusion;
use super::apply::{add_input, push_fused};
use crate::class::{Class, class};
use crate::rewrite::schedule;
use dlc_graph::op::{FusedKind, Op, Part};
use dlc_graph::{Graph, Operands, Role, Value};
use indexmap::IndexMap;
use rustc_hash::FxHashMap;

/// All maps that make nothing but next parameters and state: one kernel for each level of
/// dependence (Adam has two: its step counts, then every parameter with its moments).
pub fn fuse_updates(graph: &Graph) -> Graph {
    merge_updates(graph).graph
}

/// All maps of parameters and state alone: scales and shifts of normalizations, for example.
pub fn fuse_preparations(graph: &Graph) -> Graph {
    merge_preparations(graph).graph
}

/// See [`fuse_updates`].
pub fn merge_updates(graph: &Graph) -> Fusion {
    let is_update = |v: Value| {
        let mut results = graph.results().iter().filter(|r| r.value == v).peekable();
        results.peek().is_some() && results.all(|r| r.role == Role::Update)
    };
    merge(graph, |v| {
        let parts = parts(graph, v);
        parts.iter().any(|&p| is_update(p))
            && parts.iter().all(|&p| is_update(p) || graph.results().iter().all(|r| r.value != p))
    })
}

/// See [`fuse_preparations`].
pub fn merge_preparations(graph: &Graph) -> Fusion {
    let mut prepared = vec![false; graph.len()];
    for value in graph.values() {
        let class = class(graph, value);
        let persists = match graph.op(value) {
            Op::Source(source) => source.class != dlc_graph::op::SourceClass::Input,
            _ => class == Class::Free,
        };
        let operands = graph.operands(value);
        prepared[value.0 as usize] = persists && operands.iter().all(|v| prepared[v.0 as usize]);
    }
    let updated = |v: Value| graph.results().iter().any(|r| r.value == v && r.role == Role::Update);
    merge(graph, |v| {
        !parts(graph, v).iter().any(|&p| updated(p))
            && graph.operands(v).iter().all(|o| prepared[o.0 as usize])
    })
}

/// Merges the maps that `selects` holds of, level by level.
fn merge(graph: &Graph, selects: impl Fn(Value) -> bool) -> Fusion {
    let groups = groups(graph, selects);
    let mut group_of: FxHashMap<Value, usize> = FxHashMap::default();
    for (k, group) in groups.iter().enumerate() {
        group_of.extend(group.iter().map(|&v| (v, k)));
    }
    let live = graph.live();
    let place = |v: Value| group_of.get(&v).map_or(v, |&k| *groups[k].last().expect("not empty"));
    let is_source = |v: Value| matches!(graph.op(v), Op::Source(_));
    let values = graph.values().filter(|&v| live[v.0 as usize] && !is_source(v));
    let order =
        schedule(values, place, |v| graph.operands(v).into_iter().filter(|&o| !is_source(o)));
    let mut merged = Merged { graph: Graph::new(), image: FxHashMap::default() };
    graph.sources().for_each(|(v, _)| merged.copy(graph, v));
    for value in order {
        match group_of.get(&value) {
            Some(&k) => merged.add_group(graph, &groups[k]),
            None => merged.copy(graph, value),
        }
    }
    for result in graph.results() {
        merged.graph.add_result(result.name.clone(), merged.image[&result.value], result.role);
    }
    let Merged { graph: fused, image } = merged;
    let mut fusion = Fusion { graph: fused, homes: FxHashMap::default(), refusals: Vec::new() };
    for (value, made) in image {
        fusion.settle(value, made);
    }
    fusion
}

/// The new graph.
struct Merged {
    graph: Graph,
    image: FxHashMap<Value, Value>,
}

impl Merged {
    fn copy(&mut self, old: &Graph, value: Value) {
        if self.image.contains_key(&value) {
            return;
        }
        let operands: Operands = old.operands(value).iter().map(|v| self.image[v]).collect();
        let made = self.graph.copy(old, value, &operands);
        self.image.insert(value, made);
    }

    /// One fused operation in place of `group`.
    fn add_group(&mut self, old: &Graph, group: &[Value]) {
        let (mut body, mut inputs) = (Graph::new(), IndexMap::<Value, Value>::new());
        let mut named: Vec<Value> = Vec::new();
        for &member in group {
            let operands = old.operands(member);
            let mut input = |v: &Value| {
                let position = inputs.len();
                *inputs.entry(*v).or_insert_with(|| add_input(&mut body, position, old, *v))
            };
            let operands: Operands = operands.iter().map(&mut input).collect();
            let results = match old.op(member) {
                Op::Fused(fused) => body.inline(&fused.body, &operands),
                _ => vec![body.copy(old, member, &operands)],
            };
            for (k, result) in results.iter().enumerate() {
                // Two members may turn out to compute one thing; each has a result of its own.
                body.add_result(named.len().to_string(), *result, Role::Output);
                named.push(part(old, member, k).unwrap_or(member));
            }
        }
        let operands: Operands = inputs.keys().map(|v| self.image[v]).collect();
        let origin = old.origin(group[0]);
        let made = push_fused(&mut self.graph, FusedKind::Map, body, &operands, origin);
        self.image.extend(group.iter().map(|&member| (member, made[0])));
        self.image.extend(named.into_iter().zip(made));
    }
}

/// The value that stands for result `k` of `value`, if anything reads it.
fn part(graph: &Graph, value: Value, k: usize) -> Option<Value> {
    match graph.op(value) {
        Op::Fused(fused) if fused.body.results().len() > 1 => {
            let is_part = |u: &Value| *graph.op(*u) == Op::Part(Part(k as u32));
            graph.users(value).into_iter().find(is_part)
        }
        _ => Some(value),
    }
}

/// The selected maps, by how many others are before them; groups of one are left out.
fn groups(graph: &Graph, selects: impl Fn(Value) -> bool) -> Vec<Vec<Value>> {
    let live = graph.live();
    let mut level = vec![0usize; graph.len()];
    let mut groups: Vec<Vec<Value>> = Vec::new();
    for value in graph.values().filter(|v| live[v.0 as usize]) {
        let before = graph.operands(value).iter().map(|v| level[v.0 as usize]).max().unwrap_or(0);
        level[value.0 as usize] = before;
        if is_map(graph, value) && selects(value) {
            level[value.0 as usize] = before + 1;
            groups.resize_with(groups.len().max(before + 1), Vec::new);
            groups[before].push(value);
        }
    }
    groups.retain(|g| g.len() > 1);
    groups
}

fn is_map(graph: &Graph, value: Value) -> bool {
    match graph.op(value) {
        Op::Fused(fused) => fused.kind == FusedKind::Map,
        _ => class(graph, value) == Class::Point,
    }
}

/// The values that stand for the results of `value`.
fn parts(graph: &Graph, value: Value) -> Vec<Value> {
    match graph.op(value) {
        Op::Fused(fused) if fused.body.results().len() > 1 => graph.users(value).to_vec(),
        _ => vec![value],
    }
}
