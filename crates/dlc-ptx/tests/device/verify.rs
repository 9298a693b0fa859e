//! Every rule of the verifier is broken once, and what is close to it but right is let pass.

use dlc_ptx::Flavour;
use dlc_ptx::ir::{
    self, Address, B16, B32, B64, Bar, Builder, CacheHint, Class, Compare, F32, FloatOp, Inst,
    IntOp, Kernel, MemType, MmaShape, Module, Param, Pred, Reg, Rule, Shuffle, Space, Special,
};

fn verdict_of(kernels: Vec<Kernel>, flavour: Flavour) -> Option<Rule> {
    ir::verify(&Module { kernels }, flavour).err().map(|e| e.rule)
}

/// The rule that a kernel breaks.
fn verdict(write: impl FnOnce(&mut Builder)) -> Option<Rule> {
    verdict_of(vec![kernel(write)], Flavour::Sm80)
}

fn kernel(write: impl FnOnce(&mut Builder)) -> Kernel {
    let mut b = Builder::new("kernel");
    write(&mut b);
    b.finish(128, 1)
}

fn if_(b: &mut Builder, pred: Pred, then: impl FnOnce(&mut Builder)) {
    b.open();
    then(b);
    let body = b.close();
    b.if_else(pred, body, Vec::new());
}

fn do_while(b: &mut Builder, body: impl FnOnce(&mut Builder) -> Pred) {
    b.open();
    let pred = body(b);
    let body = b.close();
    b.do_while(body, pred);
}

fn load(b: &mut Builder, ty: MemType, count: usize, at: Address) -> Reg {
    b.load(Space::Global, ty, count, at, CacheHint::None)[0]
}

/// A predicate that differs between lanes.
fn divergent(b: &mut Builder) -> Pred {
    let lane = b.special(Special::Lane);
    b.set_int(Compare::Lt, lane, 5)
}

/// A predicate that differs between warps, not within one.
fn by_warp(b: &mut Builder) -> Pred {
    let thread = b.special(Special::Thread);
    let warp = b.int(IntOp::ShrU, thread, 5);
    b.set_int(Compare::Lt, warp, 2)
}

#[test]
fn names_are_unique_and_clean() {
    let named = |name: &str| Builder::new(name).finish(32, 1);
    let rule = |names: &[&str]| verdict_of(names.iter().map(|n| named(n)).collect(), Flavour::Sm80);
    assert_eq!(rule(&["a", "b_1"]), None);
    for bad in [&["a", "a"][..], &["1a"], &["a b"], &[""], &["größe"]] {
        assert_eq!(rule(bad), Some(Rule::Name), "{bad:?}");
    }
    let params =
        |names: [&'static str; 2]| verdict(|b| names.iter().for_each(|&n| _ = b.param::<B32>(n)));
    assert_eq!(params(["x", "y"]), None);
    assert_eq!(params(["x", "x"]), Some(Rule::Name));
    assert_eq!(params(["x", "y.z"]), Some(Rule::Name));
}

#[test]
fn blocks_are_whole_warps_that_fit() {
    let rule = |threads, blocks| {
        verdict_of(vec![Builder::new("k").finish(threads, blocks)], Flavour::Sm80)
    };
    for fine in [(32, 1), (1024, 2), (256, 8)] {
        assert_eq!(rule(fine.0, fine.1), None, "{fine:?}");
    }
    for bad in [(0, 1), (33, 1), (1056, 1), (256, 9), (32, 0)] {
        assert_eq!(rule(bad.0, bad.1), Some(Rule::Threads), "{bad:?}");
    }
}

#[test]
fn shared_memory_fits() {
    let rule = |bytes, flavour| verdict_of(vec![kernel(|b| _ = b.reserve_shared(bytes))], flavour);
    assert_eq!(rule(163 << 10, Flavour::Sm80), None);
    assert_eq!(rule((163 << 10) + 1, Flavour::Sm80), Some(Rule::Shared));
    assert_eq!(rule(227 << 10, Flavour::Sm90a), None);
    assert_eq!(rule((227 << 10) + 1, Flavour::Sm90a), Some(Rule::Shared));
}

#[test]
fn registers_are_declared() {
    assert_eq!(verdict(|b| b.mov32_to(B32(0), 1)), Some(Rule::Register));
    let as_guard = |b: &mut Builder| b.guarded(Pred(3), true, |b| _ = b.mov32(1));
    assert_eq!(verdict(as_guard), Some(Rule::Register));
    assert_eq!(verdict(|b| if_(b, Pred(0), |_| {})), Some(Rule::Register));
    assert_eq!(verdict(|b| do_while(b, |_| Pred(0))), Some(Rule::Register));
}

#[test]
fn parameters_exist_and_fit() {
    let missing = |b: &mut Builder| {
        let dst = b.fresh::<B32>().into();
        b.push(Inst::Param { dst, index: 0 });
    };
    assert_eq!(verdict(missing), Some(Rule::Param));
    let wrong_class = |b: &mut Builder| {
        b.param::<B64>("x");
        let dst = b.fresh::<F32>().into();
        b.push(Inst::Param { dst, index: 0 });
    };
    assert_eq!(verdict(wrong_class), Some(Rule::Param));
    let mut half = kernel(|_| {});
    half.params.push(Param { name: "x".into(), class: Class::B16 });
    assert_eq!(verdict_of(vec![half], Flavour::Sm80), Some(Rule::Param));
}

#[test]
fn registers_have_the_class_that_is_taken() {
    let float_as_word = |b: &mut Builder| {
        let at = Address::global(b.param("x"), 0);
        let dst = [b.fresh::<F32>().into()].into_iter().collect();
        let (space, ty, hint) = (Space::Global, MemType::B32, CacheHint::None);
        b.push(Inst::Load { space, ty, dst, from: at, hint });
    };
    assert_eq!(verdict(float_as_word), Some(Rule::Class));
    let shared_address = |b: &mut Builder| {
        let at = b.shared_base(0);
        load(b, MemType::F32, 1, Address::shared(at, 0));
    };
    assert_eq!(verdict(shared_address), Some(Rule::Class));
    let long_shuffle = |b: &mut Builder| {
        let long = b.mov64(1u64);
        b.shuffle(Shuffle::Down, long, 1, 32);
    };
    assert_eq!(verdict(long_shuffle), Some(Rule::Class));
}

#[test]
fn instructions_move_what_they_can() {
    let vector = |ty, count| {
        verdict(move |b: &mut Builder| {
            let at = Address::global(b.param("x"), 0);
            load(b, ty, count, at);
        })
    };
    assert_eq!(vector(MemType::F32, 4), None);
    assert_eq!(vector(MemType::F32, 3), Some(Rule::Width));
    assert_eq!(vector(MemType::B64, 4), Some(Rule::Width));
    let shuffle = |b: &mut Builder| {
        let x = b.mov32(1);
        b.shuffle(Shuffle::Down, x, 1, 24);
    };
    assert_eq!(verdict(shuffle), Some(Rule::Width));
    let copy = |b: &mut Builder| {
        let from = Address::global(b.param("x"), 0);
        let to = Address::shared(b.shared_base(0), 0);
        b.push(Inst::CopyAsync { to, from, bytes: 12, size: None });
    };
    assert_eq!(verdict(copy), Some(Rule::Width));
    let matrix = |b: &mut Builder| {
        let from = Address::shared(b.shared_base(0), 0);
        b.load_matrix(3, from, false);
    };
    assert_eq!(verdict(matrix), Some(Rule::Width));
    let mma = |b: &mut Builder| {
        let acc = [0.0; 4].map(|zero| b.mov_f32(zero));
        let x = b.mov32(0);
        b.mma(MmaShape::F16, acc, &[x; 2], &[x; 2]);
    };
    assert_eq!(verdict(mma), Some(Rule::Width));
}

#[test]
fn operations_exist_for_their_operands() {
    let shift = |b: &mut Builder| {
        let long = b.mov64(1u64);
        b.int64(IntOp::Shl, 1u64, long);
    };
    assert_eq!(verdict(shift), Some(Rule::Form));
    assert_eq!(verdict(|b| _ = b.float64(FloatOp::Max, 1.0, 2.0)), Some(Rule::Form));
    let cached = |b: &mut Builder| {
        let at = Address::shared(b.shared_base(0), 0);
        b.load(Space::Shared, MemType::F32, 1, at, CacheHint::ReadOnly);
    };
    assert_eq!(verdict(cached), Some(Rule::Form));
}

#[test]
fn destinations_are_distinct() {
    let unpack = |b: &mut Builder| {
        let src = b.mov32(1);
        let low: B16 = b.fresh();
        b.push(Inst::Unpack { low, high: low, src });
    };
    assert_eq!(verdict(unpack), Some(Rule::Distinct));
}

/// Writes a register by `before`, then reads it.
fn read_after(before: impl FnOnce(&mut Builder, B32)) -> Option<Rule> {
    verdict(|b| {
        let x = b.fresh();
        before(b, x);
        b.mov32(x);
    })
}

#[test]
fn registers_are_written_before_they_are_read() {
    assert_eq!(read_after(|_, _| {}), Some(Rule::Written));
    assert_eq!(read_after(|b, x| b.mov32_to(x, 1)), None);
    let on_one_side = |b: &mut Builder, x| {
        let pred = divergent(b);
        if_(b, pred, |b| b.mov32_to(x, 1));
    };
    assert_eq!(read_after(on_one_side), Some(Rule::Written));
    let on_both_sides = |b: &mut Builder, x| {
        let pred = divergent(b);
        b.open();
        b.mov32_to(x, 1);
        let then = b.close();
        b.open();
        b.mov32_to(x, 2);
        let other = b.close();
        b.if_else(pred, then, other);
    };
    assert_eq!(read_after(on_both_sides), None);
    let in_a_loop = |b: &mut Builder, x| {
        do_while(b, |b| {
            b.mov32_to(x, 1);
            b.set_int(Compare::Lt, x, 1)
        });
    };
    assert_eq!(read_after(in_a_loop), None, "its body runs at least once");
    let only_in_later_rounds = |b: &mut Builder| {
        let x: B32 = b.fresh();
        do_while(b, |b| {
            b.mov32(x);
            b.mov32_to(x, 1);
            b.set_int(Compare::Lt, x, 1)
        });
    };
    assert_eq!(verdict(only_in_later_rounds), Some(Rule::Written));
}

#[test]
fn what_a_guard_writes_is_there_under_that_guard_alone() {
    let guarded = |b: &mut Builder, when| {
        let (pred, x) = (divergent(b), b.fresh::<B32>());
        b.guarded(pred, true, |b| b.mov32_to(x, 1));
        b.guarded(pred, when, |b| _ = b.mov32(x));
    };
    assert_eq!(verdict(|b| guarded(b, true)), None);
    assert_eq!(verdict(|b| guarded(b, false)), Some(Rule::Written));
    let stale = |b: &mut Builder| {
        let (pred, x) = (divergent(b), b.fresh::<B32>());
        b.guarded(pred, true, |b| b.mov32_to(x, 1));
        b.push(Inst::Not { dst: pred, a: pred.into() });
        b.guarded(pred, true, |b| _ = b.mov32(x));
    };
    assert_eq!(verdict(stale), Some(Rule::Written), "the predicate is another by then");
    let branch = |b: &mut Builder| {
        let (pred, x) = (divergent(b), b.fresh::<B32>());
        b.guarded(pred, true, |b| b.mov32_to(x, 1));
        if_(b, pred, |b| _ = b.mov32(x));
    };
    assert_eq!(verdict(branch), None);
}

#[test]
fn loops_write_their_predicates() {
    let endless = |b: &mut Builder| {
        let pred = b.set_int(Compare::Lt, 1, 2);
        do_while(b, |_| pred);
    };
    assert_eq!(verdict(endless), Some(Rule::Loop));
}

#[test]
fn known_addresses_are_aligned() {
    let at = |offset: i32, ty, count| {
        verdict(move |b: &mut Builder| {
            let (x, i) = (b.param::<B64>("x"), b.param::<B32>("i"));
            let quad = b.mad_wide(i, 16, x);
            load(b, ty, count, Address::global(quad, offset));
        })
    };
    assert_eq!(at(16, MemType::F32, 4), None);
    assert_eq!(at(8, MemType::F32, 4), Some(Rule::Aligned));
    assert_eq!(at(8, MemType::F32, 2), None);
    assert_eq!(at(2, MemType::F32, 1), Some(Rule::Aligned));
    assert_eq!(at(2, MemType::B16, 1), None);
    assert_eq!(at(-4, MemType::B64, 1), Some(Rule::Aligned));
    let in_a_loop = |step: u32, offset: i32| {
        verdict(move |b: &mut Builder| {
            let i = b.shared_base(0);
            do_while(b, |b| {
                b.load(Space::Shared, MemType::F32, 4, Address::shared(i, offset), CacheHint::None);
                b.int_to(IntOp::Add, i, i, step);
                b.set_int(Compare::Lt, i, 99)
            });
        })
    };
    assert_eq!(in_a_loop(16, 4), Some(Rule::Aligned));
    assert_eq!(in_a_loop(4, 0), None, "only the first round is known");
}

#[test]
fn barriers_stand_where_all_threads_come_by() {
    let under = |pred: fn(&mut Builder) -> Pred, bar| {
        verdict(move |b: &mut Builder| {
            let pred = pred(b);
            if_(b, pred, |b| b.push(Inst::Barrier(bar)));
        })
    };
    let by_block = |b: &mut Builder| {
        let block = b.special(Special::BlockX);
        b.set_int(Compare::Lt, block, 3)
    };
    assert_eq!(under(by_block, Bar::Block), None);
    assert_eq!(under(by_warp, Bar::Block), Some(Rule::Converged));
    assert_eq!(under(by_warp, Bar::Warp), None);
    assert_eq!(under(divergent, Bar::Warp), Some(Rule::Converged));
    let guarded = |b: &mut Builder| {
        let pred = divergent(b);
        b.guarded(pred, true, Builder::barrier);
    };
    assert_eq!(verdict(guarded), Some(Rule::Converged));
}

/// A loop with a barrier, whose end depends on `bound`.
fn loop_with_barrier(bound: impl FnOnce(&mut Builder) -> B32) -> Option<Rule> {
    verdict(|b| {
        let (bound, i) = (bound(b), b.mov32(0));
        do_while(b, |b| {
            b.barrier();
            b.int_to(IntOp::Add, i, i, 1);
            b.set_int(Compare::Lt, i, bound)
        });
    })
}

#[test]
fn a_barrier_in_a_loop_needs_one_number_of_rounds() {
    assert_eq!(loop_with_barrier(|b| b.param("n")), None);
    assert_eq!(loop_with_barrier(|b| b.special(Special::Thread)), Some(Rule::Converged));
    let counted_apart = |b: &mut Builder| {
        let (lane, i) = (b.special(Special::Lane), b.mov32(0));
        do_while(b, |b| {
            b.int_to(IntOp::Add, i, i, 1);
            b.set_int(Compare::Lt, i, lane)
        });
        i
    };
    assert_eq!(
        loop_with_barrier(counted_apart),
        Some(Rule::Converged),
        "lanes left at different i"
    );
    let written_apart = |b: &mut Builder| {
        let (pred, n) = (divergent(b), b.mov32(3));
        b.guarded(pred, true, |b| b.mov32_to(n, 4));
        n
    };
    assert_eq!(loop_with_barrier(written_apart), Some(Rule::Converged));
    let loaded = |b: &mut Builder| {
        let at = Address::global(b.param("x"), 0);
        B32(load(b, MemType::B32, 1, at).number)
    };
    assert_eq!(loop_with_barrier(loaded), None, "all threads load the same");
}

#[test]
fn what_is_read_only_is_not_written() {
    let rule = |hint, same: bool| {
        verdict(move |b: &mut Builder| {
            let (x, y) = (b.param::<B64>("x"), b.param::<B64>("y"));
            let i = b.special(Special::Thread);
            let from = b.mad_wide(i, 4, x);
            let value = b.load(Space::Global, MemType::F32, 1, Address::global(from, 0), hint);
            let to = b.mad_wide(i, 4, if same { x } else { y });
            b.store(Space::Global, MemType::F32, Address::global(to, 0), &value);
        })
    };
    assert_eq!(rule(CacheHint::ReadOnly, true), Some(Rule::ReadOnly));
    assert_eq!(rule(CacheHint::Streaming, true), Some(Rule::ReadOnly));
    assert_eq!(rule(CacheHint::ReadOnly, false), None);
    assert_eq!(rule(CacheHint::None, true), None);
}
