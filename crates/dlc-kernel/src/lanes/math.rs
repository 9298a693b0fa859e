//! Elementary functions as polynomials on lanes.
//!
//! Infinities, NaN and subnormal arguments and results are as IEEE 754 and C99 have them. The
//! largest errors stand in `docs/accuracy.md`; `cargo run --release -p dlc-cpu --example ulp`
//! measures them.

use super::{Binary, Compare, Kind, Lanes, Op, Shift, Sign, Unary, Vector};

/// 1.5 * 2^23: adding it rounds to an integer that then stands in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// 1.5 * 2^52: as [`ROUNDING`], for f64.
pub(super) const WIDE_ROUNDING: f64 = 6_755_399_441_055_744.0;

/// `c[0] + x * (c[1] + x * (...))`.
pub(super) fn polynomial(l: &mut Lanes, x: Vector, coefficients: &[f32]) -> Vector {
    let (&last, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    let mut sum = l.float(last);
    for &c in rest.iter().rev() {
        let c = l.float(c);
        sum = l.fma(sum, x, c);
    }
    sum
}

/// `|x|`.
pub fn abs(l: &mut Lanes, x: Vector) -> Vector {
    let sign = l.float(-0.0);
    l.binary(Binary::AndNot, sign, x)
}

/// `-x`.
pub fn negate(l: &mut Lanes, x: Vector) -> Vector {
    let sign = l.float(-0.0);
    l.xor(x, sign)
}

/// `magnitude`, which has no sign of its own, with the sign of `sign`.
pub fn with_sign(l: &mut Lanes, magnitude: Vector, sign: Vector) -> Vector {
    let mask = l.float(-0.0);
    let sign = l.and(sign, mask);
    l.or(magnitude, sign)
}

/// `e^x`: `x = n/4 ln 2 + r`, and `2^(n/4)` times a polynomial in `r`. The power is made in two
/// parts of half its exponent, the second of which is multiplied last: subnormal results are
/// rounded only then, too large ones become infinite.
pub fn exp(l: &mut Lanes, x: Vector) -> Vector {
    if l.sign(x) == Sign::NotPositive {
        return exp_not_above_one(l, x);
    }
    let high = l.float(89.0);
    // The second operand is what NaN gives.
    let x = l.min(high, x);
    let (r, n_bits) = quarters(l, x);
    let half = l.shift(Shift::Arithmetic, n_bits, 3);
    let half = l.shift(Shift::Left, half, 23);
    let first = quarter_power(l, n_bits, 0);
    let first = l.difference(first, half);
    let value = times_exp(l, first, r);
    let one = l.int(1f32.to_bits() as i32);
    let second = l.sum(half, one);
    let second = l.unary(Unary::AsFloat, second);
    l.product(value, second)
}

/// `e^x` for `x <= 0`, or NaN: here the second part is the same for all.
fn exp_not_above_one(l: &mut Lanes, x: Vector) -> Vector {
    const UP: i32 = 100;
    let (r, n_bits) = quarters(l, x);
    let power = quarter_power(l, n_bits, UP);
    let value = times_exp(l, power, r);
    let down = l.float(2f32.powi(-UP));
    l.product(value, down)
}

/// `x` as `n/4 ln 2 + r`: `r`, and `n` in the low bits. Below -104 all powers are 0.
fn quarters(l: &mut Lanes, x: Vector) -> (Vector, Vector) {
    let low = l.float(-104.0);
    let x = l.max(low, x);
    let (n, n_bits) = round(l, x, 4.0 * std::f32::consts::LOG2_E);
    (reduce(l, x, n, &[0.173_278_81, 7.986_546e-6]), n_bits)
}

/// The bits of `2^(n/4 + up)`, where `n` stands in the low bits: a table of four, from which what
/// the low bits of `n` become in the mantissa is taken before.
fn quarter_power(l: &mut Lanes, n_bits: Vector, up: i32) -> Vector {
    let roots = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_9];
    let mut table = roots.map(|root: f32| root.to_bits() + ((up as u32) << 23));
    table.iter_mut().zip(0..).for_each(|(bits, n)| *bits -= n << 21);
    let root = l.pick(table, n_bits);
    let exponent = l.shift(Shift::Left, n_bits, 21);
    l.sum(root, exponent)
}

/// `2^p e^r`, where the bits of the power are given: minimax of degree 4, relative, for
/// `|r| <= 0.0868`; its own error is 0.05 ULP.
fn times_exp(l: &mut Lanes, power_bits: Vector, r: Vector) -> Vector {
    let power = l.unary(Unary::AsFloat, power_bits);
    let slope = polynomial(l, r, &[1.0, 0.499_999_97, 0.166_721_25, 0.041_680_913]);
    let scaled = l.product(power, r);
    l.fma(scaled, slope, power)
}

/// `2^f` for `|f| <= 1/2`: minimax of degree 6, relative; its own error is 0.03 ULP.
pub(super) const POWER_OF_TWO: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_48,
    0.055_503_324,
    0.009_618_437,
    0.001_339_887_5,
    0.000_153_533_62,
];

/// The same of degree 5: 1.5 ULP.
#[allow(clippy::approx_constant, reason = "the best coefficient is not that of the series")]
const COARSE_POWER_OF_TWO: [f32; 6] =
    [1.0, 0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];

/// `x` as a fraction of at most 1/2, and an integer in the low bits.
fn fraction(l: &mut Lanes, x: Vector) -> (Vector, Vector) {
    let magic = l.float(ROUNDING);
    let shifted = l.sum(x, magic);
    let n = l.difference(shifted, magic);
    (l.difference(x, n), l.unary(Unary::AsInt, shifted))
}

/// `factor * x` rounded to an integer: as a float, and in the low bits.
fn round(l: &mut Lanes, x: Vector, factor: f32) -> (Vector, Vector) {
    let (factor, magic) = (l.float(factor), l.float(ROUNDING));
    let shifted = l.fma(x, factor, magic);
    let n = l.difference(shifted, magic);
    (n, l.unary(Unary::AsInt, shifted))
}

/// `x - n * (sum of parts)`, most significant part first.
fn reduce(l: &mut Lanes, x: Vector, n: Vector, parts: &[f32]) -> Vector {
    parts.iter().fold(x, |rest, &part| {
        let part = l.float(-part);
        l.fma(n, part, rest)
    })
}

/// `x * 2^n`, where `n` stands in the low bits, 0 in the next ones, and `|n| < 250`.
pub(super) fn scale(l: &mut Lanes, x: Vector, n_bits: Vector) -> Vector {
    let half = l.shift(Shift::Arithmetic, n_bits, 1);
    let rest = l.difference(n_bits, half);
    let x = scale_once(l, x, half);
    scale_once(l, x, rest)
}

/// `x * 2^n`, where `n` stands in the low 9 bits and `-127 < n < 128`.
fn scale_once(l: &mut Lanes, x: Vector, n_bits: Vector) -> Vector {
    let exponent = l.shift(Shift::Left, n_bits, 23);
    let one = l.int(1f32.to_bits() as i32);
    let bits = l.sum(exponent, one);
    let power = l.unary(Unary::AsFloat, bits);
    l.product(x, power)
}

/// [`scale_once`] where `x` is a number and the result is normal.
fn shift_exponent(l: &mut Lanes, x: Vector, n_bits: Vector) -> Vector {
    let exponent = l.shift(Shift::Left, n_bits, 23);
    let bits = l.unary(Unary::AsInt, x);
    let bits = l.sum(bits, exponent);
    l.unary(Unary::AsFloat, bits)
}

/// The natural logarithm: `x = m 2^n` with `m` between `sqrt(1/2)` and `sqrt(2)`, and Cephes'
/// polynomial of degree 8 in `m - 1`.
pub fn log(l: &mut Lanes, x: Vector) -> Vector {
    let (t, n) = split(l, x);
    let square = l.product(t, t);
    let p = polynomial(
        l,
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
    let cube = l.product(t, square);
    let low = l.float(-2.121_944_4e-4);
    let n_low = l.product(n, low);
    let y = l.fma(p, cube, n_low);
    let minus_half = l.float(-0.5);
    let y = l.fma(minus_half, square, y);
    let sum = l.sum(t, y);
    let high = l.float(0.693_359_4);
    let value = l.fma(n, high, sum);
    log_special(l, x, value)
}

/// What a logarithm is at 0, below, at infinity and at NaN.
fn log_special(l: &mut Lanes, x: Vector, value: Vector) -> Vector {
    let (zero, infinity) = (l.float(0.0), l.float(f32::INFINITY));
    let (nan, minus_infinity) = (l.float(f32::NAN), l.float(f32::NEG_INFINITY));
    let is_finite = l.compare(Compare::Lt, x, infinity);
    let value = l.select(is_finite, value, x);
    let is_zero = l.compare(Compare::Eq, x, zero);
    let value = l.select(is_zero, minus_infinity, value);
    let is_negative = l.compare(Compare::Lt, x, zero);
    l.select(is_negative, nan, value)
}

/// `m - 1` and `n`, where `x = m 2^n` and `m` lies between `sqrt(1/2)` and `sqrt(2)`; of positive
/// finite numbers, subnormal ones included.
pub(super) fn split(l: &mut Lanes, x: Vector) -> (Vector, Vector) {
    let least = l.float(f32::MIN_POSITIVE);
    let is_subnormal = l.compare(Compare::Lt, x, least);
    let up = l.float(8_388_608.0);
    let larger = l.product(x, up);
    let x = l.select(is_subnormal, larger, x);
    let bits = l.unary(Unary::AsInt, x);
    // Subtracting the bits of sqrt(1/2) leaves the exponent that makes m at least that.
    let root = l.int(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
    let distance = l.difference(bits, root);
    let n = l.shift(Shift::Arithmetic, distance, 23);
    let exponent = l.shift(Shift::Left, n, 23);
    let m = l.difference(bits, exponent);
    let m = l.unary(Unary::AsFloat, m);
    let shift = l.int(23);
    let is_subnormal = l.unary(Unary::AsInt, is_subnormal);
    let shift = l.and(is_subnormal, shift);
    let n = l.difference(n, shift);
    let one = l.float(1.0);
    (l.difference(m, one), l.unary(Unary::ToFloat, n))
}

/// The hyperbolic tangent: an odd polynomial (Cephes') near 0, `1 - 2 / (e^2|x| + 1)` elsewhere.
pub fn tanh(l: &mut Lanes, x: Vector) -> Vector {
    let magnitude = abs(l, x);
    let square = l.product(x, x);
    let p = polynomial(
        l,
        square,
        &[-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_09, -0.005_704_988_7],
    );
    let cube = l.product(square, x);
    let near = l.fma(p, cube, x);
    // From 10 on the result is 1.
    let (largest, factor) = (l.float(10.0), l.float(2.0 * std::f32::consts::LOG2_E));
    let t = l.min(largest, magnitude);
    let exponent = l.product(t, factor);
    let (f, n_bits) = fraction(l, exponent);
    let power = polynomial(l, f, &POWER_OF_TWO);
    let power = scale_once(l, power, n_bits);
    let (one, two) = (l.float(1.0), l.float(2.0));
    let denominator = l.sum(power, one);
    let quotient = l.quotient(two, denominator);
    let far = l.difference(one, quotient);
    let far = with_sign(l, far, x);
    let limit = l.float(0.625);
    let is_near = l.compare(Compare::Lt, magnitude, limit);
    l.select(is_near, near, far)
}

/// `1 / (1 + e^-x)`: with `p = e^-|x|` and `q = p / (1 + p)` it is `1 - q` or, for negative `x`,
/// `p - p q`, which keeps the accuracy of small results.
pub fn sigmoid(l: &mut Lanes, x: Vector) -> Vector {
    let sign = l.float(-0.0);
    let negative = l.or(x, sign);
    let p = exp(l, negative);
    let (zero, one) = (l.float(0.0), l.float(1.0));
    let denominator = l.sum(p, one);
    let q = l.quotient(p, denominator);
    let minus_q = negate(l, q);
    let below = l.fma(p, minus_q, p);
    let above = l.difference(one, q);
    let is_negative = l.compare(Compare::Lt, x, zero);
    l.select(is_negative, below, above)
}

/// The error function of `t = |x|`, then the sign: `t + t p(t^2)` below 0.9 (minimax, 0.7 ULP),
/// `1 - 2^(t q(t))` above, where `q` is a minimax for `log2(erfc(t)) / t`, weighted by what becomes
/// of its error (0.06 ULP).
pub fn erf(l: &mut Lanes, x: Vector) -> Vector {
    // From 4 on the result is 1.
    let (largest, magnitude) = (l.float(4.0), abs(l, x));
    let t = l.min(largest, magnitude);
    let q = polynomial(
        l,
        t,
        &[
            -1.628_129_6,
            -0.917_053_7,
            -0.151_985_53,
            0.033_103_79,
            -0.004_663_468_3,
            0.000_311_795_9,
        ],
    );
    let exponent = l.product(t, q);
    let (f, n_bits) = fraction(l, exponent);
    let power = polynomial(l, f, &COARSE_POWER_OF_TWO);
    let power = shift_exponent(l, power, n_bits);
    let one = l.float(1.0);
    let far = l.difference(one, power);
    let square = l.product(t, t);
    let p = polynomial(
        l,
        square,
        &[
            0.128_379_15,
            -0.376_125_25,
            0.112_821_41,
            -0.026_778_908,
            0.005_011_962_7,
            -0.000_609_036,
        ],
    );
    let near = l.fma(p, t, t);
    let limit = l.float(0.9);
    let is_far = l.compare(Compare::Lt, limit, t);
    let value = l.select(is_far, far, near);
    with_sign(l, value, x)
}

/// How much of a normal distribution lies below `x`, with an error of about 2^-25. Of `t = |x|`,
/// `2^(-1 - t q(t))` is below `-t`: `q` is a minimax for `-log2(2 cdf(-t)) / t`, weighted by what becomes of its
/// error. With `t q = n + g` that is `s - s g r(g)` with `s = 2^(-1 - n)`. Above `x` is 1 less that: as only
/// the last sum is rounded, neither side is off by more.
pub fn normal_cdf(l: &mut Lanes, x: Vector) -> Vector {
    let t = abs(l, x);
    let q = polynomial(
        l,
        t,
        &[
            1.151_104_3,
            0.459_220_68,
            0.052_437_812,
            -0.006_936_766,
            -0.000_009_328_333,
            0.000_281_105_95,
            -0.000_073_919_015,
            0.000_009_379_43,
            -0.000_000_500_235_9,
        ],
    );
    let magic = l.float(ROUNDING);
    let shifted = l.fma(t, q, magic);
    let less = l.difference(magic, shifted);
    let g = l.fma(t, q, less);
    // `(1 - 2^-g) / g`
    let sign = |k: usize| if k.is_multiple_of(2) { 1.0 } else { -1.0 };
    let r: [f32; 6] = std::array::from_fn(|k| sign(k) * POWER_OF_TWO[k + 1]);
    let r = polynomial(l, g, &r);
    // `s`, with the sign of `x`.
    let half = l.float(0.5);
    let (signed, n_bits) = (with_sign(l, half, x), l.unary(Unary::AsInt, shifted));
    let (signed, n_bits) = (l.unary(Unary::AsInt, signed), l.shift(Shift::Left, n_bits, 23));
    let s = l.difference(signed, n_bits);
    let s = l.unary(Unary::AsFloat, s);
    // 1 above 0, which the sign bit decides.
    let (bits, one) = (l.unary(Unary::AsInt, x), l.float(1.0));
    let is_negative = l.shift(Shift::Arithmetic, bits, 31);
    let is_negative = l.unary(Unary::AsFloat, is_negative);
    let limit = l.binary(Binary::AndNot, is_negative, one);
    let (base, slope) = (l.difference(limit, s), l.product(s, g));
    let value = l.fma(slope, r, base);
    let largest = l.float(5.656_854);
    let is_beyond = l.compare(Compare::Lt, largest, t);
    l.select(is_beyond, limit, value)
}

/// `1 / sqrt(x)`, in f64.
pub fn rsqrt(l: &mut Lanes, x: Vector) -> Vector {
    let halves = [Unary::Lower, Unary::Upper].map(|half| {
        let wide = l.unary(half, x);
        let root = l.unary(Unary::Sqrt, wide);
        let one = l.wide(1.0);
        l.quotient(one, root)
    });
    l.binary(Binary::Join, halves[0], halves[1])
}

/// The sine.
pub fn sin(l: &mut Lanes, x: Vector) -> Vector {
    quarter_turns(l, x, 0)
}

/// The cosine.
pub fn cos(l: &mut Lanes, x: Vector) -> Vector {
    quarter_turns(l, x, 1)
}

/// `sin(x + turns * pi / 2)`: quarter turns are taken off in f64, the rest goes through Cephes'
/// polynomials.
fn quarter_turns(l: &mut Lanes, x: Vector, turns: i32) -> Vector {
    let (r, n) = reduce_quarter_turns(l, x);
    let turns = l.int(turns);
    let quadrant = l.sum(n, turns);
    let square = l.product(r, r);
    let p = polynomial(l, square, &[-0.166_666_55, 0.008_332_161, -1.951_529_6e-4]);
    let cube = l.product(square, r);
    let sine = l.fma(p, cube, r);
    let p = polynomial(l, square, &[0.041_666_646, -0.001_388_731_6, 2.443_315_7e-5]);
    let fourth = l.product(square, square);
    let one = l.float(1.0);
    let minus_half = l.float(-0.5);
    let base = l.fma(square, minus_half, one);
    let cosine = l.fma(p, fourth, base);
    let (low, high) = (l.int(1), l.int(2));
    let odd = l.and(quadrant, low);
    let odd = l.compare(Compare::Eq, odd, low);
    let value = l.select(odd, cosine, sine);
    let sign = l.and(quadrant, high);
    let sign = l.shift(Shift::Left, sign, 30);
    let sign = l.unary(Unary::AsFloat, sign);
    l.xor(value, sign)
}

/// `x - n pi/2` with `n` the nearest integer, and `n` modulo 2^32; in f64.
fn reduce_quarter_turns(l: &mut Lanes, x: Vector) -> (Vector, Vector) {
    let halves = [Unary::Lower, Unary::Upper].map(|half| {
        let wide = l.unary(half, x);
        let [per_turn, magic] = [std::f64::consts::FRAC_2_PI, WIDE_ROUNDING].map(|c| l.wide(c));
        let turns = l.product(wide, per_turn);
        let shifted = l.sum(turns, magic);
        let n = l.difference(shifted, magic);
        // pi/2 in two parts, the first of 33 bits.
        let rest =
            [1.570_796_326_734_125_6, 6.077_100_506_506_192e-11].iter().fold(wide, |x, &p| {
                let p = l.wide(p);
                let product = l.product(n, p);
                l.difference(x, product)
            });
        (rest, shifted)
    });
    let [(low, n_low), (high, n_high)] = halves;
    (l.binary(Binary::Join, low, high), l.binary(Binary::JoinBits, n_low, n_high))
}

/// The number that all lanes of `x` are known to be.
pub fn constant(l: &Lanes, x: Vector) -> Option<f32> {
    match l.op(x) {
        Op::Const(Kind::F32, bits) => Some(f32::from_bits(bits as u32)),
        _ => None,
    }
}

/// The remainder of `x / y` with the sign of `y`; exact where the quotient has at most 24 bits.
pub fn modulo(l: &mut Lanes, x: Vector, y: Vector) -> Vector {
    let quotient = l.quotient(x, y);
    let whole = l.unary(Unary::Floor, quotient);
    let minus = negate(l, whole);
    let rest = l.fma(minus, y, x);
    // The rounded quotient may be one too large or too small.
    let zero = l.float(0.0);
    let product = l.product(rest, y);
    let opposite = l.compare(Compare::Lt, product, zero);
    let up = l.sum(rest, y);
    let rest = l.select(opposite, up, rest);
    let (size, limit) = (abs(l, rest), abs(l, y));
    let over = l.compare(Compare::Le, limit, size);
    let down = l.difference(rest, y);
    let rest = l.select(over, down, rest);
    let size = abs(l, rest);
    with_sign(l, size, y)
}
