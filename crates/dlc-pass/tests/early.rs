//! A graph in two parts computes what it does as a whole.

mod common;

use common::models::*;
use common::*;
use dlc_graph::op::{Op, SourceClass};
use dlc_graph::{Graph, Role};
use dlc_kernel::BinaryOp;
use dlc_pass::split_early;

/// Scores of `x` against what becomes of `source`, and how long both are: products of which one
/// needs no `x`.
fn graph() -> Graph {
    let mut g = Graph::new();
    let source = input(&mut g, "source", &[6, 4]);
    let x = input(&mut g, "x", &[6, 4]);
    let states = linear(&mut g, source, "encoder", 4);
    let states = softmax(&mut g, states);
    let h = linear(&mut g, x, "decoder", 4);
    let scaled = g.binary(BinaryOp::Mul, h, states, &None);
    let both = g.binary(BinaryOp::Add, scaled, source, &None);
    g.add_result("y", both, Role::Output);
    g
}

fn contractions(graph: &Graph) -> usize {
    graph.values().filter(|&v| matches!(graph.op(v), Op::Contract(_))).count()
}

#[test]
fn both_parts_are_the_whole() {
    let whole = graph();
    let parts = split_early(&whole, &["source"]);
    assert_eq!((contractions(&whole), contractions(&parts.first)), (2, 1));
    assert_eq!(contractions(&parts.second), 1, "what is early is not computed again");
    let inputs = |g: &Graph| {
        let inputs = g.sources().filter(|(_, s)| s.class == SourceClass::Input);
        inputs.map(|(_, s)| s.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(inputs(&parts.first), ["source"]);
    assert_eq!(inputs(&parts.second), ["source", "x", "early.0"]);
    let mut values = random_values(&whole, 3);
    let early = graph_results(&parts.first, &values);
    let expected = graph_results(&whole, &values);
    for (result, value) in parts.first.results().iter().zip(early) {
        values.insert(result.name.clone(), value);
    }
    assert_close(&graph_results(&parts.second, &values), &expected);
}

#[test]
fn nothing_is_shared_where_nothing_is_early() {
    let parts = split_early(&graph(), &[]);
    assert!(parts.first.results().is_empty());
    assert_eq!(contractions(&parts.second), 2);
}

/// A sum that grows from call to call, by what becomes of `source` and of `x`.
#[test]
fn states_and_their_updates_are_late() {
    let mut g = graph();
    let y = g.results()[0].value;
    let ty = g.ty(y).clone();
    let sum = source(&mut g, "sum", SourceClass::State, ty);
    let next = g.binary(BinaryOp::Add, sum, y, &None);
    g.add_result("next", next, Role::Output);
    g.add_result("sum", next, Role::Update);
    let parts = split_early(&g, &["source"]);
    assert!(parts.first.results().iter().all(|r| r.role == Role::Output));
    let roles: Vec<Role> = parts.second.results().iter().map(|r| r.role).collect();
    assert_eq!(roles, [Role::Output, Role::Output, Role::Update]);
    let mut values = random_values(&g, 5);
    let early = graph_results(&parts.first, &values);
    let expected = graph_results(&g, &values);
    for (result, value) in parts.first.results().iter().zip(early) {
        values.insert(result.name.clone(), value);
    }
    assert_close(&graph_results(&parts.second, &values), &expected);
}
