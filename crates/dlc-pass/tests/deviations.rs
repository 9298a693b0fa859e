//! What becomes of sums of deviations from a mean, and of gradients of normalizations.

mod common;

use common::models::*;
use common::*;
use dlc_graph::op::Op;
use dlc_graph::{Graph, Role, Value};
use dlc_kernel::{Access, BinaryOp, FoldOp, Index, UnaryOp};

/// What each row of `x: f32[3, 4]` deviates from its mean, and something that is the same for a row.
fn deviations(g: &mut Graph, x: Value) -> (Value, Value) {
    let along_rows =
        |g: &mut Graph, v| g.view(v, shape(&[3, 4]), Access::new([Index::axis(0)]), &None);
    let (mean, most) = (mean(g, x, &[1]), g.reduce(FoldOp::Max, x, &[1], &None));
    let [mean, most] = [mean, most].map(|v| along_rows(g, v));
    (g.binary(BinaryOp::Sub, x, mean, &None), most)
}

#[test]
fn deviations_from_a_mean_add_up_to_nothing() {
    let scaled = |g: &mut Graph, x| {
        let (d, most) = deviations(g, x);
        g.binary(BinaryOp::Mul, d, most, &None)
    };
    let alone = |g: &mut Graph, x| {
        let d = scaled(g, x);
        g.sum(d, &[1], &None)
    };
    check(alone, &["const", "view"]);
    let beside = |op, swap| {
        move |g: &mut Graph, x| {
            let (d, y) = (scaled(g, x), g.unary(UnaryOp::Exp, x, &None));
            let sum = if swap { g.binary(op, y, d, &None) } else { g.binary(op, d, y, &None) };
            let twice = g.binary(BinaryOp::Add, sum, d, &None);
            g.sum(twice, &[1], &None)
        }
    };
    check(beside(BinaryOp::Add, false), &["exp", "reduce_sum"]);
    check(beside(BinaryOp::Sub, false), &["exp", "reduce_sum", "neg"]);
    check(beside(BinaryOp::Sub, true), &["exp", "reduce_sum"]);
    // A mean that is taken away again.
    let again = |g: &mut Graph, x| {
        let (d, y) = (scaled(g, x), g.unary(UnaryOp::Exp, x, &None));
        let both = g.binary(BinaryOp::Add, d, y, &None);
        let (less, _) = deviations(g, both);
        g.sum(less, &[1], &None)
    };
    check(again, &["const", "view"]);
    // In pairs, as a pool's windows have them.
    let paired = |g: &mut Graph, x| {
        let d = scaled(g, x);
        let pairs = Access::new([Index::axis(0), Index::affine([(1, 2), (2, 1)], 0i64)]);
        let d = g.view(d, shape(&[3, 2, 2]), pairs, &None);
        g.sum(d, &[1, 2], &None)
    };
    check(paired, &["const", "view"]);
}

/// Deviations of rows say nothing of columns, nor do those that have weights, or that are from something
/// that is not the mean.
#[test]
fn other_sums_of_differences_stay() {
    let sums = |g: &Graph| {
        let is_sum = |v: &Value| matches!(g.op(*v), Op::Reduce(r) if r.op == FoldOp::Sum);
        g.values().filter(|v| g.live()[v.0 as usize]).filter(is_sum).count()
    };
    let columns = |g: &mut Graph, x| {
        let (d, _) = deviations(g, x);
        g.sum(d, &[0], &None)
    };
    let weighted = |g: &mut Graph, x| {
        let (d, _) = deviations(g, x);
        let y = g.unary(UnaryOp::Exp, x, &None);
        let product = g.binary(BinaryOp::Mul, d, y, &None);
        g.sum(product, &[1], &None)
    };
    // Of overlapping pairs, the middle counts twice; of pairs apart, a row is a part of one.
    let overlapping = |g: &mut Graph, x| {
        let (d, _) = deviations(g, x);
        let pairs = Access::new([Index::axis(0), Index::affine([(1, 1), (2, 1)], 0i64)]);
        let d = g.view(d, shape(&[3, 3, 2]), pairs, &None);
        g.sum(d, &[1, 2], &None)
    };
    let parts = |g: &mut Graph, x| {
        let (d, _) = deviations(g, x);
        let pairs = Access::new([Index::axis(0), Index::affine([(1, 2), (2, 1)], 0i64)]);
        let d = g.view(d, shape(&[3, 2, 2]), pairs, &None);
        g.sum(d, &[2], &None)
    };
    let third = |g: &mut Graph, x| {
        let sum = g.sum(x, &[1], &None);
        let c = g.splat_like(sum, 1.0 / 3.0, &None);
        let third = g.binary(BinaryOp::Mul, sum, c, &None);
        let third = g.view(third, shape(&[3, 4]), Access::new([Index::axis(0)]), &None);
        let less = g.binary(BinaryOp::Sub, x, third, &None);
        g.sum(less, &[1], &None)
    };
    type Build<'b> = &'b dyn Fn(&mut Graph, Value) -> Value;
    for build in [&columns as Build, &weighted, &overlapping, &parts, &third] {
        let mut g = Graph::new();
        let x = input(&mut g, "x", &[3, 4]);
        let y = build(&mut g, x);
        g.add_result("y", y, Role::Output);
        let simplified = dlc_pass::simplify::simplify(&g);
        assert_eq!(sums(&simplified), 2);
        let values = random_values(&g, 5);
        assert_close(&graph_results(&g, &values), &graph_results(&simplified, &values));
    }
}

/// The gradient of a normalization has no fold that waits for another: not that of its input.
#[test]
fn gradients_of_normalizations_fold_once() {
    let step = |normalize: &dyn Fn(&mut Graph, Value) -> Value, extents: &[i64]| {
        let mut g = Graph::new();
        let w = param(&mut g, "w", extents);
        let y = normalize(&mut g, w);
        let y = relu(&mut g, y);
        let mut sum = g.unary(UnaryOp::Tanh, y, &None);
        while g.ty(sum).rank() > 0 {
            sum = g.sum(sum, &[0], &None);
        }
        adam(&mut g, sum);
        dlc_pass::simplify::simplify(&dlc_graph::differentiate(&g))
    };
    let depth = |g: &Graph| {
        let mut depth = vec![0; g.len()];
        for v in g.values() {
            let before = g.operands(v).iter().map(|x| depth[x.0 as usize]).max().unwrap_or(0);
            depth[v.0 as usize] = before + usize::from(matches!(g.op(v), Op::Reduce(_)));
        }
        let results = g.results().iter().filter(|r| r.name == "w");
        results.map(|r| depth[r.value.0 as usize]).max().expect("it is trained")
    };
    // The mean, the variance, and both sums of the gradient, side by side.
    let batch = step(&|g, x| batch_norm(g, x, "norm", true), &[5, 3, 2, 4]);
    assert_eq!(depth(&batch), 3);
    let layer = step(&|g, x| layer_norm(g, x, "norm"), &[5, 12]);
    assert_eq!(depth(&layer), 3);
}
