//! Operations on integers that lanes do not have: divisions and powers.

use super::writer::Writer;
use crate::ir::{B32, Compare, IntOp, LogicOp, Pred, Value};
use dlc_kernel::BinaryOp;

/// `op` on two integers, as [`BinaryOp::eval`] says.
///
/// # Panics
/// If it is none of `Div`, `Mod`, `FloorDiv` and `Pow`.
pub fn binary(w: &mut Writer<'_>, op: BinaryOp, x: Value<B32>, y: Value<B32>) -> B32 {
    match op {
        BinaryOp::Div => quotient(w, x, y),
        BinaryOp::Mod => {
            let (rest, opposite) = remainder(w, x, y);
            let up = w.b.int(IntOp::Add, rest, y);
            let rest = w.b.select32(opposite, up, rest);
            unless_zero(w, y, rest)
        }
        BinaryOp::FloorDiv => {
            let whole = quotient(w, x, y);
            let (_, opposite) = remainder(w, x, y);
            let down = w.b.int(IntOp::Sub, whole, 1);
            let whole = w.b.select32(opposite, down, whole);
            unless_zero(w, y, whole)
        }
        BinaryOp::Pow => power(w, x, y),
        _ => panic!("`{op}` on integers is an operation on lanes"),
    }
}

fn unless_zero(w: &mut Writer<'_>, y: Value<B32>, value: B32) -> B32 {
    let zero = w.b.set_int(Compare::Eq, y, 0);
    w.b.select32(zero, 0, value)
}

/// The truncated quotient; 0 by zero, wrapping by -1.
fn quotient(w: &mut Writer<'_>, x: Value<B32>, y: Value<B32>) -> B32 {
    let zero = w.b.set_int(Compare::Eq, y, 0);
    let minus = w.b.set_int(Compare::Eq, y, -1);
    let special = w.b.logic(LogicOp::Or, zero, minus);
    let divisor = w.b.select32(special, 1, y);
    let value = w.b.int(IntOp::DivS, x, divisor);
    let opposite = w.b.int(IntOp::Sub, 0, x);
    let value = w.b.select32(minus, opposite, value);
    w.b.select32(zero, 0, value)
}

/// The remainder of the truncated quotient, and whether it has not the sign of the divisor.
fn remainder(w: &mut Writer<'_>, x: Value<B32>, y: Value<B32>) -> (B32, Pred) {
    let whole = quotient(w, x, y);
    let product = w.b.int(IntOp::Mul, whole, y);
    let rest = w.b.int(IntOp::Sub, x, product);
    let signs = w.b.int(IntOp::Xor, rest, y);
    let apart = w.b.set_int(Compare::Lt, signs, 0);
    let some = w.b.set_int(Compare::Ne, rest, 0);
    (rest, w.b.logic(LogicOp::And, apart, some))
}

/// `x^y`, wrapping; for negative `y` the truncated quotient.
fn power(w: &mut Writer<'_>, x: Value<B32>, y: Value<B32>) -> B32 {
    let (result, base, rest) = (w.b.mov32(1), w.b.mov32(x), w.b.mov32(y));
    w.do_while(|w| {
        let bit = w.b.int(IntOp::And, rest, 1);
        let odd = w.b.set_int(Compare::Ne, bit, 0);
        let product = w.b.int(IntOp::Mul, result, base);
        let next = w.b.select32(odd, product, result);
        w.b.mov32_to(result, next);
        w.b.int_to(IntOp::Mul, base, base, base);
        w.b.int_to(IntOp::ShrU, rest, rest, 1);
        w.b.set_int(Compare::Ne, rest, 0)
    });
    // Of numbers with an inverse, 1 and -1, the powers above are right for negative exponents too.
    let negative = w.b.set_int(Compare::Lt, y, 0);
    let size = w.b.int(IntOp::Add, x, 1);
    let beyond = w.b.set_uint(Compare::Gt, size, 2);
    let zero = w.b.set_int(Compare::Eq, x, 0);
    let none = w.b.logic(LogicOp::Or, beyond, zero);
    let none = w.b.logic(LogicOp::And, negative, none);
    w.b.select32(none, 0, result)
}
