//! Against PyTorch: LeNet's outputs, loss, gradients, and weights after one step of SGD; layers of
//! sequences in `layers`.
//!
//! tests/reference/lenet_step.py made the values, in f64; weights and data follow the formula of
//! its `pattern`. The bound is the one the project promises: 1e-5 of a tensor's largest value.

use dlc::{Batch, Compiler, Module, Tensor};
use safetensors::SafeTensors;
use std::path::Path;

#[path = "reference/layers.rs"]
mod layers;

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

fn expected(name: &str) -> Vec<f32> {
    expected_in("lenet_step.safetensors", name)
}

/// The reference tensor of that name.
fn expected_in(file: &str, name: &str) -> Vec<f32> {
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
    Compiler::new()
        .threads(threads)
        .compile_text("lenet.dl", SOURCE)
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
