//! Loops: what only one step needs is there for one step, and nothing else changes.

mod support;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Access, BinaryOp, BufferId, DType, Exprs, Form, Index, OptLevel, Program, Size, Target, UnaryOp,
};
use support::*;

const STEPS: i64 = 7;
const ROWS: i64 = 5;

/// `h[t + 1] = tanh(0.04 (h[t] W + x[t]))`, in which errors fade, for a state of that width, the products in a temporary. If they
/// are `kept`, all of them are read after the loop.
fn recurrence(width: i64, kept: bool) -> Program {
    let mut draft = Draft::default();
    let (x, w) = (draft.input(&[STEPS, ROWS, width]), draft.input(&[width, width]));
    let (state, products) =
        (draft.temp(&[STEPS + 1, ROWS, width]), draft.temp(&[STEPS, ROWS, width]));
    let out = draft.output(&[STEPS, ROWS, width]);
    let mut e = Exprs::new();
    let zero = e.constant(DType::F32, 0.0);
    let first = access([Index::constant(Size::ZERO), Index::axis(0), Index::axis(1)]);
    draft.map(&[ROWS, width], e, vec![stored(state, first, zero)]);
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, state, at(&[0, 1, 3])), load(&mut e, w, at(&[3, 2])));
    let stores = vec![store(products, &[0, 1, 2], folded(&mut e, 0, DType::F32))];
    let (out_axes, reduce) = (sizes(&[STEPS, ROWS, width]), sizes(&[width]));
    draft.kernel(Form::contract(out_axes, reduce, e, [lhs, rhs], stores));
    let mut e = Exprs::new();
    let (sum, x) = (load(&mut e, products, at(&[0, 1, 2])), load(&mut e, x, at(&[0, 1, 2])));
    let sum = binary(&mut e, BinaryOp::Add, sum, x);
    let factor = e.constant(DType::F32, 0.04);
    let scaled = binary(&mut e, BinaryOp::Mul, sum, factor);
    let next = unary(&mut e, UnaryOp::Tanh, scaled);
    let step = Index::affine([(0, 1)], Size::ONE);
    let there = access([step, Index::axis(1), Index::axis(2)]);
    draft.map(&[STEPS, ROWS, width], e, vec![stored(state, there, next)]);
    draft.repeat_after(1, STEPS, 2);
    let mut e = Exprs::new();
    let last = access([Index::affine([(0, 1)], Size::ONE), Index::axis(1), Index::axis(2)]);
    let mut value = load(&mut e, state, last);
    if kept {
        let product = load(&mut e, products, at(&[0, 1, 2]));
        value = binary(&mut e, BinaryOp::Add, value, product);
    }
    draft.map(&[STEPS, ROWS, width], e, vec![store(out, &[0, 1, 2], value)]);
    draft.program()
}

fn stored(buffer: BufferId, access: Access, value: dlc_kernel::ExprId) -> dlc_kernel::Store {
    dlc_kernel::Store { buffer, access, value }
}

#[test]
fn results_are_the_same_wherever_temporaries_are() {
    // One block of columns, and several, which are taken in both directions.
    for width in [24, 300] {
        for kept in [false, true] {
            let program = recurrence(width, kept);
            check(&program, &noise_inputs(&program, 3), 1e-5);
        }
    }
}

#[test]
fn what_a_step_alone_needs_is_there_for_one_step() {
    let peak = |kept| {
        let target = CpuTarget::new(Level::X86_64V3);
        let program = recurrence(48, kept);
        let built = target.build(&program, &options(OptLevel::O2, 1)).unwrap();
        built.peak_bytes() as i64
    };
    let of_a_step = 4 * ROWS * 48;
    assert_eq!(peak(true) - peak(false), (STEPS - 1) * of_a_step);
}

/// `h[t + 1] = tanh(0.04 h[t] W + c[t])`, `c[t + 1] = (c[t] + h[t + 1]) / 2`, of which the last values are read;
/// if they are `kept`, all values of `c`.
fn carries(steps: i64, kept: bool) -> Program {
    let mut draft = Draft::default();
    let (w, first) = (draft.input(&[24, 24]), draft.input(&[5, 24]));
    add_carries(&mut draft, (w, first), (5, 24), steps, kept);
    draft.program()
}

/// Adds them, with `h[0] = c[0] = first`; gives their values.
fn add_carries(
    draft: &mut Draft,
    (w, first): (BufferId, BufferId),
    (rows, width): (i64, i64),
    steps: i64,
    kept: bool,
) -> BufferId {
    let [h, c] = [0; 2].map(|_| draft.temp(&[steps + 1, rows, width]));
    let products = draft.temp(&[steps, rows, width]);
    let out = draft.output(&[if kept { steps + 1 } else { 1 }, rows, width]);
    let fixed = |step: i64| access([Index::constant(step), Index::axis(0), Index::axis(1)]);
    let next = || access([Index::affine([(0, 1)], 1i64), Index::axis(1), Index::axis(2)]);
    let mut e = Exprs::new();
    let start = load(&mut e, first, at(&[0, 1]));
    let stores = [h, c].map(|carry| stored(carry, fixed(0), start));
    draft.map(&[rows, width], e, stores.to_vec());
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, h, at(&[0, 1, 3])), load(&mut e, w, at(&[3, 2])));
    let stores = vec![store(products, &[0, 1, 2], folded(&mut e, 0, DType::F32))];
    draft.kernel(Form::contract(
        sizes(&[steps, rows, width]),
        sizes(&[width]),
        e,
        [lhs, rhs],
        stores,
    ));
    let mut e = Exprs::new();
    let (sum, old) = (load(&mut e, products, at(&[0, 1, 2])), load(&mut e, c, at(&[0, 1, 2])));
    let factor = e.constant(DType::F32, 0.04);
    let scaled = binary(&mut e, BinaryOp::Mul, sum, factor);
    let sum = binary(&mut e, BinaryOp::Add, scaled, old);
    let new = unary(&mut e, UnaryOp::Tanh, sum);
    let sum = binary(&mut e, BinaryOp::Add, old, new);
    let half = e.constant(DType::F32, 0.5);
    let mean = binary(&mut e, BinaryOp::Mul, sum, half);
    draft.map(&[steps, rows, width], e, vec![stored(h, next(), new), stored(c, next(), mean)]);
    draft.repeat_after(1, steps, 2);
    let mut e = Exprs::new();
    if kept {
        let value = load(&mut e, c, at(&[0, 1, 2]));
        draft.map(&[steps + 1, rows, width], e, vec![store(out, &[0, 1, 2], value)]);
    } else {
        let last = [h, c].map(|carry| load(&mut e, carry, fixed(steps)));
        let value = binary(&mut e, BinaryOp::Add, last[0], last[1]);
        draft.map(&[rows, width], e, vec![stored(out, fixed(0), value)]);
    }
    out
}

#[test]
fn carries_whose_history_nobody_needs_are_in_place() {
    for steps in [1, 2, 9] {
        for kept in [false, true] {
            let program = carries(steps, kept);
            check(&program, &noise_inputs(&program, 4), 1e-5);
        }
    }
    let peak = |steps, kept| {
        let program = carries(steps, kept);
        let target = CpuTarget::new(Level::X86_64V3);
        target.build(&program, &options(OptLevel::O2, 2)).unwrap().peak_bytes()
    };
    assert_eq!(peak(9, false), peak(40, false));
    assert!(peak(9, true) < peak(40, true));
}

/// Two recurrences, each after a kernel that it needs; if `coupled`, the second one begins with the last
/// values of the first.
fn pair(width: i64, coupled: bool) -> Program {
    let (rows, steps) = (5, 6);
    let mut draft = Draft::default();
    let (w, first) = (draft.input(&[width, width]), draft.input(&[rows, width]));
    let scaled = |draft: &mut Draft, x: BufferId, coords: Access, factor: f64| {
        let result = draft.temp(&[rows, width]);
        let mut e = Exprs::new();
        let (x, factor) = (load(&mut e, x, coords), e.constant(DType::F32, factor));
        let value = binary(&mut e, BinaryOp::Mul, x, factor);
        draft.map(&[rows, width], e, vec![store(result, &[0, 1], value)]);
        result
    };
    let begin = scaled(&mut draft, first, at(&[0, 1]), 0.5);
    let out = add_carries(&mut draft, (w, begin), (rows, width), steps, false);
    let last = access([Index::constant(0i64), Index::axis(0), Index::axis(1)]);
    let (x, coords) = if coupled { (out, last) } else { (first, at(&[0, 1])) };
    let begin = scaled(&mut draft, x, coords, 0.7);
    add_carries(&mut draft, (w, begin), (rows, width), steps, false);
    draft.program()
}

#[test]
fn loops_that_need_nothing_of_each_other_run_beside_each_other() {
    let beside = |program: &Program, threads: usize| {
        let target = CpuTarget::new(Level::X86_64V3);
        let decided = target.decide(program, &options(OptLevel::O2, threads)).unwrap();
        let made = decided.kernels.iter().flatten();
        made.filter(|decision| decision.algorithm.contains("beside")).count()
    };
    for width in [24, 300] {
        for coupled in [false, true] {
            let program = pair(width, coupled);
            check(&program, &noise_inputs(&program, 5), 1e-5);
            assert_eq!(beside(&program, 1), 0);
            assert_eq!(beside(&program, 2), if coupled { 0 } else { 2 });
        }
    }
}
