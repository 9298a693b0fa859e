//! Elementary functions as polynomials on four lanes of `F32`.
//!
//! A scalar is computed as lane 0 of a vector, so that a value never depends on whether a vector
//! or a scalar loop reached it. Infinities, NaN and subnormal arguments and results are as IEEE
//! 754 and C99 have them. The largest error, measured in `tests/math.rs` against f64 on 10^6
//! arguments of each function, in units in the last place:
//!
//! | function | ULP with fused multiply-add | without |
//! |---|---|---|
//! | exp | 1.0 | 1.0 |
//! | log | 0.8 | 0.8 |
//! | tanh | 1.3 | 1.3 |
//! | sigmoid | 2.2 | 2.2 |
//! | erf | 1.1 | 1.2 |
//! | sin, cos (up to 10^6) | 1.6 | 1.6 |
//! | pow | 1.1 | 1.1 |
//! | rsqrt | 1.5 | 1.5 |

use super::ops::{copy_sign, like, select};
use super::{Emitter, load};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32X4, F64X2, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};

/// 1.5 * 2^23: adding it rounds to an integer that then stands in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// `f`, which is written for lanes, of a scalar or of lanes.
pub(super) fn scalar_or_lanes(
    e: &mut Emitter,
    x: Value,
    f: impl FnOnce(&mut Emitter, Value) -> Value,
) -> Value {
    if e.b.func.dfg.value_type(x).is_vector() {
        return f(e, x);
    }
    let lanes = e.b.ins().scalar_to_vector(F32X4, x);
    let lanes = f(e, lanes);
    e.b.ins().extractlane(lanes, 0)
}

/// `c[0] + x * (c[1] + x * (...))`.
fn polynomial(e: &mut Emitter, x: Value, coefficients: &[f32]) -> Value {
    let (&last, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    let mut sum = e.floats(last);
    for &c in rest.iter().rev() {
        let c = e.floats(c);
        sum = e.multiply_add(sum, x, c);
    }
    sum
}

/// `e^x`: `x = n ln 2 + r`, a polynomial of degree 7 in `r` (SLEEF's), scaled by `2^n` in two
/// steps, so that subnormal results are rounded once.
pub fn exp(e: &mut Emitter, x: Value) -> Value {
    let (low, high) = (e.floats(-104.0), e.floats(89.0));
    let below = e.b.ins().fcmp(FloatCC::LessThan, x, low);
    let above = e.b.ins().fcmp(FloatCC::GreaterThan, x, high);
    let clamped = select(e, below, low, x);
    let x = select(e, above, high, clamped);
    let (n, n_bits) = round(e, x, std::f32::consts::LOG2_E);
    let r = reduce(e, x, n, &[0.693_145_75, 1.428_606_8e-6]);
    let value = exp_reduced(e, r);
    scale(e, value, n_bits)
}

/// `e^r` for `|r| <= 0.35`.
fn exp_reduced(e: &mut Emitter, r: Value) -> Value {
    let tail = polynomial(
        e,
        r,
        &[0.5, 0.166_666_67, 0.041_666_485, 0.008_333_361, 0.001_393_043_6, 0.000_198_527_62],
    );
    let one = e.floats(1.0);
    let square = e.b.ins().fmul(r, r);
    let sum = e.multiply_add(tail, square, r);
    e.b.ins().fadd(sum, one)
}

/// `factor * x` rounded to an integer: as a float, and as bits that hold it above [`ROUNDING`].
fn round(e: &mut Emitter, x: Value, factor: f32) -> (Value, Value) {
    let (factor, magic) = (e.floats(factor), e.floats(ROUNDING));
    let shifted = e.multiply_add(x, factor, magic);
    let n = e.b.ins().fsub(shifted, magic);
    (n, e.cast_bits(shifted, I32X4))
}

/// `x - n * (sum of parts)`, most significant part first.
fn reduce(e: &mut Emitter, x: Value, n: Value, parts: &[f32]) -> Value {
    parts.iter().fold(x, |rest, &part| {
        let part = e.floats(-part);
        e.multiply_add(n, part, rest)
    })
}

/// `x * 2^n`, where `n` stands above [`ROUNDING`] in `n_bits` and `|n| < 250`.
fn scale(e: &mut Emitter, x: Value, n_bits: Value) -> Value {
    let zero = e.ints(ROUNDING.to_bits() as i32);
    let n = e.b.ins().isub(n_bits, zero);
    let half = e.b.ins().sshr_imm_u(n, 1);
    let rest = e.b.ins().isub(n, half);
    [half, rest].into_iter().fold(x, |x, n| {
        let power = power_of_two(e, n);
        e.b.ins().fmul(x, power)
    })
}

/// `2^n` for `-127 < n < 128`.
fn power_of_two(e: &mut Emitter, n: Value) -> Value {
    let bias = e.ints(127);
    let exponent = e.b.ins().iadd(n, bias);
    let bits = e.b.ins().ishl_imm_u(exponent, 23);
    e.cast_bits(bits, F32X4)
}

/// The natural logarithm: `x = m 2^n` with `m` between `sqrt(1/2)` and `sqrt(2)`, and Cephes'
/// polynomial of degree 8 in `m - 1`.
pub fn log(e: &mut Emitter, x: Value) -> Value {
    let (m, n) = split(e, x);
    let t = m;
    let z = e.b.ins().fmul(t, t);
    let p = polynomial(
        e,
        t,
        &[
            0.333_333_3,
            -0.249_999_94,
            0.200_007_15,
            -0.166_680_58,
            0.142_493_23,
            -0.124_201_41,
            0.116_769_98,
            -0.115_146_1,
            0.070_376_836,
        ],
    );
    let cube = e.b.ins().fmul(t, z);
    let low = e.floats(-2.121_944_4e-4);
    let n_low = e.b.ins().fmul(n, low);
    let y = e.multiply_add(p, cube, n_low);
    let minus_half = e.floats(-0.5);
    let y = e.multiply_add(minus_half, z, y);
    let sum = e.b.ins().fadd(t, y);
    let high = e.floats(0.693_359_4);
    let value = e.multiply_add(n, high, sum);
    log_special(e, x, value)
}

/// What a logarithm is at 0, below, at infinity and at NaN.
fn log_special(e: &mut Emitter, x: Value, value: Value) -> Value {
    let (zero, infinity) = (e.floats(0.0), e.floats(f32::INFINITY));
    let (nan, minus_infinity) = (e.floats(f32::NAN), e.floats(f32::NEG_INFINITY));
    let is_finite = e.b.ins().fcmp(FloatCC::LessThan, x, infinity);
    let value = select(e, is_finite, value, x);
    let is_zero = e.b.ins().fcmp(FloatCC::Equal, x, zero);
    let value = select(e, is_zero, minus_infinity, value);
    let is_negative = e.b.ins().fcmp(FloatCC::LessThan, x, zero);
    select(e, is_negative, nan, value)
}

/// `m - 1` and `n`, where `x = m 2^n` and `m` lies between `sqrt(1/2)` and `sqrt(2)`; of positive
/// finite numbers, subnormal ones included.
fn split(e: &mut Emitter, x: Value) -> (Value, Value) {
    let least = e.floats(f32::MIN_POSITIVE);
    let is_subnormal = e.b.ins().fcmp(FloatCC::LessThan, x, least);
    let up = e.floats(8_388_608.0);
    let larger = e.b.ins().fmul(x, up);
    let x = select(e, is_subnormal, larger, x);
    let bits = e.cast_bits(x, I32X4);
    // Subtracting the bits of sqrt(1/2) leaves the exponent that makes m at least that.
    let root = e.ints(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
    let distance = e.b.ins().isub(bits, root);
    let n = e.b.ins().sshr_imm_u(distance, 23);
    let exponent = e.b.ins().ishl_imm_u(n, 23);
    let m = e.b.ins().isub(bits, exponent);
    let m = e.cast_bits(m, F32X4);
    let shift = e.ints(23);
    let shift = e.b.ins().band(is_subnormal, shift);
    let n = e.b.ins().isub(n, shift);
    let one = e.floats(1.0);
    (e.b.ins().fsub(m, one), e.b.ins().fcvt_from_sint(F32X4, n))
}

/// The hyperbolic tangent: an odd polynomial (Cephes') near 0, `1 - 2 / (e^2|x| + 1)` elsewhere.
pub fn tanh(e: &mut Emitter, x: Value) -> Value {
    let magnitude = e.b.ins().fabs(x);
    let square = e.b.ins().fmul(x, x);
    let p = polynomial(
        e,
        square,
        &[-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_09, -0.005_704_988_7],
    );
    let cube = e.b.ins().fmul(square, x);
    let near = e.multiply_add(p, cube, x);
    let (one, two) = (e.floats(1.0), e.floats(2.0));
    let double = e.b.ins().fadd(magnitude, magnitude);
    let power = exp(e, double);
    let denominator = e.b.ins().fadd(power, one);
    let quotient = e.b.ins().fdiv(two, denominator);
    let far = e.b.ins().fsub(one, quotient);
    let far = copy_sign(e, far, x);
    let limit = e.floats(0.625);
    let is_near = e.b.ins().fcmp(FloatCC::LessThan, magnitude, limit);
    select(e, is_near, near, far)
}

/// `1 / (1 + e^-x)`, through `e^-|x|`, so that small results keep their accuracy.
pub fn sigmoid(e: &mut Emitter, x: Value) -> Value {
    let magnitude = e.b.ins().fabs(x);
    let negative = e.b.ins().fneg(magnitude);
    let power = exp(e, negative);
    let (zero, one) = (e.floats(0.0), e.floats(1.0));
    let is_negative = e.b.ins().fcmp(FloatCC::LessThan, x, zero);
    let numerator = select(e, is_negative, power, one);
    let denominator = e.b.ins().fadd(power, one);
    e.b.ins().fdiv(numerator, denominator)
}

/// The error function: N. Juffa's two polynomials, meeting at 475/512.
pub fn erf(e: &mut Emitter, x: Value) -> Value {
    let t = e.b.ins().fabs(x);
    let square = e.b.ins().fmul(x, x);
    let high = polynomial(e, t, &[3.831_971_3e-4, -1.728_534_7e-5]);
    let low = polynomial(e, t, &[2.425_462_2e-2, -3.883_964_4e-3]);
    let mut far = e.multiply_add(high, square, low);
    for c in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        let c = e.floats(c);
        far = e.multiply_add(far, t, c);
    }
    let minus_t = e.b.ins().fneg(t);
    let exponent = e.multiply_add(far, t, minus_t);
    // Beyond 4 the result is 1, and the polynomial is no longer its own.
    let (four, one) = (e.floats(4.0), e.floats(1.0));
    let is_large = e.b.ins().fcmp(FloatCC::GreaterThan, t, four);
    let floor = e.floats(-104.0);
    let exponent = select(e, is_large, floor, exponent);
    let power = exp(e, exponent);
    let far = e.b.ins().fsub(one, power);
    let far = copy_sign(e, far, x);
    let p = polynomial(
        e,
        square,
        &[
            1.283_791_7e-1,
            -3.761_253_4e-1,
            1.128_199_3e-1,
            -2.676_813_5e-2,
            4.991_194_2e-3,
            -5.967_617e-4,
        ],
    );
    let near = e.multiply_add(p, x, x);
    let limit = e.floats(0.927_734_4);
    let is_far = e.b.ins().fcmp(FloatCC::GreaterThan, t, limit);
    select(e, is_far, far, near)
}

/// The sine.
pub fn sin(e: &mut Emitter, x: Value) -> Value {
    quarter_turns(e, x, 0)
}

/// The cosine.
pub fn cos(e: &mut Emitter, x: Value) -> Value {
    quarter_turns(e, x, 1)
}

/// `sin(x + turns * pi / 2)`: quarter turns are taken off in f64, the rest goes through Cephes'
/// polynomials.
fn quarter_turns(e: &mut Emitter, x: Value, turns: i32) -> Value {
    let (r, n) = reduce_quarter_turns(e, x);
    let turns = e.ints(turns);
    let quadrant = e.b.ins().iadd(n, turns);
    let square = e.b.ins().fmul(r, r);
    let p = polynomial(e, square, &[-0.166_666_55, 0.008_332_161, -1.951_529_6e-4]);
    let cube = e.b.ins().fmul(square, r);
    let sine = e.multiply_add(p, cube, r);
    let p = polynomial(e, square, &[0.041_666_646, -0.001_388_731_6, 2.443_315_7e-5]);
    let fourth = e.b.ins().fmul(square, square);
    let one = e.floats(1.0);
    let minus_half = e.floats(-0.5);
    let base = e.multiply_add(square, minus_half, one);
    let cosine = e.multiply_add(p, fourth, base);
    let (low, high) = (e.ints(1), e.ints(2));
    let odd = e.b.ins().band(quadrant, low);
    let odd = e.b.ins().icmp(IntCC::Equal, odd, low);
    let value = select(e, odd, cosine, sine);
    let sign = e.b.ins().band(quadrant, high);
    let sign = e.b.ins().ishl_imm_u(sign, 30);
    let bits = e.cast_bits(value, I32X4);
    let bits = e.b.ins().bxor(bits, sign);
    e.cast_bits(bits, F32X4)
}

/// `x - n pi/2` with `n` the nearest integer, and `n` modulo 2^32; in f64.
fn reduce_quarter_turns(e: &mut Emitter, x: Value) -> (Value, Value) {
    // 1.5 * 2^52: as [`ROUNDING`], for f64.
    const WIDE_ROUNDING: f64 = 6_755_399_441_055_744.0;
    let upper = load::shuffle(e, x, x, [2, 3, 2, 3]);
    let halves = [x, upper].map(|half| {
        let wide = e.b.ins().fvpromote_low(half);
        let [per_turn, magic] = [std::f64::consts::FRAC_2_PI, WIDE_ROUNDING].map(|c| wides(e, c));
        let turns = e.b.ins().fmul(wide, per_turn);
        let shifted = e.b.ins().fadd(turns, magic);
        let n = e.b.ins().fsub(shifted, magic);
        // pi/2 in two parts, the first of 33 bits.
        let rest =
            [1.570_796_326_734_125_6, 6.077_100_506_506_192e-11].iter().fold(wide, |x, &p| {
                let p = wides(e, p);
                let product = e.b.ins().fmul(n, p);
                e.b.ins().fsub(x, product)
            });
        (e.b.ins().fvdemote(rest), e.cast_bits(shifted, I32X4))
    });
    let [(r_low, n_low), (r_high, n_high)] = halves;
    let r = load::shuffle(e, r_low, r_high, [0, 1, 4, 5]);
    (r, load::shuffle(e, n_low, n_high, [0, 2, 4, 6]))
}

/// Two lanes of the same f64.
fn wides(e: &mut Emitter, value: f64) -> Value {
    let bits = value.to_bits();
    let (low, high) = (bits as u32, (bits >> 32) as u32);
    e.lanes([low, high, low, high], F64X2)
}

/// `x^y`; `exponent` is `y` if it is known. Small integers and halves are products and roots.
pub(super) fn pow(e: &mut Emitter, x: Value, y: Value, exponent: Option<f64>) -> Value {
    let one = like(e, x, 1.0);
    let product = |e: &mut Emitter, x: Value, n: i64| {
        let square = e.b.ins().fmul(x, x);
        match n {
            1 => x,
            2 => square,
            3 => e.b.ins().fmul(square, x),
            _ => e.b.ins().fmul(square, square),
        }
    };
    match exponent {
        Some(0.0) => one,
        Some(n) if n.fract() == 0.0 && (1.0..=4.0).contains(&n) => product(e, x, n as i64),
        Some(n) if n.fract() == 0.0 && (-2.0..=-1.0).contains(&n) => {
            let inverse = e.b.ins().fdiv(one, x);
            product(e, inverse, -n as i64)
        }
        Some(0.5) => {
            // Unlike a root, the power of -0 is 0 and that of -inf is inf.
            let zero = like(e, x, 0.0);
            let x = e.b.ins().fadd(x, zero);
            let root = e.b.ins().sqrt(x);
            let [low, high] = [f32::NEG_INFINITY, f32::INFINITY].map(|c| like(e, x, c.into()));
            let is_low = e.b.ins().fcmp(FloatCC::Equal, x, low);
            select(e, is_low, high, root)
        }
        _ => scalar_or_lanes(e, x, |e, x| {
            let y = if e.b.func.dfg.value_type(y).is_vector() { y } else { e.splat(y) };
            general_pow(e, x, y)
        }),
    }
}

/// `2^(y log2 |x|)` with the exponent in f64, then signs and the special cases of C99.
fn general_pow(e: &mut Emitter, x: Value, y: Value) -> Value {
    let magnitude = e.b.ins().fabs(x);
    let (t, n) = split(e, magnitude);
    let (r, n_bits) = scaled_log2(e, t, n, y);
    let ln_2 = e.floats(std::f32::consts::LN_2);
    let r = e.b.ins().fmul(r, ln_2);
    let value = exp_reduced(e, r);
    let value = scale(e, value, n_bits);
    pow_special(e, x, y, value)
}

/// `y * (n + log2(1 + t))` as fraction and integer above [`ROUNDING`], clamped to where `2^` of it
/// has left the range of f32.
fn scaled_log2(e: &mut Emitter, t: Value, n: Value, y: Value) -> (Value, Value) {
    let halves = [[0, 1, 0, 1], [2, 3, 2, 3]].map(|lanes| {
        let [t, n, y] = [t, n, y].map(|v| {
            let half = load::shuffle(e, v, v, lanes);
            e.b.ins().fvpromote_low(half)
        });
        let log = log2_1p(e, t);
        let sum = e.b.ins().fadd(n, log);
        let exponent = e.b.ins().fmul(sum, y);
        let (low, high) = (wides(e, -200.0), wides(e, 200.0));
        let exponent = clamp_wide(e, exponent, low, high);
        let magic = wides(e, 6_755_399_441_055_744.0);
        let shifted = e.b.ins().fadd(exponent, magic);
        let whole = e.b.ins().fsub(shifted, magic);
        let rest = e.b.ins().fsub(exponent, whole);
        let bits = e.cast_bits(shifted, I32X4);
        (e.b.ins().fvdemote(rest), bits)
    });
    let [(low, n_low), (high, n_high)] = halves;
    let rest = load::shuffle(e, low, high, [0, 1, 4, 5]);
    let whole = load::shuffle(e, n_low, n_high, [0, 2, 4, 6]);
    let base = e.ints(ROUNDING.to_bits() as i32);
    (rest, e.b.ins().iadd(whole, base))
}

fn clamp_wide(e: &mut Emitter, x: Value, low: Value, high: Value) -> Value {
    let below = e.b.ins().fcmp(FloatCC::LessThan, x, low);
    let x = select(e, below, low, x);
    let above = e.b.ins().fcmp(FloatCC::GreaterThan, x, high);
    select(e, above, high, x)
}

/// `log2(1 + t)` of two f64 lanes, `sqrt(1/2) <= 1 + t <= sqrt(2)`: the series of
/// `2 artanh(t / (2 + t))` to the 17th power, good to 5e-15.
fn log2_1p(e: &mut Emitter, t: Value) -> Value {
    let two = wides(e, 2.0);
    let denominator = e.b.ins().fadd(t, two);
    let s = e.b.ins().fdiv(t, denominator);
    let square = e.b.ins().fmul(s, s);
    let mut sum = wides(e, 1.0 / 17.0);
    for k in (0..8).rev() {
        let product = e.b.ins().fmul(sum, square);
        let c = wides(e, 1.0 / f64::from(2 * k + 1));
        sum = e.b.ins().fadd(product, c);
    }
    let series = e.b.ins().fmul(sum, s);
    let scale = wides(e, 2.0 * std::f64::consts::LOG2_E);
    e.b.ins().fmul(series, scale)
}

/// The value of `x^y` where signs, zeros, infinities and NaN decide it; else `value`, which is
/// right for positive finite `x` and finite `y`.
fn pow_special(e: &mut Emitter, x: Value, y: Value, value: Value) -> Value {
    let [zero, one, infinity, nan] = [0.0, 1.0, f32::INFINITY, f32::NAN].map(|c| e.floats(c));
    let magnitude = e.b.ins().fabs(x);
    let y_rises = e.b.ins().fcmp(FloatCC::GreaterThan, y, zero);
    // |x| is 0 or infinite: the power is 0 or infinite.
    let [large, small] =
        [(infinity, zero), (zero, infinity)].map(|(a, b)| select(e, y_rises, a, b));
    let is_zero = e.b.ins().fcmp(FloatCC::Equal, x, zero);
    let value = select(e, is_zero, small, value);
    let is_infinite = e.b.ins().fcmp(FloatCC::Equal, magnitude, infinity);
    let value = select(e, is_infinite, large, value);
    // |y| is infinite: so too, but for |x| = 1.
    let y_magnitude = e.b.ins().fabs(y);
    let y_infinite = e.b.ins().fcmp(FloatCC::Equal, y_magnitude, infinity);
    let grows = e.b.ins().fcmp(FloatCC::GreaterThan, magnitude, one);
    let limit = select(e, grows, large, small);
    let is_unit = e.b.ins().fcmp(FloatCC::Equal, magnitude, one);
    let limit = select(e, is_unit, one, limit);
    let value = select(e, y_infinite, limit, value);
    // Negative x: odd powers change the sign, broken ones are NaN but for 0 and infinities.
    let whole = e.b.ins().nearest(y);
    let y_whole = e.b.ins().fcmp(FloatCC::Equal, whole, y);
    let half = e.floats(0.5);
    let half_y = e.b.ins().fmul(y, half);
    let rounded = e.b.ins().nearest(half_y);
    let uneven = e.b.ins().fcmp(FloatCC::NotEqual, rounded, half_y);
    let odd = e.b.ins().band(y_whole, uneven);
    let sign_source = e.cast_bits(x, I32X4);
    let signed = e.b.ins().band(sign_source, odd);
    let sign_bit = e.ints(i32::MIN);
    let sign = e.b.ins().band(signed, sign_bit);
    let bits = e.cast_bits(value, I32X4);
    let bits = e.b.ins().bor(bits, sign);
    let value = e.cast_bits(bits, F32X4);
    let is_negative = e.b.ins().fcmp(FloatCC::LessThan, x, zero);
    let x_finite = e.b.ins().fcmp(FloatCC::LessThan, magnitude, infinity);
    let broken = e.b.ins().band_not(is_negative, y_whole);
    let broken = e.b.ins().band(broken, x_finite);
    let value = select(e, broken, nan, value);
    // NaN in, NaN out, but for 1^y and x^0.
    let unordered = e.b.ins().fcmp(FloatCC::Unordered, x, y);
    let value = select(e, unordered, nan, value);
    let x_one = e.b.ins().fcmp(FloatCC::Equal, x, one);
    let y_zero = e.b.ins().fcmp(FloatCC::Equal, y, zero);
    let trivial = e.b.ins().bor(x_one, y_zero);
    select(e, trivial, one, value)
}

/// The remainder of `x / y` with the sign of `y`; exact where the quotient has at most 24 bits.
pub(super) fn modulo(e: &mut Emitter, x: Value, y: Value) -> Value {
    let quotient = e.b.ins().fdiv(x, y);
    let whole = e.b.ins().floor(quotient);
    let minus = e.b.ins().fneg(whole);
    let rest = e.multiply_add(minus, y, x);
    // The rounded quotient may be one too large or too small.
    let zero = like(e, x, 0.0);
    let product = e.b.ins().fmul(rest, y);
    let opposite = e.b.ins().fcmp(FloatCC::LessThan, product, zero);
    let up = e.b.ins().fadd(rest, y);
    let rest = select(e, opposite, up, rest);
    let (size, limit) = (e.b.ins().fabs(rest), e.b.ins().fabs(y));
    let over = e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, size, limit);
    let down = e.b.ins().fsub(rest, y);
    let rest = select(e, over, down, rest);
    copy_sign(e, rest, y)
}
