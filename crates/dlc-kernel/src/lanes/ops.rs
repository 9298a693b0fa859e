//! The scalar operations of kernels on lanes. Their meaning is that of [`UnaryOp::eval`] and its
//! like; a `U8` is a zero-extended `I32`, a `Bool` a mask.

use super::{Binary, Compare, Kind, Lanes, Op, Shift, Unary, Vector, math, pow};
use crate::{BinaryOp, DType, FoldOp, Scalar, UnaryOp};

/// What the lanes of a value of type `dtype` hold.
pub fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::F32,
        DType::Bool => Kind::Mask,
        _ => Kind::I32,
    }
}

/// A typed constant in all lanes.
pub fn constant(l: &mut Lanes, scalar: Scalar) -> Vector {
    let value = scalar.value();
    match kind(scalar.dtype) {
        Kind::F32 => l.float(value as f32),
        Kind::Mask => l.truth(value != 0.0),
        _ => l.int(value as i64 as i32),
    }
}

/// An operation on operands of type `dtype`.
pub fn unary(l: &mut Lanes, op: UnaryOp, dtype: DType, x: Vector) -> Vector {
    match dtype {
        DType::F32 => float_unary(l, op, x),
        DType::Bool if op == UnaryOp::Not => l.unary(Unary::Not, x),
        DType::Bool => x,
        _ => {
            let y = int_unary(l, op, x);
            wrap(l, dtype, y)
        }
    }
}

fn float_unary(l: &mut Lanes, op: UnaryOp, x: Vector) -> Vector {
    match op {
        UnaryOp::Neg => math::negate(l, x),
        UnaryOp::Abs => math::abs(l, x),
        UnaryOp::Sign => float_sign(l, x),
        UnaryOp::Sqrt => l.unary(Unary::Sqrt, x),
        UnaryOp::Floor => l.unary(Unary::Floor, x),
        UnaryOp::Ceil => l.unary(Unary::Ceil, x),
        UnaryOp::Round => l.unary(Unary::Nearest, x),
        UnaryOp::Rsqrt => math::rsqrt(l, x),
        UnaryOp::Exp => math::exp(l, x),
        UnaryOp::Log => math::log(l, x),
        UnaryOp::Tanh => math::tanh(l, x),
        UnaryOp::Sigmoid => math::sigmoid(l, x),
        UnaryOp::Erf => math::erf(l, x),
        UnaryOp::NormalCdf => math::normal_cdf(l, x),
        UnaryOp::Sin => math::sin(l, x),
        UnaryOp::Cos => math::cos(l, x),
        UnaryOp::Not => x,
    }
}

fn float_sign(l: &mut Lanes, x: Vector) -> Vector {
    let (zero, one) = (l.float(0.0), l.float(1.0));
    let one = math::with_sign(l, one, x);
    let is_zero = l.compare(Compare::Eq, x, zero);
    let is_nan = l.compare(Compare::Unordered, x, x);
    let keep = l.or(is_zero, is_nan);
    l.select(keep, x, one)
}

fn int_unary(l: &mut Lanes, op: UnaryOp, x: Vector) -> Vector {
    let zero = l.int(0);
    match op {
        UnaryOp::Neg => l.difference(zero, x),
        UnaryOp::Abs => {
            let opposite = l.difference(zero, x);
            l.max(x, opposite)
        }
        UnaryOp::Sign => {
            let (one, minus) = (l.int(1), l.int(-1));
            let below = l.min(x, one);
            l.max(below, minus)
        }
        _ => x,
    }
}

/// Brings the result of 32-bit arithmetic back into the range of `dtype`.
fn wrap(l: &mut Lanes, dtype: DType, x: Vector) -> Vector {
    if dtype != DType::U8 {
        return x;
    }
    let mask = l.int(255);
    l.and(x, mask)
}

/// Whether [`binary`] has this operation: all but those that no processor does to vectors.
pub fn has_binary(op: BinaryOp, dtype: DType) -> bool {
    let by_lanes = matches!(op, BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv | BinaryOp::Pow);
    dtype == DType::F32 || !by_lanes
}

/// An operation on operands of type `dtype`.
///
/// # Panics
/// If there is none, see [`has_binary`].
pub fn binary(l: &mut Lanes, op: BinaryOp, dtype: DType, x: Vector, y: Vector) -> Vector {
    match dtype {
        DType::F32 => float_binary(l, op, x, y),
        DType::Bool => bool_binary(l, op, x, y),
        _ => {
            let z = int_binary(l, op, x, y);
            if op.is_comparison() { z } else { wrap(l, dtype, z) }
        }
    }
}

fn float_binary(l: &mut Lanes, op: BinaryOp, x: Vector, y: Vector) -> Vector {
    match op {
        BinaryOp::Add => l.sum(x, y),
        BinaryOp::Sub => l.difference(x, y),
        BinaryOp::Mul => l.product(x, y),
        BinaryOp::Div => l.quotient(x, y),
        BinaryOp::Mod => math::modulo(l, x, y),
        BinaryOp::Pow => pow::pow(l, x, y),
        BinaryOp::FloorDiv => {
            let quotient = l.quotient(x, y);
            l.unary(Unary::Floor, quotient)
        }
        BinaryOp::Max => extreme(l, Binary::Max, x, y),
        BinaryOp::Min => extreme(l, Binary::Min, x, y),
        BinaryOp::Eq => l.compare(Compare::Eq, x, y),
        BinaryOp::Ne => l.compare(Compare::Ne, x, y),
        BinaryOp::Lt => l.compare(Compare::Lt, x, y),
        BinaryOp::Le => l.compare(Compare::Le, x, y),
        BinaryOp::And | BinaryOp::Or => unreachable!("`{op}` is no operation on numbers"),
    }
}

/// The larger (or smaller) of two numbers; NaN if either is.
fn extreme(l: &mut Lanes, op: Binary, x: Vector, y: Vector) -> Vector {
    // The processor's operation gives its second operand if either is NaN.
    let number = |l: &Lanes, v| math::constant(l, v).is_some_and(|c| !c.is_nan());
    match [x, y].map(|v| number(l, v)) {
        [true, _] => l.binary(op, x, y),
        [false, true] => l.binary(op, y, x),
        // Both ways give the same, or one of them NaN, which stays NaN with any other bits.
        [false, false] => {
            let [one, other] = [(x, y), (y, x)].map(|(x, y)| l.binary(op, x, y));
            l.or(one, other)
        }
    }
}

fn bool_binary(l: &mut Lanes, op: BinaryOp, x: Vector, y: Vector) -> Vector {
    match op {
        BinaryOp::And | BinaryOp::Mul | BinaryOp::Min => l.and(x, y),
        BinaryOp::Or | BinaryOp::Add | BinaryOp::Max => l.or(x, y),
        BinaryOp::Ne | BinaryOp::Sub => l.xor(x, y),
        BinaryOp::Lt => l.binary(Binary::AndNot, x, y),
        BinaryOp::Eq | BinaryOp::Le => {
            let opposite =
                if op == BinaryOp::Eq { l.xor(x, y) } else { l.binary(Binary::AndNot, y, x) };
            l.unary(Unary::Not, opposite)
        }
        _ => unreachable!("`{op}` is no operation on truth values"),
    }
}

/// On `I32`, and on zero-extended `U8`.
fn int_binary(l: &mut Lanes, op: BinaryOp, x: Vector, y: Vector) -> Vector {
    match op {
        BinaryOp::Add => l.sum(x, y),
        BinaryOp::Sub => l.difference(x, y),
        BinaryOp::Mul => l.product(x, y),
        BinaryOp::Max => l.max(x, y),
        BinaryOp::Min => l.min(x, y),
        BinaryOp::And => l.and(x, y),
        BinaryOp::Or => l.or(x, y),
        BinaryOp::Eq => l.compare(Compare::Eq, x, y),
        BinaryOp::Ne => l.compare(Compare::Ne, x, y),
        BinaryOp::Lt => l.compare(Compare::Lt, x, y),
        BinaryOp::Le => l.compare(Compare::Le, x, y),
        _ => unreachable!("`{op}` on integers is computed lane by lane"),
    }
}

/// Conversion between types, saturating towards integers.
pub fn cast(l: &mut Lanes, from: DType, to: DType, x: Vector) -> Vector {
    match (kind(from), kind(to)) {
        _ if from == to => x,
        (Kind::F32, Kind::Mask) => {
            let zero = l.float(0.0);
            l.compare(Compare::Ne, x, zero)
        }
        (_, Kind::Mask) => {
            let zero = l.int(0);
            l.compare(Compare::Ne, x, zero)
        }
        (Kind::F32, _) => {
            let number = truncate(l, x);
            saturate(l, to, number)
        }
        (Kind::Mask, _) => {
            let bits = l.unary(Unary::AsInt, x);
            let number = l.shift(Shift::Right, bits, 31);
            if to == DType::F32 { l.unary(Unary::ToFloat, number) } else { number }
        }
        (_, Kind::F32) => l.unary(Unary::ToFloat, x),
        _ => saturate(l, to, x),
    }
}

/// `F32` to the nearest `I32` towards 0; NaN gives 0.
fn truncate(l: &mut Lanes, x: Vector) -> Vector {
    let (limit, zero) = (l.float(2_147_483_648.0), l.float(0.0));
    let magnitude = math::abs(l, x);
    let inside = l.compare(Compare::Lt, magnitude, limit);
    let number = l.unary(Unary::ToInt, x);
    let [least, largest, none] = [i32::MIN, i32::MAX, 0].map(|c| l.int(c));
    let positive = l.compare(Compare::Lt, zero, x);
    let negative = l.compare(Compare::Lt, x, zero);
    let beyond = l.select(negative, least, none);
    let beyond = l.select(positive, largest, beyond);
    l.select(inside, number, beyond)
}

fn saturate(l: &mut Lanes, to: DType, x: Vector) -> Vector {
    if to != DType::U8 {
        return x;
    }
    let (low, high) = (l.int(0), l.int(255));
    let x = l.max(x, low);
    l.min(x, high)
}

/// [`crate::philox::uniform`] of a site, a seed, a step, and elements that follow each other, which
/// begin `anywhere` or at multiples of four.
pub fn uniform(l: &mut Lanes, site: u64, at: [Vector; 3], anywhere: bool) -> Vector {
    let word = if anywhere { word(l, site, at) } else { random(l, site, at) };
    let bits = l.shift(Shift::Right, word, 8);
    let number = l.unary(Unary::ToFloat, bits);
    let scale = l.float(1.0 / 16_777_216.0);
    l.product(number, scale)
}

fn random(l: &mut Lanes, site: u64, [seed, step, element]: [Vector; 3]) -> Vector {
    l.add(Op::Random(site, seed, step, element))
}

/// The words of every four lanes are among those made with the first one's and with the last one's.
fn word(l: &mut Lanes, site: u64, [seed, step, element]: [Vector; 3]) -> Vector {
    let (zero, three) = (l.int(0), l.int(3));
    let last = l.sum(element, three);
    let [first_four, last_four] = [element, last].map(|x| random(l, site, [seed, step, x]));
    let first = l.add(Op::Within(element, zero));
    let [own, of_first] = [element, first].map(|x| l.shift(Shift::Right, x, 2));
    let together = l.compare(Compare::Eq, own, of_first);
    let [one, other] = [first_four, last_four].map(|words| l.add(Op::Within(words, element)));
    l.select(together, one, other)
}

/// Merges two states of a fold over elements of type `dtype`, for folds of values.
///
/// # Panics
/// If the fold's result is a position.
pub fn merge(l: &mut Lanes, op: FoldOp, dtype: DType, state: Vector, element: Vector) -> Vector {
    let op = crate::merge_op(op).expect("positions are folded elsewhere");
    binary(l, op, dtype, element, state)
}

/// The type of fold results that a loop hands out: the bits of `Kind::F32` or `Kind::I32`.
pub fn can_fold(op: FoldOp, dtype: DType) -> bool {
    !op.is_position() && matches!(dtype, DType::F32 | DType::I32)
}

/// A constant of the bits of a fold of nothing.
pub fn neutral(op: FoldOp, dtype: DType) -> u32 {
    let mut l = Lanes::default();
    let v = constant(&mut l, Scalar::new(dtype, op.empty(dtype)));
    match l.op(v) {
        Op::Const(_, bits) => bits as u32,
        _ => unreachable!("a constant is one"),
    }
}
