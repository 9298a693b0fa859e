//! Contractions, interpreted, against the kernel program's evaluation in f64: every transposition,
//! convolutions and their gradients, sizes around the borders of tiles, every way to multiply. The
//! bounds are those of `support/math.rs`, times the sum of the products' magnitudes.

#[path = "support/math.rs"]
mod math;
#[path = "support/ptxas.rs"]
mod ptxas;

use dlc_kernel::{
    Access, Array, BinaryOp, Buffer, BufferId, Class, DType, Entry, Expr, ExprId, Exprs, Form,
    Index, Kernel, Machine, Program, Scalar, Size, Store, Tensor, philox, verify,
};
use dlc_ptx::interpret::{Counters, Device};
use dlc_ptx::{Flavour, Math, PtxTarget, ir};
use math::relative;
use std::path::Path;

/// A factor: its buffer's shape, and where it is read.
#[derive(Clone)]
struct Factor(Vec<i64>, Access);

/// A contraction.
#[derive(Clone)]
struct Case {
    out: Vec<i64>,
    reduce: Vec<i64>,
    factors: [Factor; 2],
    /// `max(lhs, 0)` and, on the result, `+ bias[last]` and `max(.., 0)`.
    fused: bool,
}

fn sizes<C: FromIterator<Size>>(extents: &[i64]) -> C {
    extents.iter().map(|&e| Size::from(e)).collect()
}

fn plain(axes: &[u32]) -> Access {
    Access::new(axes.iter().map(|&a| Index::axis(a)))
}

/// `[m, n]` over `k`, either factor transposed or not, in `batch` copies.
fn matmul([batch, m, n, k]: [i64; 4], turned: [bool; 2]) -> Case {
    let of = |turned: bool, a: (i64, u32), b: (i64, u32)| {
        let (a, b) = if turned { (b, a) } else { (a, b) };
        Factor(vec![batch, a.0, b.0], plain(&[0, a.1, b.1]))
    };
    let factors = [of(turned[0], (m, 1), (k, 3)), of(turned[1], (k, 3), (n, 2))];
    Case { out: vec![batch, m, n], reduce: vec![k], factors, fused: false }
}

/// How a convolution walks.
#[derive(Clone, Copy)]
struct Walk {
    stride: i64,
    dilation: i64,
    padding: i64,
}

/// `x[n, c, h, h]` with filters `[o, c, r, r]`, all that a walk needs.
struct Conv {
    n: i64,
    c: i64,
    o: i64,
    h: i64,
    r: i64,
    walk: Walk,
}

impl Conv {
    fn result(&self) -> i64 {
        let Walk { stride, dilation, padding } = self.walk;
        (self.h + 2 * padding - dilation * (self.r - 1) - 1) / stride + 1
    }

    /// `stride * out + dilation * tap - padding`
    fn at(&self, out: u32, tap: u32) -> Index {
        let Walk { stride, dilation, padding } = self.walk;
        Index::affine([(out, stride), (tap, dilation)], -padding)
    }

    fn forward(&self) -> Case {
        let p = self.result();
        let x = Access::new([Index::axis(0), Index::axis(4), self.at(2, 5), self.at(3, 6)]);
        Case {
            out: vec![self.n, self.o, p, p],
            reduce: vec![self.c, self.r, self.r],
            factors: [
                Factor(vec![self.n, self.c, self.h, self.h], x),
                Factor(vec![self.o, self.c, self.r, self.r], plain(&[1, 4, 5, 6])),
            ],
            fused: true,
        }
    }

    fn of_input(&self) -> Case {
        let p = self.result();
        let Walk { stride, dilation, padding } = self.walk;
        let back = |at: u32, tap: u32| {
            let mut index = Index::affine([(at, 1), (tap, -dilation)], padding);
            index.div = stride;
            index
        };
        let dy = Access::new([Index::axis(0), Index::axis(4), back(2, 5), back(3, 6)]);
        Case {
            out: vec![self.n, self.c, self.h, self.h],
            reduce: vec![self.o, self.r, self.r],
            factors: [
                Factor(vec![self.n, self.o, p, p], dy),
                Factor(vec![self.o, self.c, self.r, self.r], plain(&[4, 1, 5, 6])),
            ],
            fused: false,
        }
    }

    fn of_filter(&self) -> Case {
        let p = self.result();
        let x = Access::new([Index::axis(4), Index::axis(1), self.at(5, 2), self.at(6, 3)]);
        Case {
            out: vec![self.o, self.c, self.r, self.r],
            reduce: vec![self.n, p, p],
            factors: [
                Factor(vec![self.n, self.o, p, p], plain(&[4, 0, 5, 6])),
                Factor(vec![self.n, self.c, self.h, self.h], x),
            ],
            fused: false,
        }
    }
}

impl Case {
    fn fused(self) -> Case {
        Case { fused: true, ..self }
    }

    fn terms(&self) -> i64 {
        self.reduce.iter().product()
    }

    fn program(&self) -> Program {
        let mut program = Program::default();
        let mut buffer = |class, shape: &[i64]| {
            let id = BufferId(program.buffers.len() as u32);
            let (name, dtype) = (format!("t{}", id.0), DType::F32);
            let shape = sizes(shape);
            program.buffers.push(Buffer { name, dtype, shape, class, default: 0.0 });
            id
        };
        let inputs = [0, 1].map(|i| buffer(Class::Input, &self.factors[i].0));
        let bias = buffer(Class::Input, &self.out[self.out.len() - 1..]);
        let output = buffer(Class::Output, &self.out);
        let mut exprs = Exprs::new();
        let load = |exprs: &mut Exprs, buffer, access: &Access| {
            let (access, lookups) = (access.clone(), [].into_iter().collect());
            exprs.add(Expr::Load { buffer, access, lookups, fill: Scalar::new(DType::F32, 0.0) })
        };
        let [mut lhs, rhs] = [0, 1].map(|i| load(&mut exprs, inputs[i], &self.factors[i].1));
        let mut value = exprs.add_typed(Expr::Folded(0), DType::F32);
        if self.fused {
            let zero = exprs.constant(DType::F32, 0.0);
            let max =
                |exprs: &mut Exprs, x: ExprId| exprs.add(Expr::Binary(BinaryOp::Max, x, zero));
            lhs = max(&mut exprs, lhs);
            let bias = load(&mut exprs, bias, &plain(&[self.out.len() as u32 - 1]));
            value = exprs.add(Expr::Binary(BinaryOp::Add, value, bias));
            value = max(&mut exprs, value);
        }
        let store = Store { buffer: output, access: Access::identity(self.out.len()), value };
        let (out, reduce) = (sizes(&self.out), sizes(&self.reduce));
        let form = Form::contract(out, reduce, exprs, [lhs, rhs], vec![store]);
        let kernels = vec![Kernel { name: "product".into(), origin: None, form }];
        let (inputs, outputs) = (vec![inputs[0], inputs[1], bias], vec![output]);
        program.entries = vec![Entry { name: "run".into(), inputs, outputs, kernels, commit: 1 }];
        verify(&program).unwrap_or_else(|e| panic!("{e:?}\n{program}"));
        program
    }
}

fn inputs(program: &Program) -> Vec<Tensor> {
    let tensor = |&id: &BufferId| {
        let shape: Vec<usize> =
            program.buffer(id).shape.iter().map(|s| s.as_const().unwrap() as usize).collect();
        let n: usize = shape.iter().product();
        let draw = |i: usize| philox::uniform(3, 0, id.0.into(), i as i32) * 2.0 - 1.0;
        Tensor::f32(shape, (0..n).map(draw).collect())
    };
    program.entries[0].inputs.iter().map(tensor).collect()
}

fn evaluated(program: &Program, inputs: &[Tensor], map: fn(f64) -> f64) -> Vec<f64> {
    let arrays: Vec<Array> = inputs
        .iter()
        .map(|t| {
            let mut array = Array::from_tensor(t);
            array.data.iter_mut().for_each(|x| *x = map(*x));
            array
        })
        .collect();
    Machine::new(program).call("run", &arrays).unwrap().remove(0).data
}

/// Runs the case interpreted and compares; gives what its launches did.
fn check(name: &str, case: &Case, math: Math) -> Vec<Counters> {
    let program = case.program();
    let target = PtxTarget { flavour: Flavour::Sm80, math };
    let code = target.compile(&program).unwrap();
    let inputs = inputs(&program);
    let (outputs, counters) =
        Device::new(&code).call(0, &inputs).unwrap_or_else(|e| panic!("{name}, {math}: {e}"));
    let found = Array::from_tensor(&outputs[0]).data;
    let expected = evaluated(&program, &inputs, |x| x);
    let magnitudes = evaluated(&program, &inputs, f64::abs);
    let bound = relative(math, case.terms() + i64::from(case.fused));
    for (i, ((x, e), m)) in found.iter().zip(&expected).zip(&magnitudes).enumerate() {
        let error = (x - e).abs();
        assert!(
            error <= bound * m,
            "{name}, {math}, at {i}: {x} for {e}\n{}",
            target.schedule(&program)
        );
    }
    counters
}

const TURNS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

#[test]
fn products_of_matrices_of_any_size_and_transposition() {
    let sizes = [[1, 4, 4, 1], [1, 31, 33, 17], [1, 32, 32, 16], [2, 33, 64, 40], [1, 65, 70, 36]];
    for size in sizes {
        for turned in TURNS {
            for math in Math::ALL {
                check(&format!("{size:?} {turned:?}"), &matmul(size, turned).fused(), math);
            }
        }
    }
}

#[test]
fn thin_products_have_a_thread_for_each_result() {
    for size in [[1, 1, 7, 9], [5, 3, 2, 11], [1, 9, 1, 0], [0, 5, 6, 7]] {
        check(&format!("{size:?}"), &matmul(size, [false, true]), Math::F32);
    }
}

#[test]
fn large_tiles() {
    for math in Math::ALL {
        // 132 tiles of 128x128: their borders, in both directions.
        let counters = check("large", &matmul([66, 66, 136, 4], [true, false]), math);
        assert_eq!(counters.len(), 1);
    }
}

#[test]
fn long_sums_are_split_and_added_in_order() {
    for turned in TURNS {
        for math in Math::ALL {
            let case = matmul([1, 20, 24, 517], turned).fused();
            let counters = check(&format!("long {turned:?}"), &case, math);
            assert_eq!(counters.len(), 2, "a launch for parts, one for their totals");
        }
    }
}

/// Factors that are large and compact, in 16 bits: either or both, of every transposition, with borders of
/// tiles and of panels, several products, and tiles of 128 x 256.
#[test]
fn large_factors_are_packed() {
    let sizes = [
        ([1, 70, 520, 40], 1, &TURNS[..]),
        ([2, 516, 70, 33], 1, &TURNS[..]),
        ([1, 512, 64, 600], 1, &TURNS[..1]),
        ([1, 513, 530, 70], 2, &TURNS[1..2]),
        ([9, 513, 516, 5], 2, &TURNS[2..3]),
    ];
    for (size, expected, turns) in sizes {
        for (&turned, math) in turns.iter().flat_map(|t| [(t, Math::F16), (t, Math::Bf16)]) {
            let case = matmul(size, turned);
            let schedule = PtxTarget { flavour: Flavour::Sm80, math }.schedule(&case.program());
            assert_eq!(schedule.matches(" packed, ").count(), expected, "{schedule}");
            let counters = check(&format!("{size:?} {turned:?}"), &case, math);
            if expected == 2 {
                assert_eq!(counters[2].conflicts, 0, "after the launches that pack");
            }
        }
    }
}

/// Products of buffers as they are, in vectors: fewer steps than stages, a last step in part, several
/// products, tiles in part, and parts of long sums.
#[test]
fn plain_factors_are_copied() {
    let sizes =
        [[1, 32, 32, 4], [1, 64, 64, 36], [3, 36, 68, 40], [1, 132, 4, 52], [1, 20, 24, 520]];
    for size in sizes {
        for turned in TURNS {
            for math in Math::ALL {
                let case = matmul(size, turned);
                let schedule = PtxTarget { flavour: Flavour::Sm80, math }.schedule(&case.program());
                let expected = if math.per_word() == 2 { 0 } else { 2 };
                assert_eq!(schedule.matches(" copied ").count(), expected, "{schedule}");
                check(&format!("{size:?} {turned:?}"), &case, math);
            }
        }
    }
}

#[test]
fn convolutions_and_their_gradients() {
    let walks = [(1, 1, 0), (1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 1), (3, 1, 2)];
    for (stride, dilation, padding) in walks {
        let walk = Walk { stride, dilation, padding };
        let conv = Conv { n: 2, c: 5, o: 6, h: 9, r: 3, walk };
        for math in [Math::F32, Math::Tf32x3, Math::F16, Math::Bf16] {
            let name = format!("stride {stride}, dilation {dilation}, padding {padding}");
            check(&format!("forward {name}"), &conv.forward(), math);
            check(&format!("of the input {name}"), &conv.of_input(), math);
            check(&format!("of the filter {name}"), &conv.of_filter(), math);
        }
    }
}

/// What products in whole tiles cost in memory: no bank is wanted twice, and every byte of a tile
/// is loaded once.
#[test]
fn aligned_products_have_no_bank_conflicts() {
    let mut table = String::new();
    for math in Math::ALL {
        for turned in TURNS {
            let counters = check("aligned", &matmul([1, 64, 64, 64], turned), math);
            let Counters { loaded, stored, sectors, conflicts, .. } = counters[0];
            let turned = turned.map(|t| if t { 't' } else { 'n' }).iter().collect::<String>();
            table += &format!(
                "{:<7} {turned}: loaded {loaded}, stored {stored}, {sectors} sectors, \
                 {conflicts} conflicts\n",
                math.name()
            );
        }
    }
    insta::assert_snapshot!(table);
}

/// What `ptxas` says that the case's largest kernel uses; nothing may be spilled.
fn used(ptxas: &Path, case: &Case, flavour: Flavour, math: Math) -> String {
    let code = PtxTarget { flavour, math }.compile(&case.program()).unwrap();
    let text = ir::print(&code.module, flavour);
    let said = ptxas::assemble(ptxas, &text, flavour).unwrap_or_else(|e| panic!("{e}"));
    let used = said.lines().filter_map(|l| l.split_once("Used "));
    let registers = |used: &&str| used.split(' ').next().unwrap().parse::<u32>().unwrap();
    let most = used.map(|(_, used)| used).max_by_key(registers).unwrap();
    let kept = most.split(", ").filter(|p| p.ends_with("registers") || p.ends_with("smem"));
    kept.collect::<Vec<_>>().join(", ")
}

/// Registers and shared memory of large tiles.
#[test]
fn tiles_fit_in_registers() {
    let Some(ptxas) = ptxas::find() else { return };
    let walk = Walk { stride: 2, dilation: 1, padding: 1 };
    let conv = Conv { n: 64, c: 128, o: 128, h: 56, r: 3, walk };
    let product = |turned| matmul([1, 4096, 4096, 4096], turned);
    let cases = [
        ("product nn", product(TURNS[0])),
        ("product nt", product(TURNS[1])),
        ("product tn", product(TURNS[2])),
        ("product tt", product(TURNS[3])),
        ("convolution", conv.forward()),
        ("of its input", conv.of_input()),
        ("of its filter", conv.of_filter()),
    ];
    let mut table = String::new();
    for math in Math::ALL {
        for (name, case) in &cases {
            let [one, two] = Flavour::ALL.map(|flavour| used(&ptxas, case, flavour, math));
            table += &format!("{:<7} {name:<14} sm_80: {one}; sm_90a: {two}\n", math.name());
        }
    }
    insta::assert_snapshot!(table);
}
