//! The training loop: epochs of steps, validation, early stopping, checkpoints.

use crate::checkpoint::{self, Identity, Progress};
use crate::data::{Batch, Batches, Dataset};
use crate::event::{CheckpointKind, Event, Observer, StopReason};
use crate::metrics::{Mean, Metrics};
use crate::run_dir::RunDir;
use crate::{Error, Rebuild, Trainer, Vocabulary, Weights};
use dlc_kernel::RunError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How to train.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Epochs at most, over all resumptions.
    pub epochs: u32,
    /// Whether each epoch takes the samples in another order.
    pub shuffle: bool,
    /// Batches of a step.
    pub accumulate: usize,
    /// What makes one epoch better than another.
    pub monitor: Monitor,
    /// Stop after so many epochs without improvement.
    pub patience: Option<u32>,
    /// Where weights and checkpoints go; nowhere if `None`.
    pub dir: Option<PathBuf>,
    /// Whether a run begins or goes on.
    pub start: Start,
    /// The model's name, for checkpoints.
    pub model: String,
    /// The target's name, for checkpoints.
    pub target: String,
    /// What the ids in the data stand for; goes into weights and checkpoints.
    pub vocabulary: Option<Arc<Vocabulary>>,
    /// When somebody sets it, training saves its state and stops.
    pub interrupt: Arc<AtomicBool>,
}

/// A metric of the validation samples, or of the training steps where there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its name.
    pub metric: String,
    /// Which way is better.
    pub goal: Goal,
}

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// As a loss.
    Lower,
    /// As an accuracy.
    Higher,
}

/// Whether a run begins or goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// In a folder without earlier results.
    #[default]
    New,
    /// From the newest whole checkpoint in the folder.
    Resume,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whole epochs done, over all resumptions.
    pub epochs: u32,
    /// Steps done, over all resumptions.
    pub steps: u64,
    /// Why it stopped.
    pub reason: StopReason,
    /// The best epoch, from 1, and what was measured there.
    pub best: Option<(u32, Metrics)>,
    /// The weights of the best epoch. The trainer itself is left with those of the last step.
    pub weights: Option<Weights>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
}

impl Default for Fit {
    /// One epoch, shuffled, nothing written.
    fn default() -> Fit {
        Fit {
            epochs: 1,
            shuffle: true,
            accumulate: 1,
            monitor: Monitor::default(),
            patience: None,
            dir: None,
            start: Start::New,
            model: String::new(),
            target: String::new(),
            vocabulary: None,
            interrupt: Arc::default(),
        }
    }
}

impl Default for Monitor {
    /// The loss.
    fn default() -> Monitor {
        Monitor { metric: "loss".into(), goal: Goal::Lower }
    }
}

impl Monitor {
    /// Whether `new` is better than `old`. A NaN is never better.
    fn prefers(&self, new: f64, old: Option<f64>) -> bool {
        match (self.goal, old) {
            (_, None) => !new.is_nan(),
            (Goal::Lower, Some(old)) => new < old,
            (Goal::Higher, Some(old)) => new > old,
        }
    }
}

/// Trains until the epochs are done, the monitored metric stops improving, or somebody interrupts.
/// The samples that do not fill the batches of an epoch's last step are left out. `rebuild` serves validation alone. Schedules
/// go by all steps of all epochs, whether they are reached or not.
///
/// # Errors
/// If data, program and options do not fit together; if files cannot be written, are in use or
/// belong to another run; if a step fails ([`Error::Step`]), with the last checkpoint untouched.
pub fn fit(
    trainer: &mut Trainer,
    train: &Dataset,
    validation: Option<&Dataset>,
    rebuild: &mut Rebuild<'_>,
    options: &Fit,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let validation = validation.filter(|v| !v.is_empty());
    check(trainer, train, validation, options)?;
    let identity = identify(trainer, train, validation, options)?;
    let steps = train.len() / identity.step_size;
    trainer.plan(u64::from(options.epochs) * steps as u64)?;
    let begun = Instant::now();
    let mut run = Run {
        trainer,
        train,
        validation,
        rebuild,
        options,
        observer,
        identity,
        dir: None,
        progress: Progress::default(),
        mean: Mean::default(),
        best: None,
    };
    run.prepare()?;
    run.announce();
    let reason = run.epochs()?;
    run.observer.observe(&Event::Stop { reason });
    Ok(run.conclude(reason, begun))
}

struct Run<'a, 'r> {
    trainer: &'a mut Trainer,
    train: &'a Dataset,
    validation: Option<&'a Dataset>,
    rebuild: &'a mut Rebuild<'r>,
    options: &'a Fit,
    observer: &'a mut dyn Observer,
    identity: Identity,
    dir: Option<RunDir>,
    progress: Progress,
    /// Of the present epoch.
    mean: Mean,
    /// The weights of the best epoch.
    best: Option<Weights>,
}

fn check(
    trainer: &Trainer,
    train: &Dataset,
    validation: Option<&Dataset>,
    options: &Fit,
) -> Result<(), Error> {
    let (size, samples) = (step_size(trainer, options)?, train.len());
    if samples < size {
        return Err(Error::Usage(format!(
            "a step of {size} samples is larger than the training data ({samples} samples)"
        )));
    }
    if validation.is_some() && !trainer.has_eval() {
        return Err(Error::Usage("validation needs a program with an entry `eval`".into()));
    }
    let (names, wanted) = (trainer.metric_names(), &options.monitor.metric);
    if !names.contains(wanted) {
        let names = names.join(", ");
        return Err(Error::Usage(format!("there is no metric `{wanted}`; there are: {names}")));
    }
    Ok(())
}

/// Samples of a step.
fn step_size(trainer: &Trainer, options: &Fit) -> Result<usize, Error> {
    Ok(trainer.batch_size()?.saturating_mul(options.accumulate))
}

fn identify(
    trainer: &Trainer,
    train: &Dataset,
    validation: Option<&Dataset>,
    options: &Fit,
) -> Result<Identity, Error> {
    Ok(Identity {
        dlc: env!("CARGO_PKG_VERSION").into(),
        model: options.model.clone(),
        target: options.target.clone(),
        program: checkpoint::fingerprint(trainer.executable().program()),
        seed: trainer.seed(),
        shuffle: options.shuffle,
        step_size: step_size(trainer, options)?,
        accumulate: options.accumulate,
        samples: train.len(),
        validation_samples: validation.map_or(0, Dataset::len),
    })
}

impl Run<'_, '_> {
    /// Opens the run folder and, when resuming, goes back to where its checkpoint stood.
    fn prepare(&mut self) -> Result<(), Error> {
        match (&self.options.dir, self.options.start) {
            (None, Start::New) => Ok(()),
            (None, Start::Resume) => Err(Error::Usage("resuming needs a run folder".into())),
            (Some(dir), Start::New) => {
                self.dir = Some(RunDir::create(dir)?);
                Ok(())
            }
            (Some(dir), Start::Resume) => {
                let dir = RunDir::open(dir)?;
                self.resume(dir)
            }
        }
    }

    fn resume(&mut self, mut dir: RunDir) -> Result<(), Error> {
        let observer = &mut *self.observer;
        let mut note = |message: &str| observer.observe(&Event::Note { message });
        let saved = dir.read_newest(&mut note)?;
        let path = dir.newest().expect("it was just read");
        let executable = &**self.trainer.executable();
        checkpoint::restore(&saved, path, &self.identity, executable)?;
        if saved.weights.vocabulary != self.options.vocabulary {
            let reasons = vec!["it was made with another vocabulary".to_owned()];
            return Err(Error::Resume { path: path.to_owned(), reasons });
        }
        for (then, now) in saved.scalars.iter().zip(checkpoint::scalars(executable)?) {
            if *then != now {
                let (name, then, now) = (&then.0, then.1.0, now.1.0);
                note(&format!("`{name}` was {then} so far and is {now} from here on"));
            }
        }
        if saved.progress.best.is_some() {
            match Weights::read(&dir.weights_path()) {
                Ok(weights) => self.best = Some(weights),
                Err(error) => note(&format!("{error}; the best weights so far are lost")),
            }
        }
        self.trainer.set_steps(saved.progress.step)?;
        self.mean = Mean::from(&saved.progress.mean);
        self.progress = saved.progress;
        self.dir = Some(dir);
        Ok(())
    }

    fn announce(&mut self) {
        let batches = self.train.len() / self.identity.step_size;
        self.observer.observe(&Event::Start {
            epochs: self.options.epochs,
            epoch: self.progress.epoch + 1,
            batch: self.progress.batch,
            batches,
            batch_size: self.identity.step_size,
            samples: self.identity.samples,
            validation_samples: self.identity.validation_samples,
            parameters: self.trainer.parameter_count(),
            resumed: self.dir.as_ref().and_then(RunDir::newest),
        });
    }

    fn epochs(&mut self) -> Result<StopReason, Error> {
        let train = self.train;
        let mut batches = self.trainer.batches(train)?;
        loop {
            if self.progress.epoch >= self.options.epochs {
                return Ok(StopReason::Finished);
            }
            if self.options.patience.is_some_and(|p| self.progress.waited >= p) {
                return Ok(StopReason::EarlyStop);
            }
            if !self.epoch(&mut batches)? {
                self.save()?;
                return Ok(StopReason::Interrupted);
            }
        }
    }

    /// Does the rest of the present epoch; false if interrupted before its end.
    fn epoch(&mut self, batches: &mut Batches<'_>) -> Result<bool, Error> {
        let begun = Instant::now();
        let done = self.progress.batch;
        if self.identity.shuffle {
            batches.shuffle(self.identity.seed, self.progress.epoch);
        }
        let count = self.train.len() / self.identity.step_size;
        let mut ms = 0.0;
        while self.progress.batch < count {
            if self.interrupted() {
                return Ok(false);
            }
            ms += self.step(batches)?;
        }
        let (rebuild, interrupt) = (&mut *self.rebuild, &self.options.interrupt);
        let val = match self.validation {
            None => None,
            Some(data) => match self.trainer.evaluate_until(data, rebuild, interrupt)? {
                Some(metrics) => Some(metrics),
                None => return Ok(false),
            },
        };
        let train = self.mean.metrics(self.trainer.metric_names());
        let improved = self.end_epoch(val.as_ref().unwrap_or(&train))?;
        let steps = (count - done).max(1);
        self.observer.observe(&Event::Epoch {
            epoch: self.progress.epoch,
            epochs: self.options.epochs,
            step: self.progress.step,
            train: &train,
            val: val.as_ref(),
            improved,
            ms_per_step: ms / steps as f64,
            seconds: begun.elapsed().as_secs_f64(),
        });
        if improved {
            self.save_best()?;
        }
        self.save()?;
        Ok(true)
    }

    /// Does one step and gives the milliseconds it took.
    fn step(&mut self, batches: &mut Batches<'_>) -> Result<f64, Error> {
        let parts = self.options.accumulate;
        let samples = self.identity.step_size / parts;
        let mut mean = Mean::default();
        let mut ms = 0.0;
        for part in 0..parts {
            let batch = batches.get(self.progress.batch * parts + part);
            let begun = Instant::now();
            let ends = part + 1 == parts;
            let metrics = match ends {
                true => self.trainer.step(batch),
                false => self.trainer.accumulate(batch),
            };
            let metrics = metrics.map_err(|error| self.failed(error, batch, ends))?;
            ms += begun.elapsed().as_secs_f64() * 1e3;
            mean.add(&metrics, samples);
            self.mean.add(&metrics, samples);
        }
        self.progress.batch += 1;
        self.progress.step += 1;
        let names = self.trainer.metric_names();
        self.observer.observe(&Event::Step {
            epoch: self.progress.epoch + 1,
            batch: self.progress.batch,
            step: self.progress.step,
            metrics: &mean.metrics(names),
            mean: &self.mean.metrics(names),
            ms,
        });
        Ok(ms)
    }

    /// The error of the present step, in which a batch failed.
    fn failed(&mut self, error: Error, batch: &Batch, ends: bool) -> Error {
        match error {
            Error::Run(error) => Error::Step {
                epoch: self.progress.epoch + 1,
                step: self.progress.step + 1,
                culprit: match error {
                    RunError::NotFinite { .. } => self.trainer.culprit(batch, ends, self.rebuild),
                    _ => None,
                },
                error,
                checkpoint: self.dir.as_ref().and_then(RunDir::newest).map(PathBuf::from),
            },
            other => other,
        }
    }

    /// Counts the epoch and judges it; true if it is the best so far.
    fn end_epoch(&mut self, judged: &Metrics) -> Result<bool, Error> {
        let monitor = &self.options.monitor;
        let value = |metrics: &Metrics| metrics.get(&monitor.metric).unwrap_or(f64::NAN);
        let best = self.progress.best().map(|(_, metrics)| value(&metrics));
        let improved = monitor.prefers(value(judged), best);
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.mean = Mean::default();
        self.progress.waited += 1;
        if improved {
            self.progress.waited = 0;
            self.progress.set_best(self.progress.epoch, judged);
            let vocabulary = self.options.vocabulary.clone();
            self.best = Some(self.trainer.weights()?.with_vocabulary(vocabulary));
        }
        Ok(improved)
    }

    fn save_best(&mut self) -> Result<(), Error> {
        let (Some(dir), Some(weights)) = (&self.dir, &self.best) else { return Ok(()) };
        let path = dir.write_best(weights)?;
        let kind = CheckpointKind::Best;
        self.observer.observe(&Event::Checkpoint { path: &path, kind });
        Ok(())
    }

    fn save(&mut self) -> Result<(), Error> {
        let Some(dir) = &mut self.dir else { return Ok(()) };
        self.progress.mean = (&self.mean).into();
        let executable = &**self.trainer.executable();
        let mut checkpoint = checkpoint::take(executable, &self.identity, &self.progress)?;
        checkpoint.weights.vocabulary = self.options.vocabulary.clone();
        let path = dir.write_checkpoint(&checkpoint)?;
        let kind = CheckpointKind::Last;
        self.observer.observe(&Event::Checkpoint { path: &path, kind });
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.options.interrupt.load(Ordering::Relaxed)
    }

    fn conclude(self, reason: StopReason, begun: Instant) -> Summary {
        let best = self.progress.best();
        self.observer.observe(&Event::Done {
            epochs: self.progress.epoch,
            steps: self.progress.step,
            best: best.as_ref().map(|(epoch, metrics)| (*epoch, metrics)),
            seconds: begun.elapsed().as_secs_f64(),
        });
        Summary {
            epochs: self.progress.epoch,
            steps: self.progress.step,
            reason,
            best,
            weights: self.best,
            checkpoint: self.dir.as_ref().and_then(RunDir::newest).map(PathBuf::from),
        }
    }
}
