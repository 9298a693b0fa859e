//! The largest errors of the elementary functions over all 2^32 arguments, for `docs/accuracy.md`.
//!
//! `cargo run --release -p dlc-cpu --example ulp [-- FUNCTION... [STEP]]`
//!
//! The truth is that of the CORE-MATH library, which rounds correctly: where the f32 result is
//! another than CORE-MATH's, the distance to its f64 result is measured in units in the last place
//! of the f32. With a step, only every such bit pattern is an argument. Those of `pow` are sampled.

use dlc_cpu::{CpuTarget, level::Level};
use dlc_kernel::{
    Access, BinaryOp, Buffer, BufferId, BuildOptions, Class, DType, Entry, Executable, Expr, Exprs,
    Form, Kernel, Program, Scalar, Segment, Store, Target, Tensor, UnaryOp,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Arguments of one call.
const CHUNK: usize = 1 << 14;

/// A function, its correctly rounded result, and its result in f64.
struct Case {
    op: Operation,
    rounded: fn(f32, f32) -> f32,
    truth: fn(f64, f64) -> f64,
}

enum Operation {
    One(UnaryOp),
    Two(BinaryOp),
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Operation::One(op) => op.name(),
            Operation::Two(op) => op.name(),
        }
    }
}

fn cases() -> Vec<Case> {
    let one = |op, rounded, truth| Case { op: Operation::One(op), rounded, truth };
    vec![
        one(UnaryOp::Exp, |x, _| core_math::expf(x), |x, _| core_math::exp(x)),
        one(UnaryOp::Log, |x, _| core_math::logf(x), |x, _| core_math::log(x)),
        one(UnaryOp::Tanh, |x, _| core_math::tanhf(x), |x, _| core_math::tanh(x)),
        one(UnaryOp::Sigmoid, |x, _| sigmoid(x.into()) as f32, |x, _| sigmoid(x)),
        one(UnaryOp::Erf, |x, _| core_math::erff(x), |x, _| core_math::erf(x)),
        one(UnaryOp::Rsqrt, |x, _| core_math::rsqrtf(x), |x, _| core_math::rsqrt(x)),
        one(UnaryOp::Sin, |x, _| core_math::sinf(x), |x, _| core_math::sin(x)),
        one(UnaryOp::Cos, |x, _| core_math::cosf(x), |x, _| core_math::cos(x)),
        Case { op: Operation::Two(BinaryOp::Pow), rounded: core_math::powf, truth: core_math::pow },
    ]
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + core_math::exp(-x))
}

/// One map over [`CHUNK`] elements.
fn program(op: &Operation) -> Program {
    let buffer = |name: &str, class| Buffer {
        name: name.into(),
        dtype: DType::F32,
        shape: [(CHUNK as i64).into()].into_iter().collect(),
        class,
        default: 0.0,
    };
    let mut exprs = Exprs::new();
    let mut load = |buffer| {
        exprs.add(Expr::Load {
            buffer: BufferId(buffer),
            access: Access::identity(1),
            lookups: Default::default(),
            fill: Scalar::new(DType::F32, 0.0),
        })
    };
    let (x, y) = (load(0), load(1));
    let value = exprs.add(match op {
        Operation::One(op) => Expr::Unary(*op, x),
        Operation::Two(op) => Expr::Binary(*op, x, y),
    });
    let stores = vec![Store { buffer: BufferId(2), access: Access::identity(1), value }];
    let axes = [(CHUNK as i64).into()].into_iter().collect();
    let form = Form::Map { segments: vec![Segment { axes, exprs, stores }] };
    let kernels = vec![Kernel { name: "map".into(), origin: None, form }];
    let (inputs, outputs) = (vec![BufferId(0), BufferId(1)], vec![BufferId(2)]);
    let buffers =
        vec![buffer("x", Class::Input), buffer("y", Class::Input), buffer("z", Class::Output)];
    Program {
        buffers,
        entries: vec![Entry { name: "run".into(), inputs, outputs, kernels, commit: 1 }],
    }
}

/// The error of a result in units in the last place of the truth.
fn ulps(got: f32, truth: f64) -> f64 {
    if got.is_nan() || truth.is_nan() {
        return if got.is_nan() == truth.is_nan() { 0.0 } else { f64::INFINITY };
    }
    // An infinity stands for the power of two after the largest number.
    let value = if got.is_infinite() { 2f64.powi(128).copysign(got.into()) } else { got.into() };
    let exponent = truth.abs().log2().floor().clamp(-126.0, 127.0);
    (value - truth.clamp(-2f64.powi(128), 2f64.powi(128))).abs() / 2f64.powf(exponent - 23.0)
}

/// The arguments of chunk `chunk`.
fn arguments(op: &Operation, chunk: usize, step: usize) -> [Vec<f32>; 2] {
    let bits = |i: usize| ((chunk * CHUNK + i) * step) as u32;
    let random = |i: usize, k: u64| {
        let x = (u64::from(bits(i)) * 2 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    };
    match op {
        Operation::One(_) => {
            let all: Vec<f32> = (0..CHUNK).map(|i| f32::from_bits(bits(i))).collect();
            [all.clone(), all]
        }
        // Bases of any size, exponents whose powers mostly are in range.
        Operation::Two(_) => [0, 1].map(|k| {
            let scale = |x: f32| if k == 0 { x } else { (x % 64.0) * 0.5 };
            (0..CHUNK).map(|i| scale(f32::from_bits(random(i, k)))).collect()
        }),
    }
}

/// The largest error of a case, and the argument.
fn measure(executable: &dyn Executable, case: &Case, step: usize) -> (f64, f32) {
    let all = if matches!(case.op, Operation::One(_)) { 1 << 32 } else { 1 << 28 };
    let chunks = all / step / CHUNK;
    let next = AtomicU64::new(0);
    let worker = || {
        let mut worst = (0.0, 0.0);
        let mut outputs = [Tensor::f32([CHUNK], vec![0.0; CHUNK])];
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed) as usize;
            if chunk >= chunks {
                return worst;
            }
            let inputs = arguments(&case.op, chunk, step);
            let tensors = inputs.clone().map(|v| Tensor::f32([CHUNK], v));
            executable.call(0, &[&tensors[0], &tensors[1]], &mut outputs).expect("maps never fail");
            let results = outputs[0].as_f32().expect("the output is f32");
            for ((&x, &y), &got) in inputs[0].iter().zip(&inputs[1]).zip(results) {
                if got.to_bits() != (case.rounded)(x, y).to_bits() {
                    let error = ulps(got, (case.truth)(x.into(), y.into()));
                    worst = if error > worst.0 { (error, x) } else { worst };
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let results = threads.into_iter().map(|t| t.join().expect("workers do not panic"));
        results.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    })
}

fn main() {
    let (steps, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.parse::<usize>().is_ok());
    let step = steps.first().map_or(1, |s| s.parse::<usize>().expect("it is a number").max(1));
    let levels: Vec<Level> = Level::ALL.into_iter().filter(|l| l.runs_here()).collect();
    let names: Vec<&str> = levels.iter().map(|l| l.name()).collect();
    println!("| function | {} | worst argument |", names.join(" | "));
    println!("|{}", "---|".repeat(levels.len() + 2));
    let options = BuildOptions { threads: Some(1), ..BuildOptions::default() };
    let chosen = |c: &Case| wanted.is_empty() || wanted.iter().any(|w| w == c.op.name());
    for case in cases().iter().filter(|c| chosen(c)) {
        let program = program(&case.op);
        let errors: Vec<(f64, f32)> = levels
            .iter()
            .map(|&level| {
                let target = CpuTarget::new(level);
                let executable = target.build(&program, &options).expect("the map compiles");
                measure(&*executable, case, step)
            })
            .collect();
        let columns: Vec<String> = errors.iter().map(|e| format!("{:.3}", e.0)).collect();
        let at: Vec<String> = errors.iter().map(|e| format!("{:e}", e.1)).collect();
        println!("| {} | {} | {} |", case.op.name(), columns.join(" | "), at.join(", "));
    }
}
