//! The standard library against NumPy: `reference/make.py` makes `reference/numbers.txt`.

use std::collections::BTreeMap;

use dlc_front::{Mode, TrainOverrides};
use dlc_graph::differentiate;
use dlc_kernel::{Array, Bindings};

use crate::support::{fill, model, numbers, results, unit, values};

fn expected(case: &str) -> Vec<f64> {
    numbers(include_str!("reference/numbers.txt"), case)
}

/// The largest difference relative to the largest value; constants of f32 graphs are exact in f64,
/// so only the order of operations differs.
pub fn assert_close(case: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{case}: number of elements");
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-10 * scale, "{case}[{i}]: {a} instead of {b}");
    }
}

fn labels() -> BTreeMap<String, Array> {
    let label = Array::new([3], vec![0.0, 0.0, 3.0]);
    let labels = Array::new([2, 3], vec![2.0, 0.0, 3.0, 1.0, 1.0, 0.0]);
    let lengths = Array::new([3], vec![4.0, 1.0, 3.0]);
    [("label", label), ("labels", labels), ("lengths", lengths)]
        .map(|(name, array)| (name.to_string(), array))
        .into()
}

/// Checks a body over the given inputs.
fn check(case: &str, mode: Mode, inputs: &str, body: &str) {
    let model = model(&format!("model M({inputs}) {{ {body} }}"), mode);
    let sources = values(&model.graph, &labels());
    let found: Vec<f64> =
        results(&model.graph, &sources).into_iter().flat_map(|(_, array)| array.data).collect();
    assert_close(case, &found, &expected(case));
}

#[test]
fn layers() {
    let picture = "x: f32[2, 4, 5, 6]";
    for (case, inputs, body) in [
        ("linear", "x: f32[2, 5]", "x |> linear(3)"),
        ("conv", picture, "x |> conv(3, 3x2, stride = [2, 1], pad = [1, 0])"),
        ("conv_groups", picture, "x |> conv(6, 3, pad = 2, dilation = 2, groups = 2, bias = no)"),
        ("conv1d", "x: f32[2, 3, 7]", "x |> conv1d(2, 3, stride = 2, pad = 1)"),
        (
            "conv_transpose",
            picture,
            "x |> conv_transpose(3, 3x2, stride = [3, 2], pad = [1, 0], output_pad = [2, 1])",
        ),
        (
            "conv1d_groups",
            "x: f32[2, 4, 7]",
            "x |> conv1d(6, 3, stride = 2, pad = 1, dilation = 2, groups = 2)",
        ),
        (
            "conv_transpose_groups",
            picture,
            "x |> conv_transpose(6, 2x3, stride = [2, 1], pad = 1, groups = 2)",
        ),
        ("conv_transpose_dilated", picture, "x |> conv_transpose(2, 3, dilation = 2, bias = no)"),
        ("upsample", picture, "x |> upsample(2x3)"),
        ("max_pool", picture, "x |> max_pool(3, stride = 2, pad = 1)"),
        ("avg_pool", picture, "x |> avg_pool(3x3, stride = 2, pad = 1)"),
        ("global_avg_pool", picture, "x |> global_avg_pool"),
        ("batch_norm_infer", picture, "x |> batch_norm"),
        ("layer_norm", "x: f32[3, 4]", "x |> layer_norm"),
        ("group_norm", picture, "x |> group_norm(2)"),
        ("instance_norm", picture, "x |> instance_norm"),
    ] {
        check(case, Mode::Infer, inputs, body);
    }
    check("batch_norm_train", Mode::Train, picture, "x |> batch_norm");
}

/// Where PyTorch has no such layer; tests/reference has the others.
#[test]
fn a_gru_that_resets_the_state_before_the_product() {
    check("gru_reset", Mode::Infer, "x: f32[2, 3, 4]", "x |> gru(2, reset_after = no)");
}

#[test]
fn poolings_of_sequences() {
    let inputs = "h: f32[3, 4, 2], lengths: i32[3]";
    for (case, body) in [
        ("last_value", "h |> last_value"),
        ("last_value_lengths", "h |> last_value(lengths = lengths)"),
        ("mean_value", "h |> mean_value"),
        ("mean_value_lengths", "h |> mean_value(lengths = lengths)"),
    ] {
        check(case, Mode::Infer, inputs, body);
    }
}

#[test]
fn sequences_without_steps_are_worth_nothing() {
    let none = Array::new([3], vec![4.0, 0.0, 3.0]);
    for block in ["last_value", "mean_value"] {
        let body = format!("y = h |> {block}(lengths = ends)\n (y, grad(sum(y), wrt = h))");
        let text = format!("model M(h: f32[3, 4, 2], ends: i32[3]) {{ {body} }}");
        let graph = differentiate(&model(&text, Mode::Infer).graph);
        let sources = values(&graph, &[("ends".to_string(), none.clone())].into());
        let found = results(&graph, &sources);
        assert_close(block, &found[0].1.data, &expected(&format!("{block}_none")));
        assert_eq!(found[1].1.data[8..16], [0.0; 8], "{block}: the gradient");
        assert!(found[1].1.data.iter().all(|v| v.is_finite()), "{block}");
    }
}

#[test]
fn activations() {
    let all = [
        "relu",
        "leaky_relu",
        "elu",
        "silu",
        "gelu",
        "softplus",
        "tanh",
        "sigmoid",
        "softmax",
        "log_softmax",
    ];
    for case in all {
        check(case, Mode::Infer, "x: f32[3, 4]", &format!("x |> {case}"));
    }
    check("softmax_axis", Mode::Infer, "x: f32[3, 4]", "x |> softmax[0]");
    check("softmax_axis", Mode::Infer, "x: f32[3, 4]", "s[a, b] = x[a, b]\n s |> softmax[a]");
}

#[test]
fn losses_and_metrics() {
    let inputs = "x: f32[3, 4], label: i32[3]";
    check("cross_entropy", Mode::Infer, inputs, "cross_entropy(x, label)");
    check("accuracy", Mode::Infer, inputs, "accuracy(x, label)");
    check("mse", Mode::Infer, "x: f32[3, 4], y: f32[3, 4]", "mse(x, y)");
    let inputs = "x: f32[2, 3, 4], labels: i32[2, 3]";
    check("cross_entropy_3d", Mode::Infer, inputs, "cross_entropy(x, labels)");
}

#[test]
fn a_row_of_minus_infinity_has_a_softmax_of_zero() {
    let model = model("model M(x: f32[2, 3]) { x |> softmax }", Mode::Infer);
    let x = Array::new([2, 3], vec![f64::NEG_INFINITY; 3].into_iter().chain([1.0; 3]).collect());
    let found = results(&model.graph, &[("x".to_string(), x)].into());
    assert_eq!(found[0].1.data[..3], [0.0; 3]);
    assert_close("softmax", &found[0].1.data[3..], &[1.0 / 3.0; 3]);
}

/// Where a quotient of indices does not come out even, a read is outside; `//` rounds down.
#[test]
fn quotients_of_indices() {
    let found = |equation: &str| {
        let text = format!("model M(x: f32[3]) {{ {equation}\n y }}");
        let model = model(&text, Mode::Infer);
        let x = Array::new([3], vec![5.0, 6.0, 7.0]);
        results(&model.graph, &[("x".to_string(), x)].into())[0].1.data.clone()
    };
    assert_eq!(found("y[i < 6] = x[i / 2]"), [5.0, 0.0, 6.0, 0.0, 7.0, 0.0]);
    assert_eq!(found("y[i < 6] = x[(i - 3) / 2 + 1]"), [0.0, 5.0, 0.0, 6.0, 0.0, 7.0]);
    assert_eq!(found("y[i < 3] = x[4*i / 2 / 2]"), [5.0, 6.0, 7.0]);
    assert_eq!(found("y[i < 5] = sum[k < 2] x[(i + k) / 2]"), [5.0, 6.0, 6.0, 7.0, 7.0]);
    assert_eq!(found("y[i < 6] = x[i // 2]"), [5.0, 5.0, 6.0, 6.0, 7.0, 7.0]);
    assert_eq!(found("y[i] = x[i] + (i - 3) / 2"), [3.0, 5.0, 6.0]);
}

/// Three steps of an optimizer on the loss sum(c * p * p) / 2.
fn three_steps(optimizer: &str) -> Vec<f64> {
    let text = format!(
        "model Q(c: f32[N, 3]) -> [] {{ param p: [3] = 0\n sum(c * p * p) / 2.0 }}
         train Q {{ data tensors(c = f32[N, 3]); loss Q(c); optim {optimizer} }}"
    );
    let training = unit(&text)
        .train("Q", &TrainOverrides::default(), &Bindings::new())
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    let step = differentiate(&training.step).bind(&[("N".to_string(), 1)].into()).expect("binds");
    let mut sources: BTreeMap<String, Array> =
        [("c".to_string(), fill("c", &[1, 3])), ("p".to_string(), fill("p", &[3]))].into();
    for state in &training.states {
        sources.insert(state.path.clone(), Array::zeros([3]));
    }
    for t in 0..3 {
        sources.insert("step".into(), Array::scalar(f64::from(t)));
        let found = results(&step, &sources);
        let updates = step.results().iter().zip(found);
        for (outcome, (name, value)) in updates {
            if outcome.role == dlc_graph::Role::Update {
                sources.insert(name, value);
            }
        }
    }
    sources["p"].data.clone()
}

#[test]
fn optimizers() {
    for (case, call) in [
        ("sgd", "sgd(lr = 0.1, weight_decay = 0.01)"),
        ("momentum", "momentum(lr = 0.1)"),
        ("nesterov", "nesterov(lr = 0.1)"),
        ("adagrad", "adagrad(lr = 0.1)"),
        ("rmsprop", "rmsprop(lr = 0.1)"),
        ("adadelta", "adadelta(lr = 0.1)"),
        ("adam", "adam(lr = 0.1)"),
        ("adamw", "adamw(lr = 0.1)"),
        ("adamw", "adamw(lr = 0.1, decay_from_rank = 1)"),
        ("adam", "adamw(lr = 0.1, decay_from_rank = 2)"),
    ] {
        assert_close(case, &three_steps(call), &expected(case));
    }
}

/// The learning rate at each step from 0 to 12, of 10 that are planned, and the run-time scalars.
fn rates(schedule: &str) -> (Vec<f64>, Vec<(String, f64)>) {
    let text = format!(
        "optimizer show(dyn lr = 1.0)(p, g) {{ 0.0 * p + lr }}
         model Q(c: f32[N]) -> [] {{ param p: [] = 0\n sum(c * p) }}
         train Q {{ data tensors(c = f32[N]); loss Q(c); optim show(lr = {schedule}) }}"
    );
    let training = unit(&text)
        .train("Q", &TrainOverrides::default(), &Bindings::new())
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    let step = differentiate(&training.step).bind(&[("N".to_string(), 1)].into()).expect("binds");
    let rate = |t: i32| {
        let counts = [("step", f64::from(t)), ("steps", 10.0), ("p", 0.0)];
        let mut sources: BTreeMap<String, Array> =
            counts.map(|(name, value)| (name.to_string(), Array::scalar(value))).into();
        sources.insert("c".into(), Array::new([1], vec![1.0]));
        results(&step, &sources).into_iter().find(|(name, _)| name == "p").expect("p").1.data[0]
    };
    ((0..=12).map(rate).collect(), training.scalars)
}

#[test]
fn schedules() {
    for (case, call) in [
        ("cosine", "cosine(0.5)"),
        ("cosine_warmup", "cosine(0.5, warmup = 0.4, final = 0.1)"),
        ("linear_decay", "linear_decay(0.5, final = 0.2)"),
        ("linear_warmup", "linear_decay(0.5, warmup = 0.4)"),
        ("one_cycle", "one_cycle(0.5, warmup = 0.4)"),
        ("exponential_decay", "exponential_decay(0.5, rate = 0.8, every = 3)"),
        ("step_decay", "step_decay(0.5, rate = 0.8, every = 3)"),
        ("inverse_sqrt", "inverse_sqrt(0.5, warmup_steps = 4)"),
    ] {
        let (found, scalars) = rates(call);
        assert_close(case, &found, &expected(case));
        assert_eq!(scalars, [("lr".to_string(), 0.5)], "{case}: what it starts from is `lr`");
    }
}

/// All first values of a weight [6, 4, 3, 2] for many seeds.
fn first_values(init: &str) -> Vec<f64> {
    let text = format!("model M(x: f32[N]) {{ param w: [6, 4, 3, 2] ~ {init}\n sum(w) }}");
    let graph = model(&text, Mode::Infer).init;
    let draw = |seed: i32| {
        let seed = Array::scalar(f64::from(seed));
        results(&graph, &[("seed".to_string(), seed)].into()).remove(0).1.data
    };
    (0..64).flat_map(draw).collect()
}

fn deviation(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn initializers() {
    // 9216 draws: the standard error of a standard deviation is below 0.8 %; five of them are 4 %.
    for (case, init) in
        [("xavier_uniform", "xavier_uniform"), ("kaiming_uniform", "kaiming_uniform")]
    {
        let (values, bound) = (first_values(init), expected(case)[0]);
        assert!(values.iter().all(|v| v.abs() <= bound * (1.0 + 1e-9)), "{case}");
        let ratio = deviation(&values) / (bound / 3f64.sqrt());
        assert!((ratio - 1.0).abs() < 0.04, "{case}: {ratio}");
    }
    for (case, init) in [
        ("xavier_normal", "xavier_normal"),
        ("kaiming_normal", "kaiming_normal"),
        ("kaiming_normal_out", "kaiming_normal(mode = \"fan_out\")"),
    ] {
        let ratio = deviation(&first_values(init)) / expected(case)[0];
        assert!((ratio - 1.0).abs() < 0.04, "{case}: {ratio}");
    }
    assert!(first_values("zeros").iter().all(|v| *v == 0.0));
    assert!(first_values("constant(2)").iter().all(|v| *v == 2.0));
}

#[test]
fn dropout_keeps_the_mean_and_is_nothing_for_inference() {
    let text = "model M(x: f32[64, 64]) { x |> dropout(0.25) }";
    let infer = model(text, Mode::Infer);
    assert_eq!(infer.graph.results()[0].value, infer.graph.source("x").expect("an input"));
    let train = model(text, Mode::Train);
    assert_eq!(train.scalars, [("dropout1.rate".to_string(), 0.25)]);
    let ones = Array::full([64, 64], 1.0);
    let found = results(&train.graph, &[("x".to_string(), ones)].into()).remove(0).1.data;
    let scaled = 1.0 / 0.75;
    assert!(found.iter().all(|v| *v == 0.0 || (v - scaled).abs() < 1e-12));
    let kept = found.iter().filter(|v| **v != 0.0).count() as f64 / 4096.0;
    // The standard error of the fraction is 0.7 %.
    assert!((kept - 0.75).abs() < 0.035, "{kept}");
}

#[test]
fn normal_numbers_are_a_bell() {
    let drawn = model("model M(x: f32[64, 64]) { normal_like(x) }", Mode::Train);
    let zeros = Array::full([64, 64], 0.0);
    let found = results(&drawn.graph, &[("x".to_string(), zeros)].into()).remove(0).1.data;
    let share = |holds: &dyn Fn(f64) -> bool| {
        found.iter().filter(|v| holds(**v)).count() as f64 / found.len() as f64
    };
    // Of 4096, five standard errors: of the mean, the deviation, and of a share.
    assert!((found.iter().sum::<f64>() / 4096.0).abs() < 0.078);
    assert!((deviation(&found) - 1.0).abs() < 0.055);
    for (below, expected) in [(-1.0, 0.158_655), (0.0, 0.5), (1.0, 0.841_345), (2.0, 0.977_25)] {
        assert!((share(&|v| v < below) - expected).abs() < 0.04, "below {below}");
    }
}

/// Dropout stands between layers: none after the last one, and none at all where there is one.
#[test]
fn recurrent_layers_drop_out_between_each_other() {
    for layers in 1..=3 {
        let text =
            format!("model M(x: f32[2, 3, 4]) {{ x |> lstm(5, layers = {layers}, rate = 0.5) }}");
        let train = model(&text, Mode::Train);
        let is_random =
            |v: &dlc_graph::Value| matches!(train.graph.op(*v), dlc_graph::op::Op::Random(_));
        assert_eq!(train.graph.values().filter(is_random).count(), layers - 1, "{layers} layers");
        let mut sources = values(&train.graph, &BTreeMap::new());
        for (name, value) in [("seed", 1.0), ("step", 0.0), ("lstm1.rate", 0.5)] {
            sources.insert(name.to_string(), Array::scalar(value));
        }
        let found = results(&train.graph, &sources).remove(0).1.data;
        assert!(found.iter().all(|v| *v != 0.0), "{layers} layers");
        let infer = model(&text, Mode::Infer);
        let whole = results(&infer.graph, &sources).remove(0).1.data;
        assert_eq!(found == whole, layers == 1, "{layers} layers");
    }
}
