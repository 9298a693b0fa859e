//! A net of pictures: its loss, and its weights after one step of SGD. The values are those of
//! pictures_step.py.

use super::{assert_close, compile, expected_of, pattern, weight};
use dlc::{Batch, Tensor};

const BATCH: usize = 6;

const SHAPES: [(&str, &[usize]); 11] = [
    ("conv1.weight", &[24, 3, 3, 3]),
    ("conv2.weight", &[24, 8, 3, 3]),
    ("conv3.weight", &[32, 24, 3, 3]),
    ("batch_norm1.weight", &[24]),
    ("batch_norm1.bias", &[24]),
    ("batch_norm2.weight", &[24]),
    ("batch_norm2.bias", &[24]),
    ("batch_norm3.weight", &[32]),
    ("batch_norm3.bias", &[32]),
    ("linear1.weight", &[10, 512]),
    ("linear1.bias", &[10]),
];

const SOURCE: &str = "
model Pictures(image: f32[N, 3, 16, 16]) -> f32[N, 10] {
  image
    |> conv(24, 3x3, pad = 1, bias = no)             |> batch_norm |> relu |> max_pool(2x2)
    |> conv(24, 3x3, pad = 1, groups = 3, bias = no) |> batch_norm |> relu
    |> conv(32, 3x3, pad = 1, bias = no)             |> batch_norm |> relu |> max_pool(2x2)
    |> flatten |> linear(10)
}
train Pictures {
  data  tensors(image = f32[N, 3, 16, 16], label = i32[N]) batch 6
  loss  cross_entropy(Pictures(image), label)
  optim sgd(lr = 0.5)
}";

#[test]
fn pooled_pictures_and_groups_are_learned_as_in_pytorch() {
    let values = |name: &str| expected_of("pictures_step.safetensors", name);
    for threads in 1..=2 {
        let mut trainer = compile(threads, SOURCE).trainer("Pictures").unwrap();
        for (site, (name, shape)) in SHAPES.iter().enumerate() {
            trainer.write(name, &weight(site, shape)).unwrap();
        }
        let flat = pattern(BATCH * 768, 100).into_iter().map(|v| ((v + 1.0) / 2.0) as f32);
        let image = Tensor::f32([BATCH, 3, 16, 16], flat.collect());
        let label = Tensor::i32([BATCH], (0..BATCH as i32).map(|i| i * 3 % 10).collect());
        let metrics = trainer.step(&Batch::new([("image", image), ("label", label)])).unwrap();
        assert_close("loss", &[metrics.loss() as f32], &values("loss"));
        for (site, (name, shape)) in SHAPES.iter().enumerate().filter(|s| s.1.0 != "linear1.weight")
        {
            let before = weight(site, shape);
            let found = trainer.read(name).unwrap();
            let moved = found.as_f32().unwrap().iter().zip(before.as_f32().unwrap());
            let gradient: Vec<f32> = moved.map(|(after, before)| 2.0 * (before - after)).collect();
            let bound = values(&format!("grad.{name}"));
            assert_close(name, &gradient, &bound);
        }
    }
}
