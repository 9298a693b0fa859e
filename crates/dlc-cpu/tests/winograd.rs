//! Winograd's algorithm: the rewritten program is the same function, and its error is bounded.
//!
//! The bound: a result of `t` terms that are each made by at most 40 more operations is off by at
//! most `(t + 40) * 2^-24` times what the rewritten program makes of magnitudes: every input and
//! constant without its sign, every difference a sum.

mod support;

use dlc_cpu::arrange::{arrange, winograd::winograd};
use dlc_cpu::caches::Caches;
use dlc_cpu::datapath::Datapath;
use dlc_cpu::level::Level;
use dlc_cpu::schedule::Config;
use dlc_kernel::{
    Array, BinaryOp, DType, Expr, ExprId, Exprs, Form, Index, Kernel, OptLevel, Program, Store,
    Target, UnaryOp, eval::Machine,
};
use support::{Draft, access, at, folded, load, noise_inputs, options, run, sizes, store, targets};

/// A convolution with 3x3 filters, channels last.
#[derive(Clone, Copy, Debug)]
struct Conv {
    pictures: i64,
    size: [i64; 2],
    channels: i64,
    filters: i64,
    pad: i64,
}

const CONVS: [Conv; 5] = [
    Conv { pictures: 1, size: [8, 8], channels: 16, filters: 16, pad: 1 },
    Conv { pictures: 2, size: [11, 6], channels: 32, filters: 24, pad: 1 },
    Conv { pictures: 1, size: [9, 7], channels: 17, filters: 21, pad: 1 },
    Conv { pictures: 2, size: [6, 8], channels: 24, filters: 40, pad: 0 },
    Conv { pictures: 1, size: [3, 9], channels: 20, filters: 16, pad: 2 },
];

impl Conv {
    fn positions(&self) -> [i64; 2] {
        self.size.map(|n| n + 2 * self.pad - 2)
    }

    fn data(&self) -> [i64; 4] {
        [self.pictures, self.size[0], self.size[1], self.channels]
    }

    fn results(&self) -> [i64; 4] {
        let [rows, columns] = self.positions();
        [self.pictures, rows, columns, self.filters]
    }

    /// `y[n, p, q, k] = relu(sum[c, r, s] x[n, p + r, q + s, c] * w[k, c, r, s] + z[n, p, q, k])`,
    /// without the last two of these if `bare`; with windows that run backwards if `flipped`.
    fn forward(&self, flipped: bool, bare: bool) -> Program {
        let mut draft = Draft::default();
        let x = draft.input(&self.data());
        let w = draft.input(&[self.filters, self.channels, 3, 3]);
        let y = draft.output(&self.results());
        let mut exprs = Exprs::new();
        let step = if flipped { -1 } else { 1 };
        let offset = if flipped { 2 - self.pad } else { -self.pad };
        let window = |position, tap| Index::affine([(position, 1), (tap, step)], offset);
        let coords = [Index::axis(0), window(1, 5), window(2, 6), Index::axis(4)];
        let lhs = load(&mut exprs, x, access(coords));
        let rhs = load(&mut exprs, w, at(&[3, 4, 5, 6]));
        let mut value = folded(&mut exprs, 0, DType::F32);
        if !bare {
            let z = draft.input(&self.results());
            let added = load(&mut exprs, z, at(&[0, 1, 2, 3]));
            let sum = exprs.add(Expr::Binary(BinaryOp::Add, value, added));
            let zero = exprs.constant(DType::F32, 0.0);
            value = exprs.add(Expr::Binary(BinaryOp::Max, sum, zero));
        }
        let stores = vec![store(y, &[0, 1, 2, 3], value)];
        let (out, reduce) = (sizes(&self.results()), sizes(&[self.channels, 3, 3]));
        draft.kernel(Form::contract(out, reduce, exprs, [lhs, rhs], stores));
        draft.program()
    }

    /// `g[k, c, r, s] = sum[n, p, q] d[n, p, q, k] * x[n, p + r, q + s, c]`.
    fn gradient(&self) -> Program {
        let mut draft = Draft::default();
        let x = draft.input(&self.data());
        let d = draft.input(&self.results());
        let g = draft.output(&[self.filters, self.channels, 3, 3]);
        let mut exprs = Exprs::new();
        let window = |position, tap| Index::affine([(position, 1), (tap, 1)], -self.pad);
        let coords = [Index::axis(4), window(5, 2), window(6, 3), Index::axis(1)];
        let lhs = load(&mut exprs, d, at(&[4, 5, 6, 0]));
        let rhs = load(&mut exprs, x, access(coords));
        let value = folded(&mut exprs, 0, DType::F32);
        let stores = vec![store(g, &[0, 1, 2, 3], value)];
        let out = sizes(&[self.filters, self.channels, 3, 3]);
        let reduce = sizes(&self.results()[..3]);
        draft.kernel(Form::contract(out, reduce, exprs, [lhs, rhs], stores));
        draft.program()
    }
}

fn config() -> Config {
    let level = Level::detect().expect("tests run on a machine with a level");
    let (caches, datapath) = (Caches::USUAL, Datapath::Whole);
    Config { level, caches, datapath, opt_level: OptLevel::O2, exact_conv: false }
}

/// The program in tiles of some size; it must have been rewritten.
fn rewritten(program: &Program, size: i64) -> Program {
    let arranged = winograd(program.clone(), config(), &[size], f64::INFINITY);
    let names = || arranged.entries[0].kernels.iter().map(|k| k.name.as_str());
    assert!(names().any(|n| n.ends_with("_products")), "{:?}", names().collect::<Vec<_>>());
    arranged
}

fn interpret(program: &Program, inputs: &[Array]) -> Array {
    Machine::new(program).call("run", inputs).expect("it runs").remove(0)
}

/// What a program makes of magnitudes.
fn magnitudes(program: &Program) -> Program {
    let mut program = program.clone();
    for kernel in &mut program.entries[0].kernels {
        match &mut kernel.form {
            Form::Map { segments } => {
                for segment in segments {
                    let (exprs, new) = of_magnitudes(&segment.exprs);
                    redirect(&mut segment.stores, &new);
                    segment.exprs = exprs;
                }
            }
            Form::Contract { exprs, lhs, rhs, stores, .. } => {
                let (changed, new) = of_magnitudes(exprs);
                (*lhs, *rhs) = (new[lhs.0 as usize], new[rhs.0 as usize]);
                redirect(stores, &new);
                *exprs = changed;
            }
            form => panic!("there is no {} in these programs", form.name()),
        }
    }
    program
}

fn redirect(stores: &mut [Store], new: &[ExprId]) {
    stores.iter_mut().for_each(|s| s.value = new[s.value.0 as usize]);
}

fn of_magnitudes(exprs: &Exprs) -> (Exprs, Vec<ExprId>) {
    let (mut changed, mut new) = (Exprs::new(), Vec::new());
    for (id, expr) in exprs.iter() {
        let of = |x: &ExprId| new[x.0 as usize];
        let expr = match expr {
            Expr::Const(s) => Expr::Const(dlc_kernel::Scalar::new(s.dtype, s.value().abs())),
            Expr::Binary(BinaryOp::Sub, a, b) => Expr::Binary(BinaryOp::Add, of(a), of(b)),
            Expr::Binary(op, a, b) => Expr::Binary(*op, of(a), of(b)),
            Expr::Unary(UnaryOp::Neg, x) => Expr::Unary(UnaryOp::Abs, of(x)),
            load => load.clone(),
        };
        new.push(changed.add_typed(expr, exprs.dtype(id)));
    }
    (changed, new)
}

/// The rewritten program computes the same in f64, and what the CPU computes is within the bound.
fn check(name: &str, program: &Program, size: i64, terms: i64) {
    let arranged = rewritten(program, size);
    let tensors = noise_inputs(program, 11);
    let inputs: Vec<Array> = tensors.iter().map(Array::from_tensor).collect();
    let expected = interpret(program, &inputs);
    let same = interpret(&arranged, &inputs);
    let absolute: Vec<Array> = inputs.iter().map(|a| a.map(f64::abs)).collect();
    let magnitude = interpret(&magnitudes(&arranged), &absolute);
    let close = |found: &Array, bound: f64, by: &str| {
        for (at, wanted) in expected.data.iter().enumerate() {
            let (found, size) = (found.data[at], magnitude.data[at]);
            let off = (found - wanted).abs();
            assert!(off <= bound * size, "{name}, {by}: {found}, not {wanted}, at {at}");
        }
    };
    close(&same, 1e-12, "interpreted");
    for target in targets() {
        let options = options(OptLevel::O2, 2);
        let outputs = run(&target, &arranged, &options, &tensors).expect("it runs");
        let bound = (terms + 40) as f64 / f64::from(1 << 24);
        close(&Array::from_tensor(&outputs[0]), bound, target.name());
    }
}

#[test]
fn convolutions() {
    for conv in CONVS {
        for (size, flipped, bare) in [(2, false, true), (4, false, false), (4, true, true)] {
            let name = format!("{conv:?} in tiles of {size}, flipped: {flipped}");
            check(&name, &conv.forward(flipped, bare), size, conv.channels);
        }
    }
}

#[test]
fn gradients_of_filters() {
    for conv in CONVS {
        let terms = conv.results()[..3].iter().product();
        for size in [2, 4] {
            check(&format!("gradient of {conv:?}, {size}"), &conv.gradient(), size, terms);
        }
    }
}

#[test]
fn exact_convolutions_are_left_alone() {
    let exact = Config { exact_conv: true, ..config() };
    for program in [CONVS[0].forward(false, false), CONVS[0].gradient()] {
        let arranged = arrange(&program, exact);
        let is_sum = |k: &&Kernel| matches!(k.form, Form::Contract { .. });
        let contractions: Vec<&Kernel> =
            arranged.entries[0].kernels.iter().filter(is_sum).collect();
        assert_eq!(contractions.len(), 1);
        assert_eq!(contractions[0].name, program.entries[0].kernels[0].name);
    }
}
