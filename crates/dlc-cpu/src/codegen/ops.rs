//! Scalar operations as code: the meaning of [`dlc_kernel::scalar`](dlc_kernel::UnaryOp) on
//! scalars and on four lanes, with the same bits for both.

use super::expr::{Evaluator, Val};
use super::load::{constant, extract, gather};
use super::{Emitter, math};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, I8, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use dlc_kernel::{BinaryOp, DType, Expr, ExprId, Scalar, UnaryOp};

/// The value of a node whose operands are computed.
pub(super) fn operation(ev: &mut Evaluator, e: &mut Emitter, id: ExprId) -> Val {
    let (domain, dtype) = (ev.domain, ev.dtype(id));
    match domain.exprs.get(id) {
        Expr::Const(scalar) => Val::Uniform(constant(e, *scalar)),
        Expr::Extent(size, dtype) => {
            let value = size.as_const().expect("sizes are bound before code is generated");
            Val::Uniform(constant(e, Scalar::new(*dtype, value as f64)))
        }
        Expr::Unary(op, x) => apply(ev, e, [*x], |e, [x]| unary(e, *op, dtype, x)),
        Expr::Binary(BinaryOp::Pow, x, y) if dtype == DType::F32 => {
            let exponent = as_const(domain.exprs.get(*y));
            apply(ev, e, [*x, *y], |e, [x, y]| math::pow(e, x, y, exponent))
        }
        Expr::Binary(BinaryOp::Max, x, y) if dtype == DType::F32 => {
            maximum(ev, e, *x, *y, BinaryOp::Max)
        }
        Expr::Binary(BinaryOp::Min, x, y) if dtype == DType::F32 => {
            maximum(ev, e, *x, *y, BinaryOp::Min)
        }
        Expr::Binary(op, x, y) => {
            let operand = ev.dtype(*x);
            apply(ev, e, [*x, *y], |e, [x, y]| binary(e, *op, operand, x, y))
        }
        Expr::Select(c, x, y) => apply(ev, e, [*c, *x, *y], |e, [c, x, y]| select(e, c, x, y)),
        Expr::Cast(to, x) => {
            let from = ev.dtype(*x);
            apply(ev, e, [*x], |e, [x]| cast(e, from, *to, x))
        }
        other => unreachable!("{other:?} is not an operation"),
    }
}

/// `f` of the operands: once as scalars if all are uniform, else as vectors.
fn apply<const N: usize>(
    ev: &mut Evaluator,
    e: &mut Emitter,
    operands: [ExprId; N],
    f: impl FnOnce(&mut Emitter, [Value; N]) -> Value,
) -> Val {
    let uniform = operands.map(|id| match ev.known(id) {
        Val::Uniform(value) => Some(value),
        Val::Varying(_) => None,
    });
    if uniform.iter().all(Option::is_some) {
        return Val::Uniform(f(e, uniform.map(|v| v.expect("all are uniform"))));
    }
    let vectors = operands.map(|id| ev.known_vector(e, id));
    Val::Varying(f(e, vectors))
}

/// `max` or `min`; a constant that is a number needs one comparison, not two.
fn maximum(ev: &mut Evaluator, e: &mut Emitter, x: ExprId, y: ExprId, op: BinaryOp) -> Val {
    let number = |id| as_const(ev.domain.exprs.get(id)).is_some_and(|c| !c.is_nan());
    let (x, y, simple) = match (number(x), number(y)) {
        (_, true) => (x, y, true),
        (true, false) => (y, x, true),
        (false, false) => (x, y, false),
    };
    apply(
        ev,
        e,
        [x, y],
        |e, [x, y]| {
            if simple { extreme_of_number(e, op, x, y) } else { extreme(e, op, x, y) }
        },
    )
}

fn as_const(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Const(scalar) => Some(scalar.value()),
        _ => None,
    }
}

/// The larger (or smaller) of `x` and a `y` that is not NaN; NaN if `x` is.
pub fn extreme_of_number(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    let code = if op == BinaryOp::Max { FloatCC::GreaterThan } else { FloatCC::LessThan };
    let replace = e.b.ins().fcmp(code, y, x);
    select(e, replace, y, x)
}

/// The larger (or smaller) of two `F32`; NaN if either is.
pub fn extreme(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    let larger = extreme_of_number(e, op, x, y);
    let nan = e.b.ins().fcmp(FloatCC::Unordered, y, y);
    select(e, nan, y, larger)
}

/// `if c { x } else { y }` on scalars or lanes.
pub fn select(e: &mut Emitter, c: Value, x: Value, y: Value) -> Value {
    if e.b.func.dfg.value_type(c) == I8 {
        return e.b.ins().select(c, x, y);
    }
    let ty = e.b.func.dfg.value_type(x);
    let c = e.cast_bits(c, ty);
    e.b.ins().bitselect(c, x, y)
}

/// `magnitude` with the sign of `sign`; of `F32` scalars or lanes.
pub(super) fn copy_sign(e: &mut Emitter, magnitude: Value, sign: Value) -> Value {
    let ty = e.b.func.dfg.value_type(magnitude);
    if !ty.is_vector() {
        return e.b.ins().fcopysign(magnitude, sign);
    }
    let (magnitude, sign) = (e.cast_bits(magnitude, I32X4), e.cast_bits(sign, I32X4));
    let mask = e.ints(i32::MIN);
    let sign = e.b.ins().band(sign, mask);
    let rest = e.b.ins().band_not(magnitude, mask);
    let bits = e.b.ins().bor(rest, sign);
    e.cast_bits(bits, ty)
}

fn is_vector(e: &Emitter, x: Value) -> bool {
    e.b.func.dfg.value_type(x).is_vector()
}

/// A constant like `x`: `F32`, `I32` or their vectors.
pub(super) fn like(e: &mut Emitter, x: Value, value: f64) -> Value {
    match e.b.func.dfg.value_type(x) {
        F32 => e.float(value as f32),
        F32X4 => e.floats(value as f32),
        I32X4 => e.ints(value as i32),
        ty => e.b.ins().iconst(ty, value as i64 & 0xffff_ffff),
    }
}

fn unary(e: &mut Emitter, op: UnaryOp, dtype: DType, x: Value) -> Value {
    match dtype {
        DType::F32 => float_unary(e, op, x),
        DType::Bool => match op {
            UnaryOp::Not if is_vector(e, x) => e.b.ins().bnot(x),
            UnaryOp::Not => e.b.ins().bxor_imm_u(x, 1),
            _ => x,
        },
        _ => {
            let y = int_unary(e, op, x);
            wrap(e, dtype, y)
        }
    }
}

fn float_unary(e: &mut Emitter, op: UnaryOp, x: Value) -> Value {
    match op {
        UnaryOp::Neg => e.b.ins().fneg(x),
        UnaryOp::Abs => e.b.ins().fabs(x),
        UnaryOp::Sqrt => e.b.ins().sqrt(x),
        UnaryOp::Floor => e.b.ins().floor(x),
        UnaryOp::Ceil => e.b.ins().ceil(x),
        UnaryOp::Round => e.b.ins().nearest(x),
        UnaryOp::Sign => {
            let (zero, one) = (like(e, x, 0.0), like(e, x, 1.0));
            let one = copy_sign(e, one, x);
            let is_zero = e.b.ins().fcmp(FloatCC::Equal, x, zero);
            let is_nan = e.b.ins().fcmp(FloatCC::Unordered, x, x);
            let keep = e.b.ins().bor(is_zero, is_nan);
            select(e, keep, x, one)
        }
        UnaryOp::Rsqrt => {
            let (one, root) = (like(e, x, 1.0), e.b.ins().sqrt(x));
            e.b.ins().fdiv(one, root)
        }
        UnaryOp::Exp => math::scalar_or_lanes(e, x, math::exp),
        UnaryOp::Log => math::scalar_or_lanes(e, x, math::log),
        UnaryOp::Tanh => math::scalar_or_lanes(e, x, math::tanh),
        UnaryOp::Sigmoid => math::scalar_or_lanes(e, x, math::sigmoid),
        UnaryOp::Erf => math::scalar_or_lanes(e, x, math::erf),
        UnaryOp::Sin => math::scalar_or_lanes(e, x, math::sin),
        UnaryOp::Cos => math::scalar_or_lanes(e, x, math::cos),
        UnaryOp::Not => x,
    }
}

fn int_unary(e: &mut Emitter, op: UnaryOp, x: Value) -> Value {
    match op {
        UnaryOp::Neg => e.b.ins().ineg(x),
        UnaryOp::Abs => e.b.ins().iabs(x),
        UnaryOp::Sign => {
            let (one, minus) = (like(e, x, 1.0), like(e, x, -1.0));
            let below = e.b.ins().smin(x, one);
            e.b.ins().smax(below, minus)
        }
        _ => x,
    }
}

/// Brings the result of 32-bit arithmetic back into the range of `dtype`.
fn wrap(e: &mut Emitter, dtype: DType, x: Value) -> Value {
    if dtype != DType::U8 {
        return x;
    }
    let mask = like(e, x, 255.0);
    e.b.ins().band(x, mask)
}

pub(super) fn binary(e: &mut Emitter, op: BinaryOp, dtype: DType, x: Value, y: Value) -> Value {
    match dtype {
        DType::F32 => float_binary(e, op, x, y),
        DType::Bool => bool_binary(e, op, x, y),
        _ => {
            let z = int_binary(e, op, x, y);
            if op.is_comparison() { z } else { wrap(e, dtype, z) }
        }
    }
}

fn float_binary(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    match op {
        BinaryOp::Add => e.b.ins().fadd(x, y),
        BinaryOp::Sub => e.b.ins().fsub(x, y),
        BinaryOp::Mul => e.b.ins().fmul(x, y),
        BinaryOp::Div => e.b.ins().fdiv(x, y),
        BinaryOp::Mod => math::modulo(e, x, y),
        BinaryOp::FloorDiv => {
            let quotient = e.b.ins().fdiv(x, y);
            e.b.ins().floor(quotient)
        }
        BinaryOp::Max | BinaryOp::Min => extreme(e, op, x, y),
        BinaryOp::Eq => e.b.ins().fcmp(FloatCC::Equal, x, y),
        BinaryOp::Ne => e.b.ins().fcmp(FloatCC::NotEqual, x, y),
        BinaryOp::Lt => e.b.ins().fcmp(FloatCC::LessThan, x, y),
        BinaryOp::Le => e.b.ins().fcmp(FloatCC::LessThanOrEqual, x, y),
        BinaryOp::Pow | BinaryOp::And | BinaryOp::Or => {
            unreachable!("`{op}` is no operation on f32 lanes")
        }
    }
}

/// On 0 and 1, or on masks.
fn bool_binary(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    match op {
        BinaryOp::And | BinaryOp::Mul | BinaryOp::Min => e.b.ins().band(x, y),
        BinaryOp::Or | BinaryOp::Add | BinaryOp::Max => e.b.ins().bor(x, y),
        BinaryOp::Ne | BinaryOp::Sub => e.b.ins().bxor(x, y),
        BinaryOp::Eq => not(e, BinaryOp::Ne, x, y),
        BinaryOp::Lt => {
            let x = if is_vector(e, x) { e.b.ins().bnot(x) } else { e.b.ins().bxor_imm_u(x, 1) };
            e.b.ins().band(x, y)
        }
        BinaryOp::Le => {
            let x = if is_vector(e, x) { e.b.ins().bnot(x) } else { e.b.ins().bxor_imm_u(x, 1) };
            e.b.ins().bor(x, y)
        }
        _ => unreachable!("`{op}` is no operation on bool"),
    }
}

fn not(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    let value = bool_binary(e, op, x, y);
    unary(e, UnaryOp::Not, DType::Bool, value)
}

/// On `I32`, and on zero-extended `U8`.
fn int_binary(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    match op {
        BinaryOp::Add => e.b.ins().iadd(x, y),
        BinaryOp::Sub => e.b.ins().isub(x, y),
        BinaryOp::Mul => e.b.ins().imul(x, y),
        BinaryOp::Max => e.b.ins().smax(x, y),
        BinaryOp::Min => e.b.ins().smin(x, y),
        BinaryOp::And => e.b.ins().band(x, y),
        BinaryOp::Or => e.b.ins().bor(x, y),
        BinaryOp::Eq => e.b.ins().icmp(IntCC::Equal, x, y),
        BinaryOp::Ne => e.b.ins().icmp(IntCC::NotEqual, x, y),
        BinaryOp::Lt => e.b.ins().icmp(IntCC::SignedLessThan, x, y),
        BinaryOp::Le => e.b.ins().icmp(IntCC::SignedLessThanOrEqual, x, y),
        BinaryOp::Div | BinaryOp::Mod | BinaryOp::FloorDiv => {
            each_lane(e, x, y, |e, x, y| divide(e, op, x, y))
        }
        BinaryOp::Pow => each_lane(e, x, y, power),
    }
}

/// `f` lane by lane, for what no processor does to vectors.
fn each_lane(
    e: &mut Emitter,
    x: Value,
    y: Value,
    f: impl Fn(&mut Emitter, Value, Value) -> Value,
) -> Value {
    if !is_vector(e, x) {
        return f(e, x, y);
    }
    let lane = |lane| {
        let x = extract(e, DType::I32, x, lane);
        let y = extract(e, DType::I32, y, lane);
        f(e, x, y)
    };
    let results: Vec<Value> = (0..4).map(lane).collect();
    gather(e, &results)
}

/// An integer power by squaring; of a negative exponent, the truncated quotient.
fn power(e: &mut Emitter, x: Value, y: Value) -> Value {
    let one = e.b.ins().iconst(I32, 1);
    let state = e.repeat(0, 32, 1, &[one, x, y], |e, _, state| {
        let &[result, square, bits] = state else { unreachable!("three values go round") };
        let product = e.b.ins().imul(result, square);
        let odd = e.b.ins().band_imm_u(bits, 1);
        let result = e.b.ins().select(odd, product, result);
        vec![result, e.b.ins().imul(square, square), e.b.ins().ushr_imm_u(bits, 1)]
    });
    // Powers of 1 and -1 have come out right for any exponent.
    let magnitude = e.b.ins().iabs(x);
    let unit = e.b.ins().icmp_imm_s(IntCC::Equal, magnitude, 1);
    let rising = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, y, 0);
    let known = e.b.ins().bor(unit, rising);
    let none = e.b.ins().iconst(I32, 0);
    e.b.ins().select(known, state[0], none)
}

/// In 64 bits, where the smallest `I32` divided by -1 fits.
fn divide(e: &mut Emitter, op: BinaryOp, x: Value, y: Value) -> Value {
    use cranelift_codegen::ir::types::I64;
    let (x, y) = (e.b.ins().sextend(I64, x), e.b.ins().sextend(I64, y));
    let zero = e.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
    let one = e.int(1);
    let divisor = e.b.ins().select(zero, one, y);
    let quotient = e.b.ins().sdiv(x, divisor);
    let product = e.b.ins().imul(quotient, divisor);
    let rest = e.b.ins().isub(x, product);
    let mixed = e.b.ins().bxor(rest, divisor);
    let mixed = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, mixed, 0);
    let inexact = e.b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
    let adjust = e.b.ins().band(mixed, inexact);
    let adjust = e.b.ins().uextend(I64, adjust);
    let value = match op {
        BinaryOp::Div => quotient,
        BinaryOp::FloorDiv => e.b.ins().isub(quotient, adjust),
        _ => {
            let shift = e.b.ins().imul(adjust, divisor);
            e.b.ins().iadd(rest, shift)
        }
    };
    let none = e.int(0);
    let value = e.b.ins().select(zero, none, value);
    e.b.ins().ireduce(I32, value)
}

/// Conversion between types, saturating towards integers.
pub(super) fn cast(e: &mut Emitter, from: DType, to: DType, x: Value) -> Value {
    let vector = is_vector(e, x);
    match (from, to) {
        (a, b) if a == b => x,
        (DType::F32, DType::Bool) => {
            let zero = like(e, x, 0.0);
            e.b.ins().fcmp(FloatCC::NotEqual, x, zero)
        }
        (_, DType::Bool) => {
            let zero = like(e, x, 0.0);
            e.b.ins().icmp(IntCC::NotEqual, x, zero)
        }
        (DType::F32, _) => {
            let ty = if vector { I32X4 } else { I32 };
            let number = e.b.ins().fcvt_to_sint_sat(ty, x);
            saturate(e, to, number)
        }
        (DType::Bool, _) => {
            let number = bool_to_int(e, x);
            if to == DType::F32 { int_to_float(e, number) } else { number }
        }
        (_, DType::F32) => int_to_float(e, x),
        _ => saturate(e, to, x),
    }
}

fn saturate(e: &mut Emitter, to: DType, x: Value) -> Value {
    if to != DType::U8 {
        return x;
    }
    let (low, high) = (like(e, x, 0.0), like(e, x, 255.0));
    let x = e.b.ins().smax(x, low);
    e.b.ins().smin(x, high)
}

fn bool_to_int(e: &mut Emitter, x: Value) -> Value {
    if is_vector(e, x) {
        let one = e.ints(1);
        return e.b.ins().band(x, one);
    }
    e.b.ins().uextend(I32, x)
}

fn int_to_float(e: &mut Emitter, x: Value) -> Value {
    let ty: Type = if is_vector(e, x) { F32X4 } else { F32 };
    e.b.ins().fcvt_from_sint(ty, x)
}
