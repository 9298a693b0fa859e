//! What `split-loops` takes out of loops, and what it leaves in them.

mod common;

use common::models::{linear, mean};
use common::*;
use dlc_graph::op::{Grad, Op, Scan};
use dlc_graph::{Carried, Graph, Loop, Role, Type, Value};
use dlc_kernel::{BinaryOp, DType, UnaryOp};
use dlc_pass::split_loops;

const STEPS: i64 = 5;
const ROWS: i64 = 2;
const FEATURES: i64 = 3;
const WIDTH: i64 = 4;

/// An LSTM whose step multiplies both the input and the state with their weights.
fn lstm() -> Graph {
    let mut g = Graph::new();
    let xs = input(&mut g, "x", &[STEPS, ROWS, FEATURES]);
    let x = g.hole(Type::known(DType::F32, &[ROWS, FEATURES]), &None);
    let [h, c] = [(); 2].map(|()| g.hole(Type::known(DType::F32, &[ROWS, WIDTH]), &None));
    let [h0, c0] = ["h0", "c0"].map(|name| input(&mut g, name, &[ROWS, WIDTH]));
    let from_input = linear(&mut g, x, "ih", 4 * WIDTH);
    let from_state = linear(&mut g, h, "hh", 4 * WIDTH);
    let gates = g.binary(BinaryOp::Add, from_input, from_state, &None);
    let mut gate = |k: i64, op| {
        let part = g.slice(gates, 1, (k * WIDTH).into(), WIDTH.into(), &None);
        g.unary(op, part, &None)
    };
    let [i, f, o] = [0, 1, 2].map(|k| gate(k, UnaryOp::Sigmoid));
    let z = gate(3, UnaryOp::Tanh);
    let kept = g.binary(BinaryOp::Mul, f, c, &None);
    let added = g.binary(BinaryOp::Mul, i, z, &None);
    let next_c = g.binary(BinaryOp::Add, kept, added, &None);
    let bounded = g.unary(UnaryOp::Tanh, next_c, &None);
    let next_h = g.binary(BinaryOp::Mul, o, bounded, &None);
    let looped = Loop {
        steps: STEPS.into(),
        carries: vec![
            Carried { hole: h, first: h0, next: next_h },
            Carried { hole: c, first: c0, next: next_c },
        ],
        sequences: vec![(x, xs)],
        shared: Vec::new(),
        index: None,
        yields: vec![next_h],
    };
    let made = g.add_scan(&looped, &None).expect("the loop fits together");
    g.add_result("y", made[2], Role::Output);
    g
}

/// How many live contractions there are outside of the loops of a graph, and within each loop.
fn contractions(graph: &Graph) -> (usize, Vec<usize>) {
    let live = graph.live();
    let ops = || graph.values().filter(|v: &Value| live[v.0 as usize]).map(|v| graph.op(v));
    let outside = ops().filter(|op| matches!(op, Op::Contract(_))).count();
    let bodies = ops().filter_map(|op| match op {
        Op::Scan(Scan { body, .. }) => Some(contractions(body).0),
        _ => None,
    });
    (outside, bodies.collect())
}

#[test]
fn the_product_with_the_input_leaves_the_loop() {
    let graph = lstm();
    assert_eq!(contractions(&graph), (0, vec![2]));
    let split = split_loops(&graph);
    assert_eq!(contractions(&split), (1, vec![1]));
    let values = random_values(&graph, 3);
    assert_close(&graph_results(&graph, &values), &graph_results(&split, &values));
}

/// The gradients of both weights, and of the input, are one contraction each; only that of the
/// state is in the loop backwards.
#[test]
fn gradients_of_weights_leave_the_loop() {
    let mut graph = lstm();
    let y = graph.results()[0].value;
    let loss = mean(&mut graph, y, &[0, 1, 2]);
    for name in ["x", "ih.weight", "hh.weight"] {
        let source = graph.source(name).expect("it is there");
        let gradient = graph.push(Grad, &[loss, source], None);
        graph.add_result(name, gradient, Role::Output);
    }
    let whole = dlc_graph::differentiate(&graph);
    let split = split_loops(&whole);
    let (outside, inside) = contractions(&split);
    assert_eq!((outside, inside), (4, vec![1, 1]));
    let values = random_values(&whole, 3);
    assert_close(&graph_results(&whole, &values), &graph_results(&split, &values));
}
