//! The planner: blocks never overlap, and storage is shared only where no value is lost.

use crate::build::*;
use dlc_kernel::plan::{ALIGNMENT, Block, Lifetime, Overflow, aliases, lifetimes, place};
use dlc_kernel::*;
use proptest::prelude::*;

fn block() -> impl Strategy<Value = Block> {
    (0u64..2000, 0usize..12, 0usize..5).prop_map(|(bytes, first, life)| Block {
        bytes,
        first,
        last: first + life,
    })
}

proptest! {
    /// A naive check: at every kernel, byte ranges of living blocks are disjoint.
    #[test]
    fn living_blocks_never_overlap(blocks in prop::collection::vec(block(), 0..24)) {
        let plan = place(&blocks, ALIGNMENT).unwrap();
        let mut needed = 0;
        for kernel in 0..16 {
            let alive = |i: &usize| (blocks[*i].first..=blocks[*i].last).contains(&kernel);
            let alive: Vec<usize> = (0..blocks.len()).filter(alive).collect();
            for (k, &i) in alive.iter().enumerate() {
                let (start, end) = (plan.offsets[i], plan.offsets[i] + blocks[i].bytes);
                prop_assert_eq!(start % ALIGNMENT, 0);
                prop_assert!(end <= plan.peak);
                for &j in &alive[..k] {
                    let (other, stop) = (plan.offsets[j], plan.offsets[j] + blocks[j].bytes);
                    prop_assert!(end <= other || stop <= start || start == end || other == stop);
                }
            }
            let bytes = alive.iter().map(|&i| blocks[i].bytes.next_multiple_of(ALIGNMENT));
            needed = needed.max(bytes.sum());
        }
        let all: u64 = blocks.iter().map(|b| b.bytes.next_multiple_of(ALIGNMENT)).sum();
        prop_assert!((needed..=all).contains(&plan.peak));
    }

    #[test]
    fn plans_are_reproducible(blocks in prop::collection::vec(block(), 0..12)) {
        prop_assert_eq!(place(&blocks, ALIGNMENT), place(&blocks, ALIGNMENT));
    }
}

#[test]
fn a_chain_takes_two_blocks() {
    let blocks: Vec<_> = (0..10).map(|k| Block { bytes: 640, first: k, last: k + 1 }).collect();
    assert_eq!(place(&blocks, ALIGNMENT).unwrap().peak, 1280);
}

#[test]
fn sizes_are_checked() {
    let block = |bytes| Block { bytes, first: 0, last: 0 };
    assert_eq!(place(&[block(u64::MAX)], ALIGNMENT), Err(Overflow));
    assert_eq!(place(&[block(1 << 63), block(1 << 63)], ALIGNMENT), Err(Overflow));
    assert_eq!(place(&[], ALIGNMENT).unwrap().peak, 0);
}

/// `t1 = -x; t2 = reshape(t1); t3 = -t2; t4 = reshape(w); y = t3 + t2[0, 0]; w <- w + t4`, where
/// `t3` may not take over `t2`, which is read once more, nor `t4` stand for `w`.
#[test]
fn aliases_and_lifetimes() {
    let (f, mut p) = (DType::F32, Program::default());
    let x = buffer(&mut p, Class::Input, "x", f, &[6]);
    let w = buffer(&mut p, Class::Param, "w", f, &[6]);
    let y = buffer(&mut p, Class::Output, "y", f, &[2, 3]);
    let t = [&[6i64][..], &[2, 3], &[2, 3], &[6], &[6]];
    let t: Vec<_> = t.iter().map(|s| buffer(&mut p, Class::Temp, "t", f, s)).collect();
    let neg = |from: BufferId, to: BufferId, shape: &[i64]| {
        let mut e = Exprs::new();
        let x = load(&mut e, from, Access::identity(shape.len()));
        let x = unary(&mut e, UnaryOp::Neg, x);
        map(shape, e, vec![store(to, Access::identity(shape.len()), x)])
    };
    let mut e = Exprs::new();
    let own = load(&mut e, t[2], Access::identity(2));
    let first = load(&mut e, t[1], Access::new([Index::constant(0i64), Index::constant(0i64)]));
    let sum = binary(&mut e, BinaryOp::Add, own, first);
    let add = map(&[2, 3], e, vec![store(y, Access::identity(2), sum)]);
    let mut e = Exprs::new();
    let old = load(&mut e, w, Access::identity(1));
    let more = load(&mut e, t[4], Access::identity(1));
    let sum = binary(&mut e, BinaryOp::Add, old, more);
    let update = map(&[6], e, vec![store(w, Access::identity(1), sum)]);
    let forms = [
        neg(x, t[0], &[6]),
        Form::Reshape { src: t[0], dst: t[1] },
        neg(t[1], t[2], &[2, 3]),
        Form::Reshape { src: w, dst: t[3] },
        add,
        neg(t[3], t[4], &[6]),
        update,
    ];
    let kernels = forms.into_iter().enumerate();
    let kernels = kernels.map(|(k, form)| kernel(&format!("k{k}"), 1, form)).collect();
    entry(&mut p, "run", &[x], &[y], kernels);
    p.entries[0].commit = 6;
    verify::verify(&p).unwrap();

    let found = aliases(&p, &p.entries[0], &[]);
    assert_eq!(found, [(t[1], t[0]), (t[4], t[3])].into_iter().collect());
    let life = |buffer, first, last| Lifetime { buffer, first, last };
    assert_eq!(
        lifetimes(&p, &p.entries[0], &found),
        [life(t[0], 0, 4), life(t[2], 2, 4), life(t[3], 3, 6)]
    );
}

#[test]
fn a_reshaped_input_needs_no_storage() {
    let (f, mut p) = (DType::F32, Program::default());
    let x = buffer(&mut p, Class::Input, "x", f, &[6]);
    let t = buffer(&mut p, Class::Temp, "t", f, &[2, 3]);
    let forms = Form::Reshape { src: x, dst: t };
    entry(&mut p, "run", &[x], &[t], vec![kernel("k", 1, forms)]);
    verify::verify(&p).unwrap();
    let found = aliases(&p, &p.entries[0], &[]);
    assert_eq!(found[&t], x);
    assert!(lifetimes(&p, &p.entries[0], &found).is_empty());
    let without = lifetimes(&p, &p.entries[0], &Default::default());
    assert_eq!(without, [Lifetime { buffer: t, first: 0, last: 1 }]);
}

/// `a = -x; b = -a; c = b * a`, both from one map: `b` may not take over `a`, but `c` may.
#[test]
fn what_a_later_store_reads_is_not_overwritten() {
    let (f, mut p) = (DType::F32, Program::default());
    let x = buffer(&mut p, Class::Input, "x", f, &[6]);
    let y = buffer(&mut p, Class::Output, "y", f, &[6]);
    let [a, b, c] = ["a", "b", "c"].map(|name| buffer(&mut p, Class::Temp, name, f, &[6]));
    let own = || Access::identity(1);
    let mut e = Exprs::new();
    let read = load(&mut e, x, own());
    let neg = unary(&mut e, UnaryOp::Neg, read);
    let first = map(&[6], e, vec![store(a, own(), neg)]);
    let mut e = Exprs::new();
    let read = load(&mut e, a, own());
    let neg = unary(&mut e, UnaryOp::Neg, read);
    let product = binary(&mut e, BinaryOp::Mul, neg, read);
    let second = map(&[6], e, vec![store(b, own(), neg), store(c, own(), product)]);
    let mut e = Exprs::new();
    let (left, right) = (load(&mut e, b, own()), load(&mut e, c, own()));
    let sum = binary(&mut e, BinaryOp::Add, left, right);
    let third = map(&[6], e, vec![store(y, own(), sum)]);
    let kernels = [first, second, third].into_iter().enumerate();
    let kernels = kernels.map(|(k, form)| kernel(&format!("k{k}"), 1, form)).collect();
    entry(&mut p, "run", &[x], &[y], kernels);
    verify::verify(&p).unwrap();
    let found = aliases(&p, &p.entries[0], &[]);
    assert_eq!(found, [(c, a)].into_iter().collect());
}
