//! The interpreter against loops written out here.

use crate::build::*;
use dlc_kernel::*;

const F32: DType = DType::F32;
const I32: DType = DType::I32;

/// Equal up to the order of summation.
#[track_caller]
fn close(value: &Array, expected: &Array) {
    let difference = value.max_difference(expected);
    assert!(difference <= 1e-13, "{value:?}\nis not\n{expected:?}");
}

#[test]
fn matmul() {
    let program = single(&[(F32, &[3, 4]), (F32, &[4, 5])], &[(F32, &[3, 5])], |i, o| {
        let mut exprs = Exprs::new();
        let lhs = load(&mut exprs, i[0], axes(&[0, 2]));
        let rhs = load(&mut exprs, i[1], axes(&[2, 1]));
        let sum = folded(&mut exprs, 0, F32);
        let stores = vec![store(o[0], Access::identity(2), sum)];
        Form::contract(sizes(&[3, 5]), sizes(&[4]), exprs, [lhs, rhs], stores)
    });
    let (a, b) = (noise(&[3, 4], 1), noise(&[4, 5], 2));
    let expected =
        Array::from_fn([3, 5], |p| (0..4).map(|k| a.at(&[p[0], k]) * b.at(&[k, p[1]])).sum());
    close(&run(&program, &[a, b]).unwrap()[0], &expected);
}

/// The two halves of a gated layer: `(x A) * (x B)`, where one matrix has the rows of both.
#[test]
fn several_sums() {
    let program = single(&[(F32, &[3, 4]), (F32, &[10, 4])], &[(F32, &[3, 5])], |i, o| {
        let mut exprs = Exprs::new();
        let lhs = load(&mut exprs, i[0], axes(&[0, 3]));
        let row = Access::new([affine(&[(1, 1), (2, 5)], 0), Index::axis(3)]);
        let rhs = load(&mut exprs, i[1], row);
        let halves = [0, 1].map(|k| folded(&mut exprs, k, F32));
        let product = binary(&mut exprs, BinaryOp::Mul, halves[0], halves[1]);
        let stores = vec![store(o[0], Access::identity(2), product)];
        let (out, sums, reduce) = (sizes(&[3, 5]), sizes(&[2]), sizes(&[4]));
        Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores }
    });
    assert!(program.to_string().contains("sums[i2:2]"), "{program}");
    assert_eq!(program.entries[0].kernels[0].flops(), 2 * 3 * 5 * 2 * 4 + 3 * 5);
    let (a, b) = (noise(&[3, 4], 1), noise(&[10, 4], 2));
    let sum = |r: i64, c: i64| -> f64 { (0..4).map(|k| a.at(&[r, k]) * b.at(&[c, k])).sum() };
    let expected = Array::from_fn([3, 5], |p| sum(p[0], p[1]) * sum(p[0], p[1] + 5));
    close(&run(&program, &[a.clone(), b.clone()]).unwrap()[0], &expected);
}

#[test]
fn convolution_with_padding_and_stride() {
    let (x, w, b) = (noise(&[2, 3, 7, 6], 1), noise(&[4, 3, 3, 2], 2), noise(&[4], 3));
    let expected = Array::from_fn([2, 4, 4, 4], |p| {
        let mut sum = b.at(&[p[1]]);
        for q in points(&[3, 3, 2]) {
            let (row, column) = (2 * p[2] + q[1] - 1, 2 * p[3] + q[2] - 1);
            let outside = !(0..7).contains(&row) || !(0..6).contains(&column);
            if !outside {
                sum += x.at(&[p[0], q[0], row, column]) * w.at(&[p[1], q[0], q[1], q[2]]);
            }
        }
        sum.max(0.0)
    });
    close(&run(&conv(), &[x, w, b]).unwrap()[0], &expected);
}

/// `dx[n, c, 2*h + r - 1, 2*w + s - 1] += dy[n, k, h, w] * w[k, c, r, s]`, read backwards: the
/// output position is `(row + 1 - r) / 2`, where that is a whole number.
#[test]
fn input_gradient_of_a_convolution_divides_exactly() {
    let ins: [(DType, &[i64]); 2] = [(F32, &[2, 4, 4, 4]), (F32, &[4, 3, 3, 2])];
    let program = single(&ins, &[(F32, &[2, 3, 7, 6])], |i, o| {
        let mut exprs = Exprs::new();
        let (n, c, row, column, k, r, s) = (0, 1, 2, 3, 4, 5, 6);
        let h = Index { div: 2, ..affine(&[(row, 1), (r, -1)], 1) };
        let w = Index { div: 2, ..affine(&[(column, 1), (s, -1)], 1) };
        let at = Access::new([Index::axis(n), Index::axis(k), h, w]);
        let lhs = load(&mut exprs, i[0], at);
        let rhs = load(&mut exprs, i[1], axes(&[k, c, r, s]));
        let sum = folded(&mut exprs, 0, F32);
        let stores = vec![store(o[0], Access::identity(4), sum)];
        let (out, reduce) = (sizes(&[2, 3, 7, 6]), sizes(&[4, 3, 2]));
        Form::contract(out, reduce, exprs, [lhs, rhs], stores)
    });
    let (dy, w) = (noise(&[2, 4, 4, 4], 1), noise(&[4, 3, 3, 2], 2));
    let mut expected = Array::zeros([2, 3, 7, 6]);
    for p in points(&[2, 4, 4, 4]) {
        for q in points(&[3, 3, 2]) {
            let (row, column) = (2 * p[2] + q[1] - 1, 2 * p[3] + q[2] - 1);
            if let Some(at) = expected.position(&[p[0], q[0], row, column]) {
                expected.data[at] += dy.at(&p) * w.at(&[p[1], q[0], q[1], q[2]]);
            }
        }
    }
    close(&run(&program, &[dy, w]).unwrap()[0], &expected);
}

#[test]
fn softmax_rows() {
    let x = noise(&[3, 5], 7).map(|x| 20.0 * x);
    let result = run(&softmax(3, 5), std::slice::from_ref(&x)).unwrap();
    let row = |i: i64| (0..5).map(|j| x.at(&[i, j]).exp()).sum::<f64>();
    close(&result[0], &Array::from_fn([3, 5], |p| x.at(p).exp() / row(p[0])));
    close(&result[1], &Array::from_fn([3], |p| row(p[0]).ln()));
}

#[test]
fn argmax_takes_the_first_of_equals_and_nan_before_all() {
    let program = single(&[(F32, &[4, 3])], &[(I32, &[4])], |i, o| {
        let mut exprs = Exprs::new();
        let x = load(&mut exprs, i[0], Access::identity(2));
        let position = folded(&mut exprs, 0, I32);
        let steps = vec![
            Step::Fold(FoldOp::ArgMax, x),
            Step::StoreRow(store(o[0], Access::identity(1), position)),
        ];
        Form::Row { outer: sizes(&[4]), inner: sizes(&[3]), exprs, steps }
    });
    let nan = f64::NAN;
    let x = vec![1.0, 3.0, 3.0, 5.0, nan, nan, -1.0, -2.0, -0.5, f64::NEG_INFINITY, 0.0, 0.0];
    let result = run(&program, &[Array::new([4, 3], x)]).unwrap();
    assert_eq!(result[0].data, [1.0, 1.0, 2.0, 1.0]);
}

#[test]
fn folds_of_nothing_and_sums_of_nothing() {
    let result = run(&softmax(2, 0), &[Array::zeros([2, 0])]).unwrap();
    assert_eq!(result[0].shape, [2, 0]);
    // max of nothing is -inf, the sum 0: log 0 + -inf.
    assert_eq!(result[1].data, [f64::NEG_INFINITY; 2]);
    assert_eq!(run(&softmax(0, 3), &[Array::zeros([0, 3])]).unwrap()[1].shape, [0]);
}

/// Twice the first half after the second: two segments write one buffer.
#[test]
fn segments_of_a_map() {
    let program = single(&[(F32, &[6])], &[(F32, &[6])], |i, o| {
        let segment = |from: i64, to: i64, factor: f64| {
            let mut exprs = Exprs::new();
            let x = load(&mut exprs, i[0], Access::new([affine(&[(0, 1)], from)]));
            let factor = exprs.constant(F32, factor);
            let value = binary(&mut exprs, BinaryOp::Mul, x, factor);
            let at = Access::new([affine(&[(0, 1)], to)]);
            Segment { axes: sizes(&[3]), exprs, stores: vec![store(o[0], at, value)] }
        };
        Form::Map { segments: vec![segment(0, 3, 2.0), segment(3, 0, 1.0)] }
    });
    let x = Array::new([6], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(run(&program, &[x]).unwrap()[0].data, [4.0, 5.0, 6.0, 2.0, 4.0, 6.0]);
}

/// `y[i, j] = x[i, j] if j <= i else -1`, and the same by a guard on the load.
#[test]
fn masks_by_select_and_by_guard() {
    let outs: [(DType, &[i64]); 2] = [(F32, &[3, 3]), (F32, &[3, 3])];
    let program = single(&[(F32, &[3, 3])], &outs, |i, o| {
        let mut e = Exprs::new();
        let below = Guard { index: affine(&[(0, 1), (1, -1)], 0), extent: 3i64.into() };
        let inside = e.add(Expr::Inside(below.clone()));
        let x = load(&mut e, i[0], Access::identity(2));
        let minus = e.constant(F32, -1.0);
        let selected = e.add(Expr::Select(inside, x, minus));
        let access = Access { guards: [below].into_iter().collect(), ..Access::identity(2) };
        let guarded = load_or(&mut e, i[0], access, Scalar::new(F32, -1.0));
        let stores = [selected, guarded].into_iter().zip(o);
        let stores = stores.map(|(v, &b)| store(b, Access::identity(2), v)).collect();
        map(&[3, 3], e, stores)
    });
    let x = noise(&[3, 3], 4);
    let expected = Array::from_fn([3, 3], |p| if p[1] <= p[0] { x.at(p) } else { -1.0 });
    let result = run(&program, &[x]).unwrap();
    assert_eq!(result, [expected.clone(), expected]);
}

/// `y[i] = table[ids[i], i - 1]`: a point that is outside by the second dim reports no index.
#[test]
fn lookups_are_checked_after_all_other_coordinates() {
    let program = single(&[(F32, &[4, 2]), (I32, &[3])], &[(F32, &[3])], |i, o| {
        let mut e = Exprs::new();
        let id = load_or(&mut e, i[1], Access::identity(1), Scalar::new(I32, 0.0));
        let access = Access::new([Index::constant(0i64), affine(&[(0, 1)], -1)]);
        let value = look_up(&mut e, i[0], access, 0, id);
        map(&[3], e, vec![store(o[0], Access::identity(1), value)])
    });
    let table = noise(&[4, 2], 5);
    let call = |ids: [f64; 3]| run(&program, &[table.clone(), Array::new([3], ids.to_vec())]);
    let expected = [0.0, table.at(&[3, 0]), table.at(&[2, 1])];
    assert_eq!(call([99.0, 3.0, 2.0]).unwrap()[0].data, expected);
    let place = "kernel `k` (m.dl:1)".to_string();
    assert_eq!(call([0.0, -1.0, 2.0]), Err(RunError::Index { place, index: -1, extent: 4 }));
}

#[test]
fn a_training_step_updates_in_place() {
    let program = training();
    verify::verify(&program).unwrap();
    let mut machine = Machine::new(&program);
    let table = noise(&[4, 2], 6);
    machine.write("emb.table", &table).unwrap();
    let loss = machine.call("run", &[Array::new([3], vec![2.0, 0.0, 2.0])]).unwrap();
    let rows = [2, 0, 2].map(|r| table.at(&[r, 0]) + table.at(&[r, 1]));
    close(&loss[0], &Array::scalar(rows.iter().sum()));
    let uses = [1.0, 0.0, 2.0, 0.0];
    let expected = Array::from_fn([4, 2], |p| table.at(p) - 0.5 * uses[p[0] as usize]);
    close(machine.read("emb.table").unwrap(), &expected);
}

#[test]
fn a_failing_step_changes_nothing() {
    let program = training();
    let mut machine = Machine::new(&program);
    let mut table = noise(&[4, 2], 6);
    machine.write("emb.table", &table).unwrap();
    let bad = machine.call("run", &[Array::new([3], vec![2.0, 4.0, 1.0])]);
    let place = "kernel `gather` (m.dl:3)".to_string();
    assert_eq!(bad, Err(RunError::Index { place, index: 4, extent: 4 }));
    assert_eq!(machine.read("emb.table").unwrap(), &table);

    table.data[0] = f64::INFINITY;
    machine.write("emb.table", &table).unwrap();
    let bad = machine.call("run", &[Array::zeros([3])]);
    assert_eq!(bad, Err(RunError::NotFinite { name: "loss".to_string() }));
    assert_eq!(machine.read("emb.table").unwrap(), &table);
}

#[test]
fn scatter_reports_a_bad_index() {
    let mut program = training();
    program.entries[0].kernels.drain(..2);
    program.entries[0].commit = 2;
    program.entries[0].outputs.clear();
    program.entries[0].kernels[1].form = Form::Check { buffers: vec![BufferId(5)] };
    verify::verify(&program).unwrap();
    let bad = Machine::new(&program).call("run", &[Array::new([3], vec![0.0, 1.0, -1.0])]);
    let place = "kernel `scatter` (m.dl:3)".to_string();
    assert_eq!(bad, Err(RunError::Index { place, index: -1, extent: 4 }));
}

#[test]
fn random_numbers_are_philox() {
    let program = single(&[(I32, &[]), (I32, &[])], &[(F32, &[10])], |i, o| {
        let mut e = Exprs::new();
        let word = |e: &mut Exprs, id| load_or(e, id, Access::identity(0), Scalar::new(I32, 0.0));
        let (seed, step) = (word(&mut e, i[0]), word(&mut e, i[1]));
        let element = e.add(Expr::Axis(Axis(0)));
        let random = e.add(Expr::Random { site: 77, seed, step, element });
        map(&[10], e, vec![store(o[0], Access::identity(1), random)])
    });
    let result = run(&program, &[Array::scalar(-5.0), Array::scalar(3.0)]).unwrap();
    let expected = Array::from_fn([10], |p| philox::uniform(-5, 3, 77, p[0] as i32).into());
    assert_eq!(result[0], expected);
}

#[test]
fn reshape_keeps_row_major_order() {
    let program =
        single(&[(F32, &[2, 6])], &[(F32, &[3, 4])], |i, o| Form::Reshape { src: i[0], dst: o[0] });
    let x = noise(&[2, 6], 8);
    assert_eq!(run(&program, std::slice::from_ref(&x)).unwrap()[0], x.reshape([3, 4]));
}

#[test]
fn sizes_casts_and_integers_as_values() {
    let program = single(&[(F32, &[2])], &[(I32, &[2])], |i, o| {
        let mut e = Exprs::new();
        let x = load(&mut e, i[0], Access::identity(1));
        let whole = e.add(Expr::Cast(I32, x));
        let two = e.add(Expr::Extent(2i64.into(), I32));
        let value = binary(&mut e, BinaryOp::Mul, whole, two);
        map(&[2], e, vec![store(o[0], Access::identity(1), value)])
    });
    let result = run(&program, &[Array::new([2], vec![-1.7, 1.5e9])]).unwrap();
    assert_eq!(result[0].data, [-2.0, f64::from(1_500_000_000i32.wrapping_mul(2))]);
}

#[test]
fn calls_that_do_not_fit() {
    let program = softmax(2, 3);
    let mut machine = Machine::new(&program);
    let mut usage = |entry: &str, inputs: &[Array]| match machine.call(entry, inputs) {
        Err(RunError::Usage(message)) => message,
        other => panic!("{other:?} is no usage error"),
    };
    assert_eq!(usage("train", &[]), "there is no entry `train`");
    assert_eq!(usage("run", &[]), "entry `run` takes 1 inputs, not 0");
    assert_eq!(usage("run", &[Array::zeros([3, 2])]), "`x0` has shape [2, 3], not [3, 2]");
    assert!(matches!(machine.write("w", &Array::scalar(0.0)), Err(RunError::Usage(_))));
}
