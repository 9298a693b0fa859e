//! Training of sequence models: blocks with dropout, layers left out, masks, steps in parts.

use dlc::{Batch, Compiler, Tensor, TrainOptions, TrainOverrides, Trainer, WeightsFile};
use dlc_train::Event;
use std::path::Path;

/// Losses of `steps` steps on one batch of waves, one of whose features is larger in each sample: that
/// is the label.
fn losses(block: &str, steps: usize) -> Vec<f64> {
    let source = format!(
        "model Net(x: f32[N, 6, 16]) -> f32[N, 6, 4] {{ {block} |> linear(4) }}
         train Net {{
           data  tensors(x = f32[N, 6, 16], label = i32[N, 6]) batch 8
           loss  cross_entropy(Net(x), label)
           optim adam(lr = 3e-3)
         }}"
    );
    let module = Compiler::new().compile_text("net.dl", &source).unwrap_or_else(|e| panic!("{e}"));
    let mut trainer = module.trainer("Net").unwrap_or_else(|e| panic!("{e}"));
    let label = |n: usize| n % 4;
    let larger = |i: usize| if i % 16 == label(i / 96) { 2.0 } else { 0.0 };
    let wave = |i: usize| (i as f32 * 0.7).sin() + larger(i);
    let x = Tensor::f32([8, 6, 16], (0..768).map(wave).collect());
    let labels = Tensor::i32([8, 6], (0..48).map(|i| label(i / 6) as i32).collect());
    let batch = Batch::new([("x", x), ("label", labels)]);
    (0..steps).map(|_| trainer.step(&batch).unwrap().loss()).collect()
}

/// The mean loss falls by a third between the first and the last five steps.
fn learns(block: &str) {
    let losses = losses(block, 40);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[35..]));
    assert!(losses.iter().all(|l| l.is_finite()), "{block}: {losses:?}");
    assert!(last < first / 1.5, "{block}: {first} to {last}");
}

#[test]
fn transformer_blocks_learn_with_dropout() {
    learns("x |> transformer_encoder(2, 2, 32, rate = 0.1)");
    learns("x |> blocks: repeat 2 { gpt_block(2, rate = 0.1) }");
    learns("x |> llama_block(4, 32, G = 2)");
    learns("transformer(x, x, 1, 2, 32, rate = 0.1)");
}

/// A rate that starts as 0 is no scalar that could be set, and be heeded by nobody.
#[test]
fn only_rates_that_are_there_can_be_set() {
    let set = |rate: &str| {
        let source = format!(
            "model Net(x: f32[N, 6, 16]) -> f32[N, 6, 4] {{
               layer = encoder_layer(2, 32, rate = {rate})
               x |> layer |> linear(4)
             }}
             train Net {{
               data  tensors(x = f32[N, 6, 16], label = i32[N, 6]) batch 8
               loss  cross_entropy(Net(x), label)
               optim adam(lr = 3e-3)
             }}"
        );
        let module = Compiler::new().compile_text("net.dl", &source).unwrap();
        module.trainer("Net").unwrap().set_scalar("layer.rate", 0.5)
    };
    assert!(set("0.1").is_ok());
    let message = set("0.0").unwrap_err().to_string();
    assert!(message.contains("layer.rate"), "{message}");
}

#[test]
fn layers_that_are_left_out_learn() {
    learns(
        "h = x |> linear(16)
         k = h |> encoder_layer(2, 32, rate = 0.0)
         layer_drop(k, h, rate = 0.5)",
    );
}

#[test]
fn a_layer_is_left_out_as_a_whole_as_often_as_said() {
    let source = "
        model Net(x: f32[N, 3]) -> f32[N, 3] { layer_drop(x * 2, x, rate = 0.25) }
        model Scaled(x: f32[N, 3]) -> f32[N, 3] { param w: [] = 1\n x * w |> Net }
        train Scaled {
          data  tensors(x = f32[N, 3]) batch 2
          loss  mean(Scaled(x))
          optim sgd(lr = 1e-9)
        }";
    let module = Compiler::new().compile_text("net.dl", source).unwrap_or_else(|e| panic!("{e}"));
    let mut trainer = module.trainer("Scaled").unwrap_or_else(|e| panic!("{e}"));
    let batch = Batch::new([("x", Tensor::f32([2, 3], vec![1.0; 6]))]);
    let steps = 800;
    let mut left_out = 0;
    for _ in 0..steps {
        let loss = trainer.step(&batch).unwrap().loss();
        // Either all numbers are doubled or none is.
        assert!((loss - 1.0).abs() < 1e-3 || (loss - 2.0).abs() < 1e-3, "{loss}");
        left_out += u32::from(loss < 1.5);
    }
    // Five standard errors, which are 1.5 %.
    let part = f64::from(left_out) / f64::from(steps);
    assert!((part - 0.25).abs() < 0.077, "{part}");
}

const LINE: &str = "
model Line(x: f32[N, 3]) -> f32[N, 2] { x |> linear(8) |> tanh |> linear(2) }
train Line {
  data  tensors(x = f32[N, 3], y = f32[N, 2])
  loss  mse(Line(x), y)
  optim momentum(lr = 0.1)
";

fn line(settings: &str) -> Trainer {
    let module = Compiler::new().compile_text("line.dl", &format!("{LINE}\n{settings} }}"));
    module.unwrap().trainer("Line").unwrap_or_else(|e| panic!("{e}"))
}

fn points(from: usize, count: usize) -> Batch {
    let wave = |n: usize, width: usize| {
        let values = (from * width..(from + n) * width).map(|i| (i as f32 * 1.3).sin());
        Tensor::f32([n, width], values.collect())
    };
    Batch::new([("x", wave(count, 3)), ("y", wave(count, 2))])
}

#[test]
fn a_step_of_four_batches_is_that_of_a_large_one() {
    let (mut whole, mut parts) = (line("batch 32"), line("batch 8\n accumulate 4\n"));
    let steps = 20;
    for step in 0..steps {
        whole.step(&points(step * 32, 32)).unwrap();
        for part in 0..3 {
            parts.accumulate(&points(step * 32 + part * 8, 8)).unwrap();
        }
        parts.step(&points(step * 32 + 24, 8)).unwrap();
    }
    assert_eq!((whole.steps(), parts.steps()), (20, 20));
    // The sums differ by their order alone: a few roundings of 2^-24 a step, that the next ones keep.
    for (name, tensor) in whole.weights().unwrap().iter() {
        let other = parts.read(name).unwrap();
        for (a, b) in tensor.as_f32().unwrap().iter().zip(other.as_f32().unwrap()) {
            assert!((a - b).abs() <= 20.0 * 8.0 * 2f32.powi(-24), "{name}: {a} and {b}");
        }
    }
}

#[test]
fn what_a_program_does_not_add_up_is_refused() {
    let error = line("batch 8").accumulate(&points(0, 8)).unwrap_err().to_string();
    assert!(error.contains("`accumulate`"), "{error}");
}

#[test]
fn a_norm_that_is_not_finite_leaves_the_weights() {
    let source = "
        model Line(x: f32[N, 2]) -> f32[] { param w: [2] = 0.5\n sum(x * w) }
        train Line {
          data  tensors(x = f32[N, 2]) batch 1
          loss  Line(x)
          optim adam(lr = 0.1)
          clip  1.0
        }";
    let module = Compiler::new().compile_text("line.dl", source).unwrap();
    let mut trainer = module.trainer("Line").unwrap();
    let batch = |x| Batch::new([("x", Tensor::f32([1, 2], vec![x, 1.0]))]);
    trainer.step(&batch(1.0)).unwrap();
    let before = trainer.weights().unwrap();
    // Loss and gradients of 1e20 are finite, their squares are not.
    let error = trainer.step(&batch(1e20)).unwrap_err().to_string();
    assert!(error.contains("norm of the gradients"), "{error}");
    trainer.step(&batch(f32::NAN)).unwrap_err();
    assert!(before.iter().eq(trainer.weights().unwrap().iter()));
    trainer.step(&batch(1.0)).unwrap();
}

const LM: &str = "
model Lm(ids: i32[N, T]) -> f32[N, T, V] {
  ids |> embedding(V, 8) |> blocks: repeat 1 { gpt_block(2) } |> linear(V)
}
train Lm {
  data   lines(\"names.txt\", T = 12) batch 8 shuffle
  loss   cross_entropy(Lm(ids), next, mask = mask)
  metric perplexity(Lm(ids), next, mask = mask)
  metric accuracy(Lm(ids), next, mask = mask)
  optim  adam(lr = 3e-3)
  epochs 2
}";

/// Lines of one to ten letters, so that batches have different numbers of them.
fn write_lines(dir: &Path) {
    let line = |i: usize| "abcdefghij"[..1 + i * i % 10].to_owned() + "\n";
    std::fs::write(dir.join("names.txt"), (0..203).map(line).collect::<String>()).unwrap();
    std::fs::write(dir.join("lm.dl"), LM).unwrap();
}

/// Means under a mask count positions, so that they do not depend on how samples are batched.
#[test]
fn means_do_not_depend_on_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    write_lines(dir.path());
    let file = dir.path().join("lm.dl");
    let module = Compiler::new().compile_file(&file).unwrap();
    let options = |batch| TrainOptions {
        overrides: TrainOverrides { batch, ..TrainOverrides::default() },
        out: Some(dir.path().join("run")),
        ..TrainOptions::default()
    };
    let trained = dlc::train(&module, "Lm", &file, &options(None), &mut |_: &Event<'_>| {});
    let weights = trained.unwrap().dir.join("weights.safetensors");
    let weights = WeightsFile::new(&weights);
    let measured = [1, 3, 7, 64].map(|batch| {
        let options = options(Some(batch));
        dlc::evaluate(&module, "Lm", &file, &weights, &options).unwrap().metrics
    });
    let all = &measured[3];
    for metrics in &measured {
        for (name, value) in metrics.iter() {
            let expected = all.get(name).unwrap();
            assert!((value - expected).abs() <= 1e-5 * expected, "{name}: {value} {expected}");
        }
        let perplexity = metrics.get("perplexity").unwrap();
        assert!((perplexity - metrics.loss().exp()).abs() <= 1e-6 * perplexity);
    }
}

/// The same loss over a large vocabulary, from all logits and in parts; `ids` are embedded by the
/// table that gives the scores, too.
const LARGE: &str = "
block Body(ids: i32[N, 64]) -> (h: [N, 64, 32], table: [8000, 32]) {
  param table: [8000, 32] ~ normal(0.0, 0.1)
  x[n, t, d] = table[ids[n, t], d]
  x |> self_attention(2, causal = yes), table
}
model Whole(ids: i32[N, 64], next: i32[N, 64], mask: f32[N, 64]) -> f32[] {
  h, table = Body(ids)
  cross_entropy(h @ transpose(table), next, mask = mask)
}
model Parts(ids: i32[N, 64], next: i32[N, 64], mask: f32[N, 64]) -> f32[] {
  h, table = Body(ids)
  linear_cross_entropy(h, table, next, mask = mask)
}
train Whole {
  data  tensors(ids = i32[N, 64], next = i32[N, 64], mask = f32[N, 64]) batch 32
  loss  Whole(ids, next, mask)
  optim sgd(lr = 1.0)
}
train Parts {
  data  tensors(ids = i32[N, 64], next = i32[N, 64], mask = f32[N, 64]) batch 32
  loss  Parts(ids, next, mask)
  optim sgd(lr = 1.0)
}";

#[test]
fn a_loss_in_parts_takes_less_memory_and_teaches_the_same() {
    let module = Compiler::new().compile_text("large.dl", LARGE).unwrap_or_else(|e| panic!("{e}"));
    let ids =
        |step: usize| Tensor::i32([32, 64], (0..2048).map(|i| (i * step % 7919) as i32).collect());
    let mask = Tensor::f32([32, 64], (0..2048).map(|i| (i % 5) as f32 / 4.0).collect());
    let batch = Batch::new([("ids", ids(5)), ("next", ids(11)), ("mask", mask)]);
    let [whole, parts] = ["Whole", "Parts"].map(|model| {
        let mut trainer = module.trainer(model).unwrap_or_else(|e| panic!("{e}"));
        let loss = trainer.step(&batch).unwrap().loss();
        (loss, trainer.weights().unwrap(), trainer.executable().peak_bytes())
    });
    // Of 64 MiB of logits and as many of their gradients, an eighth is there at a time.
    assert!(parts.2 < whole.2 / 2, "{} bytes instead of {}", parts.2, whole.2);
    // Sums of 8,000 numbers, most of which are alike.
    assert!((whole.0 - parts.0).abs() < 1e-5 * whole.0, "{} and {}", whole.0, parts.0);
    for (name, tensor) in whole.1.iter() {
        let other = parts.1.iter().find(|(n, _)| *n == name).unwrap().1;
        for (a, b) in tensor.as_f32().unwrap().iter().zip(other.as_f32().unwrap()) {
            assert!((a - b).abs() <= 1e-6, "{name}: {a} and {b}");
        }
    }
}

/// In a model that also divides by 0 and masks by -inf, as one may.
#[test]
fn what_is_not_a_number_is_found_in_its_line() {
    let dir = tempfile::tempdir().unwrap();
    write_lines(dir.path());
    let file = dir.path().join("lm.dl");
    let bad = "ids |> embedding(V, 8) |> gpt_block(2)
  z = 1 / (h - h) if h > 1e9 else 0
  bad = sqrt(h)
  bad + z |> linear(V)";
    let good = "ids |> embedding(V, 8) |> blocks: repeat 1 { gpt_block(2) } |> linear(V)";
    std::fs::write(&file, LM.replace(good, &format!("h = {bad}"))).unwrap();
    for accumulate in [None, Some(2)] {
        let module = Compiler::new().compile_file(&file).unwrap();
        let options = TrainOptions {
            overrides: TrainOverrides { accumulate, ..TrainOverrides::default() },
            out: Some(dir.path().join(format!("run{accumulate:?}"))),
            ..TrainOptions::default()
        };
        let trained = dlc::train(&module, "Lm", &file, &options, &mut |_: &Event<'_>| {});
        let error = trained.err().expect("a root of a negative number").to_string();
        let wanted = format!("from sqrt, {}:5", file.display());
        assert!(error.starts_with("epoch 1, step 1: ") && error.contains(&wanted), "{error}");
    }
}
