//! What instructions compute in one lane.

use crate::ir::{Compare, Convert, FloatOp, IntOp, LogicOp, MathOp};

/// An integer operation on 32 bits.
pub fn int(op: IntOp, a: u32, b: u32) -> u32 {
    let (sa, sb) = (a as i32, b as i32);
    match op {
        IntOp::Add => a.wrapping_add(b),
        IntOp::Sub => a.wrapping_sub(b),
        IntOp::Mul => a.wrapping_mul(b),
        IntOp::MulHiU => ((u64::from(a) * u64::from(b)) >> 32) as u32,
        IntOp::DivS => sa.checked_div(sb).unwrap_or(-1) as u32,
        IntOp::DivU => a.checked_div(b).unwrap_or(u32::MAX),
        IntOp::RemS => sa.checked_rem(sb).unwrap_or(sa) as u32,
        IntOp::RemU => a.checked_rem(b).unwrap_or(a),
        IntOp::MinS => sa.min(sb) as u32,
        IntOp::MaxS => sa.max(sb) as u32,
        IntOp::MinU => a.min(b),
        IntOp::MaxU => a.max(b),
        IntOp::And => a & b,
        IntOp::Or => a | b,
        IntOp::Xor => a ^ b,
        IntOp::Shl => a.checked_shl(b).unwrap_or(0),
        IntOp::ShrU => a.checked_shr(b).unwrap_or(0),
        IntOp::ShrS => (sa >> b.min(31)) as u32,
    }
}

/// An integer operation on 64 bits.
pub fn int64(op: IntOp, a: u64, b: u64) -> u64 {
    let (sa, sb) = (a as i64, b as i64);
    match op {
        IntOp::Add => a.wrapping_add(b),
        IntOp::Sub => a.wrapping_sub(b),
        IntOp::Mul => a.wrapping_mul(b),
        IntOp::MulHiU => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        IntOp::DivS => sa.checked_div(sb).unwrap_or(-1) as u64,
        IntOp::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        IntOp::RemS => sa.checked_rem(sb).unwrap_or(sa) as u64,
        IntOp::RemU => a.checked_rem(b).unwrap_or(a),
        IntOp::MinS => sa.min(sb) as u64,
        IntOp::MaxS => sa.max(sb) as u64,
        IntOp::MinU => a.min(b),
        IntOp::MaxU => a.max(b),
        IntOp::And => a & b,
        IntOp::Or => a | b,
        IntOp::Xor => a ^ b,
        IntOp::Shl => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
        IntOp::ShrU => u32::try_from(b).ok().and_then(|b| a.checked_shr(b)).unwrap_or(0),
        IntOp::ShrS => (sa >> b.min(63)) as u64,
    }
}

/// A float operation.
pub fn float(op: FloatOp, a: f32, b: f32) -> f32 {
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Div => a / b,
        FloatOp::Min | FloatOp::Max if a.is_nan() || b.is_nan() => f32::NAN,
        // +0 is more than -0.
        FloatOp::Min if a == b => f32::from_bits(a.to_bits() | b.to_bits()),
        FloatOp::Max if a == b => f32::from_bits(a.to_bits() & b.to_bits()),
        FloatOp::Min => a.min(b),
        FloatOp::Max => a.max(b),
    }
}

/// A float operation on doubles.
pub fn float64(op: FloatOp, a: f64, b: f64) -> f64 {
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Div => a / b,
        FloatOp::Min => a.min(b),
        FloatOp::Max => a.max(b),
    }
}

/// A function of a float. Approximate ones are as wrong as PTX allows them to be: the exact value
/// is moved by an amount that its bits decide.
pub fn math(op: MathOp, a: f32) -> f32 {
    let wide = f64::from(a);
    match op {
        MathOp::Neg => -a,
        MathOp::Abs => a.abs(),
        MathOp::Sqrt => a.sqrt(),
        MathOp::Rcp => 1.0 / a,
        MathOp::Rsqrt => perturbed(a, 1.0 / wide.sqrt(), 2.0 * ULP),
        MathOp::Ex2 => perturbed(a, wide.exp2(), 2.0 * ULP),
        MathOp::Lg2 => perturbed(a, wide.log2(), 2.0 * ULP),
        MathOp::Tanh => perturbed(a, wide.tanh(), 2f64.powi(-11)),
        MathOp::Floor => a.floor(),
        MathOp::Ceil => a.ceil(),
        MathOp::Round => a.round_ties_even(),
        MathOp::Trunc => a.trunc(),
    }
}

/// Half the distance of neighbours, relative.
const ULP: f64 = 1.0 / 16_777_216.0;

/// `exact` times `1 + e`, where `|e| <= bound` depends on the bits of `a`.
fn perturbed(a: f32, exact: f64, bound: f64) -> f32 {
    let hash = a.to_bits().wrapping_mul(0x9e37_79b9) >> 8;
    let e = f64::from(hash) / f64::from(1u32 << 23) - 1.0;
    (exact * (1.0 + e * bound)) as f32
}

/// Rounded to 10 bits of mantissa, ties away from 0.
fn tf32(a: f32) -> f32 {
    if a.is_finite() { f32::from_bits((a.to_bits() + 0x1000) & !0x1fff) } else { a }
}

/// A comparison.
pub fn compare<T: PartialOrd>(cmp: Compare, a: T, b: T) -> bool {
    match cmp {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

/// An operation on truth values.
pub fn logic(op: LogicOp, a: bool, b: bool) -> bool {
    match op {
        LogicOp::And => a && b,
        LogicOp::Or => a || b,
        LogicOp::Xor => a != b,
    }
}

/// Any function of three bits, for each bit of a word.
pub fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    (0..32).fold(0, |word, bit| {
        let [a, b, c] = [a, b, c].map(|x| x >> bit & 1);
        word | (u32::from(table) >> (4 * a + 2 * b + c) & 1) << bit
    })
}

/// The result of a conversion of bits, as bits.
pub fn convert(convert: Convert, low: u64, high: u64) -> u64 {
    let float = f32::from_bits(low as u32);
    let half = |bits: u64| u64::from(half::f16::from_f32(f32::from_bits(bits as u32)).to_bits());
    let brain = |bits: u64| u64::from(half::bf16::from_f32(f32::from_bits(bits as u32)).to_bits());
    match convert {
        Convert::F32ToS32 { .. } => u64::from(float as i32 as u32),
        Convert::F32ToU32 { .. } => u64::from(float as u32),
        Convert::F32ToTf32 { .. } => u64::from(tf32(float).to_bits()),
        Convert::S32ToF32 { .. } => u64::from((low as u32 as i32 as f32).to_bits()),
        Convert::U32ToF32 { .. } => u64::from((low as u32 as f32).to_bits()),
        Convert::S32To64 { .. } => i64::from(low as u32 as i32) as u64,
        Convert::U32To64 { .. } => u64::from(low as u32),
        Convert::Low { .. } | Convert::LowBits { .. } => u64::from(low as u32),
        Convert::F32ToF64 { .. } => f64::from(float).to_bits(),
        Convert::F64ToF32 { .. } => u64::from((f64::from_bits(low) as f32).to_bits()),
        Convert::F16ToF32 { .. } => u64::from(half::f16::from_bits(low as u16).to_f32().to_bits()),
        Convert::Bf16ToF32 { .. } => low << 16,
        Convert::F32ToF16 { .. } => half(low),
        Convert::F32ToBf16 { .. } => brain(low),
        Convert::PackF16 { .. } => half(low) | half(high) << 16,
        Convert::PackBf16 { .. } => brain(low) | brain(high) << 16,
    }
}
