//! What the rules of simplification make of small graphs.

mod common;

use common::models::*;
use common::*;
use dlc_graph::op::{
    Cast, Concat, Contract, Gather, Iota, Op, Random, Reduce, Reshape, ScatterAdd, Select,
    StopGradient, View,
};
use dlc_graph::{Graph, Role, Value};
use dlc_kernel::{Access, BinaryOp, DType, FoldOp, Index, Scalar, UnaryOp};

/// `x op c`.
fn with(op: BinaryOp, c: f64) -> impl Fn(&mut Graph, Value) -> Value {
    move |g, x| {
        let c = g.splat_like(x, c, &None);
        g.binary(op, x, c, &None)
    }
}

#[test]
fn neutral_elements_vanish() {
    for (op, c) in [
        (BinaryOp::Add, 0.0),
        (BinaryOp::Sub, 0.0),
        (BinaryOp::Mul, 1.0),
        (BinaryOp::Div, 1.0),
        (BinaryOp::Pow, 1.0),
        (BinaryOp::Max, f64::NEG_INFINITY),
    ] {
        check(with(op, c), &[]);
    }
}

/// `x * 0` is not 0 where `x` is infinite.
#[test]
fn floats_times_zero_stay() {
    check(with(BinaryOp::Mul, 0.0), &["const", "view", "mul"]);
}

#[test]
fn powers_and_divisions_become_products() {
    check(with(BinaryOp::Pow, 2.0), &["mul"]);
    check(with(BinaryOp::Pow, 0.5), &["sqrt"]);
    check(with(BinaryOp::Div, 8.0), &["const", "view", "mul"]);
    let twice = |g: &mut Graph, x| {
        let y = with(BinaryOp::Mul, 3.0)(g, x);
        with(BinaryOp::Mul, 5.0)(g, y)
    };
    check(twice, &["const", "view", "mul"]);
}

#[test]
fn constants_fold() {
    let build = |g: &mut Graph, x| {
        let two = g.splat_like(x, 2.0, &None);
        let root = g.unary(UnaryOp::Sqrt, two, &None);
        let square = g.binary(BinaryOp::Mul, root, root, &None);
        let sum = g.sum(square, &[1], &None);
        g.reshape(sum, shape(&[3, 1]), &None)
    };
    check(build, &["const", "view"]);
}

#[test]
fn what_undoes_itself_vanishes() {
    let negated = |g: &mut Graph, x| {
        let n = g.unary(UnaryOp::Neg, x, &None);
        let s = g.push(StopGradient, &[n], None);
        g.unary(UnaryOp::Neg, s, &None)
    };
    check(negated, &[]);
    let transposed = |g: &mut Graph, x| {
        let t = g.transpose(x, &[1, 0], &None);
        g.transpose(t, &[1, 0], &None)
    };
    check(transposed, &[]);
    let reshaped = |g: &mut Graph, x| {
        let r = g.reshape(x, shape(&[2, 6]), &None);
        g.reshape(r, shape(&[3, 4]), &None)
    };
    check(reshaped, &[]);
    check(|g, x| g.push(Concat { axis: 0 }, &[x], None), &[]);
    let with_nothing = |g: &mut Graph, x| {
        let nothing = g.constant(Scalar::new(DType::F32, 0.0), &None);
        let nothing = g.splat(nothing, shape(&[0, 4]), &None);
        g.push(Concat { axis: 0 }, &[nothing, x, nothing], None)
    };
    check(with_nothing, &[]);
    check(|g, x| g.push(Cast(DType::F32), &[x], None), &[]);
}

#[test]
fn views_compose_where_their_fills_agree() {
    let padded = |fill: f64| {
        move |g: &mut Graph, x| {
            let p = g.pad(x, 1, (1i64.into(), 1i64.into()), 0.0, &None);
            g.pad(p, 0, (2i64.into(), 0i64.into()), fill, &None)
        }
    };
    check(padded(0.0), &["view"]);
    check(padded(1.0), &["view", "view"]);
    let sliced = |g: &mut Graph, x| {
        let s = g.slice(x, 1, 1i64.into(), 2i64.into(), &None);
        let t = g.transpose(s, &[1, 0], &None);
        g.reshape(t, shape(&[2, 1, 3]), &None)
    };
    check(sliced, &["view"]);
}

#[test]
fn a_select_knows_its_condition() {
    let build = |g: &mut Graph, x: Value| {
        let y = g.unary(UnaryOp::Exp, x, &None);
        let low = g.binary(BinaryOp::Lt, x, y, &None);
        let inner = g.select(low, x, y, &None);
        let outer = g.select(low, inner, x, &None);
        let not = g.unary(UnaryOp::Not, low, &None);
        g.select(not, y, outer, &None)
    };
    // Every path leads to `select(x < y, x, y)`.
    check(build, &["exp", "lt", "select"]);
}

#[test]
fn a_rectifiers_mask_comes_from_its_result() {
    let build = |g: &mut Graph, x| {
        let y = relu(g, x);
        let zero = g.splat_like(x, 0.0, &None);
        let positive = g.binary(BinaryOp::Lt, zero, x, &None);
        let masked = g.select(positive, y, zero, &None);
        g.binary(BinaryOp::Add, masked, y, &None)
    };
    check(build, &["const", "view", "max", "lt", "select", "add"]);
}

#[test]
fn folds_merge_and_count_repeats() {
    let twice = |g: &mut Graph, x| {
        let s = g.sum(x, &[1], &None);
        g.sum(s, &[0], &None)
    };
    check(twice, &["reduce_sum"]);
    let repeated = |g: &mut Graph, x| {
        let spread = g.view(x, shape(&[3, 5, 4]), Access::new([0, 2].map(Index::axis)), &None);
        g.reduce(FoldOp::Max, spread, &[1], &None)
    };
    check(repeated, &[]);
    let factor = |g: &mut Graph, x| {
        let y = with(BinaryOp::Mul, 3.0)(g, x);
        g.sum(y, &[1], &None)
    };
    check(factor, &["const", "view", "reduce_sum", "mul"]);
}

/// What a reshape merges is seen as it was: by a fold of other dims, and by a view of it.
#[test]
fn merged_dims_are_seen_through() {
    let split = |g: &mut Graph, x| {
        let split = g.reshape(x, shape(&[3, 2, 2]), &None);
        g.unary(UnaryOp::Exp, split, &None)
    };
    let folded = |g: &mut Graph, x| {
        let e = split(g, x);
        let merged = g.reshape(e, shape(&[6, 2]), &None);
        g.sum(merged, &[1], &None)
    };
    check(folded, &["reshape", "exp", "reduce_sum", "reshape"]);
    let viewed = |g: &mut Graph, x| {
        let sums = folded(g, x);
        let access = Access::new([Index::affine([(0, 2), (1, 1)], 0i64)]);
        g.view(sums, shape(&[3, 2]), access, &None)
    };
    check(viewed, &["reshape", "exp", "reduce_sum"]);
    let crossed = |g: &mut Graph, x| {
        let sums = folded(g, x);
        let access = Access::new([Index::affine([(0, 1), (1, 3)], 0i64)]);
        g.view(sums, shape(&[3, 2]), access, &None)
    };
    check(crossed, &["reshape", "exp", "reduce_sum", "reshape", "view"]);
}

/// The adjoint of a 2x2 max pool's windows is a rearrangement, not a sum.
#[test]
fn sums_of_tiles_are_reshapes() {
    let build = |g: &mut Graph, x| {
        let tiles = g.reshape(x, shape(&[3, 2, 2]), &None);
        let half = Index { div: 2, ..Index::affine([(1, 1), (2, -1)], 0i64) };
        let access = Access::new([Index::axis(0), half, Index::axis(2)]);
        let fill = Scalar::new(DType::F32, 0.0);
        let spread = g.push(View { axes: shape(&[3, 4, 2]), access, fill }, &[tiles], None);
        g.push(Reduce { op: FoldOp::Sum, axes: [2].into_iter().collect() }, &[spread], None)
    };
    check(build, &[]);
}

/// That of an average is a repetition, if its windows tile the tensor.
#[test]
fn sums_of_tiles_with_one_number_repeat_it() {
    let spread = |extent: i64, window: i64, offset: i64| {
        move |g: &mut Graph, x| {
            let part = Index { div: 2, ..Index::affine([(1, 1), (2, -1)], offset) };
            let access = Access::new([Index::axis(0), part]);
            let fill = Scalar::new(DType::F32, 0.0);
            let axes = shape(&[3, extent, window]);
            let spread = g.push(View { axes, access, fill }, &[x], None);
            g.push(Reduce { op: FoldOp::Sum, axes: [2].into_iter().collect() }, &[spread], None)
        }
    };
    check(spread(8, 2, 0), &["view", "reshape"]);
    for (extent, window, offset) in [(7, 2, 0), (8, 3, 0), (8, 2, 1)] {
        check(spread(extent, window, offset), &["view", "reduce_sum"]);
    }
}

#[test]
fn the_gradient_of_a_gather_of_one_per_row_is_a_select() {
    let build = |g: &mut Graph, x| {
        let position = g.reduce(FoldOp::ArgMax, x, &[1], &None);
        let picked = g.push(Gather { axis: 1, batch: 1 }, &[x, position], None);
        let scatter = ScatterAdd { axis: 1, batch: 1, extent: 4i64.into() };
        g.push(scatter, &[position, picked], None)
    };
    check(
        build,
        &["argmax", "gather", "view", "view", "iota", "view", "eq", "const", "view", "select"],
    );
}

/// What a gradient is multiplied by needs no gradient, and so one tensor is kept of it.
#[test]
fn common_factors_move_out_of_sums() {
    let scaled_and_cut =
        |g: &mut Graph, x| [BinaryOp::Mul, BinaryOp::Max].map(|op| with(op, 3.0)(g, x));
    let sum = |op| {
        move |g: &mut Graph, x| {
            let [a, b] = scaled_and_cut(g, x);
            let gradient = g.unary(UnaryOp::Exp, x, &None);
            let [a, b] = [a, b].map(|factor| g.binary(BinaryOp::Mul, factor, gradient, &None));
            g.binary(op, a, b, &None)
        }
    };
    let both = ["const", "view", "mul", "max"];
    let expected = |op| [&both[..], &["exp", op, "mul"]].concat();
    check(sum(BinaryOp::Add), &expected("add"));
    check(sum(BinaryOp::Sub), &expected("sub"));
    // Nothing would be saved, or the products are there anyway.
    let one_of_two = |g: &mut Graph, x| {
        let root = g.unary(UnaryOp::Exp, x, &None);
        let product = g.binary(BinaryOp::Mul, x, root, &None);
        g.binary(BinaryOp::Add, x, product, &None)
    };
    check(one_of_two, &["exp", "mul", "add"]);
    let read_elsewhere = |g: &mut Graph, x| {
        let root = g.unary(UnaryOp::Exp, x, &None);
        let [a, b] = scaled_and_cut(g, x);
        let [a, b] = [a, b].map(|factor| g.binary(BinaryOp::Mul, factor, root, &None));
        let sum = g.binary(BinaryOp::Add, a, b, &None);
        let larger = g.binary(BinaryOp::Max, a, b, &None);
        g.binary(BinaryOp::Add, sum, larger, &None)
    };
    let left = ["exp", "const", "view", "mul", "max", "mul", "mul", "add"];
    check(read_elsewhere, &[&left[..], &["max", "add"]].concat());
}

/// Numbers that count up along dim `dim` of `[3, 4]`.
fn counted(g: &mut Graph, dim: u32) -> Value {
    let extent = [3i64, 4][dim as usize].into();
    let iota = g.push(Iota { extent }, &[], None);
    g.view(iota, shape(&[3, 4]), Access::new([Index::axis(dim)]), &None)
}

#[test]
fn masks_of_positions_are_conditions_of_views() {
    let near = |g: &mut Graph, x: Value| {
        let (row, column) = (counted(g, 0), counted(g, 1));
        let causal = g.binary(BinaryOp::Le, column, row, &None);
        let distance = g.binary(BinaryOp::Sub, row, column, &None);
        let two = g.splat_like(distance, 2.0, &None);
        let close = g.binary(BinaryOp::Lt, distance, two, &None);
        let mask = g.binary(BinaryOp::And, causal, close, &None);
        let outside = g.splat_like(x, -1.0, &None);
        g.push(Select, &[mask, x, outside], None)
    };
    check(near, &["view"]);
    let data_too = |g: &mut Graph, x: Value| {
        let (row, column) = (counted(g, 0), counted(g, 1));
        let zero = g.splat_like(x, 0.0, &None);
        let positive = g.binary(BinaryOp::Lt, zero, x, &None);
        let diagonal = g.binary(BinaryOp::Eq, column, row, &None);
        let mask = g.binary(BinaryOp::And, positive, diagonal, &None);
        g.push(Select, &[mask, x, zero], None)
    };
    check(data_too, &["const", "view", "lt", "select", "view"]);
    let never = |g: &mut Graph, x: Value| {
        let (row, column) = (counted(g, 0), counted(g, 1));
        let far = g.splat_like(row, 5.0, &None);
        let beyond = g.binary(BinaryOp::Add, row, far, &None);
        let mask = g.binary(BinaryOp::Lt, beyond, column, &None);
        let other = g.unary(UnaryOp::Exp, x, &None);
        g.push(Select, &[mask, other, x], None)
    };
    check(never, &[]);
}

#[test]
fn a_dropout_of_nothing_is_nothing() {
    check(
        |g, x| {
            let zero = g.constant(Scalar::new(DType::I32, 0.0), &None);
            let random = Random { site: 7, shape: shape(&[3, 4]) };
            let random = g.push(random, &[zero, zero], None);
            let rate = g.splat_like(x, 0.0, &None);
            let kept = g.binary(BinaryOp::Le, rate, random, &None);
            g.push(Select, &[kept, x, rate], None)
        },
        &[],
    );
}

#[test]
fn every_rule_has_a_name_of_its_own() {
    let mut names: Vec<&str> = dlc_pass::simplify::rules().map(|r| r.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// What repeats along all axes that a reshape splits or merges repeats along what they become.
#[test]
fn reshapes_of_repetitions_are_repetitions() {
    let reshaped = |from: &'static [i64], to: &'static [i64], dims: [u32; 2]| {
        move |g: &mut Graph, x| {
            let access = Access::new(dims.map(Index::axis));
            let fill = Scalar::new(DType::F32, 0.0);
            let repeated = g.push(View { axes: shape(from), access, fill }, &[x], None);
            g.push(Reshape { shape: shape(to) }, &[repeated], None)
        }
    };
    check(reshaped(&[3, 4, 6], &[3, 4, 2, 3], [0, 1]), &["view"]);
    check(reshaped(&[3, 2, 3, 4], &[3, 6, 4], [0, 3]), &["view"]);
    // Here it reads by the axis that is merged.
    check(reshaped(&[3, 4, 2], &[3, 8], [0, 1]), &["view", "reshape"]);
}

/// `x: f32[3, 4]` in columns `from..from + 4` of `f32[3, 8]`, 0 elsewhere.
fn padded(g: &mut Graph, x: Value, from: i64) -> Value {
    let access = Access::new([Index::axis(0), Index::affine([(1, 1)], -from)]);
    let fill = Scalar::new(DType::F32, 0.0);
    g.push(View { axes: shape(&[3, 8]), access, fill }, &[x], None)
}

#[test]
fn disjoint_parts_stand_end_to_end() {
    let sum = |starts: [i64; 2]| {
        move |g: &mut Graph, x: Value| {
            let y = g.unary(UnaryOp::Exp, x, &None);
            let (a, b) = (padded(g, x, starts[0]), padded(g, y, starts[1]));
            g.binary(BinaryOp::Add, a, b, &None)
        }
    };
    check(sum([0, 4]), &["exp", "concat"]);
    check(sum([4, 0]), &["exp", "concat"]);
    check(sum([0, 3]), &["exp", "view", "view", "add"]);
    check(sum([1, 4]), &["exp", "view", "view", "add"]);
}

/// `sum[k] w[n,k] * (1 / 3) * sum[c] g[n,c] * v[k,c]`, where `sum[k] w[n,k] * v[k,c]` is known.
fn sums_over_sums(keys: i64, features: i64) -> Graph {
    let mut g = Graph::new();
    let w = input(&mut g, "w", &[5, keys]);
    let v = input(&mut g, "v", &[keys, features]);
    let slope = input(&mut g, "g", &[5, features]);
    let a = Index::axis;
    let known = Contract {
        out: shape(&[5, features]),
        reduce: shape(&[keys]),
        lhs: Access::new([a(0), a(2)]),
        rhs: Access::new([a(2), a(1)]),
    };
    let inner = Contract {
        out: shape(&[5, keys]),
        reduce: shape(&[features]),
        lhs: Access::new([a(0), a(2)]),
        rhs: Access::new([a(1), a(2)]),
    };
    let known = g.push(known, &[w, v], None);
    let inner = g.push(inner, &[slope, v], None);
    let third = g.splat_like(inner, 1.0 / 3.0, &None);
    let scaled = g.binary(BinaryOp::Mul, inner, third, &None);
    let product = g.binary(BinaryOp::Mul, w, scaled, &None);
    let sum = g.sum(product, &[1], &None);
    g.add_result("known", known, Role::Output);
    g.add_result("sum", sum, Role::Output);
    g
}

/// Whichever sum is exchanged for the other, it has fewer terms than before.
#[test]
fn sums_over_known_sums_exchange_their_order() {
    for (keys, features, left) in [(7, 3, 1), (3, 7, 2), (4, 4, 2)] {
        let g = sums_over_sums(keys, features);
        let simplified = dlc_pass::simplify::simplify(&g);
        let values = random_values(&g, 5);
        assert_close(&graph_results(&g, &values), &graph_results(&simplified, &values));
        let live = simplified.live();
        let contractions = simplified
            .values()
            .filter(|&v| live[v.0 as usize] && matches!(simplified.op(v), Op::Contract(_)));
        assert_eq!(contractions.count(), left, "{keys} keys, {features} features");
    }
}

/// `w[o, r] = sum[n, h] x[n, (sign * h + r + 1) / 2] * g[n, o, h]`, with that many `h`.
fn sum_over_quotients(sign: i64, sites: i64) -> Graph {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[3, 4]);
    let slope = input(&mut g, "g", &[3, 5, sites]);
    let a = Index::axis;
    let read = Index { div: 2, ..Index::affine([(1, 1), (3, sign)], 1i64) };
    let op = Contract {
        out: shape(&[5, 3]),
        reduce: shape(&[3, sites]),
        lhs: Access::new([a(2), read]),
        rhs: Access::new([a(2), a(0), a(3)]),
    };
    let w = g.push(op, &[x, slope], None);
    g.add_result("w", w, Role::Output);
    g
}

/// Of seven or eight sites every second reads one of the four elements, so that as many terms are
/// left; two of three would be fewer.
#[test]
fn sums_over_quotients_have_no_terms_outside() {
    for (sign, sites, left) in [(1, 8, 4), (-1, 7, 4), (1, 7, 4), (1, 3, 3), (1, 6, 6)] {
        let g = sum_over_quotients(sign, sites);
        let simplified = dlc_pass::simplify::simplify(&g);
        let values = random_values(&g, 5);
        assert_close(&graph_results(&g, &values), &graph_results(&simplified, &values));
        let (_, w) = simplified.results().iter().map(|r| (r.role, r.value)).next().unwrap();
        let Op::Contract(sum) = simplified.op(w) else { panic!("it stays a contraction") };
        assert_eq!(sum.reduce, shape(&[3, left]), "{sites} sites, by {sign}");
    }
}

/// The way back of a maximum, read elsewhere: the position is counted there.
#[test]
fn numbers_of_positions_are_not_stored() {
    let spread = |g: &mut Graph, x: Value, axes: [u32; 1]| {
        g.view(x, shape(&[3, 4]), Access::new(axes.map(Index::axis)), &None)
    };
    let way_back = |g: &mut Graph, x: Value| {
        let winner = g.reduce(FoldOp::ArgMax, x, &[1], &None);
        let slope = g.sum(x, &[1], &None);
        let [winner, slope] = [winner, slope].map(|x| spread(g, x, [0]));
        let columns = counted(g, 1);
        let three = g.splat_like(columns, 3.0, &None);
        let position = g.binary(BinaryOp::Mul, columns, three, &None);
        let won = g.binary(BinaryOp::Eq, winner, position, &None);
        let zero = g.splat_like(slope, 0.0, &None);
        let chosen = g.push(Select, &[won, slope, zero], None);
        let fill = Scalar::new(DType::F32, 0.0);
        let access = Access::new([Index::axis(0), Index::affine([(1, 1), (2, -1)], 0i64)]);
        let read = g.push(View { axes: shape(&[3, 6, 3]), access, fill }, &[chosen], None);
        g.sum(read, &[2], &None)
    };
    let one = ["iota", "view", "view", "mul"];
    let other = ["iota", "view", "const", "view", "mul", "add"];
    let read = ["view", "view", "eq", "view", "select", "reduce_sum"];
    let before = ["argmax", "reduce_sum", "const", "const"];
    check(way_back, &[&before[..], &one, &other, &read].concat());
}
