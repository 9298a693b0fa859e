//! Contractions to test and to measure: each a program of one kernel.
//!
//! Axes are counted as kernels count them: those of the output first, then those summed over.
#![allow(dead_code)] // Each of the programs that share this file uses a part of it.

use dlc_kernel::{
    Access, BinaryOp, Buffer, BufferId, Class, DType, Entry, Expr, ExprId, Exprs, Form, Index,
    Kernel, Program, Scalar, Segment, Size, Store, Tensor, UnaryOp,
};

/// A contraction with a name for reports.
#[derive(Clone)]
pub struct Case {
    /// What it is.
    pub name: String,
    /// One entry with one kernel; inputs and outputs in the order they were added.
    pub program: Program,
    /// Extents of the output, then of what is summed over.
    pub out: Vec<i64>,
    /// What is summed over.
    pub reduce: Vec<i64>,
}

/// A tensor that a case reads or writes: its shape and where.
pub type Operand<'a> = (&'a [i64], Vec<Index>);

impl Case {
    /// `store[..] = sum over reduce of lhs[..] * rhs[..]`.
    pub fn new(
        name: &str,
        (out, reduce): (&[i64], &[i64]),
        lhs: Operand,
        rhs: Operand,
        store: Operand,
    ) -> Case {
        let mut program = Program::default();
        let mut exprs = Exprs::new();
        let mut load = |(shape, coords): Operand| {
            let buffer = add_buffer(&mut program, Class::Input, shape);
            exprs.add(load(buffer, Access::new(coords)))
        };
        let (lhs, rhs) = (load(lhs), load(rhs));
        let value = exprs.add_typed(Expr::Folded(0), DType::F32);
        let buffer = add_buffer(&mut program, Class::Output, store.0);
        let stores = vec![Store { buffer, access: Access::new(store.1), value }];
        let sizes = |extents: &[i64]| extents.iter().map(|&e| Size::from(e)).collect();
        let form = Form::contract(sizes(out), sizes(reduce), exprs, [lhs, rhs], stores);
        let kernels = vec![Kernel { name: "contract".into(), origin: None, form }];
        let (inputs, outputs) = (vec![BufferId(0), BufferId(1)], vec![BufferId(2)]);
        program.entries = vec![Entry { name: "run".into(), inputs, outputs, kernels, commit: 1 }];
        Case { name: name.into(), program, out: out.to_vec(), reduce: reduce.to_vec() }
    }

    /// Adds a bias along output axis `axis` and a residual, applies relu, and also stores the value
    /// before it.
    pub fn with_epilogue(mut self, axis: u32) -> Case {
        let extent = self.out[axis as usize];
        let shape: Vec<i64> = {
            let first = &self.program.buffers[2].shape;
            first.iter().map(|s| s.as_const().expect("cases have bound sizes")).collect()
        };
        let bias = add_buffer(&mut self.program, Class::Input, &[extent]);
        let residual = add_buffer(&mut self.program, Class::Input, &shape);
        let before = add_buffer(&mut self.program, Class::Output, &shape);
        let (exprs, _, _, stores) = self.parts();
        let access = stores[0].access.clone();
        let bias = exprs.add(load(bias, Access::new([Index::axis(axis)])));
        let residual = exprs.add(load(residual, access.clone()));
        let sum = exprs.add(Expr::Binary(BinaryOp::Add, stores[0].value, bias));
        let sum = exprs.add(Expr::Binary(BinaryOp::Add, sum, residual));
        stores[0].value = relu(exprs, sum);
        stores.push(Store { buffer: before, access, value: sum });
        self.finish("epilogue", [BufferId(3), BufferId(4)], Some(before))
    }

    /// Adds a bias along output axis `axis`, scales by a number of its own buffer, adds a residual and
    /// applies an activation; stores the value before it, too. The contraction's own stores do all of
    /// that, or a kernel of its own does.
    pub fn with_ending(mut self, axis: u32, activation: Activation, place: Ending) -> Case {
        let out = self.out.clone();
        let program = &mut self.program;
        let [bias, scale] =
            [out[axis as usize], 1].map(|n| add_buffer(program, Class::Input, &[n]));
        let residual = add_buffer(program, Class::Input, &out);
        let after = add_buffer(program, Class::Output, &out);
        let sums = add_buffer(program, Class::Temp, &out);
        let all = || Access::new((0..out.len() as u32).map(Index::axis));
        let mut apart = Exprs::new();
        let (exprs, _, _, stores) = self.parts();
        let (exprs, sum) = match place {
            Ending::Own => (exprs, stores[0].value),
            Ending::Apart => {
                let sum = apart.add(load(sums, all()));
                (&mut apart, sum)
            }
        };
        let bias = exprs.add(load(bias, Access::new([Index::axis(axis)])));
        let scale = exprs.add(load(scale, Access::new([Index::constant(0i64)])));
        let residual = exprs.add(load(residual, all()));
        let value = exprs.add(Expr::Binary(BinaryOp::Add, sum, bias));
        let value = exprs.add(Expr::Binary(BinaryOp::Mul, value, scale));
        let value = exprs.add(Expr::Binary(BinaryOp::Add, value, residual));
        let activated = activation(exprs, value);
        let before = Store { buffer: BufferId(2), access: all(), value };
        let ends = vec![before, Store { buffer: after, access: all(), value: activated }];
        match place {
            Ending::Own => *stores = ends,
            Ending::Apart => {
                stores[0] = Store { buffer: sums, access: all(), value: stores[0].value };
                let axes = out.iter().map(|&e| Size::from(e)).collect();
                self.add_map(Segment { axes, exprs: apart, stores: ends });
            }
        }
        self.finish("an ending", [3, 4, 5].map(BufferId), Some(after))
    }

    fn add_map(&mut self, segment: Segment) {
        let form = Form::Map { segments: vec![segment] };
        let entry = &mut self.program.entries[0];
        entry.kernels.push(Kernel { name: "map".into(), origin: None, form });
        entry.commit = entry.kernels.len();
    }

    /// Scales the left operand and clips the right one from below.
    pub fn with_prologue(mut self) -> Case {
        let (exprs, lhs, rhs, _) = self.parts();
        let half = exprs.constant(DType::F32, 0.5);
        *lhs = exprs.add(Expr::Binary(BinaryOp::Mul, *lhs, half));
        *rhs = relu(exprs, *rhs);
        self.finish("prologue", [], None)
    }

    /// The same sums over absolute values and nothing else: what errors are measured by.
    pub fn magnitude(&self) -> Program {
        let mut program = self.program.clone();
        let Form::Contract { exprs, lhs, rhs, stores, .. } =
            &mut program.entries[0].kernels[0].form
        else {
            panic!("a case is a contraction")
        };
        *lhs = exprs.add(Expr::Unary(UnaryOp::Abs, *lhs));
        *rhs = exprs.add(Expr::Unary(UnaryOp::Abs, *rhs));
        stores.truncate(1);
        stores[0].value = exprs.add_typed(Expr::Folded(0), DType::F32);
        program.entries[0].outputs.truncate(1);
        program
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        2.0 * self.out.iter().chain(&self.reduce).map(|&e| e as f64).product::<f64>()
    }

    /// Values in -1..1 for every input.
    pub fn inputs(&self) -> Vec<Tensor> {
        let inputs = &self.program.entries[0].inputs;
        inputs.iter().map(|&id| random(&shape(self.program.buffer(id)), u64::from(id.0))).collect()
    }

    /// Room for every output, filled with something else.
    pub fn outputs(&self) -> Vec<Tensor> {
        let outputs = &self.program.entries[0].outputs;
        outputs.iter().map(|&id| random(&shape(self.program.buffer(id)), 99)).collect()
    }

    fn parts(&mut self) -> (&mut Exprs, &mut ExprId, &mut ExprId, &mut Vec<Store>) {
        match &mut self.program.entries[0].kernels[0].form {
            Form::Contract { exprs, lhs, rhs, stores, .. } => (exprs, lhs, rhs, stores),
            _ => panic!("a case is a contraction"),
        }
    }

    fn finish(
        mut self,
        what: &str,
        inputs: impl IntoIterator<Item = BufferId>,
        output: Option<BufferId>,
    ) -> Case {
        self.name += &format!(" with {what}");
        self.program.entries[0].inputs.extend(inputs);
        self.program.entries[0].outputs.extend(output);
        self
    }
}

/// A convolution over square windows.
#[derive(Clone, Copy)]
pub struct Conv {
    /// Images.
    pub n: i64,
    /// Input channels.
    pub c: i64,
    /// Rows and columns of an image.
    pub image: (i64, i64),
    /// Output channels.
    pub k: i64,
    /// Rows and columns of the window.
    pub window: i64,
    /// Steps between windows.
    pub stride: i64,
    /// Zeros around the image.
    pub pad: i64,
    /// Steps between the elements of a window.
    pub dilation: i64,
}

impl Conv {
    fn out(&self) -> (i64, i64) {
        let reach = self.dilation * (self.window - 1) + 1;
        let extent = |e: i64| (e + 2 * self.pad - reach) / self.stride + 1;
        (extent(self.image.0), extent(self.image.1))
    }

    fn name(&self, what: &str) -> String {
        let Conv { n, c, image, k, window, stride, pad, dilation } = self;
        let (h, w) = image;
        format!("{what} {n}x{c}x{h}x{w} to {k}, {window}x{window} s{stride} p{pad} d{dilation}")
    }

    /// `y[n, k, h, w] = sum[c, r, s] x[n, c, h*stride + r*dilation - pad, ..] * f[k, c, r, s]`.
    pub fn forward(&self) -> Case {
        let Conv { n, c, image, k, window, .. } = *self;
        let (h, w) = self.out();
        let at =
            |out, window| Index::affine([(out, self.stride), (window, self.dilation)], -self.pad);
        Case::new(
            &self.name("conv"),
            (&[n, k, h, w], &[c, window, window]),
            (&[n, c, image.0, image.1], vec![axis(0), axis(4), at(2, 5), at(3, 6)]),
            (&[k, c, window, window], axes([1, 4, 5, 6])),
            (&[n, k, h, w], axes([0, 1, 2, 3])),
        )
    }

    /// The gradient of the image: the read of [`Conv::forward`], solved for the output's axes.
    pub fn image_gradient(&self) -> Case {
        let Conv { n, c, image, k, window, .. } = *self;
        let (h, w) = self.out();
        let at = |image, window| {
            let mut index = Index::affine([(image, 1), (window, -self.dilation)], self.pad);
            index.div = self.stride;
            index
        };
        Case::new(
            &self.name("image gradient"),
            (&[n, c, image.0, image.1], &[k, window, window]),
            (&[n, k, h, w], vec![axis(0), axis(4), at(2, 5), at(3, 6)]),
            (&[k, c, window, window], axes([4, 1, 5, 6])),
            (&[n, c, image.0, image.1], axes([0, 1, 2, 3])),
        )
    }

    /// The gradient of the filters.
    pub fn filter_gradient(&self) -> Case {
        let Conv { n, c, image, k, window, .. } = *self;
        let (h, w) = self.out();
        let at =
            |out, window| Index::affine([(out, self.stride), (window, self.dilation)], -self.pad);
        Case::new(
            &self.name("filter gradient"),
            (&[k, c, window, window], &[n, h, w]),
            (&[n, k, h, w], axes([4, 0, 5, 6])),
            (&[n, c, image.0, image.1], vec![axis(4), axis(1), at(5, 2), at(6, 3)]),
            (&[k, c, window, window], axes([0, 1, 2, 3])),
        )
    }

    /// All three.
    pub fn all(&self) -> [Case; 3] {
        [self.forward(), self.image_gradient(), self.filter_gradient()]
    }
}

/// Which operands of a matrix product are transposed in memory.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// None.
    Plain,
    /// The left one.
    Left,
    /// The right one.
    Right,
    /// The result.
    Result,
}

/// `y[m, n] = sum[k] a[m, k] * b[k, n]`.
pub fn matmul(m: i64, n: i64, k: i64, layout: Layout) -> Case {
    let (mut a, mut b, mut y) = (([m, k], [0, 2]), ([k, n], [2, 1]), ([m, n], [0, 1]));
    let transposed = match layout {
        Layout::Plain => None,
        Layout::Left => Some(&mut a),
        Layout::Right => Some(&mut b),
        Layout::Result => Some(&mut y),
    };
    if let Some((shape, coords)) = transposed {
        shape.reverse();
        coords.reverse();
    }
    let name = format!("matmul {m}x{n}x{k} {layout:?}");
    Case::new(&name, (&[m, n], &[k]), (&a.0, axes(a.1)), (&b.0, axes(b.1)), (&y.0, axes(y.1)))
}

/// The axis itself.
pub fn axis(axis: u32) -> Index {
    Index::axis(axis)
}

/// The axes themselves.
pub fn axes<const N: usize>(axes: [u32; N]) -> Vec<Index> {
    axes.into_iter().map(Index::axis).collect()
}

fn add_buffer(program: &mut Program, class: Class, shape: &[i64]) -> BufferId {
    let id = BufferId(program.buffers.len() as u32);
    let shape = shape.iter().map(|&e| e.into()).collect();
    let name = format!("b{}", id.0);
    program.buffers.push(Buffer { name, dtype: DType::F32, shape, class, default: 0.0 });
    id
}

fn load(buffer: BufferId, access: Access) -> Expr {
    let fill = Scalar::new(DType::F32, 0.0);
    Expr::Load { buffer, access, lookups: Default::default(), fill }
}

/// Code for an activation function.
pub type Activation = fn(&mut Exprs, ExprId) -> ExprId;

/// Which kernel makes the stores of [`Case::with_ending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The contraction.
    Own,
    /// A map.
    Apart,
}

/// The activation functions of the standard library.
pub const ACTIVATIONS: [(&str, Activation); 5] = [
    ("relu", relu),
    ("sigmoid", |exprs, x| exprs.add(Expr::Unary(UnaryOp::Sigmoid, x))),
    ("tanh", |exprs, x| exprs.add(Expr::Unary(UnaryOp::Tanh, x))),
    ("silu", |exprs, x| {
        let gate = exprs.add(Expr::Unary(UnaryOp::Sigmoid, x));
        exprs.add(Expr::Binary(BinaryOp::Mul, x, gate))
    }),
    ("gelu", |exprs, x| {
        let [half, root] = [0.5, 0.5f64.sqrt()].map(|c| exprs.constant(DType::F32, c));
        let scaled = exprs.add(Expr::Binary(BinaryOp::Mul, x, root));
        let erf = exprs.add(Expr::Unary(UnaryOp::Erf, scaled));
        let one = exprs.constant(DType::F32, 1.0);
        let sum = exprs.add(Expr::Binary(BinaryOp::Add, erf, one));
        let product = exprs.add(Expr::Binary(BinaryOp::Mul, x, sum));
        exprs.add(Expr::Binary(BinaryOp::Mul, product, half))
    }),
];

fn relu(exprs: &mut Exprs, x: ExprId) -> ExprId {
    let zero = exprs.constant(DType::F32, 0.0);
    exprs.add(Expr::Binary(BinaryOp::Max, x, zero))
}

fn shape(buffer: &Buffer) -> Vec<usize> {
    let extents = buffer.shape.iter().map(|s| s.as_const().expect("cases have bound sizes"));
    extents.map(|e| usize::try_from(e).expect("extents are not negative")).collect()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = 2 * seed + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    Tensor::f32(shape.to_vec(), (0..shape.iter().product()).map(|_| next()).collect())
}
