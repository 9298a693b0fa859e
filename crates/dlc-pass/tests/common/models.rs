//! Networks as the standard library builds them, by hand.

use super::{input, param, source};
use dlc_graph::op::{Contract, Extent, Gather, Grad, SourceClass, StopGradient, View};
use dlc_graph::{Graph, Role, Shape, Type, Value};
use dlc_kernel::{Access, BinaryOp, DType, FoldOp, Index, Scalar, Size, UnaryOp};

pub fn shape(extents: &[i64]) -> Shape {
    extents.iter().map(|&n| n.into()).collect()
}

fn extents(g: &Graph, x: Value) -> Vec<i64> {
    g.ty(x).shape.iter().map(|n| n.as_const().expect("bound")).collect()
}

/// `x[n,i] w[o,i] + b[o]`.
pub fn linear(g: &mut Graph, x: Value, name: &str, o: i64) -> Value {
    let e = extents(g, x);
    let w = param(g, &format!("{name}.weight"), &[o, e[1]]);
    let b = param(g, &format!("{name}.bias"), &[o]);
    let read = |a, i| Access::new([Index::axis(a), Index::axis(i)]);
    let op = Contract {
        out: shape(&[e[0], o]),
        reduce: shape(&[e[1]]),
        lhs: read(0, 2),
        rhs: read(1, 2),
    };
    let y = g.push(op, &[x, w], None);
    let b = g.broadcast(b, shape(&[e[0], o]), &None);
    g.binary(BinaryOp::Add, y, b, &None)
}

/// A square convolution without bias.
pub fn conv_no_bias(g: &mut Graph, x: Value, name: &str, o: i64, k: i64, s: i64, p: i64) -> Value {
    let e = extents(g, x);
    let w = param(g, &format!("{name}.weight"), &[o, e[1], k, k]);
    let out = |n: i64| (n + 2 * p - k) / s + 1;
    let a = Index::axis;
    let moving = |y, r| Index::affine([(y, s), (r, 1)], -p);
    let op = Contract {
        out: shape(&[e[0], o, out(e[2]), out(e[3])]),
        reduce: shape(&[e[1], k, k]),
        lhs: Access::new([a(0), a(4), moving(2, 5), moving(3, 6)]),
        rhs: Access::new([a(1), a(4), a(5), a(6)]),
    };
    g.push(op, &[x, w], None)
}

/// `v[c]` for every element of `x[n,c,h,w]` (or `x[n,c]`).
pub fn per_channel(g: &mut Graph, v: Value, x: Value) -> Value {
    let axes = g.ty(x).shape.clone();
    g.view(v, axes, Access::new([Index::axis(1)]), &None)
}

pub fn conv(g: &mut Graph, x: Value, name: &str, o: i64, k: i64, p: i64) -> Value {
    let y = conv_no_bias(g, x, name, o, k, 1, p);
    let b = param(g, &format!("{name}.bias"), &[o]);
    let b = per_channel(g, b, y);
    g.binary(BinaryOp::Add, y, b, &None)
}

pub fn relu(g: &mut Graph, x: Value) -> Value {
    let zero = g.splat_like(x, 0.0, &None);
    g.binary(BinaryOp::Max, x, zero, &None)
}

pub fn gelu(g: &mut Graph, x: Value) -> Value {
    let root = g.splat_like(x, std::f64::consts::FRAC_1_SQRT_2, &None);
    let half = g.splat_like(x, 0.5, &None);
    let one = g.splat_like(x, 1.0, &None);
    let scaled = g.binary(BinaryOp::Mul, x, root, &None);
    let erf = g.unary(UnaryOp::Erf, scaled, &None);
    let rest = g.binary(BinaryOp::Add, one, erf, &None);
    let product = g.binary(BinaryOp::Mul, x, rest, &None);
    g.binary(BinaryOp::Mul, product, half, &None)
}

/// 2x2, stride 2.
pub fn max_pool(g: &mut Graph, x: Value) -> Value {
    let e = extents(g, x);
    let window = |y, r| Index::affine([(y, 2), (r, 1)], 0i64);
    let access = Access::new([Index::axis(0), Index::axis(1), window(2, 4), window(3, 5)]);
    let fill = Scalar::new(DType::F32, f64::NEG_INFINITY);
    let axes = shape(&[e[0], e[1], e[2] / 2, e[3] / 2, 2, 2]);
    let windows = g.push(View { axes, access, fill }, &[x], None);
    g.reduce(FoldOp::Max, windows, &[4, 5], &None)
}

pub fn flatten(g: &mut Graph, x: Value) -> Value {
    let e = extents(g, x);
    g.reshape(x, shape(&[e[0], e[1..].iter().product()]), &None)
}

/// The mean over `axes`, which the result lacks.
pub fn mean(g: &mut Graph, x: Value, axes: &[u32]) -> Value {
    let size: Size = axes.iter().map(|&a| g.ty(x).shape[a as usize].clone()).product();
    let sum = g.sum(x, axes, &None);
    let n = g.push(Extent { size, dtype: DType::F32 }, &[], None);
    let n = g.splat(n, g.ty(sum).shape.clone(), &None);
    g.binary(BinaryOp::Div, sum, n, &None)
}

/// `v` repeated over axis 1 of `x[n,c]`.
fn per_row(g: &mut Graph, v: Value, x: Value) -> Value {
    let axes = g.ty(x).shape.clone();
    g.view(v, axes, Access::new([Index::axis(0)]), &None)
}

/// The maximum of each row, without a gradient.
fn top(g: &mut Graph, x: Value) -> Value {
    let n = extents(g, x)[0];
    let top = g.reduce(FoldOp::Max, x, &[1], &None);
    let top = g.reshape(top, shape(&[n, 1]), &None);
    g.push(StopGradient, &[top], None)
}

/// Over axis 1 of `x[n,c]`; 0 where a row is all -inf.
pub fn softmax(g: &mut Graph, x: Value) -> Value {
    let axes = g.ty(x).shape.clone();
    let top = top(g, x);
    let (low, zero) = (g.splat_like(top, f64::NEG_INFINITY, &None), g.splat_like(top, 0.0, &None));
    let finite = g.binary(BinaryOp::Lt, low, top, &None);
    let top = g.select(finite, top, zero, &None);
    let top = g.broadcast(top, axes.clone(), &None);
    let shifted = g.binary(BinaryOp::Sub, x, top, &None);
    let e = g.unary(UnaryOp::Exp, shifted, &None);
    let sum = g.sum(e, &[1], &None);
    let sum = g.reshape(sum, shape(&[extents(g, x)[0], 1]), &None);
    let one = g.splat_like(sum, 1.0, &None);
    let positive = g.binary(BinaryOp::Lt, zero, sum, &None);
    let sum = g.select(positive, sum, one, &None);
    let sum = g.broadcast(sum, axes, &None);
    g.binary(BinaryOp::Div, e, sum, &None)
}

pub fn log_softmax(g: &mut Graph, x: Value) -> Value {
    let top = top(g, x);
    let top = g.broadcast(top, g.ty(x).shape.clone(), &None);
    let shifted = g.binary(BinaryOp::Sub, x, top, &None);
    let e = g.unary(UnaryOp::Exp, shifted, &None);
    let sum = g.sum(e, &[1], &None);
    let log = g.unary(UnaryOp::Log, sum, &None);
    let log = per_row(g, log, x);
    g.binary(BinaryOp::Sub, shifted, log, &None)
}

/// The mean negative log-likelihood of `label` under the softmax of `x[n,c]`.
pub fn cross_entropy(g: &mut Graph, x: Value, label: Value) -> Value {
    let log = log_softmax(g, x);
    let likely = g.push(Gather { axis: 1, batch: 1 }, &[log, label], None);
    let mean = mean(g, likely, &[0]);
    g.unary(UnaryOp::Neg, mean, &None)
}

/// Over axis 1 of `x[n,d]`.
pub fn layer_norm(g: &mut Graph, x: Value, name: &str) -> Value {
    let d = extents(g, x)[1];
    let (w, b) =
        (param(g, &format!("{name}.weight"), &[d]), param(g, &format!("{name}.bias"), &[d]));
    let m = mean(g, x, &[1]);
    let m = per_row(g, m, x);
    let centered = g.binary(BinaryOp::Sub, x, m, &None);
    let square = g.binary(BinaryOp::Mul, centered, centered, &None);
    let var = mean(g, square, &[1]);
    let inverse = inverse_deviation(g, var);
    let inverse = per_row(g, inverse, x);
    let normal = g.binary(BinaryOp::Mul, centered, inverse, &None);
    let (w, b) = (per_channel(g, w, x), per_channel(g, b, x));
    let scaled = g.binary(BinaryOp::Mul, normal, w, &None);
    g.binary(BinaryOp::Add, scaled, b, &None)
}

/// `1 / sqrt(var + eps)`.
fn inverse_deviation(g: &mut Graph, var: Value) -> Value {
    let eps = g.splat_like(var, 1e-5, &None);
    let sum = g.binary(BinaryOp::Add, var, eps, &None);
    let root = g.unary(UnaryOp::Sqrt, sum, &None);
    let one = g.splat_like(var, 1.0, &None);
    g.binary(BinaryOp::Div, one, root, &None)
}

/// Of `x[n,c,h,w]`; with the batch's statistics if `training`, which also updates the running ones.
pub fn batch_norm(g: &mut Graph, x: Value, name: &str, training: bool) -> Value {
    let e = extents(g, x);
    let c = e[1];
    let (w, b) =
        (param(g, &format!("{name}.weight"), &[c]), param(g, &format!("{name}.bias"), &[c]));
    let state = |g: &mut Graph, s: &str| {
        let ty = Type::known(DType::F32, &[c]);
        source(g, &format!("{name}.running_{s}"), SourceClass::State, ty)
    };
    let (mut m, mut var) = (state(g, "mean"), state(g, "var"));
    if training {
        let v = g.reshape(x, shape(&[e[0], c, e[2] * e[3]]), &None);
        let batch_mean = mean(g, v, &[0, 2]);
        let spread = per_channel(g, batch_mean, v);
        let centered = g.binary(BinaryOp::Sub, v, spread, &None);
        let square = g.binary(BinaryOp::Mul, centered, centered, &None);
        let batch_var = mean(g, square, &[0, 2]);
        for (s, old, new) in [("mean", m, batch_mean), ("var", var, batch_var)] {
            let next = blend(g, old, new, 0.9);
            g.add_result(format!("{name}.running_{s}"), next, Role::Update);
        }
        (m, var) = (batch_mean, batch_var);
    }
    let inverse = inverse_deviation(g, var);
    let scale = g.binary(BinaryOp::Mul, w, inverse, &None);
    let channels = |g: &mut Graph, v: Value| {
        let v = g.reshape(v, shape(&[c, 1, 1]), &None);
        g.broadcast(v, shape(&e), &None)
    };
    let (m, scale, b) = (channels(g, m), channels(g, scale), channels(g, b));
    let centered = g.binary(BinaryOp::Sub, x, m, &None);
    let scaled = g.binary(BinaryOp::Mul, centered, scale, &None);
    g.binary(BinaryOp::Add, scaled, b, &None)
}

/// `old * keep + new * (1 - keep)`.
fn blend(g: &mut Graph, old: Value, new: Value, keep: f64) -> Value {
    let (k, rest) = (g.splat_like(old, keep, &None), g.splat_like(old, 1.0 - keep, &None));
    let a = g.binary(BinaryOp::Mul, old, k, &None);
    let b = g.binary(BinaryOp::Mul, new, rest, &None);
    g.binary(BinaryOp::Add, a, b, &None)
}

/// Gradients of `loss` for all parameters, checked, and Adam's updates.
pub fn adam(g: &mut Graph, loss: Value) {
    g.add_result("loss", loss, Role::Output);
    g.add_result("loss", loss, Role::Check);
    let params: Vec<(Value, String)> = g
        .sources()
        .filter(|(_, s)| s.class == SourceClass::Param)
        .map(|(v, s)| (v, s.name.to_string()))
        .collect();
    let scalar =
        |g: &mut Graph, name: &str, class| source(g, name, class, Type::scalar(DType::F32));
    let lr = scalar(g, "lr", SourceClass::Scalar);
    let t = scalar(g, "adam.t", SourceClass::State);
    let one = g.splat_like(t, 1.0, &None);
    let t = g.binary(BinaryOp::Add, t, one, &None);
    g.add_result("adam.t", t, Role::Update);
    let gradients: Vec<Value> =
        params.iter().map(|(p, _)| g.push(Grad, &[loss, *p], None)).collect();
    for ((_, name), gradient) in params.iter().zip(&gradients) {
        g.add_result(name.clone(), *gradient, Role::Check);
    }
    for ((p, name), gradient) in params.into_iter().zip(gradients) {
        adam_update(g, p, &name, gradient, lr, t);
    }
}

fn adam_update(g: &mut Graph, p: Value, name: &str, gradient: Value, lr: Value, t: Value) {
    let ty = g.ty(p).clone();
    let m = source(g, &format!("{name}.m"), SourceClass::State, ty.clone());
    let v = source(g, &format!("{name}.v"), SourceClass::State, ty.clone());
    let square = g.binary(BinaryOp::Mul, gradient, gradient, &None);
    let (m, v) = (blend(g, m, gradient, 0.9), blend(g, v, square, 0.999));
    g.add_result(format!("{name}.m"), m, Role::Update);
    g.add_result(format!("{name}.v"), v, Role::Update);
    let unbias = |g: &mut Graph, x: Value, beta: f64| {
        let (b, one) = (g.splat_like(t, beta, &None), g.splat_like(t, 1.0, &None));
        let power = g.binary(BinaryOp::Pow, b, t, &None);
        let rest = g.binary(BinaryOp::Sub, one, power, &None);
        let rest = g.splat(rest, ty.shape.clone(), &None);
        g.binary(BinaryOp::Div, x, rest, &None)
    };
    let (m, v) = (unbias(g, m, 0.9), unbias(g, v, 0.999));
    let root = g.unary(UnaryOp::Sqrt, v, &None);
    let eps = g.splat_like(root, 1e-8, &None);
    let root = g.binary(BinaryOp::Add, root, eps, &None);
    let step = g.binary(BinaryOp::Div, m, root, &None);
    let lr = g.splat(lr, ty.shape.clone(), &None);
    let step = g.binary(BinaryOp::Mul, step, lr, &None);
    let next = g.binary(BinaryOp::Sub, p, step, &None);
    g.add_result(name, next, Role::Update);
}

/// A classifier's training step on `[n, 1, 12, 12]` images: LeNet, small.
pub fn lenet_step(n: i64, scale: i64) -> Graph {
    let mut g = Graph::new();
    let g = &mut g;
    let x = input(g, "image", &[n, 1, 12 * scale, 12 * scale]);
    let label = source(g, "label", SourceClass::Input, Type::known(DType::I32, &[n]));
    let h = conv(g, x, "conv1", 4, 5, 2);
    let h = relu(g, h);
    let h = max_pool(g, h);
    let h = conv(g, h, "conv2", 6, 3, 0);
    let h = relu(g, h);
    let h = max_pool(g, h);
    let h = flatten(g, h);
    let h = linear(g, h, "linear1", 10);
    let h = relu(g, h);
    let h = linear(g, h, "linear2", 5);
    let loss = cross_entropy(g, h, label);
    adam(g, loss);
    std::mem::take(g)
}

/// Two layers, with layer normalization and GELU between.
pub fn mlp_step() -> Graph {
    let mut g = Graph::new();
    let g = &mut g;
    let x = input(g, "x", &[4, 6]);
    let label = source(g, "label", SourceClass::Input, Type::known(DType::I32, &[4]));
    let h = linear(g, x, "a", 8);
    let h = gelu(g, h);
    let h = layer_norm(g, h, "norm");
    let h = linear(g, h, "b", 3);
    let loss = cross_entropy(g, h, label);
    adam(g, loss);
    std::mem::take(g)
}

/// A residual block with batch normalization, trained or not.
pub fn resnet_block(training: bool, n: i64, scale: i64) -> Graph {
    let mut g = Graph::new();
    let g = &mut g;
    let x = input(g, "x", &[n, 3, 6 * scale, 6 * scale]);
    let h = conv_no_bias(g, x, "conv0", 4, 3, 1, 1);
    let h = batch_norm(g, h, "norm0", training);
    let skip = relu(g, h);
    let h = conv_no_bias(g, skip, "conv1", 4, 3, 1, 1);
    let h = batch_norm(g, h, "norm1", training);
    let h = relu(g, h);
    let h = conv_no_bias(g, h, "conv2", 4, 3, 1, 1);
    let h = batch_norm(g, h, "norm2", training);
    let h = g.binary(BinaryOp::Add, h, skip, &None);
    let h = relu(g, h);
    let h = mean(g, h, &[2, 3]);
    let h = linear(g, h, "head", 3);
    if training {
        let label = source(g, "label", SourceClass::Input, Type::known(DType::I32, &[n]));
        let loss = cross_entropy(g, h, label);
        adam(g, loss);
    } else {
        g.add_result("logits", h, Role::Output);
    }
    std::mem::take(g)
}
