//! Row kernels, scatter-adds, reshapes and checks against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/row.rs"]
mod shared;

use dlc_kernel::{Class, DType, Exprs, FoldOp, Form, Index, Lookup, Scalar, ScatterMode, Step};
use shared::{Softmax, reduction, row, softmax_of};
use support::*;

/// Few long rows are shared by blocks, in a launch for every fold and one for what is made of them.
#[test]
fn long_rows_are_shared() {
    for (n, c, parts) in [(1, 70_001, 31), (3, 40_000, 5), (2, 16_384, 2), (2, 15_360, 1)] {
        let mut draft = Draft::default();
        let (x, y, z) = (draft.input(&[n, c]), draft.output(&[n, c]), draft.output(&[n]));
        let mut e = Exprs::new();
        let Softmax { x, power, sum, softmax, .. } = softmax_of(&mut e, x);
        let steps = vec![
            Step::Fold(FoldOp::Max, x),
            Step::Fold(FoldOp::Sum, power),
            Step::StoreEach(store(y, &[0, 1], softmax)),
            Step::StoreRow(store(z, &[0], sum)),
        ];
        row(&mut draft, &[n], &[c], e, steps);
        let program = draft.program();
        let schedule = TARGET.schedule(&program);
        let said = if parts > 1 { format!(", {parts} parts,") } else { "a block a row,".into() };
        assert!(schedule.contains(&said), "{schedule}");
        let launches = compile(&program).entries[0].launches().len();
        assert_eq!(launches, if parts > 1 { 3 } else { 1 });
        // Sums of positive numbers, by trees less than 100 high: as many roundings, of 2^-24 each.
        check(&program, &noise_inputs(&program, 4), 6e-6);
    }
}

/// Rows side by side, shared by blocks: lanes walk along what lies side by side in memory.
#[test]
fn long_columns_are_shared() {
    for op in [FoldOp::Sum, FoldOp::Min, FoldOp::ArgMax] {
        let program = reduction(&[4000, 70], &[1], DType::F32, op).program();
        let schedule = TARGET.schedule(&program);
        assert!(schedule.contains("a lane a row, 8 warps, 56 parts"), "{schedule}");
        check(&program, &noise_inputs(&program, 6), 1e-5);
    }
}

/// Rows of a table that are updated often, in the order of the updates, by threads that share out
/// the rows.
#[test]
fn scatter_adds_share_out_indices() {
    let (n, d, rows) = (301, 33, 21);
    let mut draft = Draft::default();
    let index = draft.buffer(Class::Input, DType::I32, &[n]);
    let (values, sums) = (draft.input(&[n, d]), draft.output(&[rows, d]));
    let mut exprs = Exprs::new();
    let index = load_as(&mut exprs, index, at(&[0]), Scalar::new(DType::I32, 0.0));
    let value = load(&mut exprs, values, at(&[0, 1]));
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
    let schedule = TARGET.schedule(&program);
    assert!(schedule.contains("33 threads x 16 shares, 301 updates each"), "{schedule}");
    // Sums of about 75 numbers below 1.
    check(&program, &noise_inputs(&program, 9), 75.0 * 75.0 * 6e-8);
}
