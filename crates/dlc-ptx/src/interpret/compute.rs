//! Instructions that touch registers alone: of each lane, and of a warp.

use super::warp::{AsBits, Bits, LANES, Warp};
use super::{Fault, matrix, scalar};
use crate::ir::{Inst, Register, Shuffle, Value, Vote};

/// Runs an instruction that touches registers alone.
pub fn run(warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
    match inst {
        Inst::Mov32 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::Mov64 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::MovF32 { dst, src } => unary(warp, mask, *dst, *src, |a| a),
        Inst::Bits { dst, src } => unary(warp, mask, *dst, Value::Reg(*src), |a| a),
        Inst::FromBits { dst, src } => unary(warp, mask, *dst, Value::Reg(*src), |a| a),
        Inst::Pack { dst, low, high } => {
            let (low, high) = (Value::Reg(*low), Value::Reg(*high));
            binary(warp, mask, *dst, low, high, |a, b| a | b << 16)
        }
        Inst::Unpack { low, high, src } => {
            unary(warp, mask, *low, Value::Reg(*src), |a| a & 0xffff)?;
            unary(warp, mask, *high, Value::Reg(*src), |a| a >> 16)
        }
        Inst::Int { op, dst, a, b } => {
            let f = |a, b| u64::from(scalar::int(*op, a as u32, b as u32));
            binary(warp, mask, *dst, *a, *b, f)
        }
        Inst::Int64 { op, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| scalar::int64(*op, a, b))
        }
        Inst::Mad { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))
        }),
        Inst::MadWide { signed, dst, a, b, c } => {
            let f = |a, b, c: u64| c.wrapping_add(wide_product(*signed, a, b));
            ternary(warp, mask, *dst, (*a, *b, *c), f)
        }
        Inst::MulWide { signed, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| wide_product(*signed, a, b))
        }
        Inst::Lop3 { dst, a, b, c, table } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from(scalar::lop3(a as u32, b as u32, c as u32, *table))
        }),
        Inst::Convert(convert) => {
            let registers = convert.operands();
            let [low, high] = [0, registers.reads.len() - 1].map(|i| registers.reads[i]);
            let (low, high) = (*warp.read(low, mask)?, *warp.read(high, mask)?);
            warp.write(registers.writes[0], mask, |lane| {
                scalar::convert(*convert, low[lane], high[lane])
            });
            Ok(())
        }
        Inst::SetInt { cmp, signed, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            let (a, b) = (a as u32, b as u32);
            let signed_result = scalar::compare(*cmp, a as i32, b as i32);
            u64::from(if *signed { signed_result } else { scalar::compare(*cmp, a, b) })
        }),
        Inst::SetInt64 { cmp, signed, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            let signed_result = scalar::compare(*cmp, a as i64, b as i64);
            u64::from(if *signed { signed_result } else { scalar::compare(*cmp, a, b) })
        }),
        Inst::Logic { op, dst, a, b } => {
            binary(warp, mask, *dst, *a, *b, |a, b| u64::from(scalar::logic(*op, a != 0, b != 0)))
        }
        Inst::Not { dst, a } => unary(warp, mask, *dst, *a, |a| u64::from(a == 0)),
        Inst::Select32 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::Select64 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::SelectF32 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        Inst::SelectF64 { dst, a, b, pred } => select(warp, mask, *dst, *a, *b, *pred),
        _ => floats(warp, inst, mask),
    }
}

fn floats(warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
    let float = |bits: u64| f32::from_bits(bits as u32);
    let double = f64::from_bits;
    match inst {
        Inst::Float { op, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::float(*op, float(a), float(b)).to_bits())
        }),
        Inst::Fma { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            u64::from(float(a).mul_add(float(b), float(c)).to_bits())
        }),
        Inst::Math { op, dst, a } => {
            unary(warp, mask, *dst, *a, |a| u64::from(scalar::math(*op, float(a)).to_bits()))
        }
        Inst::Float64 { op, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            scalar::float64(*op, double(a), double(b)).to_bits()
        }),
        Inst::Sqrt64 { dst, a } => unary(warp, mask, *dst, *a, |a| double(a).sqrt().to_bits()),
        Inst::Fma64 { dst, a, b, c } => ternary(warp, mask, *dst, (*a, *b, *c), |a, b, c| {
            double(a).mul_add(double(b), double(c)).to_bits()
        }),
        Inst::SetFloat { cmp, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::compare(*cmp, float(a), float(b)))
        }),
        Inst::SetFloat64 { cmp, dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(scalar::compare(*cmp, double(a), double(b)))
        }),
        Inst::IsNan { dst, a, b } => binary(warp, mask, *dst, *a, *b, |a, b| {
            u64::from(float(a).is_nan() || float(b).is_nan())
        }),
        _ => across(warp, inst, mask),
    }
}

/// Instructions by which the lanes of a warp see one another.
fn across(warp: &mut Warp, inst: &Inst, mask: u32) -> Result<(), Fault> {
    if mask != u32::MAX {
        return Err(Fault::Divergent);
    }
    match inst {
        Inst::Shuffle { mode, dst, src, lane, width } => {
            let (src, by) = (*warp.read(*src, mask)?, warp.value(*lane, mask)?);
            warp.write(*dst, mask, |lane| src[shuffled(*mode, lane, by[lane] as usize, *width)]);
        }
        Inst::Vote { vote, dst, pred } => {
            let holds = warp.holds(*pred, mask)?;
            let result = if *vote == Vote::Any { holds != 0 } else { holds == mask };
            warp.write((*dst).into(), mask, |_| u64::from(result));
        }
        Inst::Ballot { dst, pred } => {
            let holds = warp.holds(*pred, mask)?;
            warp.write((*dst).into(), mask, |_| u64::from(holds));
        }
        Inst::Mma { shape, dst, a, b, c } => {
            let read = |registers: &[crate::ir::B32]| {
                let all = registers.iter().map(|&r| warp.read(r.into(), mask).copied());
                all.collect::<Result<Vec<Bits>, Fault>>()
            };
            let (a, b) = (read(a)?, read(b)?);
            let mut sums = [[0; LANES]; 4];
            for (sum, &register) in sums.iter_mut().zip(c) {
                *sum = *warp.read(register.into(), mask)?;
            }
            let result = matrix::multiply(*shape, &a, &b, &sums);
            for (values, &register) in result.iter().zip(dst) {
                warp.write(register.into(), mask, |lane| values[lane]);
            }
        }
        _ => unreachable!("`{inst}` is executed elsewhere"),
    }
    Ok(())
}

/// The lane that a shuffle reads; its own where there is none in the group.
fn shuffled(mode: Shuffle, lane: usize, by: usize, width: u32) -> usize {
    let width = width as usize;
    let first = lane / width * width;
    let from = match mode {
        Shuffle::Butterfly => lane ^ by,
        Shuffle::Down => lane + by,
        Shuffle::Up => lane.wrapping_sub(by),
        Shuffle::Index => first + by % width,
    };
    if (first..first + width).contains(&from) { from } else { lane }
}

fn wide_product(signed: bool, a: u64, b: u64) -> u64 {
    let (a, b) = (a as u32, b as u32);
    if signed {
        (i64::from(a as i32) * i64::from(b as i32)) as u64
    } else {
        u64::from(a) * u64::from(b)
    }
}

fn unary<D: Register, A: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<A>,
    f: impl Fn(u64) -> u64,
) -> Result<(), Fault> {
    let a = warp.value(a, mask)?;
    warp.write(dst.into(), mask, |lane| f(a[lane]));
    Ok(())
}

fn binary<D: Register, A: Register<Literal: AsBits>, B: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<A>,
    b: Value<B>,
    f: impl Fn(u64, u64) -> u64,
) -> Result<(), Fault> {
    let (a, b) = (warp.value(a, mask)?, warp.value(b, mask)?);
    warp.write(dst.into(), mask, |lane| f(a[lane], b[lane]));
    Ok(())
}

fn ternary<D: Register, A: Register<Literal: AsBits>, C: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    (a, b, c): (Value<A>, Value<A>, Value<C>),
    f: impl Fn(u64, u64, u64) -> u64,
) -> Result<(), Fault> {
    let (a, b, c) = (warp.value(a, mask)?, warp.value(b, mask)?, warp.value(c, mask)?);
    warp.write(dst.into(), mask, |lane| f(a[lane], b[lane], c[lane]));
    Ok(())
}

fn select<D: Register<Literal: AsBits>>(
    warp: &mut Warp,
    mask: u32,
    dst: D,
    a: Value<D>,
    b: Value<D>,
    pred: crate::ir::Pred,
) -> Result<(), Fault> {
    let (a, b) = (warp.value(a, mask)?, warp.value(b, mask)?);
    let holds = warp.holds(pred, mask)?;
    warp.write(dst.into(), mask, |lane| if holds >> lane & 1 == 1 { a[lane] } else { b[lane] });
    Ok(())
}
