//! Row kernels, scatter-adds, reshapes and checks against the interpreter, on any target.

use crate::support::*;
use dlc_kernel::{
    BinaryOp, BufferId, Class, DType, Expr, ExprId, Exprs, FoldOp, Form, Index, Lookup, Scalar,
    ScatterMode, Step, Tensor, UnaryOp,
};

pub fn row(draft: &mut Draft, outer: &[i64], inner: &[i64], exprs: Exprs, steps: Vec<Step>) {
    draft.kernel(Form::Row { outer: sizes(outer), inner: sizes(inner), exprs, steps });
}

/// What the softmax of a row is made of; step 0 folds its maximum, step 1 its sum.
pub struct Softmax {
    pub x: ExprId,
    pub centred: ExprId,
    pub power: ExprId,
    pub sum: ExprId,
    pub softmax: ExprId,
}

pub fn softmax_of(e: &mut Exprs, x: BufferId) -> Softmax {
    let x = load(e, x, at(&[0, 1]));
    let largest = folded(e, 0, DType::F32);
    let centred = binary(e, BinaryOp::Sub, x, largest);
    let power = unary(e, UnaryOp::Exp, centred);
    let sum = folded(e, 1, DType::F32);
    Softmax { x, centred, power, sum, softmax: binary(e, BinaryOp::Div, power, sum) }
}

/// What the normalization of rows of `count` points `x` is made of; step 0 folds `x`, step 1 the squares.
pub struct Normal {
    pub square: ExprId,
    pub scale: ExprId,
    pub normal: ExprId,
}

pub fn normal_of(e: &mut Exprs, x: ExprId, count: i64) -> Normal {
    let count = e.constant(DType::F32, count as f64);
    let [sum, squares] = [0, 1].map(|step| folded(e, step, DType::F32));
    let mean = binary(e, BinaryOp::Div, sum, count);
    let centred = binary(e, BinaryOp::Sub, x, mean);
    let square = binary(e, BinaryOp::Mul, centred, centred);
    let variance = binary(e, BinaryOp::Div, squares, count);
    let scale = unary(e, UnaryOp::Rsqrt, variance);
    Normal { square, scale, normal: binary(e, BinaryOp::Mul, centred, scale) }
}

#[test]
fn softmax_and_log_softmax() {
    for (n, c) in [(64, 10), (3, 1000), (1, 4), (5, 3), (7, 17), (0, 3), (4, 1)] {
        let mut draft = Draft::default();
        let (x, y, z) = (draft.input(&[n, c]), draft.output(&[n, c]), draft.output(&[n, c]));
        let mut e = Exprs::new();
        let Softmax { x, centred, power, sum, softmax } = softmax_of(&mut e, x);
        let log_sum = unary(&mut e, UnaryOp::Log, sum);
        let log_softmax = binary(&mut e, BinaryOp::Sub, centred, log_sum);
        let steps = vec![
            Step::Fold(FoldOp::Max, x),
            Step::Fold(FoldOp::Sum, power),
            Step::StoreEach(store(y, &[0, 1], softmax)),
            Step::StoreEach(store(z, &[0, 1], log_softmax)),
        ];
        row(&mut draft, &[n], &[c], e, steps);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 4), 3e-6);
    }
}

/// `y[kept] = fold over the other axes of x`.
pub fn reduction(shape: &[i64], kept: &[u32], dtype: DType, op: FoldOp) -> Draft {
    let mut draft = Draft::default();
    let rank = shape.len() as u32;
    let reduced: Vec<u32> = (0..rank).filter(|a| !kept.contains(a)).collect();
    let extents = |axes: &[u32]| axes.iter().map(|&a| shape[a as usize]).collect::<Vec<_>>();
    let x = draft.buffer(Class::Input, dtype, shape);
    let result = dlc_kernel::fold_dtype(op, dtype);
    let y = draft.buffer(Class::Output, result, &extents(kept));
    let order: Vec<u32> = kept.iter().chain(&reduced).copied().collect();
    let place = |dim: u32| order.iter().position(|&a| a == dim).unwrap() as u32;
    let mut e = Exprs::new();
    let fill = Scalar::new(dtype, 0.0);
    let axes: Vec<u32> = (0..rank).map(place).collect();
    let value = load_as(&mut e, x, at(&axes), fill);
    let fold = folded(&mut e, 0, result);
    let out: Vec<u32> = (0..kept.len() as u32).collect();
    let steps = vec![Step::Fold(op, value), Step::StoreRow(store(y, &out, fold))];
    row(&mut draft, &extents(kept), &extents(&reduced), e, steps);
    draft
}

#[test]
fn reductions_over_any_axes() {
    let cases: [(&[i64], &[u32]); 16] = [
        (&[5, 7], &[0]),
        (&[5, 7], &[1]),
        (&[64, 10], &[1]),
        (&[33, 3], &[1]),
        (&[4, 6, 5, 5], &[1]),
        (&[4, 6, 5, 5], &[0, 1]),
        (&[4, 6, 5, 5], &[2, 3]),
        (&[4, 6, 5, 5], &[0, 3]),
        (&[1000], &[]),
        (&[3], &[]),
        (&[70_000], &[]),
        (&[0, 5], &[1]),
        (&[3, 40_000], &[0]),
        (&[20_000, 5], &[1]),
        (&[2, 300, 3, 70], &[0, 2]),
        (&[16_411], &[]),
    ];
    for (shape, kept) in cases {
        for op in [FoldOp::Sum, FoldOp::Max, FoldOp::ArgMin, FoldOp::ArgMax] {
            let program = reduction(shape, kept, DType::F32, op).program();
            // Half an ulp for each addition, of sums that are below the square root of their number.
            let n: i64 = shape.iter().product();
            let bound = 1e-6f64.max(6e-8 * (n as f64).sqrt());
            check(&program, &noise_inputs(&program, 6), bound);
        }
        let program = reduction(shape, kept, DType::I32, FoldOp::ArgMax).program();
        check(&program, &noise_inputs(&program, 6), 0.0);
    }
}

/// Statistics of channels that stand last, and what is made of them: what all points of a channel
/// share is computed once.
#[test]
fn channels_that_stand_last() {
    for (n, s, c) in [(2, 9, 16), (3, 5, 70), (1, 11, 260)] {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[n, s, c]), draft.output(&[n, s, c]));
        let z = draft.output(&[c]);
        let mut e = Exprs::new();
        let x = load(&mut e, x, at(&[1, 2, 0]));
        let Normal { square, scale, normal } = normal_of(&mut e, x, n * s);
        let steps = vec![
            Step::Fold(FoldOp::Sum, x),
            Step::Fold(FoldOp::Sum, square),
            Step::StoreEach(store(y, &[1, 2, 0], normal)),
            Step::StoreRow(store(z, &[0], scale)),
        ];
        row(&mut draft, &[c], &[n, s], e, steps);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 4), 1e-5);
    }
}

#[test]
fn all_folds_of_all_types() {
    for dtype in [DType::F32, DType::I32, DType::U8, DType::Bool] {
        for &op in FoldOp::ALL {
            if dtype == DType::Bool && matches!(op, FoldOp::Sum) {
                continue;
            }
            for (shape, kept) in [([9, 6], [0]), ([9, 6], [1]), ([2, 1], [0]), ([3, 0], [0])] {
                let program = reduction(&shape, &kept, dtype, op).program();
                check(&program, &noise_inputs(&program, 8), 1e-6);
            }
        }
    }
}

#[test]
fn nan_decides_maxima() {
    let nan = f32::NAN;
    for op in [FoldOp::Max, FoldOp::Min, FoldOp::ArgMax, FoldOp::ArgMin] {
        for (shape, kept) in [([2, 9], [0]), ([9, 2], [1])] {
            let program = reduction(&shape, &kept, DType::F32, op).program();
            let mut x: Vec<f32> = (0..18).map(|i| (i as f32 * 2.3).sin()).collect();
            (x[4], x[9], x[15]) = (nan, nan, f32::INFINITY);
            check(&program, &[Tensor::f32(shape.map(|e| e as usize).to_vec(), x)], 1e-6);
        }
    }
    let program = reduction(&[1, 6], &[0], DType::F32, FoldOp::ArgMax).program();
    check(&program, &[Tensor::f32([1, 6], vec![f32::NEG_INFINITY; 6])], 0.0);
}

/// `max` over windows of `x`, outside skipped, as a pool has it.
fn max_pool(x: [i64; 4], window: i64, stride: i64, pad: i64) -> Draft {
    let mut draft = Draft::default();
    let extent = |n: i64| (n + 2 * pad - window) / stride + 1;
    let y = [x[0], x[1], extent(x[2]), extent(x[3])];
    let (from, to) = (draft.input(&x), draft.output(&y));
    let mut e = Exprs::new();
    let place = access([
        Index::axis(0),
        Index::axis(1),
        Index::affine([(2, stride), (4, 1)], -pad),
        Index::affine([(3, stride), (5, 1)], -pad),
    ]);
    let value = load_or(&mut e, from, place, f64::NEG_INFINITY);
    let fold = folded(&mut e, 0, DType::F32);
    let steps =
        vec![Step::Fold(FoldOp::Max, value), Step::StoreRow(store(to, &[0, 1, 2, 3], fold))];
    row(&mut draft, &y, &[window, window], e, steps);
    draft
}

#[test]
fn pools() {
    for draft in [
        max_pool([2, 3, 8, 8], 2, 2, 0),
        max_pool([2, 3, 28, 28], 2, 2, 0),
        max_pool([1, 2, 9, 11], 3, 2, 1),
        max_pool([1, 2, 5, 6], 3, 1, 1),
        max_pool([1, 2, 20, 20], 5, 1, 2),
    ] {
        let program = draft.program();
        check(&program, &noise_inputs(&program, 7), 0.0);
    }
}

/// Mean and variance over all axes but the channel, and the normalized result.
#[test]
fn batch_norm() {
    for (n, c, hw) in [(4, 6, 25), (8, 3, 196), (2, 5, 1)] {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[n, c, hw]), draft.output(&[n, c, hw]));
        let (mean_out, count) = (draft.output(&[c]), (n * hw) as f64);
        let mut e = Exprs::new();
        let x = load(&mut e, x, at(&[1, 0, 2]));
        let count = e.constant(DType::F32, count);
        let sum = folded(&mut e, 0, DType::F32);
        let mean = binary(&mut e, BinaryOp::Div, sum, count);
        let centred = binary(&mut e, BinaryOp::Sub, x, mean);
        let square = binary(&mut e, BinaryOp::Mul, centred, centred);
        let squares = folded(&mut e, 1, DType::F32);
        let variance = binary(&mut e, BinaryOp::Div, squares, count);
        let epsilon = e.constant(DType::F32, 1e-5);
        let shifted = binary(&mut e, BinaryOp::Add, variance, epsilon);
        let scale = unary(&mut e, UnaryOp::Rsqrt, shifted);
        let value = binary(&mut e, BinaryOp::Mul, centred, scale);
        let steps = vec![
            Step::Fold(FoldOp::Sum, x),
            Step::Fold(FoldOp::Sum, square),
            Step::StoreRow(store(mean_out, &[0], mean)),
            Step::StoreEach(store(y, &[1, 0, 2], value)),
        ];
        row(&mut draft, &[c], &[n, hw], e, steps);
        let program = draft.program();
        check(&program, &noise_inputs(&program, 7), 2e-6);
    }
}

/// The loss of a batch: a gather inside a fold over everything.
#[test]
fn nll_loss() {
    let (n, c) = (37, 10);
    let mut draft = Draft::default();
    let logp = draft.input(&[n, c]);
    let label = draft.buffer(Class::Input, DType::I32, &[n]);
    let loss = draft.output(&[]);
    let mut e = Exprs::new();
    let index = load_as(&mut e, label, at(&[0]), Scalar::new(DType::I32, 0.0));
    let picked = e.add(Expr::Load {
        buffer: logp,
        access: access([Index::axis(0), Index::constant(0i64)]),
        lookups: [Lookup { dim: 1, index }].into_iter().collect(),
        fill: Scalar::new(DType::F32, 0.0),
    });
    let fold = folded(&mut e, 0, DType::F32);
    let count = e.constant(DType::F32, -(n as f64));
    let mean = binary(&mut e, BinaryOp::Div, fold, count);
    let steps = vec![Step::Fold(FoldOp::Sum, picked), Step::StoreRow(store(loss, &[], mean))];
    row(&mut draft, &[], &[n], e, steps);
    let program = draft.program();
    check(&program, &noise_inputs(&program, 9), 1e-6);
}

#[test]
fn scatter_adds() {
    let widths = [(DType::I32, 3), (DType::F32, 3), (DType::I32, 70)];
    let lines = [4, 5, 16, 19, 33, 64, 127, 256, 391].map(|d| (DType::F32, d));
    for (dtype, d) in widths.into_iter().chain(lines) {
        let (n, rows) = (50, 4);
        let mut draft = Draft::default();
        let index = draft.buffer(Class::Input, DType::I32, &[n]);
        let values = draft.buffer(Class::Input, dtype, &[n, d]);
        let sums = draft.buffer(Class::Output, dtype, &[rows, d]);
        let mut exprs = Exprs::new();
        let index = load_as(&mut exprs, index, at(&[0]), Scalar::new(DType::I32, 0.0));
        let value = load_as(&mut exprs, values, at(&[0, 1]), Scalar::new(dtype, 0.0));
        draft.kernel(Form::Scatter {
            mode: ScatterMode::Add,
            axes: sizes(&[n, d]),
            exprs,
            buffer: sums,
            access: access([Index::constant(0i64), Index::axis(1)]),
            lookups: [Lookup { dim: 0, index }].into_iter().collect(),
            value,
        });
        let program = draft.program();
        check(&program, &noise_inputs(&program, 9), 1e-6);
    }
}

/// Rows of a state from places of their own on; what would stand outside is left out.
#[test]
fn a_state_is_overwritten() {
    for d in [3, 8, 21, 300] {
        overwrite_rows(d);
    }
}

fn overwrite_rows(d: i64) {
    let (n, t, room) = (2, 2, 5);
    let mut draft = Draft::default();
    let start = draft.buffer(Class::Input, DType::I32, &[n]);
    let (part, rows) = (draft.input(&[n, t, d]), draft.state(&[n, room, d]));
    let read = draft.output(&[n, room, d]);
    let mut e = Exprs::new();
    let start = load_as(&mut e, start, at(&[0]), Scalar::new(DType::I32, 0.0));
    let along = axis(&mut e, 1);
    let index = binary(&mut e, BinaryOp::Add, start, along);
    let value = load(&mut e, part, at(&[0, 1, 2]));
    let value = unary(&mut e, UnaryOp::Exp, value);
    draft.commit().kernel(Form::Scatter {
        mode: ScatterMode::Overwrite,
        axes: sizes(&[n, t, d]),
        exprs: e,
        buffer: rows,
        access: access([Index::axis(0), Index::constant(0i64), Index::axis(2)]),
        lookups: [Lookup { dim: 1, index }].into_iter().collect(),
        value,
    });
    let mut e = Exprs::new();
    let value = load(&mut e, rows, at(&[0, 1, 2]));
    draft.map(&[n, room, d], e, vec![store(read, &[0, 1, 2], value)]);
    let program = draft.program();
    let mut inputs = noise_inputs(&program, 9);
    for start in [[0, 3], [3, 1], [-1, 4], [5, i32::MIN]] {
        inputs[0] = Tensor::i32([2], start.to_vec());
        check(&program, &inputs, 1e-6);
    }
}

#[test]
fn reshapes_are_free_or_copies() {
    let mut draft = Draft::default();
    let (x, t, u) = (draft.input(&[4, 6]), draft.temp(&[24]), draft.temp(&[2, 12]));
    let (direct, y) = (draft.output(&[3, 8]), draft.output(&[2, 12]));
    draft.kernel(Form::Reshape { src: x, dst: direct });
    draft.kernel(Form::Reshape { src: x, dst: t });
    draft.kernel(Form::Reshape { src: t, dst: u });
    let mut e = Exprs::new();
    let value = load(&mut e, u, at(&[0, 1]));
    let value = unary(&mut e, UnaryOp::Neg, value);
    draft.map(&[2, 12], e, vec![store(y, &[0, 1], value)]);
    let program = draft.program();
    check(&program, &noise_inputs(&program, 9), 0.0);
}

#[test]
fn types_that_are_only_stored_are_copied() {
    let mut draft = Draft::default();
    let x = draft.buffer(Class::Input, DType::F64, &[3]);
    let y = draft.buffer(Class::Output, DType::F64, &[3, 1]);
    draft.kernel(Form::Reshape { src: x, dst: y });
    let x = Tensor::new(vec![3], dlc_kernel::Data::F64(vec![1.0, -2.5, 1e300]));
    check(&draft.program(), &[x], 0.0);
}

/// Stores of single rows beside a fold, with nothing to fold.
#[test]
fn rows_of_nothing() {
    let program = reduction(&[4, 0], &[0], DType::F32, FoldOp::Max).program();
    let y = check(&program, &noise_inputs(&program, 1), 0.0);
    assert_eq!(y[0].as_f32().unwrap(), [f32::NEG_INFINITY; 4]);
}
