//! The grammar takes a number of steps in proportion to the text, however it is nested and whatever
//! is wrong with it. Steps, not time, so that the answer is the same on every machine. The limit on
//! steps is the process's: hence one test, in a file of its own.

mod common;

use std::num::NonZeroUsize;

use common::{examples, parse};
use dlc_front::Code;

/// Every form that can contain itself: what opens it, and what closes it.
const NESTS: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("f(", ")"),
    ("f(a = ", ")"),
    ("x[", "]"),
    ("x[a:", "]"),
    ("sum[i < ", "] x"),
    ("sum[", "]"),
    ("sum[i](", ")"),
    ("sum[i] (", ")"),
    ("max[2](", ")"),
    ("(x where ", ")"),
    ("(x if ", " else y)"),
    ("(x |> f(", "))"),
    ("(x |> max[", "])"),
    ("(-", ")"),
    ("(not ", ")"),
    ("(a, ", ")"),
    ("(a + ", " * b)"),
    ("repeat 2 { ", " }"),
    ("l: repeat 2 { ", " }"),
    ("repeat (", ") { x }"),
    ("x |> repeat 2 { ", " }"),
    ("if c { ", " }"),
    ("if c { x } else { ", " }"),
    ("if c { x } else if d { ", " }"),
    ("if (", ") { x }"),
    ("for k in l { ", " }"),
    ("for k in [", "] { x }"),
    ("scan t in T with h = 0 { ", " }"),
    ("scan t in (", ") { x }"),
    ("y = repeat 2 { ", " }"),
    ("y[", "] = x"),
    ("y[i < ", "] = x"),
    ("(y[i] = ", ")"),
    ("param w: [", "] = 0"),
    ("yield (", ")"),
];

fn nested(open: &str, close: &str, n: usize) -> String {
    format!("block f(x) {{ {}x{} }}", open.repeat(n), close.repeat(n))
}

fn enough(text: &str, steps: usize) -> bool {
    pest::set_call_limit(NonZeroUsize::new(steps));
    let (_, diagnostics, _) = parse(text);
    diagnostics.iter().all(|diagnostic| diagnostic.code != Code::TextTooComplex)
}

/// How many steps of the grammar the text takes, to within a hundredth.
fn steps(text: &str) -> usize {
    let mut most = 1 << 10;
    while !enough(text, most) {
        most *= 2;
        assert!(most < 1 << 26, "too many steps for {} bytes: {text:.100}", text.len());
    }
    let mut least = most / 2;
    while most - least > most / 100 {
        let middle = least.midpoint(most);
        match enough(text, middle) {
            true => most = middle,
            false => least = middle,
        }
    }
    most
}

/// The parser sets its limit once for texts up to some length; after it the test's limits hold.
fn take_over_the_limit() {
    let (_, diagnostics, _) = parse(&"let a = 1; ".repeat(10_000));
    assert!(diagnostics.is_empty());
}

#[test]
fn steps_grow_with_the_text() {
    take_over_the_limit();
    let mut steepest = 0;
    for (open, close) in NESTS {
        let brackets = open.bytes().filter(|byte| b"([{".contains(byte)).count().max(1);
        let n = 254 / brackets;
        let texts = |n: usize| {
            let unfinished = format!("block f(x) {{ {} ) }}", open.repeat(n));
            [nested(open, close, n), nested(open, &format!("{close} ="), n), unfinished]
        };
        for (half, whole) in texts(n / 2).iter().zip(texts(n)) {
            let (fewer, more) = (steps(half), steps(&whole));
            assert!(more <= 5 * fewer / 2, "{open}: {fewer} steps become {more} for {whole:.60}");
            steepest = steepest.max(more / whole.len());
        }
    }
    let flat = format!("block f(x) {{ {} }}", "x + f(a, 1) * y[i] |> g\n".repeat(1000));
    for text in examples().into_iter().chain([flat.as_str()]) {
        steepest = steepest.max(steps(text) / text.len());
    }
    // The limit that `parse` sets is 2000 for each byte.
    assert!(steepest * 3 <= 2000, "{steepest} steps for a byte");
}
