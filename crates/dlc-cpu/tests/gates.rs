//! Contractions with several sums at a point: what they compute, and where they come from.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Access, BinaryOp, BufferId, DType, Expr, ExprId, Exprs, Form, Index, OptLevel, Program, Size,
    Store, Target, UnaryOp,
};
use support::*;

/// `gates` sums of each of `width` points in `rows` rows, over `depth` terms; what is stored follows
/// from all of them.
fn several_sums(rows: i64, width: i64, gates: i64, depth: i64) -> Program {
    let mut draft = Draft::default();
    let (x, w) = (draft.input(&[rows, depth]), draft.input(&[gates * width, depth]));
    let (bias, out) = (draft.input(&[gates * width]), draft.output(&[rows, width]));
    let mut e = Exprs::new();
    let column = || Index::affine([(1, 1), (2, width)], Size::ZERO);
    let lhs = load(&mut e, x, at(&[0, 3]));
    let rhs = load(&mut e, w, access([column(), Index::axis(3)]));
    let gate = |e: &mut Exprs, k: i64| {
        let place = access([Index::affine([(1, 1)], Size::from(k * width))]);
        let (sum, bias) = (small_sum(e, k as u32), load(e, bias, place));
        binary(e, BinaryOp::Add, sum, bias)
    };
    let value = combined(&mut e, gates, gate);
    let stores = vec![store(out, &[0, 1], value)];
    let (out, sums, reduce) = (sizes(&[rows, width]), sizes(&[gates]), sizes(&[depth]));
    draft.kernel(Form::Contract { out, sums, reduce, exprs: e, lhs, rhs, stores });
    draft.program()
}

/// A sum made so small that its error stays so in what follows.
fn small_sum(e: &mut Exprs, k: u32) -> ExprId {
    let (sum, factor) = (folded(e, k, DType::F32), e.constant(DType::F32, 0.04));
    binary(e, BinaryOp::Mul, sum, factor)
}

/// Something that every gate matters to: `tanh(.. tanh(g0) + g1 ..)`.
fn combined(e: &mut Exprs, gates: i64, mut gate: impl FnMut(&mut Exprs, i64) -> ExprId) -> ExprId {
    let mut value = gate(e, 0);
    for k in 1..gates {
        let (shrunk, next) = (unary(e, UnaryOp::Tanh, value), gate(e, k));
        value = binary(e, BinaryOp::Add, shrunk, next);
    }
    unary(e, UnaryOp::Tanh, value)
}

#[test]
fn sums_are_those_of_the_interpreter() {
    // Bundles that divide the width, a width in one bundle, and ones whose last bundle is shorter.
    for width in [1, 2, 15, 16, 17, 48, 64, 100, 130, 1031] {
        for (rows, gates, depth) in [(1, 4, 20), (7, 3, 33), (2, 2, 1200)] {
            let program = several_sums(rows, width, gates, depth);
            check(&program, &noise_inputs(&program, 1), 1e-5);
        }
    }
}

/// A loop whose state follows from gates that are made of it, `h[t + 1] = f(0.04 h[t] W + x[t])`, or, if it
/// is `masked`, stays as it is in those rows where `x[t, row, 0]` is negative: the products are in a
/// temporary, which is read after the loop, too, if they are `kept`.
fn recurrence(rows: i64, width: i64, kept: bool, masked: bool) -> Program {
    let (steps, gates) = (4, 3);
    let all = gates * width;
    let mut draft = Draft::default();
    let (x, w) = (draft.input(&[steps, rows, all]), draft.input(&[all, width]));
    let (state, products) =
        (draft.temp(&[steps + 1, rows, width]), draft.temp(&[steps, rows, all]));
    let (first, rest) = (draft.output(&[rows, width]), draft.output(&[steps, rows, width]));
    let mut e = Exprs::new();
    let zero = e.constant(DType::F32, 0.0);
    let beginning = access([Index::constant(Size::ZERO), Index::axis(0), Index::axis(1)]);
    let zeros = vec![stored(state, beginning, zero), store(first, &[0, 1], zero)];
    draft.map(&[rows, width], e, zeros);
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, state, at(&[0, 1, 3])), load(&mut e, w, at(&[2, 3])));
    let (sum, own) = (small_sum(&mut e, 0), load(&mut e, x, at(&[0, 1, 2])));
    let gate = binary(&mut e, BinaryOp::Add, sum, own);
    let stores = vec![store(products, &[0, 1, 2], gate)];
    let (out, reduce) = (sizes(&[steps, rows, all]), sizes(&[width]));
    draft.kernel(Form::contract(out, reduce, e, [lhs, rhs], stores));
    let mut e = Exprs::new();
    let mut next = combined(&mut e, gates, |e, k| {
        let column = Index::affine([(2, 1)], Size::from(k * width));
        load(e, products, access([Index::axis(0), Index::axis(1), column]))
    });
    if masked {
        let first = Index::constant(Size::ZERO);
        let row = load(&mut e, x, access([Index::axis(0), Index::axis(1), first]));
        let (zero, old) = (e.constant(DType::F32, 0.0), load(&mut e, state, at(&[0, 1, 2])));
        let stays = binary(&mut e, BinaryOp::Lt, row, zero);
        next = e.add(Expr::Select(stays, old, next));
    }
    let after = Index::affine([(0, 1)], Size::ONE);
    let there = access([after.clone(), Index::axis(1), Index::axis(2)]);
    draft.map(&[steps, rows, width], e, vec![stored(state, there.clone(), next)]);
    draft.repeat_after(1, steps, 2);
    let mut e = Exprs::new();
    let mut value = load(&mut e, state, there);
    if kept {
        let product = load(&mut e, products, at(&[0, 1, 2]));
        value = binary(&mut e, BinaryOp::Add, value, product);
    }
    draft.map(&[steps, rows, width], e, vec![store(rest, &[0, 1, 2], value)]);
    draft.program()
}

fn stored(buffer: BufferId, access: Access, value: ExprId) -> Store {
    Store { buffer, access, value }
}

#[test]
fn gates_are_made_and_used_in_one_kernel() {
    for (rows, width) in [(1, 32), (5, 20), (9, 96), (7, 100), (1, 200), (30, 40)] {
        for (kept, masked) in [(false, false), (true, false), (false, true)] {
            let program = recurrence(rows, width, kept, masked);
            check(&program, &noise_inputs(&program, 2), 1e-5);
            for (level, joins) in [(Level::X86_64V3, rows < 30), (Level::X86_64V4, true)] {
                let target = CpuTarget::new(level);
                let text = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
                let together = text.contains("sums in workspace, stores by a leaf");
                assert_eq!(together, joins && !kept, "{text}");
            }
        }
    }
}

#[test]
fn every_level_agrees() {
    let program = recurrence(6, 48, false, false);
    let inputs = noise_inputs(&program, 3);
    let own = check(&program, &inputs, 1e-5);
    for level in [Level::X86_64V2, Level::X86_64V3] {
        let others = run(&CpuTarget::new(level), &program, &options(OptLevel::O2, 2), &inputs);
        for (own, other) in own.iter().zip(&others.unwrap()) {
            let other = dlc_kernel::Array::from_tensor(other);
            assert!(error(own, &other) <= 1e-5, "{level:?}");
        }
    }
}
