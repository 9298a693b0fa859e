//! Small programs in few words.

use dlc_kernel::*;
use smallvec::SmallVec;
use std::sync::Arc;

pub fn sizes(extents: &[i64]) -> SmallVec<[Size; 4]> {
    extents.iter().map(|&n| n.into()).collect()
}

pub fn buffer(p: &mut Program, class: Class, name: &str, dtype: DType, shape: &[i64]) -> BufferId {
    let shape = sizes(shape);
    p.buffers.push(Buffer { name: name.into(), dtype, shape, class, default: 0.0 });
    BufferId(p.buffers.len() as u32 - 1)
}

/// The access by these axes.
pub fn axes(axes: &[u32]) -> Access {
    Access::new(axes.iter().map(|&a| Index::axis(a)))
}

pub fn affine(terms: &[(u32, i64)], offset: i64) -> Index {
    Index::affine(terms.iter().copied(), offset)
}

/// An `F32` load, 0 outside.
pub fn load(exprs: &mut Exprs, buffer: BufferId, access: Access) -> ExprId {
    load_or(exprs, buffer, access, Scalar::new(DType::F32, 0.0))
}

pub fn load_or(exprs: &mut Exprs, buffer: BufferId, access: Access, fill: Scalar) -> ExprId {
    exprs.add(Expr::Load { buffer, access, lookups: SmallVec::new(), fill })
}

/// An `F32` load whose dim `dim` is decided by `index`.
pub fn look_up(
    exprs: &mut Exprs,
    buffer: BufferId,
    access: Access,
    dim: u32,
    index: ExprId,
) -> ExprId {
    let lookups = [Lookup { dim, index }].into_iter().collect();
    exprs.add(Expr::Load { buffer, access, lookups, fill: Scalar::new(DType::F32, 0.0) })
}

pub fn unary(exprs: &mut Exprs, op: UnaryOp, x: ExprId) -> ExprId {
    exprs.add(Expr::Unary(op, x))
}

pub fn binary(exprs: &mut Exprs, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
    exprs.add(Expr::Binary(op, a, b))
}

pub fn folded(exprs: &mut Exprs, step: u32, dtype: DType) -> ExprId {
    exprs.add_typed(Expr::Folded(step), dtype)
}

pub fn store(buffer: BufferId, access: Access, value: ExprId) -> Store {
    Store { buffer, access, value }
}

pub fn map(extents: &[i64], exprs: Exprs, stores: Vec<Store>) -> Form {
    Form::Map { segments: vec![Segment { axes: sizes(extents), exprs, stores }] }
}

pub fn kernel(name: &str, line: u32, form: Form) -> Kernel {
    let location = Location { file: "m.dl".into(), line, column: 1, path: "".into() };
    Kernel { name: name.into(), origin: Some(Arc::new(location)), form }
}

/// Adds an entry that commits nothing.
pub fn entry(
    p: &mut Program,
    name: &str,
    inputs: &[BufferId],
    outputs: &[BufferId],
    kernels: Vec<Kernel>,
) {
    let (inputs, outputs) = (inputs.to_vec(), outputs.to_vec());
    let commit = kernels.len();
    p.entries.push(Entry { name: name.into(), inputs, outputs, kernels, commit });
}

/// A program of one kernel, made by `form` from the input and output buffers.
pub fn single(
    inputs: &[(DType, &[i64])],
    outputs: &[(DType, &[i64])],
    form: impl FnOnce(&[BufferId], &[BufferId]) -> Form,
) -> Program {
    let mut p = Program::default();
    let mut add = |class, prefix: &str, all: &[(DType, &[i64])]| -> Vec<BufferId> {
        let named = all.iter().enumerate();
        named.map(|(i, (d, s))| buffer(&mut p, class, &format!("{prefix}{i}"), *d, s)).collect()
    };
    let ins = add(Class::Input, "x", inputs);
    let outs = add(Class::Output, "y", outputs);
    let form = form(&ins, &outs);
    entry(&mut p, "run", &ins, &outs, vec![kernel("k", 1, form)]);
    p
}

/// Verifies, then runs `run`.
pub fn run(program: &Program, inputs: &[Array]) -> Result<Vec<Array>, RunError> {
    verify::verify(program).expect("the program is well-formed");
    Machine::new(program).call("run", inputs)
}

/// Numbers without a pattern, in [-1, 1).
pub fn noise(shape: &[usize], seed: i32) -> Array {
    let data = 0..shape.iter().product::<usize>() as i32;
    let data = data.map(|i| 2.0 * f64::from(philox::uniform(seed, 0, 0, i)) - 1.0).collect();
    Array::new(shape, data)
}

/// `y = relu(conv(x, w, stride 2, pad 1) + b)`: x [2,3,7,6], w [4,3,3,2], b [4], y [2,4,4,4].
pub fn conv() -> Program {
    let f = DType::F32;
    let ins: [(DType, &[i64]); 3] = [(f, &[2, 3, 7, 6]), (f, &[4, 3, 3, 2]), (f, &[4])];
    single(&ins, &[(f, &[2, 4, 4, 4])], |i, o| {
        let mut e = Exprs::new();
        let (n, k, h, w, c, r, s) = (0, 1, 2, 3, 4, 5, 6);
        let row = affine(&[(h, 2), (r, 1)], -1);
        let column = affine(&[(w, 2), (s, 1)], -1);
        let access = Access::new([Index::axis(n), Index::axis(c), row, column]);
        let lhs = load(&mut e, i[0], access);
        let rhs = load(&mut e, i[1], axes(&[k, c, r, s]));
        let sum = folded(&mut e, 0, f);
        let bias = load(&mut e, i[2], axes(&[k]));
        let biased = binary(&mut e, BinaryOp::Add, sum, bias);
        let zero = e.constant(f, 0.0);
        let relu = binary(&mut e, BinaryOp::Max, biased, zero);
        let stores = vec![store(o[0], Access::identity(4), relu)];
        let (out, reduce) = (sizes(&[2, 4, 4, 4]), sizes(&[3, 3, 2]));
        Form::contract(out, reduce, e, [lhs, rhs], stores)
    })
}

/// A softmax over the last dim of `[rows, columns]`, and the row's log-sum.
pub fn softmax(rows: i64, columns: i64) -> Program {
    let f = DType::F32;
    single(&[(f, &[rows, columns])], &[(f, &[rows, columns]), (f, &[rows])], |i, o| {
        let mut e = Exprs::new();
        let x = load(&mut e, i[0], Access::identity(2));
        let max = folded(&mut e, 0, f);
        let shifted = binary(&mut e, BinaryOp::Sub, x, max);
        let exp = unary(&mut e, UnaryOp::Exp, shifted);
        let sum = folded(&mut e, 1, f);
        let share = binary(&mut e, BinaryOp::Div, exp, sum);
        let log = unary(&mut e, UnaryOp::Log, sum);
        let total = binary(&mut e, BinaryOp::Add, log, max);
        let steps = vec![
            Step::Fold(FoldOp::Max, x),
            Step::Fold(FoldOp::Sum, exp),
            Step::StoreEach(store(o[0], Access::identity(2), share)),
            Step::StoreRow(store(o[1], Access::identity(1), total)),
        ];
        Form::Row { outer: sizes(&[rows]), inner: sizes(&[columns]), exprs: e, steps }
    })
}

/// A training step of an embedding: gathers rows of `table` [4, 2] by `ids` [3], sums them up to
/// the loss, scatters the gradient `ids` asks for, checks the loss, and updates the table with the
/// rate `lr`.
pub fn training() -> Program {
    let (f, mut p) = (DType::F32, Program::default());
    let table = buffer(&mut p, Class::Param, "emb.table", f, &[4, 2]);
    let lr = buffer(&mut p, Class::Scalar, "lr", f, &[]);
    p.buffers[lr.0 as usize].default = 0.5;
    let ids = buffer(&mut p, Class::Input, "ids", DType::I32, &[3]);
    let rows = buffer(&mut p, Class::Temp, "rows", f, &[3, 2]);
    let loss = buffer(&mut p, Class::Output, "loss", f, &[]);
    let grad = buffer(&mut p, Class::Temp, "grad", f, &[4, 2]);
    let kernels = vec![
        kernel("gather", 3, gather(table, ids, rows)),
        kernel("loss", 4, total(rows, loss)),
        kernel("scatter", 3, scatter(ids, grad)),
        kernel("finite", 4, Form::Check { buffers: vec![loss, grad] }),
        kernel("update", 9, sgd(table, grad, lr)),
    ];
    entry(&mut p, "run", &[ids], &[loss], kernels);
    p.entries[0].commit = 4;
    p
}

fn index(e: &mut Exprs, ids: BufferId) -> ExprId {
    load_or(e, ids, Access::identity(1), Scalar::new(DType::I32, 0.0))
}

fn gather(table: BufferId, ids: BufferId, rows: BufferId) -> Form {
    let mut e = Exprs::new();
    let id = index(&mut e, ids);
    let access = Access::new([Index::constant(0i64), Index::axis(1)]);
    let row = look_up(&mut e, table, access, 0, id);
    map(&[3, 2], e, vec![store(rows, Access::identity(2), row)])
}

fn total(rows: BufferId, loss: BufferId) -> Form {
    let mut e = Exprs::new();
    let x = load(&mut e, rows, Access::identity(2));
    let sum = folded(&mut e, 0, DType::F32);
    let steps =
        vec![Step::Fold(FoldOp::Sum, x), Step::StoreRow(store(loss, Access::identity(0), sum))];
    Form::Row { outer: sizes(&[]), inner: sizes(&[3, 2]), exprs: e, steps }
}

fn scatter(ids: BufferId, grad: BufferId) -> Form {
    let mut e = Exprs::new();
    let lookups = [Lookup { dim: 0, index: index(&mut e, ids) }].into_iter().collect();
    let access = Access::new([Index::constant(0i64), Index::axis(1)]);
    let value = e.constant(DType::F32, 1.0);
    let (mode, axes) = (ScatterMode::Add, sizes(&[3, 2]));
    Form::Scatter { mode, axes, exprs: e, buffer: grad, access, lookups, value }
}

fn sgd(table: BufferId, grad: BufferId, lr: BufferId) -> Form {
    let mut e = Exprs::new();
    let w = load(&mut e, table, Access::identity(2));
    let g = load(&mut e, grad, Access::identity(2));
    let lr = load(&mut e, lr, Access::identity(0));
    let step = binary(&mut e, BinaryOp::Mul, lr, g);
    let next = binary(&mut e, BinaryOp::Sub, w, step);
    map(&[4, 2], e, vec![store(table, Access::identity(2), next)])
}
