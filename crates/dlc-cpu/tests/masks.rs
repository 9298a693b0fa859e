//! What masks rule out is not computed, and changes nothing that is.

mod support;

#[path = "../../dlc-kernel/tests/shared/attention.rs"]
mod attention;

use attention::{Mask, Seen, Sizes, attention, attention_in_groups};
use dlc_cpu::CpuTarget;
use dlc_kernel::{
    BinaryOp, DType, Data, Expr, Exprs, Form, OptLevel, Program, Target, Tensor, UnaryOp,
};
use support::{draft, *};

const CAUSAL: Mask = Mask { backwards: false, shift: 0, width: 1 << 20 };

#[test]
fn every_mask_at_every_border() {
    let masks = [
        CAUSAL,
        Mask { shift: 3, ..CAUSAL },
        Mask { shift: -2, ..CAUSAL },
        Mask { backwards: true, ..CAUSAL },
        Mask { width: 9, ..CAUSAL },
        Mask { backwards: true, shift: 70, width: 90 },
    ];
    let sizes = [(1, 1), (7, 7), (48, 48), (49, 70), (130, 131), (200, 97), (90, 300)];
    for mask in masks {
        for (k, &(queries, keys)) in sizes.iter().enumerate() {
            let (depth, width) = ([8, 64][k % 2], [64, 5, 48][k % 3]);
            let n = Sizes { heads: 2, queries, keys, depth, width };
            let group = [None, None, Some(2), Some(4)][k % 4];
            let (program, ..) = attention_in_groups(n, group, Seen::Masked(mask));
            check(&program, &noise_inputs(&program, 7), 3e-6);
        }
    }
}

/// Rows of several heads: a band is as many queries of all of them.
#[test]
fn bands_are_of_all_heads_that_share_keys() {
    let target = CpuTarget::detect().unwrap();
    for (group, queries, keys) in [(4, 100, 150), (3, 131, 97)] {
        let n = Sizes { heads: 1, queries, keys, depth: 16, width: 32 };
        let (program, ..) = attention_in_groups(n, Some(group), Seen::Masked(CAUSAL));
        check(&program, &noise_inputs(&program, 7), 3e-6);
        let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
        assert_eq!(schedule.matches("bands ").count(), 2, "{schedule}");
    }
}

#[test]
fn what_nobody_sees_does_not_turn_up() {
    let n = Sizes { heads: 1, queries: 192, keys: 192, depth: 16, width: 64 };
    let (program, ..) = attention(n, Some(CAUSAL));
    let mut inputs = noise_inputs(&program, 3);
    for tensor in &mut inputs[1..] {
        let Data::F32(data) = &mut tensor.data else { unreachable!("inputs are floats") };
        let last = data.len() / 192 * 191;
        data[last..].fill(f32::NAN);
    }
    let target = CpuTarget::detect().unwrap();
    let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
    assert_eq!(schedule.matches("bands ").count(), 2, "{schedule}");
    let outputs = run(&target, &program, &options(OptLevel::O2, 1), &inputs).unwrap();
    let values = outputs[0].data.to_f64();
    assert!(values[..64 * 128].iter().all(|x| x.is_finite()));
    assert!(values[64 * 191..].iter().all(|x| x.is_nan()));
}

/// Keys and values, the first of which are seen by all queries; others may be `others`.
fn first_seen(program: &Program, n: Sizes, seen: i64, others: Option<f32>) -> Vec<Tensor> {
    let mut inputs = noise_inputs(program, 5);
    for tensor in &mut inputs[1..3] {
        let Data::F32(data) = &mut tensor.data else { unreachable!("keys and values are floats") };
        let first = data.len() / n.keys as usize * seen as usize;
        data[first..].iter_mut().for_each(|x| *x = others.unwrap_or(*x));
    }
    let is_seen = |i: i64| u8::from(i % n.keys < seen);
    inputs[3].data = Data::Bool((0..n.queries * n.keys).map(is_seen).collect());
    inputs
}

#[test]
fn what_a_mask_in_memory_hides_is_left_out() {
    let target = CpuTarget::detect().unwrap();
    let cases = [
        (1, 128, None),
        (1, 200, None),
        (1, 1000, None),
        (3, 300, None),
        (20, 200, None),
        (1, 300, Some(4)),
        (9, 200, Some(2)),
    ];
    for (queries, keys, group) in cases {
        let n = Sizes { heads: 2, queries, keys, depth: 24, width: 20 };
        let (program, ..) = attention_in_groups(n, group, Seen::Given);
        for seen in [0, 1, 63, 64, 65, 127, 128, keys - 1, keys].into_iter().filter(|&s| s <= keys)
        {
            let clean = check(&program, &first_seen(&program, n, seen, None), 3e-6);
            let garbage = first_seen(&program, n, seen, Some(1e30));
            let got = run(&target, &program, &options(OptLevel::O2, 1), &garbage).unwrap();
            assert!(same_bits(&clean, &got), "{seen} of {keys} keys are seen");
        }
    }
}

/// What no query sees, from a whole number of blocks on, is not even read.
#[test]
fn rooms_end_with_what_is_seen() {
    let target = CpuTarget::detect().unwrap();
    let tiled = " up to the last of b3 that is not 0";
    let one_by_one = "points   rows up to the last of b3 that is not 0";
    let forms = [(1, None, one_by_one), (1, Some(4), tiled), (5, None, tiled), (5, Some(4), tiled)];
    for (queries, group, of_scores) in forms {
        let n = Sizes { heads: 8, queries, keys: 1000, depth: 24, width: 20 };
        let (program, ..) = attention_in_groups(n, group, Seen::Given);
        let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
        for words in [of_scores, "that is not -inf;", "terms    up to the last of"] {
            assert!(schedule.contains(words), "{words} in\n{schedule}");
        }
        let inputs = first_seen(&program, n, 128, Some(f32::NAN));
        let got = run(&target, &program, &options(OptLevel::O2, 1), &inputs).unwrap();
        assert!(got[0].data.to_f64().iter().all(|x| x.is_finite()), "{schedule}");
    }
}

/// Each query sees keys of its own, in no order.
#[test]
fn any_mask_in_memory_is_obeyed() {
    for (queries, keys) in [(1, 130), (5, 257)] {
        for group in [None, Some(5)] {
            let n = Sizes { heads: 3, queries, keys, depth: 16, width: 33 };
            let (program, ..) = attention_in_groups(n, group, Seen::Given);
            check(&program, &noise_inputs(&program, 9), 3e-6);
        }
    }
}

/// Products whose tiles store `e^(sum / 8)` where a mask holds and 0 elsewhere, and, beside it, whether it
/// holds twice; others read all of that, by rows and by columns.
fn masked_products(n: Sizes, mask: Mask) -> Program {
    let mut draft = draft::Draft::default();
    let [a, b] = [n.queries, n.keys].map(|rows| draft.input(&[n.heads, rows, n.depth]));
    let c = draft.input(&[n.heads, n.keys, n.width]);
    let d = draft.input(&[n.heads, n.queries, n.width]);
    let weights = draft.temp(&[n.heads, n.queries, n.keys]);
    let squares = draft.temp(&[n.heads, n.queries, n.keys]);
    let by_rows = draft.output(&[n.heads, n.queries, n.width]);
    let by_columns = draft.output(&[n.heads, n.keys, n.width]);
    let mut e = Exprs::new();
    let [lhs, rhs] = [(a, [0, 1, 3]), (b, [0, 2, 3])].map(|(x, on)| load(&mut e, x, at(&on)));
    let (sum, eighth) = (folded(&mut e, 0, DType::F32), e.constant(DType::F32, 0.125));
    let scaled = binary(&mut e, BinaryOp::Mul, sum, eighth);
    let (weight, zero) = (unary(&mut e, UnaryOp::Exp, scaled), e.constant(DType::F32, 0.0));
    let inside = e.add(Expr::Inside(mask.guard(1, 2)));
    let kept = e.add(Expr::Select(inside, weight, zero));
    let square = binary(&mut e, BinaryOp::Mul, kept, kept);
    let stores = vec![store(weights, &[0, 1, 2], kept), store(squares, &[0, 1, 2], square)];
    let (out, reduce) = (sizes(&[n.heads, n.queries, n.keys]), sizes(&[n.depth]));
    draft.kernel(Form::contract(out, reduce, e, [lhs, rhs], stores));
    for (x, on, y, to, rows, terms) in [
        (weights, [0, 1, 3], c, by_rows, n.queries, n.keys),
        (squares, [0, 3, 1], d, by_columns, n.keys, n.queries),
    ] {
        let mut e = Exprs::new();
        let (lhs, rhs) = (load(&mut e, x, at(&on)), load(&mut e, y, at(&[0, 3, 2])));
        let stores = vec![store(to, &[0, 1, 2], folded(&mut e, 0, DType::F32))];
        let (out, reduce) = (sizes(&[n.heads, rows, n.width]), sizes(&[terms]));
        draft.kernel(Form::contract(out, reduce, e, [lhs, rhs], stores));
    }
    draft.program()
}

#[test]
fn zeros_are_stored_where_masks_give_them() {
    let masks =
        [CAUSAL, Mask { width: 9, ..CAUSAL }, Mask { backwards: true, shift: 70, width: 90 }];
    for mask in masks {
        for (queries, keys) in [(7, 7), (49, 70), (130, 131), (200, 97), (90, 300), (1100, 60)] {
            let n = Sizes { heads: 2, queries, keys, depth: 8, width: 5 };
            let program = masked_products(n, mask);
            check(&program, &noise_inputs(&program, 7), 3e-6);
        }
    }
    let n = Sizes { heads: 2, queries: 200, keys: 200, depth: 64, width: 64 };
    let target = CpuTarget::detect().unwrap();
    let program = masked_products(n, CAUSAL);
    let schedule = target.emit("schedule", &program, &options(OptLevel::O2, 1)).unwrap();
    assert_eq!(schedule.matches("bands ").count(), 3, "{schedule}");
    assert_eq!(schedule.matches("stores from registers").count(), 3, "{schedule}");
}
