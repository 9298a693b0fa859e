//! Row kernels, scatter-adds, reshapes and checks against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/row.rs"]
mod shared;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Axis, BinaryOp, Class, DType, Expr, Exprs, FoldOp, Index, OptLevel, Program, Scalar, Step,
    Target, Tensor,
};
use shared::{Normal, Softmax, normal_of, reduction, row, softmax_of};
use support::*;

/// The schedule of a program where leaves are AVX2's.
fn schedule_of(program: &Program) -> String {
    CpuTarget::new(Level::X86_64V3).emit("schedule", program, &options(OptLevel::O2, 1)).unwrap()
}

/// The powers of the second pass wait for the third one in the scratch room.
#[test]
fn a_costly_value_is_computed_once() {
    for c in (16..=40).chain([1000]) {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[3, c]), draft.output(&[3, c]));
        let mut e = Exprs::new();
        let Softmax { x, power, softmax, .. } = softmax_of(&mut e, x);
        let steps = vec![
            Step::Fold(FoldOp::Max, x),
            Step::Fold(FoldOp::Sum, power),
            Step::StoreEach(store(y, &[0, 1], softmax)),
        ];
        row(&mut draft, &[3], &[c], e, steps);
        let program = draft.program();
        let schedule = schedule_of(&program);
        assert!(schedule.contains("sum by a leaf x2, keeping a value; each b1"), "{schedule}");
        check(&program, &noise_inputs(&program, 4), 3e-6);
    }
}

/// Results that outgrow the caches take another way to memory, from rows that begin anywhere.
#[test]
fn rows_of_large_results_are_those_of_small_ones() {
    let program = |n: i64| {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[n, 1021]), draft.output(&[n, 1021]));
        let mut e = Exprs::new();
        let Softmax { x, power, softmax, .. } = softmax_of(&mut e, x);
        let steps = vec![
            Step::Fold(FoldOp::Max, x),
            Step::Fold(FoldOp::Sum, power),
            Step::StoreEach(store(y, &[0, 1], softmax)),
        ];
        row(&mut draft, &[n], &[1021], e, steps);
        draft.program()
    };
    let target = CpuTarget::detect().unwrap();
    let large = noise_inputs(&program(6000), 4);
    let all = run(&target, &program(6000), &options(OptLevel::O2, 2), &large).unwrap();
    let rows = |tensor: &Tensor, at: usize| tensor.as_f32().unwrap()[at * 1021..][..1021].to_vec();
    for at in [0, 1, 2999, 5999] {
        let one = [Tensor::f32([1, 1021], rows(&large[0], at))];
        let alone = run(&target, &program(1), &options(OptLevel::O2, 1), &one).unwrap();
        assert_eq!(rows(&all[0], at), rows(&alone[0], 0), "row {at}");
    }
}

/// Folds over anything but the last axis, whose rows leaves walk over side by side.
#[test]
fn rows_side_by_side() {
    for columns in [16, 17, 31, 70, 300] {
        for op in [FoldOp::Sum, FoldOp::Max, FoldOp::Min] {
            let draft = reduction(&[5, 3, columns], &[2], DType::F32, op);
            let program = draft.program();
            let schedule = schedule_of(&program);
            assert!(schedule.contains("abreast by leaves"), "{schedule}");
            check(&program, &noise_inputs(&program, 4), 3e-6);
        }
    }
}

/// Statistics of the columns `c` of `x[n, s, c]`, weighted by `w[n, c]`: walks over blocks of points, each of
/// which waits for what all blocks come to in the one before; then stores once for each column.
#[test]
fn points_in_blocks() {
    for (n, s, c, blocks) in
        [(1, 4001, 17, 4), (7, 700, 40, 7), (50, 9, 300, 5), (41, 9, 300, 6), (3, 1500, 33, 3)]
    {
        let mut draft = Draft::default();
        let (x, w) = (draft.input(&[n, s, c]), draft.input(&[n, c]));
        let y = draft.output(&[n, s, c]);
        let [z, largest] = [(); 2].map(|()| draft.output(&[c]));
        let mut e = Exprs::new();
        let (x, w) = (load(&mut e, x, at(&[1, 2, 0])), load(&mut e, w, at(&[1, 0])));
        let x = binary(&mut e, BinaryOp::Mul, x, w);
        let Normal { square, scale, normal } = normal_of(&mut e, x, n * s);
        let most = folded(&mut e, 2, DType::F32);
        let steps = vec![
            Step::Fold(FoldOp::Sum, x),
            Step::Fold(FoldOp::Sum, square),
            Step::Fold(FoldOp::Max, normal),
            Step::StoreEach(store(y, &[1, 2, 0], normal)),
            Step::StoreRow(store(z, &[0], scale)),
            Step::StoreRow(store(largest, &[0], most)),
        ];
        row(&mut draft, &[c], &[n, s], e, steps);
        let program = draft.program();
        let schedule = schedule_of(&program);
        match blocks {
            4.. => assert!(schedule.contains(&format!("in {blocks} blocks")), "{schedule}"),
            _ => assert!(!schedule.contains("blocks"), "{schedule}"),
        }
        // As many points in each, or a walk for the mean and one for what deviates from it.
        let own = schedule.contains("with means of their own");
        assert_eq!(own, [5, 7].contains(&blocks), "{schedule}");
        check(&program, &noise_inputs(&program, 4), 3e-6);
    }
}

/// What the way back of a pool asks of each point, its position in a window, changes along the last axis: no lines, but
/// blocks of points all the same.
#[test]
fn blocks_of_points_without_lines() {
    for (n, s, c) in [(9, 1500, 17), (260, 35, 40)] {
        let mut draft = Draft::default();
        let (x, y) = (draft.input(&[n, s, 2, c]), draft.output(&[n, s, 2, c]));
        let z = draft.output(&[c]);
        let mut e = Exprs::new();
        let (x, position) = (load(&mut e, x, at(&[1, 2, 3, 0])), e.add(Expr::Axis(Axis(3))));
        let position = e.add(Expr::Cast(DType::F32, position));
        let value = binary(&mut e, BinaryOp::Mul, x, position);
        let sum = folded(&mut e, 0, DType::F32);
        let each = binary(&mut e, BinaryOp::Add, sum, x);
        let steps = vec![
            Step::Fold(FoldOp::Sum, value),
            Step::StoreEach(store(y, &[1, 2, 3, 0], each)),
            Step::StoreRow(store(z, &[0], sum)),
        ];
        row(&mut draft, &[c], &[n, s, 2], e, steps);
        let program = draft.program();
        let schedule = schedule_of(&program);
        assert!(schedule.contains("abreast by leaves, in "), "{schedule}");
        check(&program, &noise_inputs(&program, 4), 3e-6);
    }
}

/// Variances of columns of whole numbers far from 0, whose mean drifts from block to block. Their sums are exact, and
/// their means are off by a rounding or two, or exact, too, in blocks of a power of two.
#[test]
fn variances_of_blocks_with_means_of_their_own() {
    for (points, c, blocks) in [(64 * 1024, 17, 64), (150 * 1310, 40, 100)] {
        let mut draft = Draft::default();
        let (x, z) = (draft.input(&[points, c]), draft.output(&[c]));
        let mut e = Exprs::new();
        let x = load(&mut e, x, at(&[1, 0]));
        let Normal { square, scale, .. } = normal_of(&mut e, x, points);
        let steps = vec![
            Step::Fold(FoldOp::Sum, x),
            Step::Fold(FoldOp::Sum, square),
            Step::StoreRow(store(z, &[0], scale)),
        ];
        row(&mut draft, &[c], &[points], e, steps);
        let program = draft.program();
        let schedule = schedule_of(&program);
        let expected = format!("in {blocks} blocks with means of their own");
        assert!(schedule.contains(&expected), "{schedule}");
        let value = |i: i64| {
            let (point, column) = (i / c, i % c);
            (100 + column + 5 * point / points + i * 7919 % 11) as f32
        };
        let x: Vec<f32> = (0..points * c).map(value).collect();
        let input = [Tensor::f32([points as usize, c as usize], x.clone())];
        let target = CpuTarget::detect().unwrap();
        let [one, two] = [1, 2].map(|threads| {
            run(&target, &program, &options(OptLevel::O2, threads), &input).unwrap()
        });
        assert_eq!(one[0].as_f32(), two[0].as_f32());
        for (column, &found) in one[0].as_f32().unwrap().iter().enumerate() {
            let all = || x.iter().skip(column).step_by(c as usize).map(|&v| f64::from(v));
            let mean = all().sum::<f64>() / points as f64;
            let variance = all().map(|v| (v - mean).powi(2)).sum::<f64>() / points as f64;
            // A block's mean is off by `d`, at most; from the mean of all it is 5 away, at most.
            let length = points / blocks;
            let d = if length & (length - 1) == 0 { 0.0 } else { mean * f64::powi(2.0, -22) };
            let rounded = (length + blocks + 4) as f64 * f64::powi(2.0, -24) * variance;
            let bound = 2.0 * 5.0 * d + 2.0 * d * d + rounded;
            let found = f64::from(found).powi(-2);
            let error = (found - variance).abs();
            assert!(error <= bound, "column {column}: {found}, not {variance}: {error} of {bound}");
        }
    }
}

/// A sum down a long column is one of sums: its error grows with the length of these and their number.
#[test]
fn long_sums_are_sums_of_blocks() {
    let (n, c) = (400_000, 16);
    let program = reduction(&[n, c], &[1], DType::F32, FoldOp::Sum).program();
    let x: Vec<f32> = (0..n * c).map(|i| 1.0 + (i * 37 % 101) as f32 / 101.0).collect();
    let input = [Tensor::f32([n as usize, c as usize], x.clone())];
    let target = CpuTarget::detect().unwrap();
    let found = run(&target, &program, &options(OptLevel::O2, 2), &input).unwrap();
    for (column, &found) in found[0].as_f32().unwrap().iter().enumerate() {
        let exact: f64 = x.iter().skip(column).step_by(c as usize).map(|&v| f64::from(v)).sum();
        let (blocks, length) = (64.0, n as f64 / 64.0);
        let bound = (blocks + length) * f64::powi(2.0, -24) * exact;
        let error = (f64::from(found) - exact).abs();
        assert!(error <= bound, "column {column}: {found}, not {exact}: {error}, allowed {bound}");
    }
}

/// Pools: windows are written out, and neighbours are the lanes of leaves; positions, ties and NaN are
/// those of any row.
#[test]
fn windows_of_few_points() {
    for (size, step, ops) in [
        (2, 2, &[FoldOp::Max, FoldOp::ArgMax][..]),
        (2, 2, &[FoldOp::ArgMin, FoldOp::Sum]),
        (3, 2, &[FoldOp::Min, FoldOp::ArgMin, FoldOp::ArgMax]),
        (3, 1, &[FoldOp::Prod]),
    ] {
        for columns in [4, 5, 14, 33] {
            let (rows, width) = (4 * step + size - step, columns * step + size - step);
            let mut draft = Draft::default();
            let x = draft.input(&[3, rows, width]);
            let mut e = Exprs::new();
            let along = |outer, inner| Index::affine([(outer, step), (inner, 1)], 0i64);
            let access = access([Index::axis(0), along(1, 3), along(2, 4)]);
            let x = load(&mut e, x, access);
            let mut steps: Vec<Step> = ops.iter().map(|&op| Step::Fold(op, x)).collect();
            for (k, &op) in ops.iter().enumerate() {
                let dtype = if op.is_position() { DType::I32 } else { DType::F32 };
                let y = draft.buffer(Class::Output, dtype, &[3, 4, columns]);
                let result = folded(&mut e, k as u32, dtype);
                steps.push(Step::StoreRow(store(y, &[0, 1, 2], result)));
            }
            row(&mut draft, &[3, 4, columns], &[size, size], e, steps);
            let program = draft.program();
            let schedule = schedule_of(&program);
            assert!(schedule.contains(": map ["), "{schedule}");
            let mut x: Vec<f32> =
                (0..3 * rows * width).map(|i| (i * 37 % 11) as f32 - 5.0).collect();
            x.iter_mut().step_by(13).for_each(|x| *x = f32::NAN);
            x.iter_mut().step_by(17).for_each(|x| *x = f32::NEG_INFINITY);
            check(&program, &[Tensor::f32([3, rows as usize, width as usize], x)], 1e-6);
        }
    }
}

/// `y[c, p, q] = sum[i, j] slope[c, (p - i + pad) / step, (q - j + pad) / step]` where the maximum of that
/// window was at `(i, j)`: in phases, of which each reads all elements that it meets, edges included.
fn way_back(size: i64, step: i64, pad: i64, width: i64, is_last: bool) -> Program {
    let windows = (width + 2 * pad - size) / step + 1;
    let shape = |width: i64| if is_last { [width, width, 5] } else { [5, width, width] };
    let mut draft = Draft::default();
    let slope = draft.input(&shape(windows));
    let winner = draft.buffer(Class::Input, DType::I32, &shape(windows));
    let y = draft.output(&shape(width));
    let (c, p) = if is_last { (2, 0) } else { (0, 1) };
    let read =
        |out: u32, tap: u32| Index { div: step, ..Index::affine([(out, 1), (tap, -1)], pad) };
    let mut coords = [Index::axis(c), read(p, 3), read(p + 1, 4)];
    if is_last {
        coords.rotate_left(1);
    }
    let mut e = Exprs::new();
    let slope = load(&mut e, slope, access(coords.clone()));
    let winner = load_as(&mut e, winner, access(coords), Scalar::new(DType::I32, 0.0));
    let [i, j] = [3, 4].map(|axis| e.add(Expr::Axis(Axis(axis))));
    let taps = e.constant(DType::I32, size as f64);
    let row_of = binary(&mut e, BinaryOp::Mul, i, taps);
    let position = binary(&mut e, BinaryOp::Add, row_of, j);
    let won = binary(&mut e, BinaryOp::Eq, winner, position);
    let zero = e.constant(DType::F32, 0.0);
    let value = e.add(Expr::Select(won, slope, zero));
    let sum = folded(&mut e, 0, DType::F32);
    let steps = vec![Step::Fold(FoldOp::Sum, value), Step::StoreRow(store(y, &[0, 1, 2], sum))];
    row(&mut draft, &shape(width), &[size, size], e, steps);
    draft.program()
}

#[test]
fn the_way_back_of_pools() {
    for (size, step, pad) in [(3, 2, 1), (3, 1, 1), (2, 3, 0), (5, 2, 2), (3, 3, 1)] {
        for (width, is_last) in [(9, true), (9, false), (16, true), (21, false)] {
            let program = way_back(size, step, pad, width, is_last);
            let windows = (width + 2 * pad - size) / step + 1;
            let count = (5 * windows * windows) as usize;
            let shape = program.buffers[0].shape.iter().map(|n| n.as_const().unwrap() as usize);
            let shape: Vec<usize> = shape.collect();
            let slope = (0..count).map(|i| (i * 37 % 11) as f32 - 5.0).collect();
            let winner = (0..count as i64).map(|i| (i * 29 % (size * size)) as i32).collect();
            let inputs = [Tensor::f32(shape.clone(), slope), Tensor::i32(shape, winner)];
            check(&program, &inputs, 1e-6);
            let (schedule, divided) = (schedule_of(&program), step > 1);
            assert_eq!(schedule.contains("_phase"), divided, "{schedule}");
        }
    }
}
