//! What scalar operations mean, against values from outside: IEEE 754, Python, NumPy, tables.

use dlc_kernel::{BinaryOp, DType, FoldOp, Folding, UnaryOp, cast};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

#[track_caller]
fn unary(op: UnaryOp, x: f64, expected: f64) {
    close(op.eval(DType::F32, x), expected);
}

#[track_caller]
fn float(op: BinaryOp, a: f64, b: f64, expected: f64) {
    close(op.eval(DType::F32, a, b), expected);
}

#[track_caller]
fn int(op: BinaryOp, a: i32, b: i32, expected: i32) {
    assert_eq!(op.eval(DType::I32, a.into(), b.into()), f64::from(expected), "{op}({a}, {b})");
}

#[track_caller]
fn close(value: f64, expected: f64) {
    let equal = value == expected || (value.is_nan() && expected.is_nan());
    let near = (value - expected).abs() <= 4.0 * f64::EPSILON * expected.abs();
    assert!(equal || near, "{value:?} is not {expected:?}");
}

/// Abramowitz and Stegun, table 7.1, and WolframAlpha for the digits beyond.
#[test]
fn erf_against_tables() {
    unary(UnaryOp::Erf, 0.0, 0.0);
    unary(UnaryOp::Erf, 0.5, 0.520_499_877_813_046_5);
    unary(UnaryOp::Erf, -1.0, -0.842_700_792_949_714_9);
    unary(UnaryOp::Erf, 2.0, 0.995_322_265_018_952_7);
    unary(UnaryOp::Erf, INF, 1.0);
    unary(UnaryOp::Erf, NAN, NAN);
}

/// Abramowitz and Stegun, table 26.1 and 26.2.
#[test]
fn normal_cdf_against_tables() {
    unary(UnaryOp::NormalCdf, 0.0, 0.5);
    unary(UnaryOp::NormalCdf, 1.0, 0.841_344_746_068_542_9);
    unary(UnaryOp::NormalCdf, -2.0, 0.022_750_131_948_179_21);
    unary(UnaryOp::NormalCdf, -INF, 0.0);
    unary(UnaryOp::NormalCdf, INF, 1.0);
    unary(UnaryOp::NormalCdf, NAN, NAN);
}

#[test]
fn elementary_functions() {
    unary(UnaryOp::Exp, 1.0, std::f64::consts::E);
    unary(UnaryOp::Exp, -INF, 0.0);
    unary(UnaryOp::Log, 10.0, std::f64::consts::LN_10);
    unary(UnaryOp::Log, 0.0, -INF);
    unary(UnaryOp::Log, -1.0, NAN);
    unary(UnaryOp::Sqrt, 2.0, std::f64::consts::SQRT_2);
    unary(UnaryOp::Sqrt, -1.0, NAN);
    unary(UnaryOp::Rsqrt, 4.0, 0.5);
    unary(UnaryOp::Rsqrt, 0.0, INF);
    unary(UnaryOp::Sin, std::f64::consts::FRAC_PI_6, 0.5);
    unary(UnaryOp::Cos, std::f64::consts::FRAC_PI_3, 0.5);
    unary(UnaryOp::Tanh, 0.5, 0.462_117_157_260_009_8);
    unary(UnaryOp::Sigmoid, 0.0, 0.5);
    unary(UnaryOp::Sigmoid, 1.0, 0.731_058_578_630_004_9);
    unary(UnaryOp::Sigmoid, -INF, 0.0);
    unary(UnaryOp::Sigmoid, -1000.0, 0.0);
}

#[test]
fn rounding_and_signs() {
    for (x, floor, ceil, round, sign) in [
        (2.5, 2.0, 3.0, 2.0, 1.0),
        (-2.5, -3.0, -2.0, -2.0, -1.0),
        (3.5, 3.0, 4.0, 4.0, 1.0),
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (-INF, -INF, -INF, -INF, -1.0),
        (NAN, NAN, NAN, NAN, NAN),
    ] {
        unary(UnaryOp::Floor, x, floor);
        unary(UnaryOp::Ceil, x, ceil);
        unary(UnaryOp::Round, x, round);
        unary(UnaryOp::Sign, x, sign);
    }
    unary(UnaryOp::Abs, -INF, INF);
    assert_eq!(UnaryOp::Not.eval(DType::Bool, 0.0), 1.0);
    assert_eq!(UnaryOp::Not.eval(DType::Bool, 1.0), 0.0);
}

/// Python: `5.5 % -2 == -0.5`, `-5.5 % 2 == 0.5`, `1 % inf == 1`, `-1 % inf == inf`.
#[test]
fn float_remainders_and_quotients() {
    float(BinaryOp::Mod, 5.5, -2.0, -0.5);
    float(BinaryOp::Mod, -5.5, 2.0, 0.5);
    float(BinaryOp::Mod, 1.0, INF, 1.0);
    float(BinaryOp::Mod, -1.0, INF, INF);
    float(BinaryOp::Mod, 1.0, 0.0, NAN);
    assert!(BinaryOp::Mod.eval(DType::F32, 4.0, -2.0).is_sign_negative());
    float(BinaryOp::FloorDiv, -7.0, 2.0, -4.0);
    float(BinaryOp::FloorDiv, 7.0, 0.0, INF);
    float(BinaryOp::Div, -1.0, 0.0, -INF);
    float(BinaryOp::Div, 0.0, 0.0, NAN);
    float(BinaryOp::Pow, 2.0, 0.5, std::f64::consts::SQRT_2);
    float(BinaryOp::Pow, NAN, 0.0, 1.0);
    float(BinaryOp::Pow, -8.0, 1.0 / 3.0, NAN);
}

#[test]
fn nan_propagates_through_max_and_min_and_compares_unequal() {
    for op in [BinaryOp::Max, BinaryOp::Min] {
        float(op, NAN, 1.0, NAN);
        float(op, 1.0, NAN, NAN);
    }
    float(BinaryOp::Max, -INF, 3.0, 3.0);
    float(BinaryOp::Min, -INF, 3.0, -INF);
    for (op, a, b, holds) in [
        (BinaryOp::Eq, NAN, NAN, 0.0),
        (BinaryOp::Ne, NAN, NAN, 1.0),
        (BinaryOp::Lt, NAN, 1.0, 0.0),
        (BinaryOp::Le, 1.0, NAN, 0.0),
        (BinaryOp::Eq, 0.0, -0.0, 1.0),
        (BinaryOp::Lt, -INF, INF, 1.0),
    ] {
        float(op, a, b, holds);
    }
}

/// Rust's wrapping operations, and Python's `//` and `%`.
#[test]
fn integers_wrap() {
    int(BinaryOp::Add, i32::MAX, 1, i32::MIN);
    int(BinaryOp::Sub, i32::MIN, 1, i32::MAX);
    int(BinaryOp::Mul, 0x10001, 0x10001, 0x10001i32.wrapping_mul(0x10001));
    int(BinaryOp::Mul, i32::MIN, i32::MIN, 0);
    int(BinaryOp::Div, -7, 2, -3);
    int(BinaryOp::Div, i32::MIN, -1, i32::MIN);
    int(BinaryOp::FloorDiv, -7, 2, -4);
    int(BinaryOp::FloorDiv, 7, -2, -4);
    int(BinaryOp::FloorDiv, -8, 2, -4);
    int(BinaryOp::Mod, -7, 2, 1);
    int(BinaryOp::Mod, 7, -2, -1);
    int(BinaryOp::Mod, -8, 4, 0);
    for op in [BinaryOp::Div, BinaryOp::FloorDiv, BinaryOp::Mod] {
        int(op, 5, 0, 0);
    }
    int(BinaryOp::Pow, 3, 4, 81);
    int(BinaryOp::Pow, 3, 21, 3i32.wrapping_pow(21));
    int(BinaryOp::Pow, -1, -3, -1);
    int(BinaryOp::Pow, 2, -1, 0);
    int(BinaryOp::Pow, 0, 0, 1);
    assert_eq!(UnaryOp::Neg.eval(DType::I32, i32::MIN.into()), i32::MIN.into());
    assert_eq!(UnaryOp::Abs.eval(DType::I32, i32::MIN.into()), i32::MIN.into());
    assert_eq!(UnaryOp::Neg.eval(DType::U8, 1.0), 255.0);
    assert_eq!(BinaryOp::Sub.eval(DType::U8, 3.0, 5.0), 254.0);
    assert_eq!(BinaryOp::Mul.eval(DType::U8, 16.0, 17.0), 16.0);
}

#[test]
fn casts_truncate_and_saturate() {
    for (dtype, x, expected) in [
        (DType::I32, -1.9, -1.0),
        (DType::I32, 3e9, i32::MAX.into()),
        (DType::I32, -INF, i32::MIN.into()),
        (DType::I32, NAN, 0.0),
        (DType::U8, 255.9, 255.0),
        (DType::U8, -1.0, 0.0),
        (DType::I8, 200.0, 127.0),
        (DType::Bool, -0.0, 0.0),
        (DType::Bool, NAN, 1.0),
        (DType::Bool, 0.1, 1.0),
        (DType::F32, 0.1, 0.1),
    ] {
        assert_eq!(cast(dtype, x), expected, "{x} as {dtype}");
    }
}

fn fold(op: FoldOp, dtype: DType, elements: &[f64]) -> f64 {
    let mut folding = Folding::new(op, dtype);
    elements.iter().for_each(|&x| folding.push(x));
    folding.result()
}

#[test]
fn folds() {
    let of = |op, elements: &[f64]| fold(op, DType::F32, elements);
    assert_eq!(of(FoldOp::Sum, &[1.0, 2.0, 4.0]), 7.0);
    assert_eq!(of(FoldOp::Prod, &[2.0, -3.0]), -6.0);
    assert_eq!(of(FoldOp::Max, &[-2.0, -3.0]), -2.0);
    assert_eq!(of(FoldOp::Min, &[-2.0, -3.0]), -3.0);
    assert!(of(FoldOp::Max, &[1.0, NAN, 2.0]).is_nan());
    assert_eq!(fold(FoldOp::Sum, DType::I32, &[f64::from(i32::MAX), 1.0]), i32::MIN.into());
}

#[test]
fn empty_folds_are_neutral() {
    assert_eq!(fold(FoldOp::Sum, DType::F32, &[]), 0.0);
    assert_eq!(fold(FoldOp::Prod, DType::F32, &[]), 1.0);
    assert_eq!(fold(FoldOp::Max, DType::F32, &[]), -INF);
    assert_eq!(fold(FoldOp::Min, DType::F32, &[]), INF);
    assert_eq!(fold(FoldOp::ArgMax, DType::F32, &[]), 0.0);
    assert_eq!(fold(FoldOp::Max, DType::I32, &[]), i32::MIN.into());
    assert_eq!(fold(FoldOp::Min, DType::U8, &[]), 255.0);
    assert_eq!(fold(FoldOp::Max, DType::Bool, &[]), 0.0);
    assert_eq!(fold(FoldOp::Min, DType::Bool, &[]), 1.0);
}

/// `numpy.argmax` and `numpy.argmin`: the first of equals, NaN before all others.
#[test]
fn positions() {
    let of = |op, elements: &[f64]| fold(op, DType::F32, elements);
    assert_eq!(of(FoldOp::ArgMax, &[1.0, 3.0, 3.0]), 1.0);
    assert_eq!(of(FoldOp::ArgMin, &[2.0, 1.0, 1.0]), 1.0);
    assert_eq!(of(FoldOp::ArgMax, &[1.0, NAN, 9.0, NAN]), 1.0);
    assert_eq!(of(FoldOp::ArgMin, &[NAN, -9.0]), 0.0);
    assert_eq!(of(FoldOp::ArgMax, &[-INF, -INF]), 0.0);
}
