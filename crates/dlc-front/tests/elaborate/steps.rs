//! What a `train` section makes of gradients: clipped, added up over batches; and what its outputs
//! say of their means.

use std::collections::BTreeMap;

use dlc_front::ast::Trend;
use dlc_front::{Style, TrainOverrides, Training};
use dlc_graph::{Graph, Role, differentiate};
use dlc_kernel::{Array, Bindings};

use crate::library::assert_close;
use crate::support::{fill, numbers, results, unit};

type Sources = BTreeMap<String, Array>;

fn training(text: &str) -> Training {
    let unit = unit(text);
    let name = unit.trains()[0].to_string();
    unit.train(&name, &TrainOverrides::default(), &Bindings::new())
        .unwrap_or_else(|e| panic!("{}", unit.render(&e, Style::Plain)))
}

/// Runs a graph and gives its results; parameters and states move on.
fn run(graph: &Graph, batch: i64, sources: &mut Sources) -> Vec<(String, Array)> {
    let graph = differentiate(graph).bind(&[("N".to_string(), batch)].into()).expect("binds");
    let found = results(&graph, sources);
    for (outcome, (name, value)) in graph.results().iter().zip(&found) {
        if outcome.role == Role::Update {
            sources.insert(name.clone(), value.clone());
        }
    }
    found
}

fn named<'a>(found: &'a [(String, Array)], name: &str) -> &'a [f64] {
    &found.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1.data
}

#[test]
fn clipping_is_that_of_pytorch() {
    for (case, bound) in [("clip", "0.25"), ("clip_beyond", "100")] {
        let training = training(&format!(
            "model Q(c: f32[N, 3], d: f32[N, 2]) -> [] {{
               param p: [3] = 0
               param q: [2] = 0
               sum(c * p * p) / 2.0 + sum(d * q)
             }}
             train Q {{
               data  tensors(c = f32[N, 3], d = f32[N, 2])
               loss  Q(c, d)
               optim sgd(lr = 0.1)
               clip  {bound}
             }}"
        ));
        let shapes: [(&str, &[usize]); 4] =
            [("c", &[2, 3]), ("d", &[2, 2]), ("p", &[3]), ("q", &[2])];
        let mut sources: Sources = shapes.map(|(n, shape)| (n.to_string(), fill(n, shape))).into();
        run(&training.step, 2, &mut sources);
        let found = [&sources["p"].data[..], &sources["q"].data].concat();
        let reference = include_str!("reference/torch_numbers.txt");
        assert_close(case, &found, &numbers(reference, case));
    }
}

#[test]
fn a_norm_that_is_not_finite_is_checked() {
    let training = training(
        "model Q(c: f32[N]) -> [] { param p: [] = 0\n sum(c) * p }
         train Q { data tensors(c = f32[N]); loss Q(c); optim sgd; clip 1 }",
    );
    for bad in [f64::NAN, f64::INFINITY, 1e200] {
        let mut sources: Sources =
            [("c".to_string(), Array::full([1], bad)), ("p".to_string(), Array::zeros([]))].into();
        let found = run(&training.step, 1, &mut sources);
        let checks = training.step.results().iter().zip(&found);
        let norm =
            checks.filter(|(r, _)| r.role == Role::Check).map(|(_, (n, v))| (&**n, v.data[0]));
        let norm = norm.into_iter().find(|(n, _)| *n == "norm of the gradients").expect("a check");
        assert!(!norm.1.is_finite(), "{bad}: {}", norm.1);
    }
}

const REGRESSION: &str = "
model Line(x: f32[N, 3]) -> f32[N, 2] { x |> linear(4) |> tanh |> linear(2) }
train Line {
  data  tensors(x = f32[N, 3], y = f32[N, 2])
  loss  mse(Line(x), y)
  optim momentum(lr = 0.1)
";

/// Some first values for all that a training has but its inputs.
fn first_values(training: &Training) -> Sources {
    let mut sources = Sources::new();
    for param in &training.params {
        let shape: Vec<usize> =
            param.ty.shape.iter().map(|s| s.as_const().expect("known") as usize).collect();
        sources.insert(param.path.clone(), fill(&param.path, &shape));
    }
    for state in &training.states {
        let shape: Vec<usize> =
            state.ty.shape.iter().map(|s| s.as_const().expect("known") as usize).collect();
        sources.insert(state.path.clone(), Array::zeros(shape));
    }
    sources
}

/// Rows `from ..` of x and y as inputs.
fn give(sources: &mut Sources, from: usize, count: usize) {
    for (name, width) in [("x", 3), ("y", 2)] {
        let all = fill(name, &[16, width]).data;
        let rows = all[from * width..(from + count) * width].to_vec();
        sources.insert(name.to_string(), Array::new([count, width], rows));
    }
}

#[test]
fn four_batches_of_two_make_the_step_of_one_of_eight() {
    let whole = training(&format!("{REGRESSION} }}"));
    let parts = training(&format!("{REGRESSION} accumulate 4 }}"));
    let accumulate = parts.accumulate.as_ref().expect("a step has four batches");
    let (mut one, mut other) = (first_values(&whole), first_values(&parts));
    for step in 0..2 {
        one.insert("step".into(), Array::scalar(f64::from(step)));
        give(&mut one, 8 * step as usize, 8);
        run(&whole.step, 8, &mut one);
        for part in 0..4 {
            other.insert("step".into(), Array::scalar(f64::from(step)));
            other.insert("part".into(), Array::scalar(f64::from(part)));
            give(&mut other, 8 * step as usize + 2 * part as usize, 2);
            let graph = if part == 3 { &parts.step } else { accumulate };
            run(graph, 2, &mut other);
        }
    }
    for param in &whole.params {
        assert_close(&param.path, &other[&param.path].data, &one[&param.path].data);
        let sum = &other[&format!("sum of grads of {}", param.path)];
        assert!(sum.data.iter().all(|v| *v == 0.0), "{} begins at 0 again", param.path);
    }
}

#[test]
fn each_batch_of_a_step_has_random_numbers_of_its_own() {
    let training = training(
        "model M(x: f32[N, 64]) -> [] { param p: [] = 1\n p * mean(x |> dropout) }
         train M { data tensors(x = f32[N, 64]); loss M(x); optim sgd; accumulate 2 }",
    );
    let accumulate = training.accumulate.as_ref().expect("a step has two batches");
    let mut losses = Vec::new();
    for (step, part) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut sources = first_values(&training);
        sources.insert("x".into(), Array::full([1, 64], 1.0));
        sources.insert("p".into(), Array::scalar(1.0));
        sources.insert("step".into(), Array::scalar(f64::from(step)));
        sources.insert("part".into(), Array::scalar(f64::from(part)));
        let graph = if part == 1 { &training.step } else { accumulate };
        losses.push(named(&run(graph, 1, &mut sources), "loss")[0]);
    }
    losses.sort_by(f64::total_cmp);
    losses.dedup();
    assert!(losses.len() > 2, "{losses:?}");
}

#[test]
fn outputs_say_what_their_means_go_by() {
    let names = |more: &str, loss: &str| {
        let training = training(&format!(
            "model M(x: f32[N, 5, 3]) -> f32[N, 5, 4] {{ x |> linear(4) }}
             train M {{
               data  tensors(x = f32[N, 5, 3], y = i32[N, 5], mask = f32[N, 5])
               loss  {loss}
               optim sgd
               {more}
             }}"
        ));
        let outputs = training.eval.results().iter().filter(|r| r.role == Role::Output);
        outputs.map(|r| r.name.clone()).collect::<Vec<_>>()
    };
    let masked = "cross_entropy(M(x), y, mask = mask, smoothing = 0.1)";
    assert_eq!(names("", "cross_entropy(M(x), y)"), ["loss"]);
    assert_eq!(names("", masked), ["loss", "weight of loss"]);
    assert_eq!(names("", &format!("exp({masked})")), ["loss"]);
    assert_eq!(names("", &format!("2 - 3 * {masked} / 4")), ["loss", "weight of loss"]);
    assert_eq!(names("", &format!("{masked} + cross_entropy(M(x), y)")), ["loss"]);
    assert_eq!(
        names("", &format!("{masked} + cross_entropy(M(x), y, mask = mask)")),
        ["loss", "weight of loss"]
    );
    assert_eq!(
        names("metric perplexity(M(x), y, mask = mask)", "cross_entropy(M(x), y)"),
        ["loss", "log of perplexity", "weight of perplexity"]
    );
    assert_eq!(names("metric accuracy(M(x), y)", masked), ["loss", "weight of loss", "accuracy"]);
}

#[test]
fn losses_improve_by_falling_and_counts_by_rising() {
    let trend = |stop: &str| {
        let training = training(&format!(
            "model M(x: f32[N, 3]) -> f32[N, 4] {{ x |> linear(4) }}
             train M {{
               data   tensors(x = f32[N, 3], y = i32[N])
               loss   cross_entropy(M(x), y)
               metric perplexity(M(x), y)
               metric accuracy(M(x), y)
               optim  sgd
               stop   after 3 epochs without {stop}
             }}"
        ));
        training.settings.stop.expect("it stops").trend
    };
    assert_eq!(trend("val.loss improving"), Trend::Falling);
    assert_eq!(trend("perplexity improving"), Trend::Falling);
    assert_eq!(trend("val.accuracy improving"), Trend::Rising);
    assert_eq!(trend("val.accuracy falling"), Trend::Falling);
    assert_eq!(trend("loss rising"), Trend::Rising);
}

/// The dim stays open: the last batch of an epoch may be smaller. `--batch` has the last word.
#[test]
fn a_size_bound_to_the_batch_is_its_size() {
    for data in ["tensors(image = f32[N, 1, 28, 28], label = i32[N])", "mnist(\"digits\")"] {
        let unit = unit(&format!(
            "model Net(image: f32[N, 1, 28, 28]) -> f32[N, 10] {{ image |> flatten |> linear(10) }}
             train Net {{ data {data} batch 8; loss cross_entropy(Net(image), label); optim sgd }}"
        ));
        for (batch, expected) in [(None, 32), (Some(5), 5)] {
            let overrides = TrainOverrides { batch, ..TrainOverrides::default() };
            let bound = Bindings::from([("N".to_string(), 32)]);
            let training = unit.train("Net", &overrides, &bound);
            let training = training.unwrap_or_else(|e| panic!("{}", unit.render(&e, Style::Plain)));
            assert_eq!(training.settings.batch, expected);
            let image = training.step.source("image").expect("an input");
            assert_eq!(training.step.ty(image).to_string(), "f32[N, 1, 28, 28]");
        }
    }
}

#[test]
fn files_that_cannot_be_read_have_a_line() {
    let unit = unit(
        "model Net(image: f32[N, 1, 28, 28]) -> f32[N, 10] { image |> flatten |> linear(10) }
train Net {
  data  mnist(\"digits\") batch 8
  loss  cross_entropy(Net(image), label)
  optim sgd
}",
    );
    let specs = unit.data("Net").unwrap_or_else(|e| panic!("{}", unit.render(&e, Style::Plain)));
    let diagnostic = specs[0].unreadable("`digits` does not exist");
    insta::assert_snapshot!(unit.render(&[diagnostic], Style::Plain));
}
