//! Lowered kernels, interpreted, against the graph's own evaluation, both in f64.

mod common;

use common::*;
use dlc_graph::op::{Op, Sample, SourceClass};
use dlc_graph::{Graph, Role, Type};
use dlc_kernel::{Access, BinaryOp, Class, Form, Index, OptLevel};

/// A graph that is one operation, and values for its operands.
fn graph_of(sample: &Sample) -> (Graph, Values) {
    let mut g = Graph::new();
    let mut numbers = Numbers(7);
    let mut values = Values::new();
    let mut operands = Vec::new();
    for (k, (ty, range)) in sample.operands.iter().zip(&sample.ranges).enumerate() {
        let name = format!("x{k}");
        values.insert(name.clone(), numbers.array(ty, *range));
        operands.push(source(&mut g, &name, SourceClass::Input, ty.clone()));
    }
    let result = g.push(sample.op.clone(), &operands, None);
    if let Op::Source(source) = &sample.op {
        values.insert(source.name.to_string(), numbers.array(&source.ty, (0.0, 1.0)));
    }
    g.add_result("y", result, Role::Output);
    (g, values)
}

#[test]
fn every_operation_lowers_to_what_it_means() {
    for sample in Op::samples() {
        let (graph, values) = graph_of(&sample);
        assert_lowers(&graph, &values);
    }
}

#[test]
fn a_small_lenet_step() {
    assert_passes_keep(&models::lenet_step(2, 1));
}

#[test]
fn an_mlp_step_with_layer_norm() {
    assert_passes_keep(&models::mlp_step());
}

#[test]
fn a_residual_block_in_training() {
    assert_passes_keep(&models::resnet_block(true, 2, 1));
}

#[test]
fn a_residual_block_in_inference() {
    assert_passes_keep(&models::resnet_block(false, 2, 1));
}

#[test]
fn simplified_operations_keep_their_meaning() {
    for sample in Op::samples() {
        let (graph, values) = graph_of(&sample);
        let simplified = dlc_pass::simplify::simplify(&graph);
        assert_close(&graph_results(&graph, &values), &graph_results(&simplified, &values));
        assert_lowers(&simplified, &values);
    }
}

/// A state `name` of three numbers.
fn state(g: &mut Graph, name: &str) -> dlc_graph::Value {
    source(g, name, SourceClass::State, Type::known(dlc_kernel::DType::F32, &[3]))
}

#[test]
fn a_pointwise_update_is_made_in_place() {
    let mut g = Graph::new();
    let (s, x) = (state(&mut g, "s"), input(&mut g, "x", &[3]));
    let next = g.binary(BinaryOp::Add, s, x, &None);
    g.add_result("s", next, Role::Update);
    assert_lowers(&g, &random_values(&g, 1));
    let program = dlc_pass::lower(&[("run", &g)]);
    let entry = &program.entries[0];
    assert_eq!((entry.kernels.len(), entry.commit), (1, 0));
    assert!(program.buffers.iter().all(|b| b.class != Class::Temp));
}

#[test]
fn states_that_swap_are_saved_first() {
    let mut g = Graph::new();
    let (a, b) = (state(&mut g, "a"), state(&mut g, "b"));
    g.add_result("a", b, Role::Update);
    g.add_result("b", a, Role::Update);
    assert_lowers(&g, &random_values(&g, 1));
}

#[test]
fn an_update_that_reads_other_elements_goes_through_a_temporary() {
    let mut g = Graph::new();
    let (s, x) = (state(&mut g, "s"), input(&mut g, "x", &[3]));
    let backwards = Access::new([Index::affine([(0, -1)], 2i64)]);
    let reversed = g.view(s, models::shape(&[3]), backwards, &None);
    let next = g.binary(BinaryOp::Add, reversed, x, &None);
    g.add_result("s", next, Role::Update);
    assert_lowers(&g, &random_values(&g, 1));
    let program = dlc_pass::lower(&[("run", &g)]);
    assert!(program.buffers.iter().any(|b| b.class == Class::Temp));
}

#[test]
fn an_output_may_be_a_source_or_appear_twice() {
    let mut g = Graph::new();
    let (s, x) = (state(&mut g, "s"), input(&mut g, "x", &[3]));
    let sum = g.binary(BinaryOp::Add, s, x, &None);
    for (name, value) in [("old", s), ("new", sum), ("again", sum)] {
        g.add_result(name, value, Role::Output);
    }
    g.add_result("s", sum, Role::Update);
    assert_lowers(&g, &random_values(&g, 1));
}

/// The same step of a call that updates reads the old value although a kernel before it has
/// computed the new one.
#[test]
fn readers_of_the_old_value_see_it() {
    let mut g = Graph::new();
    let (s, t) = (state(&mut g, "s"), state(&mut g, "t"));
    let x = input(&mut g, "x", &[3]);
    let next = g.binary(BinaryOp::Mul, s, x, &None);
    g.add_result("s", next, Role::Update);
    let other = g.binary(BinaryOp::Sub, t, s, &None);
    g.add_result("t", other, Role::Update);
    assert_lowers(&g, &random_values(&g, 1));
    let fused = dlc_pass::run(&g, OptLevel::O2, &mut |_, _, _| {});
    assert_lowers(&fused, &random_values(&g, 1));
}

#[test]
fn the_check_stands_before_everything_that_commits() {
    let graph = dlc_pass::run(&models::mlp_step(), OptLevel::O2, &mut |_, _, _| {});
    let program = dlc_pass::lower(&[("run", &graph)]);
    let entry = &program.entries[0];
    assert!(matches!(entry.kernels[entry.commit - 1].form, Form::Check { .. }));
    assert!(entry.kernels[entry.commit..].iter().all(|k| matches!(k.form, Form::Map { .. })));
}

#[test]
fn entries_share_parameters_but_not_inputs() {
    let train = dlc_graph::differentiate(&models::resnet_block(true, 2, 1));
    let infer = models::resnet_block(false, 2, 1);
    let program = dlc_pass::lower(&[("train", &train), ("run", &infer)]);
    let count = |name: &str, class| {
        program.buffers.iter().filter(|b| b.name == name && b.class == class).count()
    };
    assert_eq!(count("conv0.weight", Class::Param), 1);
    assert_eq!(count("norm0.running_mean", Class::State), 1);
    assert_eq!(count("x", Class::Input), 2);
    assert_eq!(program.entries[1].inputs.len(), 1);
    assert_ne!(program.entries[0].inputs[0], program.entries[1].inputs[0]);
}

#[test]
fn a_long_chain_does_not_overflow_the_stack() {
    let mut g = Graph::new();
    let mut x = input(&mut g, "x", &[3]);
    let y = input(&mut g, "y", &[3]);
    for k in 0..20_000 {
        let by = g.splat_like(x, f64::from(k), &None);
        x = g.binary(if k % 2 == 0 { BinaryOp::Max } else { BinaryOp::Add }, x, by, &None);
        x = if k % 100 == 0 { g.binary(BinaryOp::Mul, x, y, &None) } else { x };
    }
    g.add_result("y", x, Role::Output);
    let fused = dlc_pass::run(&g, OptLevel::O2, &mut |_, _, _| {});
    dlc_pass::lower(&[("run", &fused)]);
}
