//! Kernels that are wrong, each in one way, which the interpreter must refuse; and what is close to
//! them but right.

use crate::machine::{fault, kernel, run};
use dlc_ptx::interpret::{Fault, Wrong};
use dlc_ptx::ir::{
    Address, AtomicOp, B32, Bar, Builder, CacheHint, Compare, Inst, IntOp, Kernel, MemType, Space,
    Special,
};

fn load(b: &mut Builder, from: Address, hint: CacheHint) -> B32 {
    B32(b.load(Space::Global, MemType::B32, 1, from, hint)[0].number)
}

fn store(b: &mut Builder, to: Address, word: B32) {
    b.store(Space::Global, MemType::B32, to, &[word.into()]);
}

/// Every thread of a warp stores its number, and the `turn`th of the grid as well to the word where
/// `at` is.
fn with_store(threads: u32, turn: u32, at: u32) -> Kernel {
    kernel(threads, |b, given| {
        let to = given.place(b, given.at);
        store(b, to, given.at);
        let own = b.set_int(Compare::Eq, given.at, turn);
        let at = b.mov32(at);
        let to = given.place(b, at);
        b.guarded(own, true, |b| store(b, to, at));
    })
}

#[test]
fn blocks_that_store_to_one_place() {
    assert!(run(with_store(32, 40, 40), 2, &[], 64).is_ok(), "again, by the same thread");
    let found = fault(with_store(32, 40, 3), 2, &[], 64);
    assert!(matches!(found, Fault::Memory(Wrong::GlobalRace { .. })), "{found}");
}

#[test]
fn warps_that_store_to_one_place_without_a_barrier() {
    let found = fault(with_store(64, 40, 3), 1, &[], 64);
    assert!(matches!(found, Fault::Memory(Wrong::GlobalRace { .. })), "{found}");
}

/// Every thread writes its number, then reads what the thread `distance` before it has written.
fn with_load(threads: u32, distance: u32, barrier: bool) -> Kernel {
    kernel(threads, |b, given| {
        let to = given.place(b, given.at);
        store(b, to, given.at);
        if barrier {
            b.barrier();
        }
        let before = b.set_uint(Compare::Ge, given.at, distance);
        let at = b.int(IntOp::Sub, given.at, distance);
        let from = given.place(b, at);
        b.guarded(before, true, |b| load(b, from, CacheHint::None));
    })
}

#[test]
fn blocks_that_read_what_another_writes() {
    assert!(run(with_load(32, 1, false), 1, &[], 32).is_ok(), "lanes are in step");
    assert!(run(with_load(64, 32, true), 1, &[], 64).is_ok(), "a barrier orders a block");
    for (threads, barrier) in [(64, false), (32, true)] {
        let found = fault(with_load(threads, 32, barrier), 64 / threads, &[], 64);
        assert!(matches!(found, Fault::Memory(Wrong::GlobalRace { .. })), "{found}");
    }
}

/// A reader that comes first is found by the writer after it.
#[test]
fn blocks_that_write_what_another_has_read() {
    let shifted = |by: u32| {
        kernel(32, |b, given| {
            let from = given.word(b, given.at);
            let word = load(b, from, CacheHint::None);
            let at = b.int(IntOp::Sub, given.at, by);
            let own = b.set_uint(Compare::Ge, given.at, 32);
            let to = given.word(b, at);
            b.guarded(own, true, |b| store(b, to, word));
            let to = given.place(b, given.at);
            store(b, to, word);
        })
    };
    assert!(run(shifted(0), 2, &[7; 64], 64).is_ok(), "a block's own words");
    let found = fault(shifted(32), 2, &[7; 64], 64);
    assert!(matches!(found, Fault::Memory(Wrong::GlobalRace { .. })), "{found}");
}

#[test]
fn atomics_of_many_blocks_are_no_race_but_with_others() {
    let counting = |last_is_plain: bool| {
        kernel(32, |b, given| {
            let first = b.mov32(0);
            let at = given.word(b, first);
            b.atomic(AtomicOp::Add, at, 1);
            if last_is_plain {
                let last = b.set_int(Compare::Eq, given.at, 63);
                b.guarded(last, true, |b| load(b, at, CacheHint::None));
            }
            let to = given.place(b, given.at);
            store(b, to, given.at);
        })
    };
    assert!(run(counting(false), 2, &[0], 64).is_ok());
    let found = fault(counting(true), 2, &[0], 64);
    assert!(matches!(found, Fault::Memory(Wrong::GlobalRace { .. })), "{found}");
}

#[test]
fn lanes_that_store_to_one_place() {
    let halved = |space: Space| {
        kernel(32, |b, given| {
            let half = b.int(IntOp::ShrU, given.at, 1);
            let shared = b.reserve_shared(128);
            let base = b.shared_base(shared);
            let to = match space {
                Space::Global => given.place(b, half),
                Space::Shared => Address::shared(b.mad(half, 4, base), 0),
            };
            b.store(space, MemType::B32, to, &[given.at.into()]);
        })
    };
    for space in [Space::Global, Space::Shared] {
        let found = fault(halved(space), 1, &[], 32);
        assert!(matches!(found, Fault::Memory(Wrong::Collision { .. })), "{found}");
    }
}

#[test]
fn read_only_loads_of_what_is_written() {
    let updating = |hint: CacheHint, first: bool| {
        kernel(32, |b, given| {
            let (to, word) = (given.place(b, given.at), given.at);
            if first {
                store(b, to, word);
                load(b, to, hint);
            } else {
                let at = given.word(b, given.at);
                let word = load(b, at, hint);
                store(b, at, word);
                store(b, to, word);
            }
        })
    };
    for first in [true, false] {
        assert!(run(updating(CacheHint::None, first), 1, &[7; 32], 32).is_ok());
        for hint in [CacheHint::ReadOnly, CacheHint::Streaming] {
            let found = fault(updating(hint, first), 1, &[7; 32], 32);
            assert!(matches!(found, Fault::Memory(Wrong::ReadOnly { .. })), "{found}");
        }
    }
}

#[test]
fn accesses_out_of_place() {
    let shifted = |bytes: i32| {
        kernel(32, |b, given| {
            let at = given.place(b, given.at);
            let to = Address { offset: bytes, ..at };
            store(b, to, given.at);
        })
    };
    assert!(run(shifted(0), 1, &[], 32).is_ok());
    for (bytes, wrong) in [
        (4, Wrong::Bounds { at: 128, bytes: 128 }),
        (-4, Wrong::Bounds { at: (1 << 40) - 4, bytes: 0 }),
        (1, Wrong::Misaligned { at: 1, width: 4 }),
    ] {
        let found = fault(shifted(bytes), 1, &[], 32);
        assert_eq!(found, Fault::Memory(wrong));
    }
}

#[test]
fn reads_of_what_nobody_wrote() {
    let found = fault(
        kernel(32, |b, given| {
            let from = given.place(b, given.at);
            load(b, from, CacheHint::None);
        }),
        1,
        &[],
        32,
    );
    assert!(matches!(found, Fault::Memory(Wrong::Uninitialized { .. })), "{found}");
    let found = fault(
        kernel(32, |b, given| {
            let nothing: B32 = b.fresh();
            let to = given.place(b, given.at);
            store(b, to, nothing);
        }),
        1,
        &[],
        32,
    );
    assert!(matches!(found, Fault::Register(_)), "{found}");
}

/// Warp 1 reads from shared memory what warp 0 writes.
#[test]
fn races_on_shared_memory() {
    let exchange = |barrier: bool| {
        kernel(64, |b, given| {
            let shared = b.reserve_shared(256);
            let base = b.shared_base(shared);
            let to = Address::shared(b.mad(given.at, 4, base), 0);
            b.store(Space::Shared, MemType::B32, to, &[given.at.into()]);
            if barrier {
                b.barrier();
            }
            let other = b.int(IntOp::Xor, given.at, 32);
            let from = Address::shared(b.mad(other, 4, base), 0);
            let word = B32(b.load(Space::Shared, MemType::B32, 1, from, CacheHint::None)[0].number);
            let to = given.place(b, given.at);
            store(b, to, word);
        })
    };
    let swapped: Vec<u32> = (0..64).map(|i| i ^ 32).collect();
    assert_eq!(run(exchange(true), 1, &[], 64).unwrap(), swapped);
    let found = fault(exchange(false), 1, &[], 64);
    let is_known = matches!(found, Fault::Memory(Wrong::Race { .. } | Wrong::Uninitialized { .. }));
    assert!(is_known, "{found}");
}

/// Code that only lanes below 5 reach.
fn divergent(write: impl FnOnce(&mut Builder)) -> Fault {
    let kernel = kernel(32, |b, given| {
        let lane = b.special(Special::Lane);
        let few = b.set_int(Compare::Lt, lane, 5);
        b.open();
        write(b);
        let body = b.close();
        b.if_else(few, body, Vec::new());
        let to = given.place(b, given.at);
        store(b, to, given.at);
    });
    fault(kernel, 1, &[], 32)
}

#[test]
fn what_all_lanes_must_reach() {
    assert_eq!(divergent(Builder::barrier), Fault::Barrier);
    assert_eq!(divergent(|b| b.push(Inst::Barrier(Bar::Warp))), Fault::Barrier);
    let ballot = divergent(|b| {
        let (dst, pred) = (b.fresh(), b.set_int(Compare::Eq, 1, 1));
        b.push(Inst::Ballot { dst, pred });
    });
    assert_eq!(ballot, Fault::Divergent);
    assert_eq!(divergent(|b| b.push(Inst::Trap)), Fault::Trap);
}

/// What a copy brings is there once it has been waited for.
#[test]
fn copies_under_way() {
    let copying = |wait: bool| {
        kernel(32, |b, given| {
            let shared = b.reserve_shared(128);
            let base = b.shared_base(shared);
            let to = Address::shared(b.mad(given.at, 4, base), 0);
            let from = given.word(b, given.at);
            b.push(Inst::CopyAsync { to, from, bytes: 4, size: None });
            b.push(Inst::CommitGroup);
            if wait {
                b.push(Inst::WaitGroup(0));
            }
            let word = B32(b.load(Space::Shared, MemType::B32, 1, to, CacheHint::None)[0].number);
            let to = given.place(b, given.at);
            store(b, to, word);
        })
    };
    let words: Vec<u32> = (0..32).map(|i| i * i).collect();
    assert_eq!(run(copying(true), 1, &words, 32).unwrap(), words);
    let found = fault(copying(false), 1, &words, 32);
    assert!(matches!(found, Fault::Memory(Wrong::Uninitialized { .. })), "{found}");
}

/// Of two groups of copies, the older has arrived once one at most is under way.
#[test]
fn groups_of_copies_arrive_in_order() {
    let reading = |which: u32| {
        kernel(32, |b, given| {
            let shared = b.reserve_shared(256);
            let base = b.shared_base(shared);
            let place = |b: &mut Builder, group: u32| {
                let at = b.int(IntOp::Add, given.at, 32 * group);
                (Address::shared(b.mad(at, 4, base), 0), given.word(b, at))
            };
            for group in [0, 1] {
                let (to, from) = place(b, group);
                b.push(Inst::CopyAsync { to, from, bytes: 4, size: None });
                b.push(Inst::CommitGroup);
            }
            b.push(Inst::WaitGroup(1));
            let (from, _) = place(b, which);
            let word = B32(b.load(Space::Shared, MemType::B32, 1, from, CacheHint::None)[0].number);
            let to = given.place(b, given.at);
            store(b, to, word);
        })
    };
    let words: Vec<u32> = (0..64).collect();
    assert_eq!(run(reading(0), 1, &words, 32).unwrap(), words[..32]);
    let found = fault(reading(1), 1, &words, 32);
    assert!(matches!(found, Fault::Memory(Wrong::Uninitialized { .. })), "{found}");
}

/// A copy of less than its width fills up with zeros, and reads no more.
#[test]
fn copies_of_less() {
    let copying = |size: u32| {
        kernel(32, |b, given| {
            let shared = b.reserve_shared(128);
            let base = b.shared_base(shared);
            let to = Address::shared(b.mad(given.at, 4, base), 0);
            let outside = b.int(IntOp::Add, given.at, 1000);
            let from = given.word(b, outside);
            let size = Some(b.mov32(size));
            b.push(Inst::CopyAsync { to, from, bytes: 4, size });
            b.push(Inst::CommitGroup);
            b.push(Inst::WaitGroup(0));
            let word = B32(b.load(Space::Shared, MemType::B32, 1, to, CacheHint::None)[0].number);
            let to = given.place(b, given.at);
            store(b, to, word);
        })
    };
    assert_eq!(run(copying(0), 1, &[7; 32], 32).unwrap(), [0; 32]);
    let found = fault(copying(4), 1, &[7; 32], 32);
    assert!(matches!(found, Fault::Memory(Wrong::Bounds { .. })), "{found}");
}
