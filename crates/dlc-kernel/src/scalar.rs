//! Scalar operations: the vocabulary that graph operations and kernel expressions share.
//!
//! Their meaning is [`UnaryOp::eval`], [`BinaryOp::eval`], [`cast`] and [`Folding`], in f64: the
//! reference that targets approximate within their stated errors. Comparisons give a `Bool`; all
//! others give the type of their operands. Floating-point types are not rounded to here; integers
//! wrap around; a `Bool` is 0 or 1. An f64 holds every value of the computing types.

use crate::{DType, merge_op};

/// Operations on one scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnaryOp {
    /// `-x`.
    Neg,
    /// `|x|`.
    Abs,
    /// -1, 0 or 1; 0 for 0, NaN for NaN.
    Sign,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// The error function.
    Erf,
    /// How much of a normal distribution with mean 0 and variance 1 lies below x.
    NormalCdf,
    /// Largest integer not above.
    Floor,
    /// Smallest integer not below.
    Ceil,
    /// Nearest integer, ties to even.
    Round,
    /// Logical negation of a `Bool`.
    Not,
}

/// Operations on two scalars of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryOp {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient; integers truncate, and division by zero gives 0.
    Div,
    /// Remainder with the divisor's sign (as `%` in Python); integers by zero give 0, other numbers
    /// NaN.
    Mod,
    /// Quotient, floored; integers by zero give 0.
    FloorDiv,
    /// `x^y`; integers wrap, and a negative exponent gives the truncated quotient.
    Pow,
    /// The larger; NaN if either is.
    Max,
    /// The smaller; NaN if either is.
    Min,
    /// `x == y`.
    Eq,
    /// `x != y`.
    Ne,
    /// `x < y`.
    Lt,
    /// `x <= y`.
    Le,
    /// Logical conjunction of `Bool`s.
    And,
    /// Logical disjunction of `Bool`s.
    Or,
}

/// Ways to fold many scalars into one. The empty fold is the operation's neutral element (for
/// integers the largest or smallest one where floats have an infinity); the two positions give 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FoldOp {
    /// Sum; neutral 0.
    Sum,
    /// Product; neutral 1.
    Prod,
    /// Maximum; neutral -inf; NaN if any element is.
    Max,
    /// Minimum; neutral +inf; NaN if any element is.
    Min,
    /// Row-major position (`I32`) of the first maximum; NaN counts as maximal.
    ArgMax,
    /// Row-major position (`I32`) of the first minimum; NaN counts as minimal.
    ArgMin,
}

macro_rules! names {
    ($type:ident { $($variant:ident $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every operation, in the order of declaration.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The name in every dump.
            pub const fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// The operation of that name.
            pub fn from_name(name: &str) -> Option<$type> {
                $type::ALL.iter().copied().find(|op| op.name() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

names!(UnaryOp {
    Neg "neg", Abs "abs", Sign "sign", Exp "exp", Log "log", Sqrt "sqrt", Rsqrt "rsqrt",
    Sin "sin", Cos "cos", Tanh "tanh", Sigmoid "sigmoid", Erf "erf",
    NormalCdf "normal_cdf", Floor "floor", Ceil "ceil", Round "round", Not "not",
});

names!(BinaryOp {
    Add "add", Sub "sub", Mul "mul", Div "div", Mod "mod", FloorDiv "floor_div", Pow "pow",
    Max "max", Min "min", Eq "eq", Ne "ne", Lt "lt", Le "le", And "and", Or "or",
});

names!(FoldOp {
    Sum "sum", Prod "prod", Max "max", Min "min", ArgMax "argmax", ArgMin "argmin",
});

impl BinaryOp {
    /// Whether the result is a `Bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le)
    }
}

impl FoldOp {
    /// Whether the result is a position rather than a value.
    pub const fn is_position(self) -> bool {
        matches!(self, FoldOp::ArgMax | FoldOp::ArgMin)
    }

    /// The fold to the value whose position is asked for; itself, if none is.
    pub const fn of_value(self) -> FoldOp {
        match self {
            FoldOp::ArgMax => FoldOp::Max,
            FoldOp::ArgMin => FoldOp::Min,
            op => op,
        }
    }

    /// The result of folding nothing.
    pub const fn neutral(self) -> f64 {
        match self {
            FoldOp::Sum | FoldOp::ArgMax | FoldOp::ArgMin => 0.0,
            FoldOp::Prod => 1.0,
            FoldOp::Max => f64::NEG_INFINITY,
            FoldOp::Min => f64::INFINITY,
        }
    }
}

impl UnaryOp {
    /// The result for `x` of type `dtype`. Integers wrap around (`neg`, `abs`); where an operation
    /// has no integer meaning ([`UnaryOp::takes`]), the result is truncated as [`cast`] does.
    pub fn eval(self, dtype: DType, x: f64) -> f64 {
        let y = match self {
            UnaryOp::Neg => -x,
            UnaryOp::Abs => x.abs(),
            UnaryOp::Sign => sign(x),
            UnaryOp::Exp => x.exp(),
            UnaryOp::Log => x.ln(),
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Rsqrt => 1.0 / x.sqrt(),
            UnaryOp::Sin => x.sin(),
            UnaryOp::Cos => x.cos(),
            UnaryOp::Tanh => x.tanh(),
            UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            UnaryOp::Erf => libm::erf(x),
            UnaryOp::NormalCdf => 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            UnaryOp::Floor => x.floor(),
            UnaryOp::Ceil => x.ceil(),
            UnaryOp::Round => x.round_ties_even(),
            UnaryOp::Not => f64::from(x == 0.0),
        };
        match (dtype.is_float(), self) {
            (true, _) => y,
            (false, UnaryOp::Neg | UnaryOp::Abs) => wrap(dtype, y as i128),
            (false, _) => cast(dtype, y),
        }
    }

    /// Whether operands may be of type `dtype`.
    pub const fn takes(self, dtype: DType) -> bool {
        match self {
            UnaryOp::Not => matches!(dtype, DType::Bool),
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign => dtype.is_float() || dtype.is_int(),
            UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => dtype.is_float() || dtype.is_int(),
            _ => dtype.is_float(),
        }
    }
}

impl BinaryOp {
    /// The result for operands of type `dtype`; comparisons give 0 or 1.
    pub fn eval(self, dtype: DType, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Eq => f64::from(a == b),
            BinaryOp::Ne => f64::from(a != b),
            BinaryOp::Lt => f64::from(a < b),
            BinaryOp::Le => f64::from(a <= b),
            BinaryOp::And => f64::from(a != 0.0 && b != 0.0),
            BinaryOp::Or => f64::from(a != 0.0 || b != 0.0),
            _ if dtype.is_float() => self.eval_float(a, b),
            _ => wrap(dtype, self.eval_integer(a as i128, b as i128)),
        }
    }

    /// Whether operands may be of type `dtype`.
    pub const fn takes(self, dtype: DType) -> bool {
        match self {
            BinaryOp::And | BinaryOp::Or => matches!(dtype, DType::Bool),
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le => true,
            BinaryOp::Mul | BinaryOp::Max | BinaryOp::Min => true,
            _ => !matches!(dtype, DType::Bool),
        }
    }

    fn eval_float(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Mod => floor_mod(a, b),
            BinaryOp::FloorDiv => (a / b).floor(),
            BinaryOp::Pow => a.powf(b),
            BinaryOp::Max | BinaryOp::Min if a.is_nan() || b.is_nan() => f64::NAN,
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            _ => unreachable!("truth values have no type of their own"),
        }
    }

    fn eval_integer(self, a: i128, b: i128) -> i128 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv if b == 0 => 0,
            BinaryOp::Div => a / b,
            BinaryOp::Mod => (a % b + b) % b,
            BinaryOp::FloorDiv => a / b - i128::from(a % b != 0 && (a < 0) != (b < 0)),
            BinaryOp::Pow => integer_power(a, b),
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            _ => unreachable!("truth values have no type of their own"),
        }
    }
}

/// `x` converted to `dtype`: to integers truncates and saturates (NaN gives 0), to `Bool` is
/// `x != 0`; floating-point types keep the value.
pub fn cast(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::Bool => f64::from(x != 0.0),
        DType::U8 => f64::from(x as u8),
        DType::I8 => f64::from(x as i8),
        DType::I32 => f64::from(x as i32),
        DType::I64 => x as i64 as f64,
        DType::F32 | DType::F16 | DType::Bf16 | DType::F64 => x,
    }
}

/// The value of an integer type, or of `Bool`, that has the low bits of `x`; `Bool` is `x != 0`.
fn wrap(dtype: DType, x: i128) -> f64 {
    match dtype {
        DType::Bool => f64::from(x != 0),
        DType::U8 => f64::from(x as u8),
        DType::I8 => f64::from(x as i8),
        DType::I32 => f64::from(x as i32),
        _ => x as i64 as f64,
    }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { 1f64.copysign(x) }
}

fn floor_mod(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        rest.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

fn integer_power(base: i128, exponent: i128) -> i128 {
    match (base, exponent) {
        (1, _) => 1,
        (-1, e) => 1 - 2 * (e & 1),
        (_, e) if e < 0 => 0,
        // Wrapping at 64 bits agrees with wrapping at fewer; exponents of computing types fit.
        (b, e) => i128::from((b as i64).wrapping_pow(u32::try_from(e).unwrap_or(u32::MAX))),
    }
}

impl FoldOp {
    /// The fold of no element of type `dtype`.
    pub fn empty(self, dtype: DType) -> f64 {
        match (self, dtype) {
            (FoldOp::Max, DType::Bool) => 0.0,
            _ => cast(dtype, self.neutral()),
        }
    }
}

/// A fold in progress.
#[derive(Clone, Copy, Debug)]
pub struct Folding {
    op: FoldOp,
    dtype: DType,
    value: f64,
    best: usize,
    count: usize,
}

impl Folding {
    /// A fold of elements of type `dtype`, none so far.
    pub fn new(op: FoldOp, dtype: DType) -> Folding {
        Folding { op, dtype, value: op.empty(dtype), best: 0, count: 0 }
    }

    /// Folds in the next element in row-major order.
    pub fn push(&mut self, x: f64) {
        match merge_op(self.op) {
            Some(op) => self.value = op.eval(self.dtype, self.value, x),
            None if self.count == 0 || self.beats(x) => (self.value, self.best) = (x, self.count),
            None => {}
        }
        self.count += 1;
    }

    /// The fold of the elements so far: a value, or a position for the two positions.
    pub fn result(&self) -> f64 {
        if self.op.is_position() { self.best as f64 } else { self.value }
    }

    fn beats(&self, x: f64) -> bool {
        if self.value.is_nan() || x.is_nan() {
            return !self.value.is_nan();
        }
        if self.op == FoldOp::ArgMax { x > self.value } else { x < self.value }
    }
}
