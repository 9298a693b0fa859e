//! Training attention without the weights of all layers in memory: gradients are what they were, with
//! masks, biases, dropout and heads that are shared, and memory does not grow with the square of the
//! length for every head.

use dlc::{Batch, Bindings, Compiler, OptLevel, Tensor, Trainer};
use dlc_graph::op::{Op, Reduce};
use dlc_graph::{Graph, Role, eval::eval};
use dlc_kernel::{Array, BinaryOp, FoldOp, UnaryOp, philox};

/// Three heads of two features over 31 positions: weights are five times as large as what they are
/// computed from.
const SHAPES: &str = "x = f32[N, 31, 6], y = f32[N, 31, 6]";

const LAYERS: &[(&str, &str)] = &[
    ("plain", "x |> self_attention(3)"),
    ("causal", "x |> self_attention(3, causal = yes)"),
    ("dropout", "x |> self_attention(3, causal = yes, rate = 0.4)"),
    ("biased", "x |> self_attention(3, causal = yes, bias = alibi(3, 31, 31))"),
    ("padded", "x |> self_attention(3, mask = seen, rate = 0.2)"),
    ("window", "x |> self_attention(3, mask = near)"),
    ("shared", "x |> linear(12) |> grouped_attention(6, G = 2) |> linear(6)"),
    ("shared, dropout", "x |> linear(12) |> grouped_attention(6, G = 2, rate = 0.3) |> linear(6)"),
    ("to others", "cross_attention(3)(x, x[:, :29])"),
];

/// One step of a layer. Of the first sequence, no position takes part; of the second, 17 do.
fn source(layer: &str, shapes: &str) -> String {
    format!(
        "model Net(x: f32[N, T, D]) -> f32[N, T, D] {{
           ends[n < N] = 17 * n
           seen = length_mask(T)(ends) |> as[N, 1, 1, T]
           near[t < T, u < T] = u <= t and t - u < 9
           {layer}
         }}
         train Net {{
           data  tensors({shapes}) batch 2
           loss  mse(Net(x), y)
           optim sgd(lr = 1.0)
         }}"
    )
}

fn step_of(layer: &str) -> Graph {
    let module = Compiler::new().compile_text("net.dl", &source(layer, SHAPES));
    let module = module.unwrap_or_else(|e| panic!("{e}"));
    let entries = module.training_entries("Net", &Bindings::new()).unwrap();
    let graph = &entries.iter().find(|entry| entry.name == "train").unwrap().graph;
    dlc_graph::differentiate(graph)
}

/// A value for each source but scalars, with one element of one of them moved.
fn values(graph: &Graph, moved: Option<(&str, usize, f64)>) -> impl Fn(&str) -> Option<Array> {
    let value = move |name: &str| {
        let (value, source) = graph.sources().find(|(_, source)| &*source.name == name)?;
        let shape = graph.ty(value).shape.iter().map(|n| n.as_const().unwrap() as usize);
        let shape: Vec<usize> = shape.collect();
        if shape.is_empty() {
            return Some(Array::new(shape, vec![source.default.value()]));
        }
        let site = name.bytes().fold(7u64, |site, byte| site.rotate_left(7) ^ u64::from(byte));
        let draw = |i: usize| f64::from(philox::uniform(3, 0, site, i as i32)) - 0.5;
        let mut data: Vec<f64> = (0..shape.iter().product()).map(draw).collect();
        match moved {
            Some((other, at, by)) if other == name => data[at] += by,
            _ => {}
        }
        Some(Array::new(shape, data))
    };
    move |name| value(name)
}

/// The loss, and what is asserted to be finite, by name: gradients among it.
fn results(graph: &Graph, moved: Option<(&str, usize, f64)>) -> Vec<(String, Array)> {
    let found = eval(graph, &values(graph, moved)).unwrap();
    let named = graph.results().iter().zip(found);
    named.filter(|(r, _)| r.role == Role::Check).map(|(r, array)| (r.name.clone(), array)).collect()
}

fn count(graph: &Graph, is: impl Fn(&Op, usize) -> bool) -> usize {
    let operands = |v| graph.operands(v).first().map_or(0, |&x| elements(graph, x));
    graph.values().filter(|&v| is(graph.op(v), operands(v))).count()
}

fn elements(graph: &Graph, value: dlc_graph::Value) -> usize {
    graph.ty(value).elements().as_const().unwrap() as usize
}

/// Gradients in f64: those of the graph in which sums are exchanged and weights computed again are
/// those of the one before, and central differences.
#[test]
fn gradients_are_what_they_were() {
    for &(name, layer) in LAYERS {
        let graph = step_of(layer);
        let simple = dlc_pass::simplify::simplify(&graph);
        let simple = dlc_pass::rewrite::eliminate_dead_code(&simple);
        let again = dlc_pass::recompute_from(&simple, 0);
        let contractions = |graph: &Graph| count(graph, |op, _| matches!(op, Op::Contract(_)));
        assert!(contractions(&again) > contractions(&simple), "{name}: scores are computed again");
        let keys = if name == "to others" { 29 } else { 31 };
        let heads = if name.starts_with("shared") { 6 } else { 3 };
        let weights = 2 * heads * 31 * keys;
        let sums = |op: &Op, n: usize| {
            n == weights && matches!(op, Op::Reduce(Reduce { op: FoldOp::Sum, .. }))
        };
        assert_eq!(count(&simple, sums), 1, "{name}: only the softmax sums over weights");
        let (expected, found) = (results(&graph, None), results(&again, None));
        assert!(expected.len() > 2);
        for ((what, a), (_, b)) in expected.iter().zip(&found) {
            let largest = a.data.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
            let same = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-12 * largest;
            assert!(a.data.iter().zip(&b.data).all(same), "{name}: {what}");
        }
        let loss = |moved| results(&graph, Some(moved))[0].1.data[0];
        for (what, gradient) in &found[1..] {
            let parameter = what.strip_prefix("grad of ").unwrap();
            for at in [0, gradient.data.len() / 2, gradient.data.len() - 1] {
                let h = 1e-4;
                let slope = (loss((parameter, at, h)) - loss((parameter, at, -h))) / (2.0 * h);
                let off = (slope - gradient.data[at]).abs();
                assert!(off < 1e-7, "{name}: {what}[{at}]: {} for {slope}", gradient.data[at]);
            }
        }
    }
}

/// Gradients of a normalization compute from its input, which is in memory anyway, what that deviates from
/// its mean: the kernel on the way forth stores nothing of that size but its result.
#[test]
fn deviations_are_computed_again() {
    let graph = step_of("x |> linear(6) |> linear(6) |> layer_norm |> linear(6) |> linear(6)");
    let simple = dlc_pass::simplify::simplify(&graph);
    let simple = dlc_pass::rewrite::eliminate_dead_code(&simple);
    let again = dlc_pass::recompute(&simple);
    let differences = |graph: &Graph| {
        count(graph, |op, n| matches!(op, Op::Binary(b) if b.0 == BinaryOp::Sub) && n == 2 * 31 * 6)
    };
    assert_eq!(differences(&again), differences(&simple) + 1);
    let (expected, found) = (results(&simple, None), results(&again, None));
    assert!(expected.len() > 2);
    assert!(expected.iter().zip(&found).all(|((_, a), (_, b))| a.data == b.data));
    let fused = dlc_pass::run(&graph, OptLevel::O2, &mut |_, _, _| {});
    let normalizes = |op: &Op| match op {
        Op::Fused(fused) => {
            let body = &fused.body;
            let root =
                body.distinct_ops().any(|op| matches!(op, Op::Unary(u) if u.0 == UnaryOp::Rsqrt));
            root.then(|| {
                body.results().iter().filter(|r| elements(body, r.value) == 2 * 31 * 6).count()
            })
        }
        _ => None,
    };
    let stored: Vec<usize> = fused.values().filter_map(|v| normalizes(fused.op(v))).collect();
    assert_eq!(stored, [1]);
}

/// 37 MB of weights in eight heads.
const LONG: &str = "x |> self_attention(8, causal = yes, rate = 0.1)";

fn trainer(layer: &str, level: OptLevel, threads: usize) -> Trainer {
    let source =
        source(layer, "x = f32[N, 1070, 64], y = f32[N, 1070, 64]").replace("batch 2", "batch 1");
    let compiler = Compiler::new().threads(threads).opt_level(level);
    let module = compiler.compile_text("net.dl", &source).unwrap_or_else(|e| panic!("{e}"));
    module.trainer("Net").unwrap_or_else(|e| panic!("{e}"))
}

fn stepped(mut trainer: Trainer) -> Vec<(String, Vec<f32>)> {
    let wave = |rate: f32| (0..1070 * 64).map(|i| (i as f32 * rate).sin()).collect();
    let [x, y] = [0.7, 0.3].map(|rate| Tensor::f32([1, 1070, 64], wave(rate)));
    trainer.step(&Batch::new([("x", x), ("y", y)])).unwrap();
    let weights = trainer.weights().unwrap();
    let named =
        weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.as_f32().unwrap().to_vec()));
    named.collect()
}

#[test]
fn a_long_step_takes_less_than_its_weights() {
    let weights = 8 * 1070 * 1070 * 4;
    let peak = trainer(LONG, OptLevel::O2, 1).executable().peak_bytes();
    assert!(peak < weights, "{peak} bytes");
    assert!(trainer(LONG, OptLevel::O1, 1).executable().peak_bytes() > 2 * weights);
}

/// As without fusion and slices, but for rounding: sums of 1,070 terms, some after another.
#[test]
fn a_long_step_learns_the_same() {
    for layer in [LONG, "x |> self_attention(8, bias = alibi(8, 1070, 1070))"] {
        let plain = stepped(trainer(layer, OptLevel::O0, 2));
        let one = stepped(trainer(layer, OptLevel::O2, 1));
        assert_eq!(one, stepped(trainer(layer, OptLevel::O2, 2)));
        for ((name, a), (_, b)) in plain.iter().zip(&one) {
            let largest = a.iter().fold(0f32, |m, x| m.max(x.abs()));
            let same = |(x, y): (&f32, &f32)| (x - y).abs() <= 2000.0 * f32::EPSILON * largest;
            assert!(a.iter().zip(b).all(same), "{name} of {layer}");
        }
    }
}
