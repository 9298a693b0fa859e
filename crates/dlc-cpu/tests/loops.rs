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
