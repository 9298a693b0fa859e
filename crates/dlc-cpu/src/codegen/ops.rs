//! Operations on values, scalar or of four lanes, with the same bits for both. What they mean is
//! written once, in [`crate::leaf::lanes::ops`]; here are besides the integer operations that go
//! lane by lane.

use super::Emitter;
use super::expr::{Evaluator, Val};
use super::load::{constant, extract, gather};
use crate::leaf::clif::{self, Width, Writer};
use crate::leaf::lanes::{Lanes, Op, Vector, ops};
use crate::leaf::portable::Multiply;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{BinaryOp, DType, Expr, ExprId, Scalar};

/// The value of a node whose operands are computed.
pub(super) fn operation(ev: &mut Evaluator, e: &mut Emitter, id: ExprId) -> Val {
    let domain = ev.domain;
    match domain.exprs.get(id) {
        Expr::Const(scalar) => Val::Uniform(constant(e, *scalar)),
        Expr::Extent(size, dtype) => {
            let value = size.as_const().expect("sizes are bound before code is generated");
            Val::Uniform(constant(e, Scalar::new(*dtype, value as f64)))
        }
        Expr::Unary(op, x) => {
            let dtype = ev.dtype(*x);
            apply(ev, e, &[*x], |l, x| ops::unary(l, *op, dtype, x[0]))
        }
        Expr::Binary(op, x, y) => {
            let dtype = ev.dtype(*x);
            if !ops::has_binary(*op, dtype) {
                return by_lanes(ev, e, *op, [*x, *y]);
            }
            apply(ev, e, &[*x, *y], |l, x| ops::binary(l, *op, dtype, x[0], x[1]))
        }
        Expr::Select(c, x, y) => apply(ev, e, &[*c, *x, *y], |l, x| l.select(x[0], x[1], x[2])),
        Expr::Cast(to, x) => {
            let from = ev.dtype(*x);
            apply(ev, e, &[*x], |l, x| ops::cast(l, from, *to, x[0]))
        }
        other => unreachable!("{other:?} is not an operation"),
    }
}

/// `f` of the operands: once as scalars if all are uniform, else as vectors.
fn apply(
    ev: &mut Evaluator,
    e: &mut Emitter,
    operands: &[ExprId],
    f: impl FnOnce(&mut Lanes, &[Vector]) -> Vector,
) -> Val {
    let (uniform, values) = operand_values(ev, e, operands);
    let mut lanes = Lanes::default();
    let given = |(k, id): (usize, &ExprId)| match ev.domain.exprs.get(*id) {
        Expr::Const(scalar) => ops::constant(&mut lanes, *scalar),
        _ => lanes.add(Op::Input(ops::kind(ev.dtype(*id)), k as u16)),
    };
    let inputs: Vec<Vector> = operands.iter().enumerate().map(given).collect();
    let result = f(&mut lanes, &inputs);
    let value = emit(e, &lanes, result, &values);
    if uniform { Val::Uniform(value) } else { Val::Varying(value) }
}

/// Whether all operands are uniform, and their values: scalars then, else vectors.
fn operand_values(ev: &mut Evaluator, e: &mut Emitter, operands: &[ExprId]) -> (bool, Vec<Value>) {
    let scalar = |id: &ExprId| match ev.known(*id) {
        Val::Uniform(value) => Some(value),
        Val::Varying(_) => None,
    };
    if let Some(scalars) = operands.iter().map(scalar).collect::<Option<Vec<_>>>() {
        return (true, scalars);
    }
    (false, operands.iter().map(|&id| ev.known_vector(e, id)).collect())
}

/// Code on lanes whose `Input(_, k)` is `inputs[k]`.
fn emit(e: &mut Emitter, lanes: &Lanes, result: Vector, inputs: &[Value]) -> Value {
    let vector = inputs.iter().any(|&v| e.b.func.dfg.value_type(v).is_vector());
    let width = if vector { Width::Vector } else { Width::Scalar };
    let multiply = Multiply::of(e.config.level);
    let mut writer = Writer { b: &mut e.b, multiply, width };
    let given = |_: &mut Writer, op| match op {
        Op::Input(_, k) => inputs[usize::from(k)],
        _ => unreachable!("an operation is given its operands alone"),
    };
    clif::values(&mut writer, lanes, &[result], given)[0]
}

/// An operation on values of type `dtype`.
pub(super) fn binary(e: &mut Emitter, op: BinaryOp, dtype: DType, x: Value, y: Value) -> Value {
    let mut lanes = Lanes::default();
    let [a, b] = [0, 1].map(|k| lanes.add(Op::Input(ops::kind(dtype), k)));
    let result = ops::binary(&mut lanes, op, dtype, a, b);
    emit(e, &lanes, result, &[x, y])
}

/// Conversion between types, saturating towards integers.
pub(super) fn cast(e: &mut Emitter, from: DType, to: DType, x: Value) -> Value {
    let mut lanes = Lanes::default();
    let input = lanes.add(Op::Input(ops::kind(from), 0));
    let result = ops::cast(&mut lanes, from, to, input);
    emit(e, &lanes, result, &[x])
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

fn is_vector(e: &Emitter, x: Value) -> bool {
    e.b.func.dfg.value_type(x).is_vector()
}

/// The integer operations that no processor does to vectors.
fn by_lanes(ev: &mut Evaluator, e: &mut Emitter, op: BinaryOp, operands: [ExprId; 2]) -> Val {
    let dtype = ev.dtype(operands[0]);
    let (uniform, values) = operand_values(ev, e, &operands);
    let result = each_lane(e, values[0], values[1], |e, x, y| match op {
        BinaryOp::Pow => power(e, x, y),
        _ => divide(e, op, x, y),
    });
    let result = wrap(e, dtype, result);
    if uniform { Val::Uniform(result) } else { Val::Varying(result) }
}

/// Brings the result of 32-bit arithmetic back into the range of `dtype`.
fn wrap(e: &mut Emitter, dtype: DType, x: Value) -> Value {
    if dtype != DType::U8 {
        return x;
    }
    let mask = if is_vector(e, x) { e.ints(255) } else { e.b.ins().iconst(I32, 255) };
    e.b.ins().band(x, mask)
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
