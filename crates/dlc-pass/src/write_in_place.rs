//! States that are changed in part only: the part is written over the state itself.
//!
//! Whatever reads the new value then runs after the first write, where nothing may fail any more. So
//! a state is overwritten in place if nobody reads its old value otherwise, and no check and no index
//! that is looked up depends on its new one; else its next value is a copy.

use crate::class::may_fail;
use crate::rewrite::{copy, rebuild};
use dlc_graph::op::{Op, Overwrite, Source, SourceClass};
use dlc_graph::{Graph, Role, Value};

/// Marks the overwrites that are made in place.
pub fn write_in_place(graph: &Graph) -> Graph {
    let in_place = in_place(graph);
    rebuild(graph, |new, node| match node.op {
        Op::Overwrite(overwrite) if in_place[node.old.0 as usize] => {
            let overwrite = Overwrite { in_place: true, ..overwrite.clone() };
            new.push(overwrite, &node.operands, node.origin.clone())
        }
        _ => copy(new, &node),
    })
}

/// By value: whether it is an overwrite that can be made in place.
fn in_place(graph: &Graph) -> Vec<bool> {
    let live = graph.live();
    let mut found: Vec<bool> = graph.values().map(|v| is_next(graph, &live, v)).collect();
    // One that is not makes those before it fail, if it depends on them.
    loop {
        let guarded = before_failures(graph, &found);
        let refused = |v: &Value| found[v.0 as usize] && guarded[v.0 as usize];
        let Some(value) = graph.values().find(refused) else { return found };
        found[value.0 as usize] = false;
    }
}

/// Whether `value` is a state's next value, made of the old one, which nothing else reads.
fn is_next(graph: &Graph, live: &[bool], value: Value) -> bool {
    let Op::Overwrite(_) = graph.op(value) else { return false };
    let state = graph.operands(value)[0];
    let Op::Source(Source { class: SourceClass::State, name, .. }) = graph.op(state) else {
        return false;
    };
    let mut users = graph.users(state).into_iter().filter(|u| live[u.0 as usize]);
    let alone = users.next() == Some(value) && users.next().is_none();
    let mut results = graph.results().iter().filter(|r| r.value == state || r.value == value);
    let updates = results.clone().filter(|r| r.role == Role::Update).count();
    let own = results.any(|r| r.role == Role::Update && r.name == **name && r.value == value);
    live[value.0 as usize] && alone && own && updates == 1
}

/// By value: whether a check or a look-up depends on it. An overwrite in place looks up nothing.
fn before_failures(graph: &Graph, in_place: &[bool]) -> Vec<bool> {
    let mut before = vec![false; graph.len()];
    for result in graph.results() {
        before[result.value.0 as usize] |= result.role == Role::Check;
    }
    for value in graph.values().rev() {
        let fails = !in_place[value.0 as usize] && may_fail(graph.op(value));
        if before[value.0 as usize] || fails {
            graph.operands(value).iter().for_each(|v| before[v.0 as usize] = true);
        }
    }
    before
}
