//! Loops: every kernel of a body is written and listed once, and launched at every step.

mod support;

use dlc_kernel::{
    Class, DType, Expr, Exprs, FoldOp, Form, Index, Lookup, RunError, Scalar, ScatterMode, Step,
    Tensor,
};

use dlc_ptx::device::{Arg, Work};
use dlc_ptx::interpret::{Device, Failure};
use support::*;

/// In a loop: long sums that blocks share, and a total of a long row that blocks share.
fn shared_sums(steps: i64) -> Draft {
    let mut draft = Draft::default();
    let (x, w) = (draft.input(&[steps, 6, 1030]), draft.input(&[1030, 5]));
    let (y, z) = (draft.output(&[steps, 6, 5]), draft.output(&[steps]));
    let mut e = Exprs::new();
    let (lhs, rhs) = (load(&mut e, x, at(&[0, 1, 3])), load(&mut e, w, at(&[3, 2])));
    let sum = folded(&mut e, 0, DType::F32);
    let (out, reduce) = (sizes(&[steps, 6, 5]), sizes(&[1030]));
    draft.kernel(Form::contract(out, reduce, e, [lhs, rhs], vec![store(y, &[0, 1, 2], sum)]));
    let long = draft.input(&[steps, 33_000]);
    let mut e = Exprs::new();
    let value = load(&mut e, long, at(&[0, 1]));
    let total = folded(&mut e, 0, DType::F32);
    let steps_of_row = vec![Step::Fold(FoldOp::Sum, value), Step::StoreRow(store(z, &[0], total))];
    let (outer, inner) = (sizes(&[steps]), sizes(&[33_000]));
    draft.kernel(Form::Row { outer, inner, exprs: e, steps: steps_of_row });
    draft.repeat(steps, 2);
    draft
}

#[test]
fn kernels_are_listed_once() {
    for steps in [1, 3] {
        let program = shared_sums(steps).program();
        check(&program, &noise_inputs(&program, 4), 1e-5);
        let code = compile(&program);
        let [Work::Repeat { steps: repeats, works }] = code.entries[0].kernels[0].as_slice() else {
            panic!("one loop is expected: {:?}", code.entries[0].kernels);
        };
        assert_eq!(i64::from(*repeats), steps);
        // Parts and totals, of the sums and of the row.
        let launches: Vec<_> = works.iter().flat_map(Work::list).collect();
        assert_eq!(launches.len(), 4);
        assert_eq!(code.module.kernels.len(), 4);
        assert!(launches.iter().all(|launch| launch.args.contains(&Arg::Step(0))));
        let (_, counters) = Device::new(&code).call(0, &noise_inputs(&program, 4)).unwrap();
        assert_eq!(counters.len() as i64, 4 * steps);
    }
}

#[test]
fn without_steps_nothing_is_launched() {
    let program = shared_sums(0).program();
    let code = compile(&program);
    assert!(code.entries[0].launches().is_empty());
    check(&program, &noise_inputs(&program, 4), 0.0);
}

/// A step clears and updates its own part of what it adds to.
#[test]
fn scatter_adds_at_a_step() {
    let (steps, n, d, rows) = (3, 20, 3, 7);
    let mut draft = Draft::default();
    let index = draft.buffer(Class::Input, DType::I32, &[steps, n]);
    let (values, sums) = (draft.input(&[steps, n, d]), draft.output(&[steps, rows, d]));
    let mut exprs = Exprs::new();
    let index = load_as(&mut exprs, index, at(&[0, 1]), Scalar::new(DType::I32, 0.0));
    let value = load(&mut exprs, values, at(&[0, 1, 2]));
    draft.kernel(Form::Scatter {
        mode: ScatterMode::Add,
        axes: sizes(&[steps, n, d]),
        exprs,
        buffer: sums,
        access: access([Index::axis(0), Index::constant(0i64), Index::axis(2)]),
        lookups: [Lookup { dim: 1, index }].into_iter().collect(),
        value,
    });
    draft.repeat(steps, 1);
    let program = draft.program();
    check(&program, &noise_inputs(&program, 9), 1e-6);
}

/// `y[t, i] = table[ids[t, i]] + t`, for `i` below 4, in a loop.
fn lookup(steps: i64) -> Draft {
    let mut draft = Draft::default();
    let ids = draft.buffer(Class::Input, DType::I32, &[steps, 4]);
    let (table, y) = (draft.input(&[5]), draft.output(&[steps, 4]));
    let mut e = Exprs::new();
    let index = load_as(&mut e, ids, at(&[0, 1]), Scalar::new(DType::I32, 0.0));
    let access = access([Index::constant(0i64)]);
    let lookups = [Lookup { dim: 0, index }].into_iter().collect();
    let fill = Scalar::new(DType::F32, 0.0);
    let found = e.add(Expr::Load { buffer: table, access, lookups, fill });
    let step = axis(&mut e, 0);
    let step = e.add(Expr::Cast(DType::F32, step));
    let value = binary(&mut e, dlc_kernel::BinaryOp::Add, found, step);
    draft.map(&[steps, 4], e, vec![store(y, &[0, 1], value)]);
    draft.repeat(steps, 1);
    draft
}

#[test]
fn an_index_outside_at_a_later_step_names_the_kernel() {
    let program = lookup(3).program();
    let table = Tensor::f32([5], vec![1.0, 2.0, 3.0, 4.0, 5.0]);
    let ids = |last| Tensor::i32([3, 4], vec![0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, last]);
    check(&program, &[ids(1), table.clone()], 0.0);
    let error = Device::new(&compile(&program)).call(0, &[ids(5), table]).unwrap_err();
    let place = "kernel `map_0`".to_string();
    assert_eq!(error, Failure::Run(RunError::Index { place, index: 5, extent: 5 }));
}
