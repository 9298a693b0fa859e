//! The whole loop on a model written by hand.

mod fake;

use dlc_kernel::Tensor;
use dlc_train::{
    Batch, Dataset, Error, Event, Fit, Goal, Monitor, Renames, Start, StopReason, Summary, Trainer,
    Weights, WeightsFile, fit,
};
use fake::{Logistic, Options, points, rebuild};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The loss of every step, to the bit, and the mean losses of every epoch.
#[derive(Debug, Default, PartialEq)]
struct Curve {
    steps: Vec<(u64, u64)>,
    epochs: Vec<(u32, u64, u64)>,
}

/// A run: the fake's options, the loop's, and what happens in each event.
struct Run<'a> {
    fake: Options,
    fit: Fit,
    seed: i32,
    data: (Dataset, Dataset),
    hook: Box<dyn FnMut(&Event<'_>) + 'a>,
}

impl<'a> Run<'a> {
    fn new(epochs: u32) -> Run<'a> {
        Run {
            fake: Options::default(),
            fit: Fit { epochs, model: "Logistic".into(), target: "fake".into(), ..Fit::default() },
            seed: 42,
            data: points(100).split_validation(0.1),
            hook: Box::new(|_| {}),
        }
    }

    fn within(epochs: u32, dir: &Path) -> Run<'a> {
        let mut run = Run::new(epochs);
        run.fit.dir = Some(dir.to_owned());
        run
    }

    fn resuming(epochs: u32, dir: &Path) -> Run<'a> {
        let mut run = Run::within(epochs, dir);
        run.fit.start = Start::Resume;
        run
    }

    fn go(mut self) -> Result<(Summary, Curve, Trainer), Error> {
        let mut trainer = Trainer::new(Logistic::executable(self.fake), self.seed)?;
        let mut curve = Curve::default();
        let mut observer = |event: &Event<'_>| {
            match event {
                Event::Step { step, metrics, .. } => {
                    curve.steps.push((*step, metrics.loss().to_bits()));
                }
                Event::Epoch { epoch, train, val, .. } => {
                    let val = val.map_or(0, |v| v.loss().to_bits());
                    curve.epochs.push((*epoch, train.loss().to_bits(), val));
                }
                _ => {}
            }
            (self.hook)(event);
        };
        let (train, val) = &self.data;
        let mut rebuild = rebuild();
        let result = fit(&mut trainer, train, Some(val), &mut rebuild, &self.fit, &mut observer)?;
        Ok((result, curve, trainer))
    }

    fn error(self) -> String {
        match self.go() {
            Ok(_) => panic!("the run should have failed"),
            Err(error) => error.to_string(),
        }
    }
}

fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("checkpoints")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Interrupts a run at a step.
fn interrupt_at<'a>(run: &mut Run<'a>, at: u64) {
    let flag = Arc::new(AtomicBool::new(false));
    run.fit.interrupt = flag.clone();
    run.hook = Box::new(move |event| {
        if matches!(event, Event::Step { step, .. } if *step == at) {
            flag.store(true, Ordering::Relaxed);
        }
    });
}

#[test]
fn the_loss_falls_and_the_model_learns() {
    let (summary, curve, mut trainer) = Run::new(20).go().unwrap();
    assert_eq!((summary.epochs, summary.steps), (20, 20 * (90 / 8)));
    assert_eq!(summary.reason, StopReason::Finished);
    let loss = |i: usize| f64::from_bits(curve.epochs[i].1);
    assert!(loss(19) < 0.5 * loss(0), "from {} to {}", loss(0), loss(19));
    let measured = trainer.evaluate(&points(100), &mut rebuild()).unwrap();
    assert!(measured.get("accuracy").unwrap() > 0.9, "{measured:?}");
}

/// Against the mean over single samples: 100 = 12 * 8 + 4 samples, none left out or padded.
#[test]
fn evaluation_counts_every_sample_once() {
    let (_, _, mut trainer) = Run::new(1).go().unwrap();
    let data = points(100);
    let all = trainer.evaluate(&data, &mut rebuild()).unwrap();
    let single = Logistic::executable(Options { batch: 1, ..Options::default() });
    let mut single = Trainer::new(single, 0).unwrap();
    for name in ["weight", "bias", "running_mean"] {
        single.write(name, &trainer.read(name).unwrap()).unwrap();
    }
    let mut mean = [0.0; 2];
    for i in 0..100 {
        let metrics = single.evaluate(&data.subset(&[i]), &mut rebuild()).unwrap();
        mean[0] += metrics.loss() / 100.0;
        mean[1] += metrics.get("accuracy").unwrap() / 100.0;
    }
    let accuracy = all.get("accuracy").unwrap();
    assert!((all.loss() - mean[0]).abs() < 100.0 * f64::from(f32::EPSILON), "{all:?} {mean:?}");
    assert!((accuracy - mean[1]).abs() < 1e-6, "{all:?} {mean:?}");
}

#[test]
fn training_stops_when_nothing_improves() {
    let mut run = Run::new(1000);
    run.fit.patience = Some(3);
    run.fit.monitor = Monitor { metric: "accuracy".into(), goal: Goal::Higher };
    let (summary, curve, _) = run.go().unwrap();
    assert_eq!(summary.reason, StopReason::EarlyStop);
    let (best, metrics) = summary.best.unwrap();
    assert_eq!(summary.epochs, best + 3);
    assert_eq!(curve.epochs[best as usize - 1].2, metrics.loss().to_bits());
}

#[test]
fn best_weights_are_those_of_the_best_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::within(1000, dir.path());
    run.fit.patience = Some(3);
    run.fit.monitor = Monitor { metric: "accuracy".into(), goal: Goal::Higher };
    let (summary, _, _) = run.go().unwrap();
    let (best, _) = summary.best.unwrap();
    let kept = Weights::read(&dir.path().join("weights.safetensors")).unwrap();
    assert_eq!(Some(&kept), summary.weights.as_ref());
    let names: Vec<&str> = kept.iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["bias", "running_mean", "weight"], "no optimizer state, no scalar");
    let (_, _, again) = Run::new(best).go().unwrap();
    assert_eq!(again.weights().unwrap().get("weight"), kept.get("weight"));
    assert_eq!(checkpoints(dir.path()).len(), 2, "only the newest are kept");
}

#[test]
fn a_resumed_run_continues_to_the_bit() {
    for (scheduled, at) in
        [1, 7, 11, 12, 30, 65].into_iter().flat_map(|at| [(false, at), (true, at)])
    {
        let dir = tempfile::tempdir().unwrap();
        let fake = Options { scheduled, ..Options::default() };
        let with = |run: Run<'static>| Run { fake: fake.clone(), ..run };
        let (_, whole, reference) = with(Run::new(6)).go().unwrap();
        let mut run = with(Run::within(6, dir.path()));
        interrupt_at(&mut run, at);
        let (summary, mut curve, _) = run.go().unwrap();
        assert_eq!((summary.reason, summary.steps), (StopReason::Interrupted, at));
        let (summary, rest, trainer) = with(Run::resuming(6, dir.path())).go().unwrap();
        assert_eq!(summary.reason, StopReason::Finished);
        curve.steps.extend(rest.steps);
        curve.epochs.extend(rest.epochs);
        assert_eq!(curve, whole, "interrupted at step {at}");
        for name in ["weight", "bias", "running_mean", "momentum.weight"] {
            assert_eq!(trainer.read(name).unwrap(), reference.read(name).unwrap());
        }
    }
}

#[test]
fn samples_are_shuffled_only_if_told_to() {
    let first = |shuffle| {
        let mut run = Run::new(1);
        run.fit.shuffle = shuffle;
        run.go().unwrap().1.steps[0].1
    };
    let (train, _) = points(100).split_validation(0.1);
    let mut trainer = Trainer::new(Logistic::executable(Options::default()), 42).unwrap();
    let batch = trainer.batches(&train).unwrap().get(0).clone();
    let in_order = trainer.step(&batch).unwrap().loss().to_bits();
    assert_eq!(first(false), in_order);
    assert_ne!(first(true), in_order);
}

#[test]
fn more_epochs_can_be_added_to_a_finished_run() {
    let (_, whole, _) = Run::new(6).go().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_, mut curve, _) = Run::within(2, dir.path()).go().unwrap();
    curve.steps.extend(Run::resuming(6, dir.path()).go().unwrap().1.steps);
    assert_eq!(curve.steps, whole.steps);
}

#[test]
fn a_nan_stops_the_run_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::within(6, dir.path());
    run.fake.nan_at = Some(25);
    let message = run.error();
    let kept = checkpoints(dir.path()).pop().unwrap();
    let expected = format!(
        "epoch 3, step 26: `loss` is not finite; the last good checkpoint is `{}`",
        kept.display()
    );
    assert_eq!(message, expected);
    Run::resuming(6, dir.path()).go().unwrap();
}

#[test]
fn a_folder_serves_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut run = Run::within(2, dir.path());
    run.hook = Box::new(move |event| {
        if matches!(event, Event::Step { step: 3, .. }) {
            let message = Run::resuming(2, &path).error();
            let pid = format!("(process {})", std::process::id());
            assert!(message.contains(&pid), "{message}");
        }
    });
    run.go().unwrap();
    let message = Run::within(2, dir.path()).error();
    assert!(message.contains("holds an earlier training run"), "{message}");
}

#[test]
fn resuming_something_else_is_refused_with_the_reasons() {
    let dir = tempfile::tempdir().unwrap();
    Run::within(1, dir.path()).go().unwrap();
    let refused = |change: &dyn Fn(&mut Run)| {
        let mut run = Run::resuming(2, dir.path());
        change(&mut run);
        run.error()
    };
    let message = refused(&|run| {
        run.seed = 7;
        run.fit.model = "Other".into();
    });
    assert!(message.contains("\n  - it was made with model `Logistic`, now it is `Other`"));
    assert!(message.contains("\n  - it was made with seed 42, now it is 7"), "{message}");
    let message = refused(&|run| run.fake.batch = 4);
    assert!(message.contains("made with 8 samples a step, now there are 4"), "{message}");
    let message = refused(&|run| (run.fake.batch, run.fit.accumulate) = (4, 2));
    assert!(message.contains("made with 1 batches a step, now there are 2"), "{message}");
    assert!(!message.contains("samples a step"), "{message}");
    let message = refused(&|run| run.fit.shuffle = false);
    assert!(message.contains("made with samples `shuffled`, now it is `in order`"), "{message}");
    let message = refused(&|run| run.fake.momentum = "m.weight");
    assert!(message.contains("another optimizer: tensor `m.weight` differs"), "{message}");
    let message = refused(&|run| run.fake.weight = "fc.weight");
    assert!(message.contains("another model: tensor `fc.weight` differs"), "{message}");
    let message = refused(&|run| run.data = points(200).split_validation(0.1));
    assert!(message.contains("made with 90 training samples, now there are 180"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    assert!(Run::resuming(2, empty.path()).error().contains("there is no checkpoint in it"));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    type Damage = fn(&Path);
    let damage: [(&str, Damage); 4] = [
        ("weights.safetensors", |file| {
            let mut bytes = fs::read(file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("state.safetensors", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("checkpoint.json", |file| {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.replace("\"step\": 33", "\"step\": 34")).unwrap();
        }),
        ("checkpoint.json", |file| fs::remove_file(file).unwrap()),
    ];
    let (_, whole, _) = Run::new(5).go().unwrap();
    for (file, damage) in damage {
        let dir = tempfile::tempdir().unwrap();
        Run::within(3, dir.path()).go().unwrap();
        let newest = checkpoints(dir.path()).pop().unwrap();
        damage(&newest.join(file));
        let mut notes = Vec::new();
        let mut run = Run::resuming(5, dir.path());
        run.hook = Box::new(|event| {
            if let Event::Note { message } = event {
                notes.push(message.to_string());
            }
        });
        let (_, curve, _) = run.go().unwrap();
        assert_eq!(curve.steps[..], whole.steps[2 * 11..], "after the second of five epochs");
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains(&*newest.join(file).to_string_lossy()), "{notes:?}");
        let names: Vec<_> = checkpoints(dir.path());
        assert!(names.iter().any(|p| p.extension().is_some_and(|e| e == "damaged")), "{names:?}");
    }
}

#[test]
fn when_all_checkpoints_are_damaged_the_newest_is_named() {
    let dir = tempfile::tempdir().unwrap();
    Run::within(3, dir.path()).go().unwrap();
    let all = checkpoints(dir.path());
    all.iter().for_each(|c| fs::write(c.join("weights.safetensors"), "").unwrap());
    let newest = all.last().unwrap().join("weights.safetensors");
    let message = Run::resuming(5, dir.path()).error();
    assert!(message.starts_with(&format!("`{}` is truncated", newest.display())), "{message}");
}

#[test]
fn changed_scalars_are_told_when_resuming() {
    let dir = tempfile::tempdir().unwrap();
    Run::within(1, dir.path()).go().unwrap();
    let mut trainer = Trainer::new(Logistic::executable(Options::default()), 42).unwrap();
    trainer.set_scalar("lr", 0.25).unwrap();
    let run = Run::resuming(2, dir.path());
    let mut notes = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Note { message } = event {
            notes.push(message.to_string());
        }
    };
    let (train, val) = &run.data;
    fit(&mut trainer, train, Some(val), &mut rebuild(), &run.fit, &mut observer).unwrap();
    assert_eq!(notes, ["`lr` was 0.5 so far and is 0.25 from here on"]);
}

#[test]
fn schedules_go_by_the_plan() {
    let scheduled = || Logistic::executable(Options { scheduled: true, ..Options::default() });
    let mut trainer = Trainer::new(scheduled(), 1).unwrap();
    let data = points(8);
    let batch = trainer.batches(&data).unwrap().get(0).clone();
    let message = trainer.step(&batch).unwrap_err().to_string();
    assert_eq!(message, "a schedule goes by the number of steps: call `plan` before `step`");
    trainer.plan(2).unwrap();
    trainer.step(&batch).unwrap();
    trainer.step(&batch).unwrap();
    let end = trainer.read("bias").unwrap();
    trainer.step(&batch).unwrap();
    assert_eq!(trainer.read("bias").unwrap(), end, "the rate is 0 at the end of the plan");
}

#[test]
fn steps_of_several_batches_need_an_entry_for_them() {
    let mut run = Run::new(1);
    run.fit.accumulate = 2;
    assert_eq!(run.error(), "the program has no entry `accumulate`");
    let mut run = Run::new(1);
    run.fit.accumulate = 12;
    let message = run.error();
    assert!(message.contains("a step of 96 samples is larger"), "{message}");
}

#[test]
fn what_does_not_fit_together_is_told() {
    let mut run = Run::new(1);
    run.data.0 = points(5);
    let expected = "a step of 8 samples is larger than the training data (5 samples)";
    assert_eq!(run.error(), expected);
    let mut run = Run::new(1);
    run.fit.monitor.metric = "bleu".into();
    assert_eq!(run.error(), "there is no metric `bleu`; there are: loss, accuracy");
    let trainer = Trainer::new(Logistic::executable(Options::default()), 0).unwrap();
    let message = trainer.set_scalar("momentum", 0.9).unwrap_err().to_string();
    assert_eq!(message, "the program has no run-time scalar `momentum`; it has: lr, seed, step");
}

#[test]
fn one_step_at_a_time_on_ones_own_data() {
    let mut trainer = Trainer::new(Logistic::executable(Options::default()), 1).unwrap();
    let x = Tensor::f32([8, 3], (0..24).map(|i| (i % 5) as f32 - 2.0).collect());
    let label = Tensor::i32([8], vec![0, 1, 1, 0, 0, 1, 1, 0]);
    let batch = Batch::new([("label", label.clone()), ("x", x)]);
    let first = trainer.step(&batch).unwrap().loss();
    let last = (0..50).map(|_| trainer.step(&batch).unwrap().loss()).last().unwrap();
    assert!(last < first, "{first} {last}");
    assert_eq!(trainer.steps(), 51);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    trainer.save_weights(&path).unwrap();
    let mut other = Trainer::new(Logistic::executable(Options::default()), 2).unwrap();
    assert_eq!(other.load_weights(&path).unwrap(), []);
    assert_eq!(other.measure(&batch).unwrap(), trainer.measure(&batch).unwrap());
    let wrong = Batch::new([("x", Tensor::f32([8, 2], vec![0.0; 16])), ("label", label)]);
    let message = trainer.step(&wrong).unwrap_err().to_string();
    assert_eq!(message, "`x` is f32[8, 2] in the data, the model takes f32[8, 3]");
}

#[test]
fn weights_that_do_not_fit_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let other = Logistic::executable(Options { weight: "module.weight", ..Options::default() });
    let other = Trainer::new(other, 3).unwrap();
    other.save_weights(&path).unwrap();
    let trainer = Trainer::new(Logistic::executable(Options::default()), 4).unwrap();
    let before = trainer.weights().unwrap();
    let message = trainer.load_weights(&path).unwrap_err().to_string();
    assert!(message.contains("missing     weight         f32[3]"), "{message}");
    assert!(message.contains("unexpected  module.weight  f32[3]"), "{message}");
    assert!(message.contains("the line `module.* = *` in a --rename file"), "{message}");
    assert_eq!(trainer.weights().unwrap(), before);
    let renames = Renames::parse("module.* = *").unwrap();
    let file = WeightsFile { renames, ..WeightsFile::new(&path) };
    file.load(&**trainer.executable()).unwrap();
    assert_eq!(
        trainer.weights().unwrap(),
        other.weights().unwrap().renamed(&file.renames, &path).unwrap()
    );
    trainer.write("bias", &Tensor::f32([], vec![f32::NAN])).unwrap();
    trainer.save_weights(&path).unwrap();
    assert_eq!(trainer.load_weights(&path).unwrap(), [("bias".to_owned(), 1)]);
    let strict = WeightsFile { strict: true, ..WeightsFile::new(&path) };
    let message = strict.load(&**trainer.executable()).unwrap_err().to_string();
    assert!(message.ends_with("holds numbers that are not finite:\n  - `bias`: 1"), "{message}");
}
