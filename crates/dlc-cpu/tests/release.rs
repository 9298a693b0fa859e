//! What a dropped executable leaves behind, in a process of its own: other tests have memory too.
#![cfg(target_os = "linux")]

mod support;

use dlc_cpu::CpuTarget;
use dlc_kernel::{BinaryOp, DType, Executable, Exprs, OptLevel, Program, Target};
use support::{Draft, at, binary, load, options, store};

/// `w += w`, by a map over parameters.
fn doubling(n: i64) -> Program {
    let mut draft = Draft::default();
    let (w, t) = (draft.state(&[n]), draft.buffer(dlc_kernel::Class::Output, DType::F32, &[n]));
    draft.commit();
    let mut e = Exprs::new();
    let x = load(&mut e, w, at(&[0]));
    let sum = binary(&mut e, BinaryOp::Add, x, x);
    draft.map(&[n], e, vec![store(w, &[0], sum), store(t, &[0], sum)]);
    draft.program()
}

fn build(program: &Program) -> Box<dyn Executable> {
    let target = CpuTarget::detect().unwrap();
    target.build(program, &options(OptLevel::O2, 2)).unwrap()
}

#[test]
fn dropping_frees_memory_and_no_page_is_writable_and_executable() {
    let program = doubling(100_000);
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
    let round = || {
        let executable = build(&program);
        assert!(!maps().lines().any(|line| line.contains("rwx")), "{}", maps());
        drop(executable);
    };
    (0..20).for_each(|_| round());
    let (before, maps_before) = (resident(), maps().lines().count());
    (0..200).for_each(|_| round());
    // Each build takes 2 MB of storage and some code.
    let growth = resident().saturating_sub(before);
    assert!(growth < 40 << 20, "{growth} bytes more after 200 builds");
    assert!(maps().lines().count() < maps_before + 50, "code stays mapped");
}
