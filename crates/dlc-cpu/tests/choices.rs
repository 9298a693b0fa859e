//! Choices among ways to compute a contraction: every alternative gives the same bits, and what is
//! no alternative changes nothing.

mod cases;

use cases::{Case, Conv, Layout, matmul};
use dlc_cpu::level::Level;
use dlc_cpu::{Alternatives, Choices, CpuTarget};
use dlc_kernel::{BuildOptions, Target, Tensor};

fn options() -> BuildOptions {
    BuildOptions { threads: Some(2), ..BuildOptions::default() }
}

fn cases() -> Vec<Case> {
    let conv =
        Conv { n: 2, c: 5, image: (17, 13), k: 9, window: 3, stride: 2, pad: 1, dilation: 1 };
    let deep = matmul(7, 24, 4000, Layout::Right);
    let products = [Layout::Plain, Layout::Left, Layout::Right].map(|l| matmul(50, 70, 90, l));
    let stored = [0, 1].map(|axis| matmul(50, 70, 90, Layout::Right).with_epilogue(axis));
    conv.all().into_iter().chain(products).chain(stored).chain([deep]).collect()
}

fn alternatives(target: &CpuTarget, case: &Case) -> Alternatives {
    let found = target.alternatives(&case.program, &options()).expect("it can be scheduled");
    found.into_iter().flatten().flatten().next().expect("it is in tiles")
}

fn run(target: &CpuTarget, case: &Case) -> Vec<Tensor> {
    let executable = target.build(&case.program, &options()).expect("it builds");
    let (inputs, mut outputs) = (case.inputs(), case.outputs());
    executable.call(0, &inputs.iter().collect::<Vec<_>>(), &mut outputs).expect("it runs");
    outputs
}

fn schedule(target: &CpuTarget, case: &Case) -> String {
    target.emit("schedule", &case.program, &options()).expect("it can be scheduled")
}

fn choosing(target: &CpuTarget, problem: &str, way: &str) -> CpuTarget {
    let mut choices = Choices::default();
    choices.set(problem, way);
    target.clone().with_choices(choices)
}

#[test]
fn every_alternative_gives_the_same_bits() {
    let target = CpuTarget::detect().expect("tests run on a machine with a level");
    let mut changed = 0;
    for case in cases() {
        let Alternatives { problem, ways } = alternatives(&target, &case);
        assert!((1..=8).contains(&ways.len()), "{}: {ways:?}", case.name);
        let (expected, own) = (run(&target, &case), schedule(&target, &case));
        for (k, way) in ways.iter().enumerate() {
            let chosen = choosing(&target, &problem, way);
            assert_eq!(run(&chosen, &case), expected, "{}: {way}", case.name);
            let is_own = schedule(&chosen, &case) == own;
            assert_eq!(is_own, k == 0, "{}: {way}", case.name);
            changed += usize::from(!is_own);
        }
    }
    assert!(changed > 0, "some problem has an alternative");
}

#[test]
fn what_is_no_alternative_changes_nothing() {
    let target = CpuTarget::new(Level::X86_64V3);
    let case = matmul(50, 70, 90, Layout::Plain);
    let Alternatives { problem, ways } = alternatives(&target, &case);
    let own = schedule(&target, &case);
    for (problem, way) in [(&*problem, "9x99, rows packed, columns packed"), ("another", &*ways[0])]
    {
        assert_eq!(schedule(&choosing(&target, problem, way), &case), own);
    }
}

/// A depth that is shared out is shared out in the same way.
#[test]
fn shares_of_the_depth_stay() {
    let target = CpuTarget::new(Level::X86_64V3);
    let case = matmul(7, 24, 4000, Layout::Right);
    let shares = |text: String| {
        let blocks = text.lines().find(|line| line.contains("blocks ")).expect("there are tiles");
        let deep = blocks.split(", ").nth(2).map(str::to_owned);
        deep.expect("blocks have a depth")
    };
    let Alternatives { problem, ways } = alternatives(&target, &case);
    let own = shares(schedule(&target, &case));
    assert!(own.contains("shares"), "{own}");
    for way in &ways {
        assert!(shares(schedule(&choosing(&target, &problem, way), &case)).ends_with("shares"));
    }
}
