//! Chains of kernels in slices: the same numbers, in the room of one step for each worker.

mod support;

#[path = "../../dlc-kernel/tests/shared/attention.rs"]
mod attention;

use attention::{Mask, Sizes, attention};
use dlc_cpu::CpuTarget;
use dlc_kernel::{OptLevel, Program, Target};
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

/// Scores of one head, weights in their place: what a call takes does not grow with the heads.
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
        assert!((head..head + rest).contains(&peak(heads, 1)));
        assert!((2 * head..2 * head + 2 * rest).contains(&peak(heads, 2)));
    }
}

#[test]
fn small_temporaries_stay_whole() {
    let n = Sizes { heads: 3, queries: 100, keys: 100, depth: 4, width: 4 };
    let schedule = schedule(&attention(n, None).0);
    assert!(!schedule.contains("at step"), "{schedule}");
}
