//! Contractions against the interpreter, at sizes around the borders of tiles and blocks.

mod cases;

use cases::{ACTIVATIONS, Case, Conv, Ending, Layout, axes, axis, matmul};
use dlc_cpu::CpuTarget;
use dlc_cpu::level::Level;
use dlc_kernel::eval::Machine;
use dlc_kernel::{Array, BuildOptions, Index, OptLevel, Program, Target, Tensor};

const LAYOUTS: [Layout; 4] = [Layout::Plain, Layout::Left, Layout::Right, Layout::Result];

fn run(case: &Case, level: Level, opt_level: OptLevel, threads: usize) -> Vec<Tensor> {
    let options = BuildOptions { opt_level, threads: Some(threads), ..BuildOptions::default() };
    let executable = CpuTarget::new(level).build(&case.program, &options).expect("it builds");
    let (inputs, mut outputs) = (case.inputs(), case.outputs());
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    executable.call(0, &inputs, &mut outputs).expect("it runs");
    outputs
}

fn interpret(program: &Program, inputs: &[Tensor]) -> Vec<Array> {
    let inputs: Vec<Array> = inputs.iter().map(Array::from_tensor).collect();
    Machine::new(program).call("run", &inputs).expect("the interpreter runs it")
}

/// Every output within `(terms + 8) * 2^-24` of the sum of magnitudes, and of 4 for what is added
/// after the sum; the same bits for any number of threads.
fn check(case: &Case) {
    let inputs = case.inputs();
    let expected = interpret(&case.program, &inputs);
    let magnitude = &interpret(&case.magnitude(), &inputs)[0];
    let terms = case.reduce.iter().product::<i64>() as f64;
    let best = Level::detect().expect("tests run on a machine with a level");
    let mut levels = vec![(best, OptLevel::O2), (best, OptLevel::O0)];
    let lower = [Level::X86_64V2, Level::X86_64V3].into_iter().filter(|l| *l < best);
    levels.extend(lower.filter(|l| l.runs_here()).map(|level| (level, OptLevel::O2)));
    for (level, opt_level) in levels {
        let found = run(case, level, opt_level, 1);
        for (found, expected) in found.iter().zip(&expected) {
            let found = Array::from_tensor(found);
            for (at, (x, y)) in found.data.iter().zip(&expected.data).enumerate() {
                let bound = (terms + 8.0) * (magnitude.data[at] + 4.0) / f64::from(1 << 24);
                assert!((x - y).abs() <= bound, "{}: {x}, not {y}, at {at}", case.name);
            }
        }
        for threads in [2, 3] {
            assert_eq!(found, run(case, level, opt_level, threads), "{}", case.name);
        }
    }
}

#[test]
fn matrix_products_of_any_size_and_layout() {
    let sizes = [
        (1, 1, 1),
        (1, 20, 7),
        (20, 1, 7),
        (2, 16, 9),
        (3, 17, 5),
        (5, 8, 8),
        (7, 33, 20),
        (17, 19, 1),
        (19, 15, 13),
        (37, 70, 500),
        (1, 300, 400),
        (300, 1, 400),
        (9, 600, 12),
    ];
    for layout in LAYOUTS {
        sizes.iter().for_each(|&(m, n, k)| check(&matmul(m, n, k, layout)));
    }
}

#[test]
fn every_small_size() {
    for n in 1..=20 {
        check(&matmul(n, 21 - n, n % 7 + 1, Layout::Plain));
        check(&matmul(13, n, 40, Layout::Right));
        check(&matmul(n, 37, 9, Layout::Left));
    }
}

#[test]
fn nothing_summed_is_zero_and_nothing_stored_is_fine() {
    check(&matmul(9, 9, 0, Layout::Plain).with_epilogue(1));
    check(&matmul(0, 4, 4, Layout::Plain));
    check(&matmul(4, 0, 4, Layout::Right));
}

#[test]
fn a_long_sum_is_split() {
    check(&matmul(5, 12, 5000, Layout::Left).with_epilogue(1));
    check(&matmul(1, 1, 5000, Layout::Plain));
}

#[test]
fn batches() {
    check(&Case::new(
        "attention scores",
        (&[3, 4, 9, 10], &[11]),
        (&[3, 9, 4, 11], axes([0, 2, 1, 4])),
        (&[3, 10, 4, 11], axes([0, 3, 1, 4])),
        (&[3, 4, 9, 10], axes([0, 1, 2, 3])),
    ));
    check(&Case::new(
        "permuted result",
        (&[3, 4, 9, 10], &[11]),
        (&[3, 9, 4, 11], axes([0, 2, 1, 4])),
        (&[3, 10, 4, 11], axes([0, 3, 1, 4])),
        (&[3, 9, 4, 10], axes([0, 2, 1, 3])),
    ));
    check(&Case::new(
        "row by row",
        (&[30], &[50]),
        (&[30, 50], axes([0, 1])),
        (&[30, 50], axes([0, 1])),
        (&[30], axes([0])),
    ));
}

#[test]
fn convolutions_and_their_gradients() {
    let conv = |n, c, image, k, window, stride, pad, dilation| Conv {
        n,
        c,
        image,
        k,
        window,
        stride,
        pad,
        dilation,
    };
    for conv in [
        conv(2, 1, (12, 12), 6, 5, 1, 2, 1),
        conv(2, 6, (9, 9), 16, 5, 1, 0, 1),
        conv(1, 3, (11, 13), 8, 3, 2, 1, 1),
        conv(2, 4, (7, 7), 5, 1, 1, 0, 1),
        conv(2, 4, (8, 8), 7, 1, 2, 0, 1),
        conv(1, 3, (14, 14), 4, 3, 1, 2, 2),
        conv(3, 2, (6, 20), 3, 3, 3, 1, 1),
        conv(1, 2, (10, 10), 3, 7, 2, 3, 1),
        conv(8, 1, (28, 28), 6, 5, 1, 2, 1),
        conv(1, 40, (6, 7), 24, 3, 1, 1, 1),
        conv(2, 22, (8, 8), 26, 4, 2, 1, 1),
    ] {
        conv.all().iter().for_each(check);
        check(&conv.forward().with_epilogue(1));
        conv.all().into_iter().for_each(|case| check(&case.with_prologue()));
    }
}

#[test]
fn depthwise_and_grouped_convolutions() {
    for stride in [1, 2] {
        let at = |out, window| Index::affine([(out, stride), (window, 1)], -1i64);
        let extent = 12 / stride;
        check(&Case::new(
            "depthwise",
            (&[2, 5, extent, extent], &[3, 3]),
            (&[2, 5, 12, 12], vec![axis(0), axis(1), at(2, 4), at(3, 5)]),
            (&[5, 3, 3], axes([1, 4, 5])),
            (&[2, 5, extent, extent], axes([0, 1, 2, 3])),
        ));
        check(&Case::new(
            "grouped",
            (&[2, 3, 4, extent, extent], &[2, 3, 3]),
            (&[2, 3, 2, 12, 12], vec![axis(0), axis(1), axis(5), at(3, 6), at(4, 7)]),
            (&[3, 4, 2, 3, 3], axes([1, 2, 5, 6, 7])),
            (&[2, 3, 4, extent, extent], axes([0, 1, 2, 3, 4])),
        ));
    }
}

/// A depthwise convolution of `c` channels, a window of `k` taps that lie `dilation` apart.
fn depthwise(c: i64, width: i64, k: i64, [stride, pad, dilation]: [i64; 3]) -> Case {
    let height = 9;
    let out = |extent| (extent + 2 * pad - dilation * (k - 1) - 1) / stride + 1;
    let at = |out, window| Index::affine([(out, stride), (window, dilation)], -pad);
    Case::new(
        "depthwise",
        (&[2, c, out(height), out(width)], &[k, k]),
        (&[2, c, height, width], vec![axis(0), axis(1), at(2, 4), at(3, 5)]),
        (&[c, k, k], axes([1, 4, 5])),
        (&[2, c, out(height), out(width)], axes([0, 1, 2, 3])),
    )
}

#[test]
fn few_terms_are_written_out() {
    let mut cases = Vec::new();
    for width in [5, 7, 16, 19, 33, 70] {
        cases.push(depthwise(3, width, 3, [1, 1, 1]));
        cases.push(depthwise(5, width, 3, [2, 1, 1]));
        cases.push(depthwise(2, width, 5, [3, 2, 1]));
        cases.push(depthwise(2, width, 3, [1, 2, 2]).with_epilogue(1));
    }
    cases.push(depthwise(3, 20, 7, [1, 3, 1]));
    cases.push(depthwise(3, 20, 1, [1, 0, 1]));
    cases.push(depthwise(3, 20, 3, [1, 1, 1]).with_prologue());
    let at = |out, window| Index::affine([(out, 2), (window, 1)], -1i64);
    cases.push(Case::new(
        "channels beside one another",
        (&[2, 4, 6, 21], &[3, 3]),
        (&[2, 8, 12, 21], vec![axis(0), at(1, 4), at(2, 5), axis(3)]),
        (&[21, 3, 3], axes([3, 4, 5])),
        (&[2, 4, 6, 21], axes([0, 1, 2, 3])),
    ));
    for case in cases {
        check(&case);
        let schedule = CpuTarget::new(Level::X86_64V3)
            .emit("schedule", &case.program, &BuildOptions::default())
            .expect("schedules can be made anywhere");
        assert!(!schedule.contains(": contract "), "{}: {schedule}", case.name);
    }
}

#[test]
fn few_rows_meet_columns_from_memory() {
    for rows in [1, 3, 8, 17] {
        check(&matmul(rows, 530, 510, Layout::Right));
        check(&matmul(530, rows, 510, Layout::Left));
    }
}

#[test]
fn prologues_and_epilogues() {
    check(&matmul(13, 29, 40, Layout::Right).with_epilogue(0));
    check(&matmul(33, 30, 44, Layout::Plain).with_epilogue(1).with_prologue());
    check(&matmul(1, 300, 200, Layout::Right).with_prologue());
    check(&matmul(1, 300, 200, Layout::Plain).with_prologue().with_epilogue(1));
}

/// What a tile makes of its sums has the bits that a map makes of them.
#[test]
fn an_epilogue_stores_what_a_kernel_of_its_own_would() {
    let conv = |n, c, size, k, window, pad| {
        Conv { n, c, image: (size, size), k, window, stride: 1, pad, dilation: 1 }.forward()
    };
    let cases = [
        (matmul(42, 101, 500, Layout::Plain), 1),
        (matmul(38, 70, 40, Layout::Plain), 0),
        (matmul(64, 300, 900, Layout::Left), 1),
        (conv(1, 8, 30, 24, 3, 1), 1),
        (conv(3, 6, 20, 16, 5, 0), 1),
        (conv(1, 70, 17, 32, 1, 0), 1),
    ];
    let level = Level::detect().expect("tests run on a machine with a level");
    for (case, axis) in cases {
        for (name, activation) in ACTIVATIONS {
            let [own, apart] =
                [Ending::Own, Ending::Apart].map(|p| case.clone().with_ending(axis, activation, p));
            let [found, wanted] = [&own, &apart].map(|case| run(case, level, OptLevel::O2, 2));
            assert_eq!(found, wanted, "{} and {name}", own.name);
            let schedule = CpuTarget::new(level)
                .emit("schedule", &own.program, &BuildOptions::default())
                .expect("it has a schedule");
            assert!(schedule.contains("stores from registers"), "{schedule}");
        }
    }
}

#[test]
fn the_schedule_says_what_is_done() {
    let case =
        Conv { n: 64, c: 6, image: (14, 14), k: 16, window: 5, stride: 1, pad: 0, dilation: 1 };
    let target = CpuTarget::new(Level::X86_64V3);
    let schedules = case.all().map(|case| {
        let text = target.emit("schedule", &case.program, &BuildOptions::default());
        format!("{}\n{}", case.name, text.expect("schedules can be made anywhere"))
    });
    insta::assert_snapshot!(schedules.join("\n"));
}
