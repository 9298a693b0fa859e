//! The primitive functions of the language, in one table. Everything else is in the standard
//! library.

use dlc_kernel::{BinaryOp, DType, FoldOp, UnaryOp};

use crate::ast::ReduceOp;

/// A primitive function.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// Its name in the language.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Whether it takes the parts of a tuple one by one.
    pub maps: bool,
    /// How it is used, for messages.
    pub usage: &'static str,
}

/// What a primitive function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function of one number, on every element.
    Unary(UnaryOp),
    /// A function of two numbers, broadcasting.
    Binary(BinaryOp),
    /// A reduction over axes; of two arguments, `max` and `min` are functions of two numbers.
    Fold(ReduceOp),
    /// The position of an extremum along an axis.
    Position(FoldOp),
    /// Conversion to an element type.
    Cast(DType),
    /// A tensor of zeros or ones of a given shape.
    Zeros,
    Ones,
    Full,
    ZerosLike,
    OnesLike,
    Iota,
    As,
    Split,
    Concat,
    Overwrite,
    Transpose,
    Permute,
    Unsqueeze,
    StopGradient,
    Random,
    RandomLike,
    Grad,
    CeilDiv,
    Shape,
    Rank,
    Len,
    Spread,
    /// An instance with a name that is put together.
    Named,
}

const fn row(name: &'static str, kind: Kind, usage: &'static str) -> Builtin {
    let maps = !matches!(
        kind,
        Kind::Concat
            | Kind::Overwrite
            | Kind::Len
            | Kind::Fold(_)
            | Kind::Grad
            | Kind::Binary(_)
            | Kind::CeilDiv
            | Kind::Named
    );
    Builtin { name, kind, maps, usage }
}

impl Builtin {
    /// Whether its brackets alone make a tensor: `zeros[N, H]`.
    pub fn fills(&self) -> bool {
        matches!(self.kind, Kind::Zeros | Kind::Ones | Kind::Random)
    }
}

/// Every primitive function.
pub(crate) static TABLE: &[Builtin] = &[
    row("exp", Kind::Unary(UnaryOp::Exp), "exp(x)"),
    row("log", Kind::Unary(UnaryOp::Log), "log(x)"),
    row("sqrt", Kind::Unary(UnaryOp::Sqrt), "sqrt(x)"),
    row("rsqrt", Kind::Unary(UnaryOp::Rsqrt), "rsqrt(x): 1 / sqrt(x)"),
    row("abs", Kind::Unary(UnaryOp::Abs), "abs(x)"),
    row("sign", Kind::Unary(UnaryOp::Sign), "sign(x): -1, 0 or 1"),
    row("sin", Kind::Unary(UnaryOp::Sin), "sin(x)"),
    row("cos", Kind::Unary(UnaryOp::Cos), "cos(x)"),
    row("tanh", Kind::Unary(UnaryOp::Tanh), "tanh(x)"),
    row("sigmoid", Kind::Unary(UnaryOp::Sigmoid), "sigmoid(x): 1 / (1 + exp(-x))"),
    row("erf", Kind::Unary(UnaryOp::Erf), "erf(x)"),
    row("normal_cdf", Kind::Unary(UnaryOp::NormalCdf), "normal_cdf(x): (1 + erf(x / sqrt(2))) / 2"),
    row("floor", Kind::Unary(UnaryOp::Floor), "floor(x)"),
    row("ceil", Kind::Unary(UnaryOp::Ceil), "ceil(x)"),
    row("round", Kind::Unary(UnaryOp::Round), "round(x): ties to even"),
    row("pow", Kind::Binary(BinaryOp::Pow), "pow(x, y)"),
    row("sum", Kind::Fold(ReduceOp::Sum), "sum(x), sum[axis](x)"),
    row("mean", Kind::Fold(ReduceOp::Mean), "mean(x), mean[axis](x)"),
    row("prod", Kind::Fold(ReduceOp::Prod), "prod(x), prod[axis](x)"),
    row("max", Kind::Fold(ReduceOp::Max), "max(x), max[axis](x), max(x, y)"),
    row("min", Kind::Fold(ReduceOp::Min), "min(x), min[axis](x), min(x, y)"),
    row("argmax", Kind::Position(FoldOp::ArgMax), "argmax[axis](x)"),
    row("argmin", Kind::Position(FoldOp::ArgMin), "argmin[axis](x)"),
    row("f32", Kind::Cast(DType::F32), "f32(x)"),
    row("f16", Kind::Cast(DType::F16), "f16(x)"),
    row("bf16", Kind::Cast(DType::Bf16), "bf16(x)"),
    row("f64", Kind::Cast(DType::F64), "f64(x)"),
    row("i64", Kind::Cast(DType::I64), "i64(x)"),
    row("i32", Kind::Cast(DType::I32), "i32(x)"),
    row("i8", Kind::Cast(DType::I8), "i8(x)"),
    row("u8", Kind::Cast(DType::U8), "u8(x)"),
    row("bool", Kind::Cast(DType::Bool), "bool(x)"),
    row("zeros", Kind::Zeros, "zeros[N, H]"),
    row("ones", Kind::Ones, "ones[N, H]"),
    row("full", Kind::Full, "full[N, H](value)"),
    row("zeros_like", Kind::ZerosLike, "zeros_like(x)"),
    row("ones_like", Kind::OnesLike, "ones_like(x)"),
    row("iota", Kind::Iota, "iota(n): 0, 1, .., n - 1"),
    row("as", Kind::As, "as[N, T, A, C](x): the same elements in another shape"),
    row("split", Kind::Split, "split[n](x), split[n, axis](x): n equal parts"),
    row("concat", Kind::Concat, "concat[axis](x, y, ..)"),
    row(
        "overwrite",
        Kind::Overwrite,
        "overwrite[axis](x, at, part): part in the place of what x has from `at` on",
    ),
    row("transpose", Kind::Transpose, "transpose(x), transpose[i, j](x)"),
    row("permute", Kind::Permute, "permute[0, 2, 1](x)"),
    row("unsqueeze", Kind::Unsqueeze, "unsqueeze[axis](x): a new axis of size 1"),
    row("stop_gradient", Kind::StopGradient, "stop_gradient(x)"),
    row("random", Kind::Random, "random[N, H]: uniform in 0 .. 1"),
    row("random_like", Kind::RandomLike, "random_like(x): uniform in 0 .. 1"),
    row("grad", Kind::Grad, "grad(y, wrt = x)"),
    row("ceil_div", Kind::CeilDiv, "ceil_div(a, b)"),
    row("shape", Kind::Shape, "shape(x): its sizes"),
    row("rank", Kind::Rank, "rank(x): the number of dims"),
    row("len", Kind::Len, "len(list)"),
    row("spread", Kind::Spread, "spread(v, n): v if it is a list of n, else n times v"),
    row("named", Kind::Named, "named[\"fc\", k](linear(8)): fc3, if k is 3"),
];

/// The primitive function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    TABLE.iter().find(|builtin| builtin.name == name)
}
