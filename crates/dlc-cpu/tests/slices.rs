//! Chains of kernels in slices: the same numbers, in the room of one step for each worker.

mod support;

#[path = "../../dlc-kernel/tests/shared/attention.rs"]
mod attention;

use attention::{Mask, Sizes, attention};
use dlc_cpu::CpuTarget;
use dlc_kernel::{
    Array, BinaryOp, BufferId, DType, Exprs, FoldOp, Form, Index, OptLevel, Program, Step, Store,
    Target,
};
use support::{draft, *};

fn schedule(program: &Program) -> String {
    let target = CpuTarget::detect().unwrap();
    target.emit("schedule", program, &options(OptLevel::O2, 1)).unwrap()
}

/// Three heads have more than a megabyte of scores. With one thread, the heads are in turn, with two or
/// three each thread has heads of its own.
#[test]
fn heads_of_attention_follow_each_other() {
    for mask in [None, Some(Mask { backwards: false, shift: 0, width: 1000 })] {
        let n = Sizes { heads: 3, queries: 310, keys: 330, depth: 5, width: 6 };
        let (program, ..) = attention(n, mask);
        let schedule = schedule(&program);
        assert_eq!(schedule.matches("at step").count(), 3, "{schedule}");
        check(&program, &noise_inputs(&program, 11), 3e-6);
    }
}

#[test]
fn several_heads_are_a_step_where_they_fit() {
    let n = Sizes { heads: 24, queries: 120, keys: 120, depth: 4, width: 4 };
    let (program, ..) = attention(n, None);
    let schedule = schedule(&program);
    assert!(schedule.contains("at step"), "{schedule}");
    check(&program, &noise_inputs(&program, 12), 3e-6);
}

/// Scores of one head at most, weights in their place: what a call takes does not grow with the heads.
#[test]
fn scores_have_the_room_of_a_step() {
    let peak = |heads: i64, threads: usize| {
        let n = Sizes { heads, queries: 512, keys: 512, depth: 1, width: 1 };
        let (program, ..) = attention(n, None);
        let target = CpuTarget::detect().unwrap();
        target.build(&program, &options(OptLevel::O2, threads)).unwrap().peak_bytes()
    };
    let head = 512 * (512 + 16) * 4;
    for heads in [4, 12] {
        let rest = 64 * 1024 * heads as u64;
        assert!(peak(heads, 1) < head + rest);
        assert!(peak(heads, 2) < 2 * head + 2 * rest);
    }
}

/// Scores of one head that are more than a megabyte: some queries of it at a time. What is packed of keys
/// and values is packed once for each head.
#[test]
fn queries_of_a_head_follow_each_other() {
    let n = Sizes { heads: 3, queries: 510, keys: 530, depth: 5, width: 6 };
    for mask in [None, Some(Mask { backwards: false, shift: 0, width: 1000 })] {
        let (program, ..) = attention(n, mask);
        let schedule = schedule(&program);
        assert_eq!(schedule.matches("at steps [3, ").count(), 3, "{schedule}");
        check(&program, &noise_inputs(&program, 14), 3e-6);
    }
    let (program, ..) = attention(n, None);
    let target = CpuTarget::detect().unwrap();
    let peak =
        |threads| target.build(&program, &options(OptLevel::O2, threads)).unwrap().peak_bytes();
    let head = 510 * 530 * 4;
    assert!(peak(1) < head, "{} bytes", peak(1));
    assert!(peak(2) < 2 * head, "{} bytes", peak(2));
}

/// Keys and values of a head are more than half a megabyte: they pass by for every slice, so slices are
/// large enough to be worth it, and far from whole.
#[test]
fn long_sequences_are_cut_too() {
    let target = CpuTarget::detect().unwrap();
    for length in [2048, 4096] {
        let n = Sizes { heads: 2, queries: length, keys: length, depth: 64, width: 64 };
        let (program, ..) = attention(n, None);
        let peak = target.build(&program, &options(OptLevel::O2, 1)).unwrap().peak_bytes();
        let own = (4 * 2 * length * 64 * 4) as u64;
        let slice = (128 * (length + 16) * 4) as u64;
        assert!(peak < own + 2 * slice + own / 4, "{length}: {peak} bytes");
    }
}

#[test]
fn small_temporaries_stay_whole() {
    let n = Sizes { heads: 3, queries: 100, keys: 100, depth: 4, width: 4 };
    let schedule = schedule(&attention(n, None).0);
    assert!(!schedule.contains("at step"), "{schedule}");
}

/// The sum over the last axis of a product of two tensors at these coordinates.
fn product(
    of: [(BufferId, [u32; 4]); 2],
    out: [i64; 4],
    terms: i64,
    stores: impl Fn(&mut Exprs) -> Store,
) -> Form {
    let mut exprs = Exprs::new();
    let [lhs, rhs] = of.map(|(tensor, on)| load(&mut exprs, tensor, at(&on)));
    let stores = vec![stores(&mut exprs)];
    let (out, reduce) = (sizes(&out), sizes(&[terms]));
    Form::contract(out, reduce, exprs, [lhs, rhs], stores)
}

/// The gradients of queries and keys from scores, which sums of rows stand before that wait for neither.
fn gradients([batch, heads, length, depth]: [i64; 4]) -> Program {
    let mut draft = draft::Draft::default();
    let [q, k, v, g] = [0; 4].map(|_| draft.input(&[batch, length, heads, depth]));
    let [scores, slopes] = [0; 2].map(|_| draft.temp(&[batch, heads, length, length]));
    let sums = draft.temp(&[batch, heads, length]);
    let [of_q, of_k] = [0; 2].map(|_| draft.output(&[batch, length, heads, depth]));
    let (square, small) = ([batch, heads, length, length], [batch, length, heads, depth]);
    let all = [0, 1, 2, 3];
    let plain = |to: BufferId| move |e: &mut Exprs| store(to, &all, folded(e, 0, DType::F32));
    draft.kernel(product([(q, [0, 2, 1, 4]), (k, [0, 3, 1, 4])], square, depth, plain(scores)));
    let mut e = Exprs::new();
    let [x, y] = [v, g].map(|tensor| load(&mut e, tensor, at(&[0, 2, 1, 3])));
    let term = binary(&mut e, BinaryOp::Mul, x, y);
    let sum = store(sums, &[0, 1, 2], folded(&mut e, 0, DType::F32));
    let steps = vec![Step::Fold(FoldOp::Sum, term), Step::StoreRow(sum)];
    let (outer, inner) = (sizes(&[batch, heads, length]), sizes(&[depth]));
    draft.kernel(Form::Row { outer, inner, exprs: e, steps });
    let slope = |e: &mut Exprs| {
        let (sum, score) = (folded(e, 0, DType::F32), load(e, scores, at(&all)));
        let less = load(e, sums, at(&[0, 1, 2]));
        let rest = binary(e, BinaryOp::Sub, sum, less);
        store(slopes, &all, binary(e, BinaryOp::Mul, score, rest))
    };
    draft.kernel(product([(g, [0, 2, 1, 4]), (v, [0, 3, 1, 4])], square, depth, slope));
    let by_rows = [(slopes, [0, 2, 1, 4]), (k, [0, 4, 2, 3])];
    let by_columns = [(slopes, [0, 2, 4, 1]), (q, [0, 4, 2, 3])];
    draft.kernel(product(by_rows, small, length, plain(of_q)));
    draft.kernel(product(by_columns, small, length, plain(of_k)));
    draft.program()
}

#[test]
fn loops_within_loops_have_what_waits_for_nothing_before_them() {
    let program = gradients([2, 3, 300, 3]);
    let schedule = schedule(&program);
    assert_eq!(schedule.matches("at steps [3, 2]").count(), 4, "{schedule}");
    check(&program, &noise_inputs(&program, 13), 3e-5);
    let target = CpuTarget::detect().unwrap();
    let peak = target.build(&program, &options(OptLevel::O2, 1)).unwrap().peak_bytes();
    let head = 300 * (300 + 16) * 4;
    assert!(peak < 3 * head, "{peak} bytes");
}

/// A head's scores and slopes are more than a megabyte: some keys of it at a time. What sums over keys is
/// added up slice by slice, in the room of one head for each thread.
#[test]
fn sums_over_what_is_cut_are_added_up() {
    let program = gradients([1, 2, 600, 3]);
    let schedule = schedule(&program);
    assert!(schedule.contains("_start at steps [2]"), "{schedule}");
    check(&program, &noise_inputs(&program, 15), 3e-5);
    let target = CpuTarget::detect().unwrap();
    let peak = target.build(&program, &options(OptLevel::O2, 2)).unwrap().peak_bytes();
    assert!(peak < 3 << 20, "{peak} bytes");
}

/// The rows of a head are more than half a megabyte: keys are cut, then queries. The interpreter would take
/// minutes, so what is compared with it elsewhere stands in for it.
#[test]
fn both_sides_of_long_sequences_are_cut() {
    let program = gradients([1, 2, 1800, 60]);
    let schedule = schedule(&program);
    let steps = schedule.lines().filter_map(|l| l.split_once("at steps [")?.1.split_once(']'));
    let deepest = steps.map(|(steps, _)| steps.split(',').count()).max();
    assert_eq!(deepest, Some(3), "{schedule}");
    let (target, inputs) = (CpuTarget::detect().unwrap(), noise_inputs(&program, 15));
    let run = |level, threads| run(&target, &program, &options(level, threads), &inputs).unwrap();
    let (plain, one, two) = (run(OptLevel::O0, 1), run(OptLevel::O2, 1), run(OptLevel::O2, 2));
    assert!(same_bits(&one, &two));
    for (got, wanted) in one.iter().zip(&plain) {
        let error = error(got, &Array::from_tensor(wanted));
        assert!(error < 3e-5, "off by {error}");
    }
}

/// The gradient of a strided convolution is written by a kernel for each phase: a chain that began with
/// one of them would not have what the others write.
#[test]
fn a_chain_writes_all_that_it_reads() {
    let (heads, rows, channels, width) = (3, 300, 4, 330);
    let mut draft = Draft::default();
    let g = draft.input(&[heads, rows / 2, channels]);
    let w = draft.input(&[3, channels, width]);
    let v = draft.input(&[heads, width, 5]);
    let t = draft.temp(&[heads, rows, width]);
    let out = draft.output(&[heads, rows, 5]);
    let mut exprs = Exprs::new();
    let row = Index { div: 2, ..Index::affine([(1, 1), (3, -1)], 1i64) };
    let lhs = load(&mut exprs, g, access([Index::axis(0), row, Index::axis(4)]));
    let rhs = load(&mut exprs, w, at(&[3, 4, 2]));
    let stores = vec![store(t, &[0, 1, 2], folded(&mut exprs, 0, DType::F32))];
    let (all, reduce) = (sizes(&[heads, rows, width]), sizes(&[3, channels]));
    draft.kernel(Form::contract(all, reduce, exprs, [lhs, rhs], stores));
    let mut exprs = Exprs::new();
    let lhs = load(&mut exprs, t, at(&[0, 1, 3]));
    let rhs = load(&mut exprs, v, at(&[0, 3, 2]));
    let stores = vec![store(out, &[0, 1, 2], folded(&mut exprs, 0, DType::F32))];
    let (all, reduce) = (sizes(&[heads, rows, 5]), sizes(&[width]));
    draft.kernel(Form::contract(all, reduce, exprs, [lhs, rhs], stores));
    let program = draft.program();
    check(&program, &noise_inputs(&program, 13), 3e-6);
}
