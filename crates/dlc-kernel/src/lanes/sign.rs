//! The signs of numbers, as far as operations tell: some functions are cheaper on one side of 0.

use super::{Binary, Kind, Lanes, Op, Unary, Vector};

/// What is known about the lanes of a vector. NaN may be among them, whatever is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    Any,
    /// None is above 0.
    NotPositive,
    /// None is below 0.
    NotNegative,
}

impl Sign {
    fn opposite(self) -> Sign {
        match self {
            Sign::Any => Sign::Any,
            Sign::NotPositive => Sign::NotNegative,
            Sign::NotNegative => Sign::NotPositive,
        }
    }

    /// The sign of a product or quotient.
    fn times(self, other: Sign) -> Sign {
        match other {
            Sign::Any => Sign::Any,
            Sign::NotPositive => self.opposite(),
            Sign::NotNegative => self,
        }
    }
}

/// What is known about the result of `op`, whose operands are in `lanes`.
pub fn of(lanes: &Lanes, op: Op) -> Sign {
    let sign = |v: Vector| lanes.sign(v);
    let sign_bit = Op::Const(Kind::F32, u64::from((-0f32).to_bits()));
    let is_sign_bit = |v: Vector| lanes.op(v) == sign_bit;
    match op {
        Op::Const(Kind::F32, bits) if f32::from_bits(bits as u32) <= 0.0 => Sign::NotPositive,
        Op::Const(Kind::F32, _) => Sign::NotNegative,
        Op::Unary(Unary::Sqrt, _) => Sign::NotNegative,
        Op::Binary(Binary::Mul, x, y) if x == y => Sign::NotNegative,
        Op::Binary(Binary::Mul | Binary::Div, x, y) => sign(x).times(sign(y)),
        Op::Binary(Binary::Or, x, y) if is_sign_bit(x) || is_sign_bit(y) => Sign::NotPositive,
        Op::Binary(Binary::AndNot, x, _) if is_sign_bit(x) => Sign::NotNegative,
        Op::Binary(Binary::Xor, x, y) if is_sign_bit(y) => sign(x).opposite(),
        _ => Sign::Any,
    }
}
