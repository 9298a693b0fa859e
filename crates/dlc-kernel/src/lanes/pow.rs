//! Powers: `2^(y log2 |x|)`, the exponent in f64, then signs and the special cases of C99.

use super::math::{POWER_OF_TWO, WIDE_ROUNDING, abs, constant, polynomial, scale, split};
use super::{Binary, Compare, Lanes, Unary, Vector};

/// `x^y`; small integer and half exponents are products and roots.
pub fn pow(l: &mut Lanes, x: Vector, y: Vector) -> Vector {
    let one = l.float(1.0);
    let product = |l: &mut Lanes, x: Vector, n: i64| {
        let square = l.product(x, x);
        match n {
            1 => x,
            2 => square,
            3 => l.product(square, x),
            _ => l.product(square, square),
        }
    };
    match constant(l, y) {
        Some(0.0) => one,
        Some(n) if n.fract() == 0.0 && (1.0..=4.0).contains(&n) => product(l, x, n as i64),
        Some(n) if n.fract() == 0.0 && (-2.0..=-1.0).contains(&n) => {
            let inverse = l.quotient(one, x);
            product(l, inverse, -n as i64)
        }
        Some(0.5) => {
            // Unlike a root, the power of -0 is 0 and that of -inf is inf.
            let zero = l.float(0.0);
            let x = l.sum(x, zero);
            let root = l.unary(Unary::Sqrt, x);
            let [low, high] = [f32::NEG_INFINITY, f32::INFINITY].map(|c| l.float(c));
            let is_low = l.compare(Compare::Eq, x, low);
            l.select(is_low, high, root)
        }
        _ => general_pow(l, x, y),
    }
}

/// `2^(y log2 |x|)` with the exponent in f64, then signs and the special cases of C99.
fn general_pow(l: &mut Lanes, x: Vector, y: Vector) -> Vector {
    let magnitude = abs(l, x);
    let (t, n) = split(l, magnitude);
    let (r, n_bits) = scaled_log2(l, t, n, y);
    let value = polynomial(l, r, &POWER_OF_TWO);
    let value = scale(l, value, n_bits);
    pow_special(l, x, y, value)
}

/// `y * (n + log2(1 + t))` as fraction and integer in the low bits, clamped to where `2^` of it has
/// left the range of f32.
fn scaled_log2(l: &mut Lanes, t: Vector, n: Vector, y: Vector) -> (Vector, Vector) {
    let halves = [Unary::Lower, Unary::Upper].map(|half| {
        let [t, n, y] = [t, n, y].map(|v| l.unary(half, v));
        let log = log2_1p(l, t);
        let sum = l.sum(n, log);
        let exponent = l.product(sum, y);
        let (low, high) = (l.wide(-200.0), l.wide(200.0));
        let exponent = l.max(low, exponent);
        let exponent = l.min(high, exponent);
        let magic = l.wide(WIDE_ROUNDING);
        let shifted = l.sum(exponent, magic);
        let whole = l.difference(shifted, magic);
        (l.difference(exponent, whole), shifted)
    });
    let [(low, n_low), (high, n_high)] = halves;
    let rest = l.binary(Binary::Join, low, high);
    (rest, l.binary(Binary::JoinBits, n_low, n_high))
}

/// `log2(1 + t)` of one half, `sqrt(1/2) <= 1 + t <= sqrt(2)`: the series of
/// `2 artanh(t / (2 + t))` to the 17th power, good to 5e-15.
fn log2_1p(l: &mut Lanes, t: Vector) -> Vector {
    let two = l.wide(2.0);
    let denominator = l.sum(t, two);
    let s = l.quotient(t, denominator);
    let square = l.product(s, s);
    let mut sum = l.wide(1.0 / 17.0);
    for k in (0..8).rev() {
        let c = l.wide(1.0 / f64::from(2 * k + 1));
        sum = l.fma(sum, square, c);
    }
    let series = l.product(sum, s);
    let scale = l.wide(2.0 * std::f64::consts::LOG2_E);
    l.product(series, scale)
}

/// The value of `x^y` where signs, zeros, infinities and NaN decide it; else `value`, which is
/// right for positive finite `x` and finite `y`.
fn pow_special(l: &mut Lanes, x: Vector, y: Vector, value: Vector) -> Vector {
    let value = pow_limits(l, x, y, value);
    let value = pow_of_negative(l, x, y, value);
    // NaN in, NaN out, but for 1^y and x^0.
    let [zero, one, nan] = [0.0, 1.0, f32::NAN].map(|c| l.float(c));
    let unordered = l.compare(Compare::Unordered, x, y);
    let value = l.select(unordered, nan, value);
    let x_one = l.compare(Compare::Eq, x, one);
    let y_zero = l.compare(Compare::Eq, y, zero);
    let trivial = l.or(x_one, y_zero);
    l.select(trivial, one, value)
}

/// Zero and infinite bases and exponents, signs apart.
fn pow_limits(l: &mut Lanes, x: Vector, y: Vector, value: Vector) -> Vector {
    let [zero, one, infinity] = [0.0, 1.0, f32::INFINITY].map(|c| l.float(c));
    let magnitude = abs(l, x);
    let y_rises = l.compare(Compare::Lt, zero, y);
    // |x| is 0 or infinite: the power is 0 or infinite.
    let [large, small] = [(infinity, zero), (zero, infinity)].map(|(a, b)| l.select(y_rises, a, b));
    let is_zero = l.compare(Compare::Eq, x, zero);
    let value = l.select(is_zero, small, value);
    let is_infinite = l.compare(Compare::Eq, magnitude, infinity);
    let value = l.select(is_infinite, large, value);
    // |y| is infinite: so too, but for |x| = 1.
    let y_magnitude = abs(l, y);
    let y_infinite = l.compare(Compare::Eq, y_magnitude, infinity);
    let grows = l.compare(Compare::Lt, one, magnitude);
    let limit = l.select(grows, large, small);
    let is_unit = l.compare(Compare::Eq, magnitude, one);
    let limit = l.select(is_unit, one, limit);
    l.select(y_infinite, limit, value)
}

/// Negative `x`: odd powers change the sign, broken ones are NaN but for 0 and infinities.
fn pow_of_negative(l: &mut Lanes, x: Vector, y: Vector, value: Vector) -> Vector {
    let [zero, half, infinity, nan] = [0.0, 0.5, f32::INFINITY, f32::NAN].map(|c| l.float(c));
    let whole = l.unary(Unary::Nearest, y);
    let y_whole = l.compare(Compare::Eq, whole, y);
    let half_y = l.product(y, half);
    let rounded = l.unary(Unary::Nearest, half_y);
    let uneven = l.compare(Compare::Ne, rounded, half_y);
    let odd = l.and(y_whole, uneven);
    let sign_bit = l.float(-0.0);
    let sign = l.and(x, sign_bit);
    let sign = l.select(odd, sign, zero);
    let value = l.or(value, sign);
    let is_negative = l.compare(Compare::Lt, x, zero);
    let magnitude = abs(l, x);
    let x_finite = l.compare(Compare::Lt, magnitude, infinity);
    let broken = l.binary(Binary::AndNot, y_whole, is_negative);
    let broken = l.and(broken, x_finite);
    l.select(broken, nan, value)
}
