//! Every example trains or runs; training is deterministic; failures leave weights alone.

use dlc::{Batch, Compiler, Tensor, TrainOptions, TrainOverrides, train};
use dlc_train::{Event, StopReason, mnist};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// Trains an example with the shipped digits into a temporary folder; the losses of all steps, and
/// the test accuracy.
fn run(
    name: &str,
    model: &str,
    threads: usize,
    overrides: TrainOverrides,
) -> (Vec<u64>, f64, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let file = example(name);
    let module = Compiler::new().threads(threads).compile_file(&file).unwrap();
    let out = Some(dir.path().join("run"));
    let options = TrainOptions { overrides, out, ..TrainOptions::default() };
    let mut losses = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Step { metrics, .. } = event {
            losses.push(metrics.loss().to_bits());
        }
    };
    let trained = train(&module, model, &file, &options, &mut observer).unwrap();
    assert_eq!(trained.summary.reason, StopReason::Finished);
    let accuracy = trained.test.unwrap().1.get("accuracy").unwrap();
    let weights = std::fs::read(trained.dir.join("weights.safetensors")).unwrap();
    (losses, accuracy, weights)
}

fn epochs(n: i64) -> TrainOverrides {
    TrainOverrides { epochs: Some(n), ..TrainOverrides::default() }
}

#[test]
fn lenet_learns_digits() {
    let (_, accuracy, _) = run("lenet.dl", "LeNet", 2, epochs(5));
    assert!(accuracy >= 0.9, "{accuracy}");
}

#[test]
fn the_mlp_learns_digits() {
    let (_, accuracy, _) = run("mlp.dl", "Mlp", 2, epochs(3));
    assert!(accuracy >= 0.85, "{accuracy}");
}

/// Of 26 pieces of DNA held out, guessing gets 13 right.
#[test]
fn two_layers_in_both_directions_learn_promoters() {
    let (losses, accuracy, _) = run("stacked_bilstm.dl", "Promoter", 2, epochs(40));
    let last: f64 = losses[losses.len() - 10..].iter().map(|&bits| f64::from_bits(bits)).sum();
    assert!(last / 10.0 < 0.5, "the mean loss of the last epoch is {}", last / 10.0);
    assert!(accuracy >= 17.0 / 26.0, "{accuracy}");
    let few = |threads| run("stacked_bilstm.dl", "Promoter", threads, epochs(1));
    assert!(few(1) == few(3), "3 threads: another loss curve or other weights");
}

#[test]
fn threads_change_no_bit() {
    let one = run("lenet.dl", "LeNet", 1, epochs(1));
    for threads in [2, 3] {
        let other = run("lenet.dl", "LeNet", threads, epochs(1));
        assert!(one == other, "{threads} threads: another loss curve or other weights");
    }
}

/// Interrupts a run after step `at` and goes on; all must be as without the interruption.
fn resumes_to_the_bit(overrides: &TrainOverrides, at: u64) -> Vec<u64> {
    let (losses, accuracy, weights) = run("lenet.dl", "LeNet", 2, overrides.clone());
    let dir = tempfile::tempdir().unwrap();
    let file = example("lenet.dl");
    let module = Compiler::new().threads(2).compile_file(&file).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    let mut options = TrainOptions { overrides: overrides.clone(), ..TrainOptions::default() };
    options.out = Some(dir.path().join("run"));
    options.interrupt = interrupt.clone();
    let mut resumed = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Step { step, metrics, .. } = event {
            resumed.push(metrics.loss().to_bits());
            interrupt.store(*step == at, Ordering::Relaxed);
        }
    };
    let first = train(&module, "LeNet", &file, &options, &mut observer).unwrap();
    assert_eq!(first.summary.reason, StopReason::Interrupted);
    interrupt.store(false, Ordering::Relaxed);
    options.resume = true;
    let second = train(&module, "LeNet", &file, &options, &mut observer).unwrap();
    assert_eq!(resumed, losses);
    assert_eq!(second.test.unwrap().1.get("accuracy"), Some(accuracy));
    assert_eq!(std::fs::read(second.dir.join("weights.safetensors")).unwrap(), weights);
    losses
}

#[test]
fn an_interrupted_run_goes_on_to_the_bit() {
    resumes_to_the_bit(&epochs(2), 70);
}

/// 3600 samples are 56 batches of 64, and 18 steps of three of them; two batches are left out.
#[test]
fn a_run_with_several_batches_a_step_goes_on_to_the_bit() {
    let overrides = TrainOverrides { accumulate: Some(3), ..epochs(2) };
    assert_eq!(resumes_to_the_bit(&overrides, 25).len(), 2 * 18);
}

#[test]
fn the_seed_changes_the_run() {
    let with = |seed| run("mlp.dl", "Mlp", 2, TrainOverrides { seed: Some(seed), ..epochs(1) });
    let (a, b) = (with(1), with(2));
    assert_ne!(a.0, b.0);
    assert_ne!(a.2, b.2);
}

#[test]
fn the_small_resnet_trains_on_its_own_data() {
    let module = Compiler::new().compile_file(example("resnet.dl")).unwrap();
    let name = module.trainable()[0].to_owned();
    let mut trainer = module.trainer(&name).unwrap();
    let n = trainer.batch_size().unwrap();
    // One colour per class: what a network that works learns within a few steps.
    let label = |i: usize| i % 10;
    let pixel = |i: usize, c: usize| if label(i) % 3 == c { 0.1 * label(i) as f32 } else { 0.0 };
    let image = (0..n * 3 * 1024).map(|k| pixel(k / 3072, k / 1024 % 3)).collect();
    let image = Tensor::f32([n, 3, 32, 32], image);
    let labels = Tensor::i32([n], (0..n).map(|i| label(i) as i32).collect());
    let batch = Batch::new([("image", image), ("label", labels)]);
    let first = trainer.step(&batch).unwrap().loss();
    let last = (0..7).map(|_| trainer.step(&batch).unwrap().loss()).last().unwrap();
    assert!(last < 0.7 * first, "{first} to {last}");
}

#[test]
fn resnet_18_runs() {
    let module = Compiler::new().compile_file(example("resnet.dl")).unwrap();
    let network = module.model("ResNet18").unwrap().bind([("N", 1)]).unwrap();
    let network = network.initialize(1).unwrap();
    let image = Tensor::f32([1, 3, 224, 224], vec![0.5; 3 * 224 * 224]);
    let outputs = network.run(&[("image", &image)]).unwrap();
    let logits = outputs[0].as_f32().unwrap();
    assert_eq!(logits.len(), 1000);
    assert!(logits.iter().all(|v| v.is_finite()) && logits.iter().any(|v| *v != logits[0]));
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_weights() {
    let source = "
        model Line(x: f32[N, 2]) -> f32[N, 1] { x |> linear(1) }
        train Line {
          data  tensors(x = f32[N, 2], y = f32[N, 1]) batch 2
          loss  mse(Line(x), y)
          optim adam(lr = 0.1)
        }";
    let module = Compiler::new().compile_text("line.dl", source).unwrap();
    let mut trainer = module.trainer("Line").unwrap();
    let good = Batch::new([
        ("x", Tensor::f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])),
        ("y", Tensor::f32([2, 1], vec![1.0, 2.0])),
    ]);
    trainer.step(&good).unwrap();
    let before = trainer.weights().unwrap();
    let bad = Batch::new([
        ("x", Tensor::f32([2, 2], vec![f32::NAN, 2.0, 3.0, 4.0])),
        ("y", Tensor::f32([2, 1], vec![1.0, 2.0])),
    ]);
    let error = trainer.step(&bad).unwrap_err().to_string();
    assert!(error.contains("loss"), "{error}");
    assert!(before.iter().eq(trainer.weights().unwrap().iter()));
    trainer.step(&good).unwrap();
}

#[test]
fn a_label_out_of_range_names_the_line() {
    let module = Compiler::new().compile_file(example("lenet.dl")).unwrap();
    let mut trainer = module.trainer("LeNet").unwrap();
    trainer.plan(1).unwrap();
    let n = trainer.batch_size().unwrap();
    let image = Tensor::f32([n, 1, 28, 28], vec![0.0; n * 784]);
    let batch = Batch::new([("image", image), ("label", Tensor::i32([n], vec![10; n]))]);
    let error = trainer.step(&batch).unwrap_err().to_string();
    assert!(error.contains("10") && error.contains(".dl:"), "{error}");
}

#[test]
fn the_shipped_digits_are_whole() {
    let digits = mnist::load(&root().join("examples/data/mnist-5k")).unwrap();
    assert_eq!((digits.train.len(), digits.test.len()), (4000, 1000));
}
