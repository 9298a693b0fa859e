//! Costs, counted by hand.

use crate::build::*;
use dlc_kernel::*;

#[test]
fn a_convolution_counts_its_products_and_its_epilogue() {
    let program = conv();
    let kernel = &program.entries[0].kernels[0];
    let (outputs, products) = (2 * 4 * 4 * 4, 3 * 3 * 2);
    assert_eq!(kernel.flops(), outputs * products * 2 + outputs * 2);
    let elements = 2 * 3 * 7 * 6 + 4 * 3 * 3 * 2 + 4 + outputs;
    assert_eq!(kernel.bytes(&program), 4 * elements);
}

#[test]
fn a_softmax_counts_every_pass() {
    let program = softmax(3, 5);
    // Maximum; difference, exponential and sum; difference, exponential and quotient; log and sum.
    assert_eq!(program.entries[0].kernels[0].flops(), 3 * (5 * (1 + 3 + 3) + 2));
}

#[test]
fn reads_writes_and_failures_of_a_training_step() {
    let program = training();
    let kernels = &program.entries[0].kernels;
    let ids = |all: &[u32]| all.iter().map(|&b| BufferId(b)).collect::<Vec<_>>();
    let expected = [
        (ids(&[2, 0]), ids(&[3]), true),
        (ids(&[3]), ids(&[4]), false),
        (ids(&[2]), ids(&[5]), true),
        (ids(&[4, 5]), ids(&[]), true),
        (ids(&[0, 5, 1]), ids(&[0]), false),
    ];
    for (kernel, (reads, writes, may_fail)) in kernels.iter().zip(expected) {
        assert_eq!((kernel.reads(), kernel.writes(), kernel.may_fail()), (reads, writes, may_fail));
    }
}

#[test]
fn bytes_are_what_points_reach() {
    let program = training();
    let bytes = program.entries[0].kernels.iter().map(|kernel| kernel.bytes(&program) / 4);
    // Three rows of four, ids, three rows; all rows, the loss; ids, all of the gradient; what is checked;
    // the table, once, its gradient, the rate.
    assert_eq!(bytes.collect::<Vec<_>>(), [6 + 3 + 6, 6 + 1, 3 + 8, 1 + 8, 8 + 8 + 1]);
}

#[test]
fn only_a_reshape_to_a_result_moves_bytes() {
    let mut program = conv();
    let [src, dst] = [0, program.buffers.len() as u32].map(BufferId);
    let buffer = Buffer { shape: sizes(&[2 * 3 * 7 * 6]), ..program.buffer(src).clone() };
    for (class, times) in [(Class::Temp, 0), (Class::Output, 2)] {
        program.buffers.truncate(dst.0 as usize);
        program.buffers.push(Buffer { class, ..buffer.clone() });
        let kernel =
            Kernel { form: Form::Reshape { src, dst }, ..program.entries[0].kernels[0].clone() };
        assert_eq!(kernel.bytes(&program), times * 4 * 2 * 3 * 7 * 6);
    }
}

#[test]
fn huge_counts_saturate() {
    let mut program = conv();
    let Form::Contract { reduce, .. } = &mut program.entries[0].kernels[0].form else {
        unreachable!()
    };
    *reduce = sizes(&[MAX_DIM, MAX_DIM, 1]);
    assert_eq!(program.entries[0].kernels[0].flops(), u64::MAX);
}
