//! Against PyTorch: LeNet's outputs, loss, gradients, and weights after one step of SGD; a Transformer's
//! losses and weights over steps of several batches; layers of sequences in `layers`, a net of pictures in
//! `pictures`.
//!
//! tests/reference/lenet_step.py and tagger_steps.py made the values, in f64; weights and data follow
//! the formula of their `pattern`. The bound is the one the project promises: 1e-5 of a tensor's
//! largest value.

use dlc::{Batch, Compiler, Module, Tensor, Trainer};
use safetensors::SafeTensors;
use std::path::Path;

#[path = "reference/layers.rs"]
mod layers;
#[path = "reference/pictures.rs"]
mod pictures;

const BATCH: usize = 8;

const SHAPES: [(&str, &[usize]); 10] = [
    ("conv1.weight", &[6, 1, 5, 5]),
    ("conv1.bias", &[6]),
    ("conv2.weight", &[16, 6, 5, 5]),
    ("conv2.bias", &[16]),
    ("linear1.weight", &[120, 400]),
    ("linear1.bias", &[120]),
    ("linear2.weight", &[84, 120]),
    ("linear2.bias", &[84]),
    ("linear3.weight", &[10, 84]),
    ("linear3.bias", &[10]),
];

const SOURCE: &str = include_str!("reference/lenet.dl");

fn pattern(n: usize, site: u64) -> Vec<f64> {
    let one = |i: u64| {
        let mixed = (i * 2_654_435_761 + site * 40_503 + 12_345) % (1 << 32);
        let mixed = (mixed ^ (mixed >> 15)) * 2_246_822_519 % (1 << 32);
        let mixed = mixed ^ (mixed >> 13);
        (mixed >> 8) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..n as u64).map(one).collect()
}

fn weight(site: usize, shape: &[usize]) -> Tensor {
    let fan_in: usize = if shape.len() > 1 { shape[1..].iter().product() } else { 16 };
    let scale = 1.0 / (fan_in as f64).sqrt() as f32;
    let flat = pattern(shape.iter().product(), site as u64);
    Tensor::f32(shape, flat.into_iter().map(|v| v as f32 * scale).collect())
}

fn image() -> Tensor {
    let flat = pattern(BATCH * 784, 100).into_iter().map(|v| ((v + 1.0) / 2.0) as f32);
    Tensor::f32([BATCH, 1, 28, 28], flat.collect())
}

fn label() -> Tensor {
    Tensor::i32([BATCH], (0..BATCH as i32).map(|i| i * 3 % 10).collect())
}

/// The reference tensor of that name of LeNet's step.
fn expected(name: &str) -> Vec<f32> {
    expected_of("lenet_step.safetensors", name)
}

/// The reference tensor of that name in a file.
fn expected_of(file: &str, name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference");
    let bytes = std::fs::read(path.join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error <= 1e-5 * largest, "{name}: off by {error:e} of {largest:e}");
}

fn module(threads: usize) -> Module {
    compile(threads, SOURCE)
}

fn compile(threads: usize, source: &str) -> Module {
    Compiler::new()
        .threads(threads)
        .compile_text("reference.dl", source)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let network = module(2).model("Gradients").unwrap().bind([("N", BATCH as i64)]).unwrap();
    for (site, (name, shape)) in SHAPES.iter().enumerate() {
        network.write(&format!("net.{name}"), &weight(site, shape)).unwrap();
    }
    let outputs = network.run(&[("image", &image()), ("label", &label())]).unwrap();
    assert_close("logits", outputs.get("logits").unwrap().as_f32().unwrap(), &expected("logits"));
    assert_close("loss", outputs.get("loss").unwrap().as_f32().unwrap(), &expected("loss"));
    for (name, _) in SHAPES {
        let found = outputs.get(&name.replace('.', "_")).unwrap();
        assert_close(name, found.as_f32().unwrap(), &expected(&format!("grad.{name}")));
    }
}

#[test]
fn one_step_of_sgd_moves_the_weights_as_pytorch_would() {
    for threads in 1..=3 {
        let mut trainer = module(threads).trainer("LeNet").unwrap();
        for (site, (name, shape)) in SHAPES.iter().enumerate() {
            trainer.write(name, &weight(site, shape)).unwrap();
        }
        let metrics = trainer.step(&Batch::new([("image", image()), ("label", label())])).unwrap();
        assert_close("loss", &[metrics.loss() as f32], &expected("loss"));
        for (site, (name, shape)) in SHAPES.iter().enumerate() {
            let gradient = expected(&format!("grad.{name}"));
            let before = weight(site, shape);
            let step = before.as_f32().unwrap().iter().zip(&gradient);
            let after: Vec<f32> = step.map(|(w, g)| w - 0.5 * g).collect();
            assert_close(name, trainer.read(name).unwrap().as_f32().unwrap(), &after);
        }
    }
}

/// As `fill` in tagger_steps.py.
fn fill(trainer: &Trainer) -> Vec<String> {
    let weights = trainer.weights().unwrap();
    let mut named: Vec<(&str, &Tensor)> = weights.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    for (site, (name, tensor)) in named.iter().enumerate() {
        let shift = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let flat = weight(site, &tensor.shape);
        let flat = flat.as_f32().unwrap().iter().map(|v| v + shift).collect();
        trainer.write(name, &Tensor::f32(tensor.shape.clone(), flat)).unwrap();
    }
    named.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// As `batch` in tagger_steps.py.
fn sentences(index: i32) -> Batch {
    let k = |i: i32| i + index * 10;
    let ids = (0..10).map(|i| (3 * k(i) * k(i) + 5 * k(i) + 1) % 7).collect();
    let next = (0..10).map(|i| (k(i) * k(i) + 3 * k(i) + 2) % 7).collect();
    let length: Vec<i32> = (0..2).map(|n| 1 + (3 * (n + index * 2) + 1) % 5).collect();
    let counts = |i: usize| if (i % 5) < length[i / 5] as usize { 1.0 } else { 0.0 };
    let mask = (0..10).map(counts).collect();
    Batch::new([
        ("ids", Tensor::i32([2, 5], ids)),
        ("next", Tensor::i32([2, 5], next)),
        ("length", Tensor::i32([2], length)),
        ("mask", Tensor::f32([2, 5], mask)),
    ])
}

/// Masks, label smoothing, accumulated and clipped gradients, decay of matrices alone, a rate that
/// rises and falls; the parameters have PyTorch's names.
#[test]
fn a_transformer_learns_as_in_pytorch() {
    let reference = |name: &str| expected_of("tagger_steps.safetensors", name);
    for threads in 1..=2 {
        let source = include_str!("reference/tagger.dl");
        let mut trainer = compile(threads, source).trainer("Tagger").unwrap();
        let names = fill(&trainer);
        let mut losses = Vec::new();
        for index in 0..6 {
            let metrics = match index % 2 {
                0 => trainer.accumulate(&sentences(index)),
                _ => trainer.step(&sentences(index)),
            };
            losses.push(metrics.unwrap().loss() as f32);
        }
        assert_close("loss", &losses, &reference("loss"));
        for name in names {
            let found = trainer.read(&name).unwrap();
            assert_close(&name, found.as_f32().unwrap(), &reference(&name));
        }
    }
}
