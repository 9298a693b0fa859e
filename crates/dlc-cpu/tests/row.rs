//! Row kernels, scatter-adds, reshapes and checks against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/row.rs"]
mod shared;

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{DType, Exprs, FoldOp, OptLevel, Program, Step, Target, Tensor};
use shared::{Softmax, reduction, row, softmax_of};
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
