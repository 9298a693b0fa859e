//! Small programs, inputs for them, and how far results are from the kernel interpreter's.
//! The tests of every target take this file by its path.
#![allow(dead_code)]

use dlc_kernel::{
    Access, Array, Axis, BinaryOp, Buffer, BufferId, Class, DType, Data, Entry, Expr, ExprId,
    Exprs, Form, Index, Kernel, Program, Scalar, Segment, Size, Store, Tensor, UnaryOp, verify,
};

/// A program in the making: one entry, `run`.
#[derive(Clone, Default)]
pub struct Draft {
    program: Program,
    kernels: Vec<Kernel>,
    commit: Option<usize>,
}

impl Draft {
    pub fn buffer(&mut self, class: Class, dtype: DType, shape: &[i64]) -> BufferId {
        let id = BufferId(self.program.buffers.len() as u32);
        let shape = sizes(shape);
        let name = format!("t{}", id.0);
        self.program.buffers.push(Buffer { name, dtype, shape, class, default: 0.0 });
        id
    }

    pub fn input(&mut self, shape: &[i64]) -> BufferId {
        self.buffer(Class::Input, DType::F32, shape)
    }

    pub fn output(&mut self, shape: &[i64]) -> BufferId {
        self.buffer(Class::Output, DType::F32, shape)
    }

    pub fn temp(&mut self, shape: &[i64]) -> BufferId {
        self.buffer(Class::Temp, DType::F32, shape)
    }

    pub fn state(&mut self, shape: &[i64]) -> BufferId {
        self.buffer(Class::State, DType::F32, shape)
    }

    pub fn kernel(&mut self, form: Form) -> &mut Draft {
        let name = format!("{}_{}", form.name(), self.kernels.len());
        self.kernels.push(Kernel { name, origin: None, form });
        self
    }

    /// A map of one segment.
    pub fn map(&mut self, axes: &[i64], exprs: Exprs, stores: Vec<Store>) -> &mut Draft {
        self.kernel(Form::Map { segments: vec![Segment { axes: sizes(axes), exprs, stores }] })
    }

    /// The last `body` kernels become those of a loop.
    pub fn repeat(&mut self, steps: i64, body: usize) -> &mut Draft {
        self.repeat_after(0, steps, body)
    }

    /// The same, after the `start` kernels before them.
    pub fn repeat_after(&mut self, start: usize, steps: i64, body: usize) -> &mut Draft {
        let body = self.kernels.split_off(self.kernels.len() - body);
        let start = self.kernels.split_off(self.kernels.len() - start);
        self.kernel(Form::Loop { steps: Size::from(steps), start, body })
    }

    /// The kernels so far end the part that may fail.
    pub fn commit(&mut self) -> &mut Draft {
        self.commit = Some(self.kernels.len());
        self
    }

    pub fn program(&self) -> Program {
        let mut program = self.program.clone();
        let of = |class| {
            let ids = (0..program.buffers.len()).map(|i| BufferId(i as u32));
            ids.filter(|&id| program.buffer(id).class == class).collect::<Vec<_>>()
        };
        let (inputs, outputs) = (of(Class::Input), of(Class::Output));
        let commit = self.commit.unwrap_or(self.kernels.len());
        let kernels = self.kernels.clone();
        program.entries = vec![Entry { name: "run".into(), inputs, outputs, kernels, commit }];
        if let Err(errors) = verify(&program) {
            panic!("{errors:?}\n{program}");
        }
        program
    }
}

pub fn sizes<C: FromIterator<Size>>(extents: &[i64]) -> C {
    extents.iter().map(|&e| Size::from(e)).collect()
}

/// Reads at these axes.
pub fn at(axes: &[u32]) -> Access {
    access(axes.iter().map(|&a| Index::axis(a)))
}

pub fn access(coords: impl IntoIterator<Item = Index>) -> Access {
    Access { coords: coords.into_iter().collect(), guards: Default::default() }
}

pub fn load(exprs: &mut Exprs, buffer: BufferId, access: Access) -> ExprId {
    load_or(exprs, buffer, access, 0.0)
}

pub fn load_or(exprs: &mut Exprs, buffer: BufferId, access: Access, fill: f64) -> ExprId {
    load_as(exprs, buffer, access, Scalar::new(DType::F32, fill))
}

pub fn load_as(exprs: &mut Exprs, buffer: BufferId, access: Access, fill: Scalar) -> ExprId {
    exprs.add(Expr::Load { buffer, access, lookups: Default::default(), fill })
}

pub fn unary(exprs: &mut Exprs, op: UnaryOp, x: ExprId) -> ExprId {
    exprs.add(Expr::Unary(op, x))
}

pub fn binary(exprs: &mut Exprs, op: BinaryOp, x: ExprId, y: ExprId) -> ExprId {
    exprs.add(Expr::Binary(op, x, y))
}

pub fn axis(exprs: &mut Exprs, axis: u32) -> ExprId {
    exprs.add(Expr::Axis(Axis(axis)))
}

pub fn folded(exprs: &mut Exprs, step: u32, dtype: DType) -> ExprId {
    exprs.add_typed(Expr::Folded(step), dtype)
}

pub fn store(buffer: BufferId, axes: &[u32], value: ExprId) -> Store {
    Store { buffer, access: at(axes), value }
}

/// A generator of numbers that look random.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ (self.0 >> 33);
        x.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 16
    }

    /// In -1..1.
    pub fn float(&mut self) -> f32 {
        (self.next() % 2_000_001) as f32 / 1e6 - 1.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn shape_of(buffer: &Buffer) -> Vec<usize> {
    buffer.shape.iter().map(|s| s.as_const().unwrap() as usize).collect()
}

/// Numbers for every input of the first entry; integers below 4.
pub fn noise_inputs(program: &Program, seed: u64) -> Vec<Tensor> {
    let mut noise = Noise(seed);
    let inputs = program.entries[0].inputs.iter();
    inputs.map(|&id| noise_tensor(program.buffer(id), &mut noise)).collect()
}

fn noise_tensor(buffer: &Buffer, noise: &mut Noise) -> Tensor {
    let mut tensor = Tensor::zeros(buffer.dtype, shape_of(buffer));
    match &mut tensor.data {
        Data::F32(v) => v.fill_with(|| noise.float()),
        Data::I32(v) => v.fill_with(|| noise.below(4) as i32),
        Data::U8(v) => v.fill_with(|| noise.below(256) as u8),
        Data::Bool(v) => v.fill_with(|| noise.below(2) as u8),
        Data::F64(_) | Data::I64(_) => panic!("no noise of that type"),
    }
    tensor
}

pub fn empty_outputs(program: &Program) -> Vec<Tensor> {
    let output = |&id| {
        let buffer = program.buffer(id);
        Tensor::zeros(buffer.dtype, shape_of(buffer))
    };
    program.entries[0].outputs.iter().map(output).collect()
}

/// The first elements.
pub fn head(mut data: Vec<f64>) -> String {
    data.truncate(100);
    format!("{data:?}")
}

pub fn same_bits(a: &[Tensor], b: &[Tensor]) -> bool {
    let bits = |t: &Tensor| match &t.data {
        Data::F32(v) => v.iter().map(|x| u64::from(x.to_bits())).collect::<Vec<_>>(),
        other => other.to_f64().into_iter().map(f64::to_bits).collect(),
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(a) == bits(b))
}

/// The largest difference, relative to the largest finite value if that is over 1. NaN and
/// infinities must be where they are expected.
pub fn error(got: &Tensor, wanted: &Array) -> f64 {
    assert_eq!(got.shape, wanted.shape);
    let scale = wanted.data.iter().filter(|x| x.is_finite()).fold(1f64, |m, x| m.max(x.abs()));
    let difference = |(a, b): (f64, &f64)| {
        let same = a == *b || (a.is_nan() && b.is_nan());
        // Beyond the range of f32, an infinity is right.
        let overflow = a.is_infinite() && b.abs() > 3.4e38 && a.signum() == b.signum();
        match same || overflow {
            true => 0.0,
            false if a.is_finite() && b.is_finite() => (a - b).abs() / scale,
            false => f64::INFINITY,
        }
    };
    got.data.to_f64().into_iter().zip(&wanted.data).map(difference).fold(0.0, f64::max)
}
