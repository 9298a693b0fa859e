//! What `--emit kernels` shows.

use crate::build::*;
use dlc_kernel::*;

#[test]
fn convolution() {
    insta::assert_snapshot!(conv());
}

#[test]
fn rows() {
    insta::assert_snapshot!(softmax(3, 5));
}

#[test]
fn a_training_step() {
    insta::assert_snapshot!(training());
}

/// Precedence, sharing, guards, divisions, casts and random numbers.
#[test]
fn expressions() {
    let (f, i) = (DType::F32, DType::I32);
    let outs: [(DType, &[i64]); 5] = [(f, &[4, 3]); 5];
    let program = single(&[(f, &[4, 3]), (i, &[4])], &outs, |b, o| {
        let mut e = Exprs::new();
        let x = load(&mut e, b[0], Access::identity(2));
        let half = e.constant(f, 0.5);
        let tiny = e.constant(f, -1e-12);
        let sum = binary(&mut e, BinaryOp::Add, x, half);
        let product = binary(&mut e, BinaryOp::Mul, sum, x);
        let difference = binary(&mut e, BinaryOp::Sub, tiny, product);
        let negated = unary(&mut e, UnaryOp::Neg, difference);

        let below = Guard { index: affine(&[(0, 1), (1, -1)], 0), extent: 4i64.into() };
        let inside = e.add(Expr::Inside(below.clone()));
        let root = unary(&mut e, UnaryOp::Sqrt, half);
        let selected = e.add(Expr::Select(inside, root, tiny));
        let doubled = binary(&mut e, BinaryOp::Mul, selected, half);

        let index = Index { div: 2, ..affine(&[(0, 3), (1, -1)], -1) };
        let access = Access::new([index, Index::axis(1)]);
        let access = Access { guards: [below].into_iter().collect(), ..access };
        let guarded = load_or(&mut e, b[0], access, Scalar::new(f, f64::NEG_INFINITY));

        let id = load_or(&mut e, b[1], axes(&[0]), Scalar::new(i, 0.0));
        let access = Access::new([Index::constant(0i64), Index::axis(1)]);
        let found = look_up(&mut e, b[0], access, 0, id);

        let (row, n) = (e.add(Expr::Axis(Axis(0))), e.add(Expr::Extent(3i64.into(), i)));
        let element = binary(&mut e, BinaryOp::Mul, row, n);
        let seed = e.constant(i, 7.0);
        let random = e.add(Expr::Random { site: 0xd1c, seed, step: n, element });
        let keep = binary(&mut e, BinaryOp::Lt, random, half);
        let keep = e.add(Expr::Cast(f, keep));

        let values = [negated, doubled, guarded, found, keep];
        let stores = values.into_iter().zip(o).map(|(v, &b)| store(b, Access::identity(2), v));
        map(&[4, 3], e, stores.collect())
    });
    verify::verify(&program).unwrap();
    insta::assert_snapshot!(program);
}

/// Lines stay short and printing a deep chain needs no deep stack.
#[test]
fn long_chains_are_split() {
    let program = single(&[(DType::F32, &[4])], &[(DType::F32, &[4])], |i, o| {
        let mut e = Exprs::new();
        let mut x = load(&mut e, i[0], Access::identity(1));
        for _ in 0..100_000 {
            x = unary(&mut e, UnaryOp::Tanh, x);
        }
        map(&[4], e, vec![store(o[0], Access::identity(1), x)])
    });
    let text = program.to_string();
    assert!(text.lines().all(|line| line.len() < 100));
    assert_eq!(text.matches("tanh").count(), 100_000);
}
