//! Each fusion fires on what the standard library builds, and keeps its meaning.

mod common;

use common::models::*;
use common::*;
use dlc_graph::op::SourceClass;
use dlc_graph::{Graph, Role, Type, Value};
use dlc_kernel::{BinaryOp, DType, FoldOp, OptLevel, UnaryOp};
use dlc_pass::Reason;
use proptest::prelude::*;

/// Asserts that the graph that `build` makes of an input of that shape becomes kernels of those
/// forms, and that every pass keeps its meaning.
#[track_caller]
fn check(shape: &[i64], build: impl Fn(&mut Graph, Value) -> Value, expected: &[&str]) {
    let mut g = Graph::new();
    let x = input(&mut g, "x", shape);
    let y = build(&mut g, x);
    g.add_result("y", y, Role::Output);
    assert_passes_keep(&g);
    let fused = dlc_pass::run(&g, OptLevel::O2, &mut |_, _, _| {});
    let program = dlc_pass::lower(&[("run", &fused)]);
    assert_eq!(forms(&g, OptLevel::O2), expected, "\n{program}");
}

/// As [`check`], with the gradient of the sum of squares of the result with respect to the input.
#[track_caller]
fn check_gradient(shape: &[i64], build: impl Fn(&mut Graph, Value) -> Value, expected: &[&str]) {
    let with_gradient = |g: &mut Graph, x: Value| {
        let y = build(g, x);
        let square = g.binary(BinaryOp::Mul, y, y, &None);
        let axes: Vec<u32> = (0..shape.len() as u32).collect();
        let rank = g.ty(square).rank() as u32;
        let sum = g.sum(square, &axes[..rank as usize], &None);
        g.push(dlc_graph::op::Grad, &[sum, x], None)
    };
    check(shape, with_gradient, expected);
}

#[test]
fn convolution_bias_relu_pool() {
    let build = |g: &mut Graph, x| {
        let h = conv(g, x, "conv", 4, 3, 1);
        let h = relu(g, h);
        max_pool(g, h)
    };
    check(&[2, 3, 8, 8], build, &["contract", "row"]);
}

#[test]
fn linear_bias_activation() {
    for activation in [relu, gelu] {
        let build = |g: &mut Graph, x| {
            let h = linear(g, x, "linear", 5);
            activation(g, h)
        };
        check(&[4, 6], build, &["contract"]);
    }
}

#[test]
fn linear_residual() {
    let build = |g: &mut Graph, x| {
        let h = linear(g, x, "linear", 6);
        g.binary(BinaryOp::Add, h, x, &None)
    };
    check(&[4, 6], build, &["contract"]);
}

#[test]
fn softmax_is_one_row_kernel() {
    check(&[4, 6], softmax, &["row"]);
    check(&[4, 6], log_softmax, &["row"]);
    check_gradient(&[4, 6], softmax, &["row"]);
    check_gradient(&[4, 6], log_softmax, &["row"]);
}

#[test]
fn layer_norm_is_one_row_kernel() {
    check(&[4, 6], |g, x| layer_norm(g, x, "norm"), &["row"]);
    check_gradient(&[4, 6], |g, x| layer_norm(g, x, "norm"), &["row"]);
}

/// Loss and gradient of the logits: one row kernel, then the mean over the rows.
#[test]
fn cross_entropy_and_its_gradient() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[4, 6]);
    let label = source(&mut g, "label", SourceClass::Input, Type::known(DType::I32, &[4]));
    let loss = cross_entropy(&mut g, x, label);
    let gradient = g.push(dlc_graph::op::Grad, &[loss, x], None);
    g.add_result("loss", loss, Role::Output);
    g.add_result("gradient", gradient, Role::Output);
    assert_passes_keep(&g);
    assert_eq!(forms(&g, OptLevel::O2), ["row", "row"]);
}

#[test]
fn batch_norm_in_inference_is_in_the_convolution() {
    let build = |g: &mut Graph, x| {
        let h = conv_no_bias(g, x, "conv", 4, 3, 1, 1);
        let h = batch_norm(g, h, "norm", false);
        relu(g, h)
    };
    // The map computes scale and shift.
    check(&[2, 3, 64, 64], build, &["map", "contract"]);
}

#[test]
fn batch_norm_in_training_is_one_row_kernel() {
    let build = |g: &mut Graph, x| {
        let h = conv_no_bias(g, x, "conv", 4, 3, 1, 1);
        let h = batch_norm(g, h, "norm", true);
        relu(g, h)
    };
    // The last map updates the running statistics.
    check(&[2, 3, 8, 8], build, &["contract", "row", "map"]);
}

#[test]
fn pointwise_chains_and_views_are_one_map() {
    let build = |g: &mut Graph, x| {
        let e = g.unary(UnaryOp::Exp, x, &None);
        let t = g.transpose(e, &[1, 0], &None);
        let s = g.slice(t, 0, 1i64.into(), 3i64.into(), &None);
        let p = g.pad(s, 1, (1i64.into(), 2i64.into()), 0.0, &None);
        g.unary(UnaryOp::Tanh, p, &None)
    };
    check(&[4, 6], build, &["map"]);
}

#[test]
fn folds_take_in_what_is_before_and_after() {
    let build = |g: &mut Graph, x| {
        let square = g.binary(BinaryOp::Mul, x, x, &None);
        let sum = g.sum(square, &[1], &None);
        g.unary(UnaryOp::Sqrt, sum, &None)
    };
    check(&[4, 6], build, &["row"]);
}

#[test]
fn a_product_of_broadcasts_summed_is_a_contraction() {
    let build = |g: &mut Graph, x| {
        let w = param(g, "w", &[5, 6]);
        let a = dlc_kernel::Index::axis;
        let axes = shape(&[4, 5, 6]);
        let x = g.view(x, axes.clone(), dlc_kernel::Access::new([a(0), a(2)]), &None);
        let w = g.view(w, axes, dlc_kernel::Access::new([a(1), a(2)]), &None);
        let product = g.binary(BinaryOp::Mul, x, w, &None);
        g.sum(product, &[2], &None)
    };
    check(&[4, 6], build, &["contract"]);
}

/// Ten parameters, each with two moments: one kernel for the step count, one for all the rest.
#[test]
fn adam_updates_all_parameters_in_one_kernel() {
    let mut g = Graph::new();
    let mut loss = None;
    for k in 0..10 {
        let p = param(&mut g, &format!("p{k}"), &[k + 1, 3]);
        let square = g.binary(BinaryOp::Mul, p, p, &None);
        let sum = g.sum(square, &[0, 1], &None);
        loss = Some(loss.map_or(sum, |l| g.binary(BinaryOp::Add, l, sum, &None)));
    }
    adam(&mut g, loss.expect("there are parameters"));
    assert_passes_keep(&g);
    let fused = dlc_pass::run(&g, OptLevel::O2, &mut |_, _, _| {});
    let program = dlc_pass::lower(&[("run", &fused)]);
    let entry = &program.entries[0];
    let commits: Vec<&str> = entry.kernels[entry.commit..].iter().map(|k| k.form.name()).collect();
    assert_eq!(commits, ["map", "map"]);
}

#[test]
fn refusals_say_why() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[64, 64]);
    let e = g.unary(UnaryOp::Exp, x, &None);
    let y = softmax(&mut g, e);
    let t = g.transpose(e, &[1, 0], &None);
    let z = g.unary(UnaryOp::Tanh, t, &None);
    g.add_result("y", y, Role::Output);
    g.add_result("z", z, Role::Output);
    let found = reasons(&g);
    assert_eq!(found, [("softmax".into(), "tanh".into(), Reason::RowsApart)]);
}

#[test]
fn reasons_outlive_the_passes() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[2, 3, 8, 8]);
    let h = conv(&mut g, x, "first", 4, 3, 1);
    let h = relu(&mut g, h);
    let h = max_pool(&mut g, h);
    let y = conv(&mut g, h, "second", 4, 3, 1);
    g.add_result("y", y, Role::Output);
    let found: Vec<Reason> = reasons(&g).into_iter().map(|r| r.2).collect();
    assert_eq!(found, [Reason::Fold, Reason::Fold]);
}

/// What [`dlc_pass::explain`] says, by the names of kernels. It makes of a graph what the passes do.
fn reasons(graph: &Graph) -> Vec<(String, String, Reason)> {
    let fused = dlc_pass::run(graph, OptLevel::O2, &mut |_, _, _| {});
    let (explained, apart) = dlc_pass::explain(graph, OptLevel::O2);
    assert_eq!(explained.to_string(), fused.to_string());
    assert!(dlc_pass::explain(graph, OptLevel::O0).1.is_empty());
    let kernels = &dlc_pass::lower_named(&[("run", &explained)]).kernels[0];
    let named =
        |a: dlc_pass::Apart| (kernels[&a.kernel].clone(), kernels[&a.neighbour].clone(), a.reason);
    apart.into_iter().map(named).collect()
}

/// Outside of a view nothing is looked up, so that no index is reported that is not there.
#[test]
fn a_gather_is_not_evaluated_outside_a_view() {
    let build = |g: &mut Graph, x| {
        let table = param(g, "table", &[3, 4]);
        let ids = g.reduce(FoldOp::ArgMax, x, &[1], &None);
        let one = g.splat_like(ids, 1.0, &None);
        let ids = g.binary(BinaryOp::Sub, ids, one, &None);
        let ids = g.binary(BinaryOp::Max, ids, one, &None);
        let rows = g.push(dlc_graph::op::Gather { axis: 0, batch: 0 }, &[table, ids], None);
        let padded = g.pad(rows, 0, (1i64.into(), 1i64.into()), 0.0, &None);
        g.unary(UnaryOp::Tanh, padded, &None)
    };
    check(&[2, 3], build, &["row", "map", "map"]);
}

/// A graph of `length` random operations on matrices and vectors.
fn random_graph(seed: u64, length: usize) -> Graph {
    let mut g = Graph::new();
    let mut numbers = Numbers(seed);
    let mut pool = vec![input(&mut g, "x", &[3, 4]), param(&mut g, "w", &[4, 4])];
    pool.push(param(&mut g, "b", &[4]));
    for _ in 0..length {
        let mut pick = |n: usize| (numbers.next() * n as f64) as usize;
        let (a, b) = (pool[pick(pool.len())], pool[pick(pool.len())]);
        let value = random_operation(&mut g, pick(9), a, b);
        pool.push(value);
    }
    for (k, value) in pool.iter().skip(3).enumerate() {
        if numbers.next() < 0.3 || k + 1 == length {
            g.add_result(format!("y{k}"), *value, Role::Output);
        }
    }
    g
}

fn random_operation(g: &mut Graph, which: usize, a: Value, b: Value) -> Value {
    let (ty, rank) = (g.ty(a).clone(), g.ty(a).rank());
    let other = if g.ty(b).shape == ty.shape { b } else { a };
    match which {
        0 => g.unary(UnaryOp::Tanh, a, &None),
        1 => g.unary(UnaryOp::Sigmoid, a, &None),
        2 => g.binary(BinaryOp::Add, a, other, &None),
        3 => g.binary(BinaryOp::Max, a, other, &None),
        4 if rank == 2 => g.reduce(FoldOp::Max, a, &[0], &None),
        5 if rank == 2 => {
            let t = g.transpose(a, &[1, 0], &None);
            let s = g.sum(t, &[0], &None);
            let s = g.unary(UnaryOp::Tanh, s, &None);
            g.view(s, ty.shape, dlc_kernel::Access::new([dlc_kernel::Index::axis(0)]), &None)
        }
        6 if rank == 1 => {
            let spread = g.broadcast(a, shape(&[3, 4]), &None);
            g.unary(UnaryOp::Tanh, spread, &None)
        }
        7 if rank == 2 && ty.shape[0].as_const() == Some(3) => {
            let name = format!("w{}", g.len());
            let y = linear(g, a, &name, 4);
            g.unary(UnaryOp::Tanh, y, &None)
        }
        8 if rank == 2 => {
            let extent = ty.shape[1].clone() - 1i64.into();
            let part = g.slice(a, 1, 1i64.into(), extent, &None);
            g.pad(part, 1, (0i64.into(), 1i64.into()), 0.5, &None)
        }
        _ => {
            let low = g.binary(BinaryOp::Lt, a, other, &None);
            let negated = g.unary(UnaryOp::Neg, a, &None);
            g.select(low, negated, other, &None)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_keep_their_meaning(seed in any::<u64>(), length in 1usize..40) {
        assert_passes_keep(&random_graph(seed, length));
    }
}

/// Only the first of four rows is folded, and all are returned.
#[test]
fn a_kernel_that_needs_a_part_does_not_store_the_whole() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[3, 4, 6]);
    let wave = g.unary(UnaryOp::Sin, x, &None);
    let first = g.slice(wave, 1, 0i64.into(), 1i64.into(), &None);
    let sum = g.sum(first, &[2], &None);
    g.add_result("wave", wave, Role::Output);
    g.add_result("sum", sum, Role::Output);
    assert_passes_keep(&g);
    let fused = dlc_pass::run(&g, OptLevel::O2, &mut |_, _, _| {});
    assert_lowers(&fused, &random_values(&g, 1));
}
