//! Maps against the interpreter, on any target.

use crate::support::*;
use dlc_kernel::{
    BinaryOp, Class, DType, Expr, Exprs, Form, Guard, Index, Lookup, Scalar, Segment, Size, Store,
    Tensor, UnaryOp,
};

/// `relu(x[n, c, h, w] + b[c])`.
fn bias_relu(shape: [i64; 4]) -> Draft {
    let mut draft = Draft::default();
    let (x, b) = (draft.input(&shape), draft.input(&shape[1..2]));
    let y = draft.output(&shape);
    let mut e = Exprs::new();
    let (x, b) = (load(&mut e, x, at(&[0, 1, 2, 3])), load(&mut e, b, at(&[1])));
    let sum = binary(&mut e, BinaryOp::Add, x, b);
    let zero = e.constant(DType::F32, 0.0);
    let value = binary(&mut e, BinaryOp::Max, sum, zero);
    draft.map(&shape, e, vec![store(y, &[0, 1, 2, 3], value)]);
    draft
}

#[test]
fn bias_and_relu_of_any_shape() {
    for shape in [
        [2, 3, 4, 5],
        [1, 1, 1, 1],
        [2, 6, 28, 28],
        [3, 5, 1, 3],
        [0, 3, 4, 5],
        [2, 3, 0, 5],
        [1, 7, 1, 1],
        [64, 16, 5, 5],
    ] {
        let program = bias_relu(shape).program();
        check(&program, &noise_inputs(&program, 1), 1e-7);
    }
}

#[test]
fn nan_passes_a_relu() {
    let program = bias_relu([1, 1, 1, 6]).program();
    let x = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 3.0, -3.0];
    let inputs = [Tensor::f32([1, 1, 1, 6], x), Tensor::f32([1], vec![0.0])];
    let y = check(&program, &inputs, 0.0);
    assert!(y[0].as_f32().unwrap()[0].is_nan());
}

/// Every operation on floats, one output for each.
#[test]
fn all_operations_on_floats() {
    for n in [1, 3, 4, 37] {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[n]), draft.input(&[n]));
        let mut e = Exprs::new();
        let (x, y) = (load(&mut e, x, at(&[0])), load(&mut e, y, at(&[0])));
        let mut stores = Vec::new();
        for &op in UnaryOp::ALL.iter().filter(|op| op.takes(DType::F32)) {
            let abs = unary(&mut e, UnaryOp::Abs, x);
            let positive = matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt);
            let value = unary(&mut e, op, if positive { abs } else { x });
            stores.push(store(draft.output(&[n]), &[0], value));
        }
        for &op in BinaryOp::ALL.iter().filter(|op| op.takes(DType::F32)) {
            let abs = unary(&mut e, UnaryOp::Abs, x);
            let base = if op == BinaryOp::Pow { abs } else { x };
            let value = binary(&mut e, op, base, y);
            let dtype = if op.is_comparison() { DType::Bool } else { DType::F32 };
            stores.push(store(draft.buffer(Class::Output, dtype, &[n]), &[0], value));
        }
        draft.map(&[n], e, stores);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 5), 1e-5);
    }
}

#[test]
fn all_operations_on_integers_and_truth_values() {
    for dtype in [DType::I32, DType::U8, DType::Bool] {
        let n = 23;
        let mut draft = Draft::default();
        let [x, y] = [0; 2].map(|_| draft.buffer(Class::Input, dtype, &[n]));
        let mut e = Exprs::new();
        let fill = Scalar::new(dtype, 0.0);
        let [x, y] = [x, y].map(|b| load_as(&mut e, b, at(&[0]), fill));
        let mut stores = Vec::new();
        for &op in UnaryOp::ALL.iter().filter(|op| op.takes(dtype)) {
            let value = unary(&mut e, op, x);
            stores.push(store(draft.buffer(Class::Output, dtype, &[n]), &[0], value));
        }
        for &op in BinaryOp::ALL.iter().filter(|op| op.takes(dtype)) {
            let value = binary(&mut e, op, x, y);
            let result = if op.is_comparison() { DType::Bool } else { dtype };
            stores.push(store(draft.buffer(Class::Output, result, &[n]), &[0], value));
        }
        for to in [DType::F32, DType::I32, DType::U8, DType::Bool] {
            let value = e.add(Expr::Cast(to, x));
            stores.push(store(draft.buffer(Class::Output, to, &[n]), &[0], value));
        }
        draft.map(&[n], e, stores);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 5), 0.0);
    }
}

#[test]
fn integer_corner_cases() {
    let mut draft = Draft::default();
    let [x, y] = [0; 2].map(|_| draft.buffer(Class::Input, DType::I32, &[8]));
    let mut e = Exprs::new();
    let fill = Scalar::new(DType::I32, 0.0);
    let [x, y] = [x, y].map(|b| load_as(&mut e, b, at(&[0]), fill));
    let mut stores = Vec::new();
    for op in [BinaryOp::Div, BinaryOp::Mod, BinaryOp::FloorDiv, BinaryOp::Mul, BinaryOp::Pow] {
        let value = binary(&mut e, op, x, y);
        stores.push(store(draft.buffer(Class::Output, DType::I32, &[8]), &[0], value));
    }
    draft.map(&[8], e, stores);
    let x = vec![i32::MIN, i32::MIN, -7, 7, -7, 7, 0, -1];
    let y = vec![-1, 0, 2, -2, -2, 2, -1, 2_147_483_647];
    let inputs = [Tensor::i32([8], x), Tensor::i32([8], y)];
    check(&draft.program(), &inputs, 0.0);
}

#[test]
fn conversions_of_floats_saturate() {
    let values = vec![
        0.0,
        -0.5,
        2.9,
        -2.9,
        255.4,
        256.0,
        300.0,
        -1.0,
        3e9,
        -3e9,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-45,
    ];
    let n = values.len() as i64;
    let mut draft = Draft::default();
    let x = draft.input(&[n]);
    let mut e = Exprs::new();
    let x = load(&mut e, x, at(&[0]));
    let mut stores = Vec::new();
    for to in [DType::I32, DType::U8, DType::Bool] {
        let value = e.add(Expr::Cast(to, x));
        stores.push(store(draft.buffer(Class::Output, to, &[n]), &[0], value));
    }
    draft.map(&[n], e, stores);
    check(&draft.program(), &[Tensor::f32([n as usize], values)], 0.0);
}

/// A window that leaves the tensor on both sides, in steps of `stride`.
#[test]
fn windows_beyond_the_edges() {
    for (n, stride, shift) in [(9, 1, -2i64), (33, 1, 3), (7, 2, -3), (12, 3, 1), (10, -1, 9)] {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[3, 11]), draft.output(&[3, n]));
        let mut e = Exprs::new();
        let place = access([Index::axis(0), Index::affine([(1, stride)], shift)]);
        let value = load_or(&mut e, x, place, -7.0);
        draft.map(&[3, n], e, vec![store(y, &[0, 1], value)]);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 2), 0.0);
    }
}

/// Copies of pictures with edges, whole steps along their lines: of all lines, of one side, of a part;
/// of more than a unit; of nothing that is inside; of what is computed from them.
#[test]
fn pictures_with_edges() {
    let cases = [
        ([9, 13], 1, [-1i64, -1]),
        ([9, 30], 1, [-2, 0]),
        ([4, 5], 1, [1, -3]),
        ([9, 7], 2, [-1, -3]),
        ([70, 90], 1, [-30, -40]),
        ([6, 20], 1, [-9, 0]),
        ([5, 9], 1, [0, -9]),
        ([3, 2100], 1, [-1, -1000]),
    ];
    for (([h, w], step, [down, along]), computed) in
        cases.into_iter().flat_map(|case| [(case, false), (case, true)])
    {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[3, 8, 12]), draft.output(&[3, h, w]));
        let mut e = Exprs::new();
        let line = Index::affine([(1, 1)], down);
        let place = access([Index::axis(0), line, Index::affine([(2, step)], along)]);
        let mut value = load_or(&mut e, x, place, 0.5);
        if computed {
            value = unary(&mut e, UnaryOp::Neg, value);
        }
        draft.map(&[3, h, w], e, vec![store(y, &[0, 1, 2], value)]);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 2), 0.0);
    }
}

/// Reads with an exact division, as the gradient of a strided convolution has.
#[test]
fn divided_coordinates_and_guards() {
    let mut draft = Draft::default();
    let (x, y) = (draft.input(&[4, 5]), draft.output(&[9, 13]));
    let inside = draft.buffer(Class::Output, DType::Bool, &[9, 13]);
    let mut e = Exprs::new();
    let divided = |axis, shift: i64, div| Index { div, ..Index::affine([(axis, 1)], shift) };
    let mut place = access([divided(0, -1, 2), divided(1, 0, 3)]);
    let guard = Guard { index: Index::affine([(0, 1), (1, 1)], -2i64), extent: Size::from(15i64) };
    place.guards.push(guard.clone());
    let value = load_or(&mut e, x, place, 0.25);
    let holds = e.add(Expr::Inside(guard));
    draft.map(&[9, 13], e, vec![store(y, &[0, 1], value), store(inside, &[0, 1], holds)]);
    let program = draft.program();
    check(&program, &noise_inputs(&program, 3), 0.0);
}

#[test]
fn transposes_and_broadcasts() {
    let mut draft = Draft::default();
    let (x, row) = (draft.input(&[7, 9]), draft.input(&[9]));
    let y = draft.output(&[9, 7]);
    let mut e = Exprs::new();
    let (x, row) = (load(&mut e, x, at(&[1, 0])), load(&mut e, row, at(&[0])));
    let value = binary(&mut e, BinaryOp::Sub, x, row);
    draft.map(&[9, 7], e, vec![store(y, &[0, 1], value)]);
    let program = draft.program();
    check(&program, &noise_inputs(&program, 3), 1e-7);
}

#[test]
fn segments_concatenate() {
    let mut draft = Draft::default();
    let (a, b, y) = (draft.input(&[3, 5]), draft.input(&[3, 6]), draft.output(&[3, 11]));
    let segments = [(a, 5, 0i64), (b, 6, 5)].map(|(from, n, shift)| {
        let mut exprs = Exprs::new();
        let value = load(&mut exprs, from, at(&[0, 1]));
        let access = access([Index::axis(0), Index::affine([(1, 1)], shift)]);
        Segment { axes: sizes(&[3, n]), exprs, stores: vec![Store { buffer: y, access, value }] }
    });
    draft.kernel(Form::Map { segments: segments.to_vec() });
    let program = draft.program();
    check(&program, &noise_inputs(&program, 3), 0.0);
}

/// `y[n, d] = table[ids[n], d]`.
pub fn gather(ids: Vec<i32>) -> (Draft, Vec<Tensor>) {
    let n = ids.len() as i64;
    let mut draft = Draft::default();
    let table = draft.input(&[5, 6]);
    let index = draft.buffer(Class::Input, DType::I32, &[n]);
    let y = draft.output(&[n, 6]);
    let mut e = Exprs::new();
    let index = load_as(&mut e, index, at(&[0]), Scalar::new(DType::I32, 0.0));
    let value = e.add(Expr::Load {
        buffer: table,
        access: access([Index::constant(0i64), Index::axis(1)]),
        lookups: [Lookup { dim: 0, index }].into_iter().collect(),
        fill: Scalar::new(DType::F32, 0.0),
    });
    draft.map(&[n, 6], e, vec![store(y, &[0, 1], value)]);
    let table = (0..30).map(|i| i as f32).collect();
    (draft, vec![Tensor::f32([5, 6], table), Tensor::i32([n as usize], ids)])
}

#[test]
fn gathers() {
    let (draft, inputs) = gather(vec![4, 0, 0, 3, 1, 2, 4]);
    check(&draft.program(), &inputs, 0.0);
}

#[test]
fn random_numbers_are_those_of_the_definition() {
    for (shape, draws) in [([3, 40], 40), ([5, 7], 7), ([1, 4], 4)] {
        let mut draft = Draft::default();
        let seed = draft.buffer(Class::Input, DType::I32, &[]);
        let y = draft.output(&shape);
        let mut e = Exprs::new();
        let seed = load_as(&mut e, seed, at(&[]), Scalar::new(DType::I32, 0.0));
        let step = e.constant(DType::I32, 17.0);
        let (row, column) = (axis(&mut e, 0), axis(&mut e, 1));
        let width = e.constant(DType::I32, draws as f64);
        let start = binary(&mut e, BinaryOp::Mul, row, width);
        let element = binary(&mut e, BinaryOp::Add, start, column);
        let value = e.add(Expr::Random { site: 0x1234_5678_9abc_def0, seed, step, element });
        draft.map(&shape, e, vec![store(y, &[0, 1], value)]);
        check(&draft.program(), &[Tensor::i32(Vec::new(), vec![-5])], 0.0);
    }
}

#[test]
fn positions_sizes_and_selections() {
    let mut draft = Draft::default();
    let y = draft.output(&[6, 10]);
    let mut e = Exprs::new();
    let (i, j) = (axis(&mut e, 0), axis(&mut e, 1));
    let size = e.add(Expr::Extent(Size::from(7i64), DType::I32));
    let scaled = binary(&mut e, BinaryOp::Mul, j, size);
    let limit = binary(&mut e, BinaryOp::Lt, i, scaled);
    let difference = binary(&mut e, BinaryOp::Sub, scaled, i);
    let number = e.add(Expr::Cast(DType::F32, difference));
    let other = e.constant(DType::F32, 0.5);
    let value = e.add(Expr::Select(limit, number, other));
    draft.map(&[6, 10], e, vec![store(y, &[0, 1], value)]);
    check(&draft.program(), &[], 0.0);
}

/// Stores into what is loaded, directly and through the memory plan.
#[test]
fn updates_in_place() {
    for n in [1i64, 6, 1030] {
        let mut draft = Draft::default();
        let x = draft.input(&[n]);
        let (a, b, y) = (draft.temp(&[n]), draft.temp(&[n]), draft.output(&[n]));
        let mut from = x;
        for (to, op) in [(a, UnaryOp::Neg), (b, UnaryOp::Exp), (y, UnaryOp::Sqrt)] {
            let mut e = Exprs::new();
            let value = load(&mut e, from, at(&[0]));
            let value = unary(&mut e, op, value);
            draft.map(&[n], e, vec![store(to, &[0], value)]);
            from = to;
        }
        let program = draft.program();
        check(&program, &noise_inputs(&program, 3), 1e-6);
    }
}
