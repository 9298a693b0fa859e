//! The largest errors of functions over all 2^32 arguments, for `docs/accuracy.md`.
//!
//! `cargo run --release -p dlc --example ulp [-- FUNCTION... [STEP]]`
//!
//! The truth is that of the CORE-MATH library, which rounds correctly: where the f32 result is
//! another than CORE-MATH's, the distance to its f64 result is measured in units in the last place
//! of the f32. With a step, only every such bit pattern is an argument. Those of `pow` are sampled.

use dlc::{Compiler, Network, Tensor};
use dlc_cpu::level::Level;
use std::sync::atomic::{AtomicU64, Ordering};

/// Arguments of one call.
const CHUNK: usize = 1 << 14;

/// A function, its correctly rounded result if that is known, and its result in f64.
struct Case {
    name: &'static str,
    rounded: Option<fn(f32, f32) -> f32>,
    truth: fn(f64, f64) -> f64,
    /// What the unit in the last place is that of.
    scale: fn(f64, f64) -> f64,
}

impl Case {
    fn has_two_arguments(&self) -> bool {
        self.name == "pow"
    }
}

const fn case(
    name: &'static str,
    rounded: fn(f32, f32) -> f32,
    truth: fn(f64, f64) -> f64,
) -> Case {
    Case { name, rounded: Some(rounded), truth, scale: |_, y| y.abs() }
}

/// A function that is made of others.
const fn composed(name: &'static str, truth: fn(f64, f64) -> f64) -> Case {
    Case { name, rounded: None, truth, scale: |_, y| y.abs() }
}

const CASES: &[Case] = &[
    case("exp", |x, _| core_math::expf(x), |x, _| core_math::exp(x)),
    case("log", |x, _| core_math::logf(x), |x, _| core_math::log(x)),
    case("tanh", |x, _| core_math::tanhf(x), |x, _| core_math::tanh(x)),
    composed("sigmoid", |x, _| sigmoid(x)),
    case("erf", |x, _| core_math::erff(x), |x, _| core_math::erf(x)),
    case("rsqrt", |x, _| core_math::rsqrtf(x), |x, _| core_math::rsqrt(x)),
    case("sin", |x, _| core_math::sinf(x), |x, _| core_math::sin(x)),
    case("cos", |x, _| core_math::cosf(x), |x, _| core_math::cos(x)),
    case("pow", core_math::powf, core_math::pow),
    // Below -87 sigmoids are subnormal, and silu is x times those.
    Case {
        scale: |x, y| y.abs().max(x.abs() * 2f64.powi(-126)),
        ..composed("silu", |x, _| x * sigmoid(x))
    },
    composed("softplus", |x, _| x.max(0.0) + core_math::log1p(core_math::exp(-x.abs()))),
    // The result falls to 0 as its argument goes to -inf, as the difference of numbers that do not.
    Case { scale: |x, y| y.abs().max(x.abs() / 4.0), ..composed("gelu", |x, _| gelu(x)) },
];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + core_math::exp(-x))
}

fn gelu(x: f64) -> f64 {
    0.5 * x * core_math::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// A model of one function of [`CHUNK`] elements.
fn network(case: &Case, level: Level) -> Network {
    let applied = if case.has_two_arguments() { "pow(x, y)" } else { "x |> NAME" };
    let applied = applied.replace("NAME", case.name);
    let text = format!("model M(x: f32[{CHUNK}], y: f32[{CHUNK}]) {{ {applied} }}");
    let compiler = Compiler::new().target(level.name()).expect("the level runs here").threads(1);
    let module = compiler.compile_text("ulp.dl", &text).expect("the model has no errors");
    module.model("M").expect("it is there").bind([]).expect("it compiles")
}

/// The error of a result in units in the last place of `scale`.
fn ulps(got: f32, truth: f64, scale: f64) -> f64 {
    if got.is_nan() || truth.is_nan() {
        return if got.is_nan() == truth.is_nan() { 0.0 } else { f64::INFINITY };
    }
    // An infinity stands for the power of two after the largest number.
    let value = if got.is_infinite() { 2f64.powi(128).copysign(got.into()) } else { got.into() };
    let exponent = ((scale.to_bits() >> 52 & 0x7ff) as i64 - 1023).clamp(-126, 127);
    let unit = f64::from_bits(((exponent - 23 + 1023) as u64) << 52);
    (value - truth.clamp(-2f64.powi(128), 2f64.powi(128))).abs() / unit
}

/// The arguments of chunk `chunk`.
fn arguments(case: &Case, chunk: usize, step: usize) -> [Vec<f32>; 2] {
    let bits = |i: usize| ((chunk * CHUNK + i) * step) as u32;
    let random = |i: usize, k: u64| {
        let x = (u64::from(bits(i)) * 2 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    };
    if case.has_two_arguments() {
        // Bases of any size, exponents whose powers mostly are in range.
        [0, 1].map(|k| {
            let scale = |x: f32| if k == 0 { x } else { (x % 64.0) * 0.5 };
            (0..CHUNK).map(|i| scale(f32::from_bits(random(i, k)))).collect()
        })
    } else {
        let all: Vec<f32> = (0..CHUNK).map(|i| f32::from_bits(bits(i))).collect();
        [all.clone(), all]
    }
}

/// The largest error at a level, and the argument.
type Worst = (f64, f32);

/// The largest errors of a case at each level.
fn measure(case: &Case, levels: &[Level], step: usize) -> Vec<Worst> {
    let all = if case.has_two_arguments() { 1 << 28 } else { 1 << 32 };
    let chunks = all / step / CHUNK;
    let next = AtomicU64::new(0);
    let worker = || {
        let networks: Vec<Network> = levels.iter().map(|&level| network(case, level)).collect();
        let mut worst = vec![(0.0, 0.0); levels.len()];
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed) as usize;
            if chunk >= chunks {
                return worst;
            }
            compare(case, &networks, arguments(case, chunk, step), &mut worst);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let results = threads.into_iter().map(|t| t.join().expect("workers do not panic"));
        let larger = |(a, b): (Worst, Worst)| if b.0 > a.0 { b } else { a };
        let none = vec![(0.0, 0.0); levels.len()];
        results.fold(none, |all, one| all.into_iter().zip(one).map(larger).collect())
    })
}

/// Compares the results of the networks with the truth, which is found once for all of them.
fn compare(case: &Case, networks: &[Network], [x, y]: [Vec<f32>; 2], worst: &mut [Worst]) {
    let tensors = [&x, &y].map(|v| Tensor::f32([CHUNK], v.clone()));
    let given = [("x", &tensors[0]), ("y", &tensors[1])];
    let run = |network: &Network| network.run(&given).expect("maps never fail");
    let outputs: Vec<_> = networks.iter().map(run).collect();
    let results = outputs.iter().map(|o| o.iter().next().expect("it has a result").1);
    let results: Vec<&[f32]> = results.map(|r| r.as_f32().expect("the output is f32")).collect();
    for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
        let rounded = case.rounded.map(|f| f(x, y).to_bits());
        let (mut truth, mut last) = (None, (0, 0.0));
        for (result, worst) in results.iter().zip(worst.iter_mut()) {
            let got = result[i];
            if rounded == Some(got.to_bits()) {
                continue;
            }
            if truth.is_none() || last.0 != got.to_bits() {
                let truth = *truth.get_or_insert_with(|| (case.truth)(x.into(), y.into()));
                last = (got.to_bits(), ulps(got, truth, (case.scale)(x.into(), truth)));
            }
            if last.1 > worst.0 {
                *worst = (last.1, x);
            }
        }
    }
}

fn main() {
    let (steps, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.parse::<usize>().is_ok());
    let step = steps.first().map_or(1, |s| s.parse::<usize>().expect("it is a number").max(1));
    let levels: Vec<Level> = Level::ALL.into_iter().filter(|l| l.runs_here()).collect();
    let names: Vec<&str> = levels.iter().map(|l| l.name()).collect();
    println!("| function | {} | worst argument |", names.join(" | "));
    println!("|{}", "---|".repeat(levels.len() + 2));
    let chosen = |c: &&Case| wanted.is_empty() || wanted.iter().any(|w| w == c.name);
    for case in CASES.iter().filter(chosen) {
        let errors = measure(case, &levels, step);
        let columns: Vec<String> = errors.iter().map(|e| format!("{:.3}", e.0)).collect();
        let at: Vec<String> = errors.iter().map(|e| format!("{:e}", e.1)).collect();
        println!("| {} | {} | {} |", case.name, columns.join(" | "), at.join(", "));
    }
}
