//! How exact activations are that the library makes of several functions: errors in units in the
//! last place, as in docs/accuracy.md, against CORE-MATH.

use dlc::{Compiler, Tensor};

/// The results of a body over `x` that gives a tuple of tensors like it.
fn results(body: &str, x: &[f32]) -> Vec<Vec<f32>> {
    let text = format!("model M(x: f32[N]) {{ {body} }}");
    let module = Compiler::new().compile_text("m.dl", &text).unwrap();
    let network = module.model("M").unwrap().bind([("N", x.len() as i64)]).unwrap();
    let outputs = network.run(&[("x", &Tensor::f32([x.len()], x.to_vec()))]).unwrap();
    outputs.iter().map(|(_, tensor)| tensor.as_f32().unwrap().to_vec()).collect()
}

/// Numbers in -`end`..`end`, close to each other and small ones of any size.
fn arguments(end: f64) -> Vec<f32> {
    let near = (0..400_000).map(|i| ((f64::from(i) / 200_000.0 - 1.0) * end) as f32);
    let small =
        (0..40_000u32).map(|i| f32::from_bits(i * 26_000) * if i % 2 == 0 { 1.0 } else { -1.0 });
    near.chain(small.filter(|x| x.abs() < end as f32)).collect()
}

/// The largest error in units in the last place of `scale(x, truth)`.
fn largest(
    x: &[f32],
    found: &[f32],
    truth: fn(f64) -> f64,
    scale: fn(f64, f64) -> f64,
) -> (f64, f32) {
    let error = |x: f64, found: f64| {
        let y = truth(x);
        let exponent = scale(x, y).log2().floor().max(-126.0);
        (found - y).abs() / 2f64.powf(exponent - 23.0)
    };
    let errors = x.iter().zip(found).map(|(&x, &y)| (error(x.into(), y.into()), x));
    errors.fold((0.0, 0.0), |worst, next| if next.0 <= worst.0 { worst } else { next })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + core_math::exp(-x))
}

#[test]
fn softplus_and_its_gradient_are_exact_everywhere() {
    let x = arguments(100.0);
    let found = results("y = softplus(x)\n (y, grad(sum(y), wrt = x))", &x);
    let softplus = |x: f64| x.max(0.0) + core_math::log1p(core_math::exp(-x.abs()));
    let (error, at) = largest(&x, &found[0], softplus, |_, y| y);
    assert!(error < 2.6, "{error} at {at}");
    let (error, at) = largest(&x, &found[1], sigmoid, |_, y| y);
    assert!(error < 2.6, "the gradient: {error} at {at}");
    let ends = results("softplus(x)", &[f32::NEG_INFINITY, f32::INFINITY, 1e38, -1e38, 0.0]);
    assert_eq!(ends[0], [0.0, f32::INFINITY, 1e38, 0.0, std::f32::consts::LN_2]);
    assert!(results("softplus(x)", &[f32::NAN])[0][0].is_nan());
}

/// Where x is negative the result is the difference of numbers as large as x / 2.
#[test]
fn gelu_is_exact_for_the_size_of_its_argument() {
    let x: Vec<f32> = arguments(20.0).into_iter().chain([-0.99928, -0.998_610_8]).collect();
    let found = results("x |> gelu", &x);
    let gelu = |x: f64| 0.5 * x * core_math::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    let (error, at) = largest(&x, &found[0], gelu, |x, y| y.abs().max(x.abs() / 4.0));
    assert!(error < 2.0, "{error} at {at}");
}

/// Below -87, where sigmoids are subnormal, x times the last place of those is the measure.
#[test]
fn silu_is_exact() {
    let x = arguments(120.0);
    let found = results("x |> silu", &x);
    let (error, at) =
        largest(&x, &found[0], |x| x * sigmoid(x), |x, y| y.abs().max(x.abs() * 2f64.powi(-126)));
    assert!(error < 2.6, "{error} at {at}");
}
