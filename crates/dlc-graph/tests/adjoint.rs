//! The adjoint of an affine read: against brute force on random reads, and in the canonical form
//! on those that models are made of.

use dlc_graph::eval::eval_values;
use dlc_graph::op::{Contract, Op, Operation, Source, SourceClass, View};
use dlc_graph::{Adjoint, Graph, Role, Type, Value, adjoint, pullback};
use dlc_kernel::{Access, Array, DType, Guard, Index, Scalar, Size, points};
use proptest::prelude::*;

/// A read that is multiplied: its access and the shape of its tensor.
type Read = (Access, Vec<i64>);

fn index(axes: usize) -> impl Strategy<Value = Index> {
    let terms = prop::collection::vec((0..axes.max(1) as u32, -2i64..=2), 0..=axes.min(3));
    (terms, -3i64..=4, 1i64..=3)
        .prop_map(|(terms, offset, div)| Index { div, ..Index::affine(terms, offset) })
}

fn read(axes: usize) -> impl Strategy<Value = Read> {
    let guard = (index(axes), 1i64..4).prop_map(|(index, n)| Guard { index, extent: n.into() });
    let dims = prop::collection::vec((index(axes), 0i64..=4), 0..=3);
    (dims, prop::collection::vec(guard, 0..=1)).prop_map(|(dims, guards)| {
        let (coords, shape): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
        let guards = guards.into_iter().collect();
        (Access { guards, ..Access::new(coords) }, shape)
    })
}

/// A space, the read that is transposed, and two more; the second is the identity on the first
/// axes half of the time, as a cotangent's is.
fn problem() -> impl Strategy<Value = (Vec<i64>, Read, Read, Read)> {
    prop::collection::vec(1i64..=4, 1..=4).prop_flat_map(|space| {
        let axes = space.len();
        let own = (0..=axes).prop_map({
            let space = space.clone();
            move |rank| (Access::identity(rank), space[..rank].to_vec())
        });
        (Just(space), read(axes), prop_oneof![own, read(axes)], read(axes))
    })
}

fn sizes(shape: &[i64]) -> Vec<Size> {
    shape.iter().map(|&n| n.into()).collect()
}

fn numbers(shape: &[i64]) -> Array {
    let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    let count: usize = shape.iter().product();
    Array::new(shape, (0..count).map(|i| 1.0 + (i * i % 7) as f64).collect())
}

/// Adds up, point by point, what each element is due.
fn brute_force(space: &[i64], read: &Read, others: &[&Read; 2], values: &[Array; 2]) -> Array {
    let mut sum = Array::zeros(read.1.iter().map(|&n| n as usize).collect::<Vec<_>>());
    let extents: Vec<usize> = space.iter().map(|&n| n as usize).collect();
    for point in points(&extents) {
        let Some(target) = read.0.at(&point, &read.1) else { continue };
        let factor = |k: usize| {
            let at = others[k].0.at(&point, &others[k].1)?;
            values[k].get(&at)
        };
        if let (Some(a), Some(b)) = (factor(0), factor(1)) {
            let at = sum.position(&target).expect("reads inside are inside");
            sum.data[at] += a * b;
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_brute_force((space, read, first, second) in problem()) {
        let shapes = [sizes(&first.1), sizes(&second.1)];
        let others = [(&first.0, &shapes[0][..]), (&second.0, &shapes[1][..])];
        let shape = sizes(&read.1);
        let Adjoint { reduce, reads } = adjoint(&sizes(&space), &read.0, &shape, &others);
        let contract = Contract {
            out: shape.into_iter().collect(),
            reduce,
            lhs: reads[0].clone(),
            rhs: reads[1].clone(),
        };
        let values = [numbers(&first.1), numbers(&second.1)];
        let types = [&first.1, &second.1, &read.1].map(|s| Type::known(DType::F32, s));
        let found = contract.eval(&[&values[0], &values[1]], &types.each_ref());
        let expected = brute_force(&space, &read, &[&first, &second], &values);
        prop_assert_eq!(&found[0], &expected);
    }

    #[test]
    fn of_a_view_agrees_with_brute_force((space, read, _, _) in problem()) {
        let mut g = Graph::new();
        let x = input(&mut g, "x", &read.1);
        let dy = input(&mut g, "dy", &space);
        let axes = sizes(&space).into_iter().collect();
        let view = View { axes, access: read.0.clone(), fill: Scalar::new(DType::F32, 5.0) };
        let y = g.push(view, &[x], None);
        let dx = pullback(&mut g, &[(y, dy)], &[x])[0].expect("a view depends on its operand");
        let cotangent = numbers(&space);
        let found = eval_values(&g, &[dx], &|_| Some(cotangent.clone())).expect("a value");
        let own = (Access::identity(space.len()), space.clone());
        let one = (Access::default(), vec![]);
        let values = [cotangent, Array::scalar(1.0)];
        prop_assert_eq!(&found[0], &brute_force(&space, &read, &[&own, &one], &values));
    }
}

fn input(g: &mut Graph, name: &str, shape: &[i64]) -> Value {
    let (ty, default) = (Type::known(DType::F32, shape), Scalar::new(DType::F32, 0.0));
    g.push(Source { name: name.into(), class: SourceClass::Input, ty, default }, &[], None)
}

/// The gradients of the last operation of a graph given as text, as text: the operation, then for
/// each operand what its cotangent is made of.
fn gradients(text: &str) -> String {
    let mut g = Graph::parse(text).expect("the test's graph parses");
    let y = g.values().next_back().expect("it has operations");
    let dy = g.push(
        Source {
            name: "dy".into(),
            class: SourceClass::Input,
            ty: g.ty(y).clone(),
            default: Scalar::new(DType::F32, 0.0),
        },
        &[],
        None,
    );
    let operands = g.operands(y);
    let found = pullback(&mut g, &[(y, dy)], &operands);
    for (operand, cotangent) in operands.into_iter().zip(found) {
        let name = match g.op(operand) {
            Op::Source(source) => format!("d{}", source.name),
            _ => format!("d{operand}"),
        };
        g.add_result(name, cotangent.expect("it is differentiable"), Role::Output);
    }
    g.to_string()
}

#[test]
fn matrix_products() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[B, N, K] = input
          %1 w: f32[B, M, K] = param
          %2: f32[B, N, M] = contract [b, n, m] sum [k: K] %0[b, n, k] * %1[b, m, k]
        }"
    ));
}

#[test]
fn strided_padded_convolution() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[N, 3, 224, 224] = input
          %1 w: f32[64, 3, 7, 7] = param
          %2: f32[N, 64, 112, 112] = contract [n, k, h, w] sum [c: 3, r: 7, s: 7]
            %0[n, c, 2*h + r - 3, 2*w + s - 3] * %1[k, c, r, s]
        }"
    ));
}

/// The window is as wide as the result, but of its taps only every second meets an element.
#[test]
fn convolution_with_as_many_results_as_taps() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[N, 3, 8] = input
          %1 w: f32[16, 3, 4] = param
          %2: f32[N, 16, 4] = contract [n, k, h] sum [c: 3, r: 4]
            %0[n, c, 2*h + r - 1] * %1[k, c, r]
        }"
    ));
}

#[test]
fn grouped_convolution() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[N, 32, H + 2, W + 2] = input
          %1 w: f32[8, 5, 4, 3, 3] = param
          %2: f32[N, 8, 5, H, W] = contract [n, g, k, h, w] sum [c: 4, r: 3, s: 3]
            %0[n, 4*g + c, h + r, w + s] * %1[g, k, c, r, s]
        }"
    ));
}

#[test]
fn a_bias_sums_over_what_it_was_repeated_over() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 b: f32[C] = param
          %1: f32[N, C, H, W] = view [n, c, h, w] %0[c]
        }"
    ));
}

#[test]
fn transpose_slice_and_stride() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[C, 2*N + 3, 4] = input
          %1: f32[N, 4, C] = view [n, d, c] %0[c, 2*n + 3, d]
        }"
    ));
}

#[test]
fn pooling_windows() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[N, 6, 28, 28] = input
          %1: f32[N, 6, 14, 14, 2, 2] = view [n, c, h, w, r, s] %0[n, c, 2*h + r, 2*w + s] else -inf
        }"
    ));
}

#[test]
fn fixed_and_diagonal_coordinates() {
    insta::assert_snapshot!(gradients(
        "graph {
          %0 x: f32[3, N, N] = input
          %1: f32[N] = view [i] %0[1, i, i]
        }"
    ));
}
