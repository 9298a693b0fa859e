//! Maps against the interpreter.

mod support;

#[path = "../../dlc-kernel/tests/shared/map.rs"]
mod shared;

use dlc_kernel::{BinaryOp, DType, Expr, Exprs, RunError};
use dlc_ptx::interpret::{Device, Failure};
use shared::gather;
use support::*;

#[test]
fn an_index_outside_names_the_kernel() {
    for (ids, index) in
        [(vec![0, 1, -1], -1), (vec![4, 0, 9], 9), (vec![4, i32::MIN, 0], -2_147_483_648)]
    {
        let (draft, inputs) = gather(ids);
        let program = draft.program();
        let error = Device::new(&compile(&program)).call(0, &inputs).unwrap_err();
        let place = "kernel `map_0`".to_string();
        assert_eq!(error, Failure::Run(RunError::Index { place, index, extent: 5 }));
    }
}

/// One call of the generator gives four numbers, where elements are known to be neighbours.
#[test]
fn four_random_numbers_are_one_call() {
    let multiplications = |shape: [i64; 2]| {
        let mut draft = Draft::default();
        let y = draft.output(&shape);
        let mut e = Exprs::new();
        let [seed, step] = [1.0, 2.0].map(|n| e.constant(DType::I32, n));
        let (row, column) = (axis(&mut e, 0), axis(&mut e, 1));
        let width = e.constant(DType::I32, shape[1] as f64);
        let start = binary(&mut e, BinaryOp::Mul, row, width);
        let element = binary(&mut e, BinaryOp::Add, start, column);
        let value = e.add(Expr::Random { site: 3, seed, step, element });
        draft.map(&shape, e, vec![store(y, &[0, 1], value)]);
        let program = draft.program();
        check(&program, &[], 0.0);
        compile(&program).module.kernels[0].to_string().matches("mul.hi").count()
    };
    // Ten rounds, two products each, one of them of constants in the first.
    let one = multiplications([3, 5]);
    assert_eq!(multiplications([3, 8]), one);
    assert_eq!(one, 20);
}
