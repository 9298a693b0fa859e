//! Training: from a `train` section to a compiled step, its data, and the loop.

use crate::checking::checking;
use crate::datasets::{self, Splits};
use crate::pipeline::{self, EntryGraph};
use crate::{Compiler, Error, Module, network};
use dlc_front::ast::Trend;
use dlc_front::{EarlyStop, TrainOverrides, Training, Validation};
use dlc_kernel::{Bindings, BuildOptions, Executable, OptLevel, StageTime};
use dlc_train::{
    BoxError, Checking, Fit, Goal, Metrics, Monitor, Observer, Rebuild, Start, Summary, Trainer,
    Vocabulary, WeightsFile,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What overrides or completes a `train` section.
#[derive(Clone, Debug, Default)]
pub struct TrainOptions {
    /// Overrides of the section's settings.
    pub overrides: TrainOverrides,
    /// Values of dims that the model leaves open.
    pub bindings: Bindings,
    /// Folders of data sets by name, instead of the section's.
    pub data: Vec<(String, PathBuf)>,
    /// Where weights and checkpoints go, instead of the section's `out` or `runs/MODEL`.
    pub out: Option<PathBuf>,
    /// Goes on from the newest checkpoint of the folder.
    pub resume: bool,
    /// When somebody sets it, training saves its state and stops.
    pub interrupt: Arc<AtomicBool>,
}

/// What came of [`train`].
pub struct Trained {
    /// The loop's own summary.
    pub summary: Summary,
    /// Loss and metrics of the best weights on the test data, or on the validation data where there
    /// is no other (the name says which); not measured if interrupted, or if there is no such data.
    pub test: Option<(&'static str, Metrics)>,
    /// The run's folder.
    pub dir: PathBuf,
}

impl Module {
    /// A trainer for one's own data: the model's `train` section with first values in all
    /// parameters. The data set that the section names is not read. If its schedules go by the
    /// number of steps, [`Trainer::plan`] comes before the first step.
    ///
    /// ```
    /// # fn main() -> Result<(), dlc::Error> {
    /// use dlc::{Batch, Compiler, Tensor};
    ///
    /// let source = "
    ///     model Line(x: f32[N, 1]) -> f32[N, 1] { x |> linear(1) }
    ///     train Line {
    ///       data  tensors(x = f32[N, 1], y = f32[N, 1]) batch 4
    ///       loss  mse(Line(x), y)
    ///       optim sgd(lr = 0.1)
    ///     }";
    /// let module = Compiler::new().compile_text("line.dl", source)?;
    /// let mut trainer = module.trainer("Line")?;
    /// let x = Tensor::f32([4, 1], vec![-1.0, 0.0, 1.0, 2.0]);
    /// let y = Tensor::f32([4, 1], vec![-1.0, 1.0, 3.0, 5.0]);
    /// let batch = Batch::new([("x", x), ("y", y)]);
    /// for _ in 0..200 {
    ///     trainer.step(&batch)?;
    /// }
    /// let slope = trainer.read("linear1.weight")?;
    /// assert!((slope.as_f32().unwrap()[0] - 2.0).abs() < 1e-3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If there is no such section, it is wrong, or it cannot be built.
    pub fn trainer(&self, model: &str) -> Result<Trainer, Error> {
        self.trainer_with(model, &TrainOptions::default())
    }

    /// As [`Module::trainer`], with overrides.
    ///
    /// # Errors
    /// As [`Module::trainer`].
    pub fn trainer_with(&self, model: &str, options: &TrainOptions) -> Result<Trainer, Error> {
        let training = self.training(model, &options.overrides, &options.bindings)?;
        self.start(&[(training, options.bindings.clone())])
    }

    /// The graphs of a model's training program: `train`, `eval`, and `accumulate` where a step has
    /// several batches.
    ///
    /// # Errors
    /// As [`Module::trainer`].
    pub fn training_entries(
        &self,
        model: &str,
        bindings: &Bindings,
    ) -> Result<Vec<EntryGraph>, Error> {
        let training = self.training(model, &TrainOverrides::default(), bindings)?;
        self.program(&training, bindings)
    }

    /// The entries that training calls.
    fn program(&self, training: &Training, bindings: &Bindings) -> Result<Vec<EntryGraph>, Error> {
        let names: &[_] = match training.accumulate {
            None => &["train", "eval"],
            Some(_) => &["train", "eval", "accumulate"],
        };
        self.bound(training, bindings, training.settings.batch, names)
    }

    /// The entries of those names for batches of `batch` samples.
    pub(crate) fn bound(
        &self,
        training: &Training,
        bindings: &Bindings,
        batch: i64,
        names: &[&'static str],
    ) -> Result<Vec<EntryGraph>, Error> {
        let mut sizes = bindings.clone();
        sizes.insert(training.batch_dim.clone(), batch);
        let bind = |&name: &&'static str| {
            let graph = match name {
                "train" => &training.step,
                "accumulate" => training.accumulate.as_ref().expect("a step has several batches"),
                _ => &training.eval,
            };
            let graph = self.bind_graph(graph, &training.constraints, &sizes)?;
            Ok(EntryGraph { name: name.to_owned(), graph })
        };
        names.iter().map(bind).collect()
    }

    /// Builds the training step, and how long each stage took.
    pub(crate) fn build_step(
        &self,
        training: &Training,
        bindings: &Bindings,
    ) -> Result<(Box<dyn Executable>, Vec<StageTime>), Error> {
        let entries = self.bound(training, bindings, training.settings.batch, &["train"])?;
        pipeline::build(&entries, self.compiler.target_ref(), &self.compiler.options)
    }

    /// A program with the entries of each training, which are the same but for some sizes.
    fn start(&self, all: &[(Training, Bindings)]) -> Result<Trainer, Error> {
        let Compiler { target, options } = &self.compiler;
        let mut entries = Vec::new();
        for (number, (training, bindings)) in all.iter().enumerate() {
            let mut bound = self.program(training, bindings)?;
            if all.len() > 1 {
                bound.iter_mut().for_each(|entry| entry.name += &format!(".{number}"));
            }
            entries.extend(bound);
        }
        let (executable, _) = pipeline::build(&entries, target.as_target(), options)?;
        let training = &all.first().expect("there is one").0;
        let seed = seed_of(training);
        network::initialize(&training.init, &*executable, seed, &self.compiler)?;
        Ok(Trainer::new(Arc::from(executable), seed)?)
    }

    /// [`Module::start`] for batches of each length that the data has.
    fn start_for(
        &self,
        splits: &Splits,
        model: &str,
        options: &TrainOptions,
        bindings: &Bindings,
    ) -> Result<Trainer, Error> {
        let all = splits
            .sizes_by_length(bindings)
            .into_iter()
            .map(|sizes| Ok((self.training(model, &options.overrides, &sizes)?, sizes)));
        self.start(&all.collect::<Result<Vec<_>, Error>>()?)
    }

    /// Builds what finds out where the numbers of an entry of [`Module::start_for`] stop being finite.
    fn checking(
        &self,
        entry: &str,
        model: &str,
        splits: &Splits,
        options: &TrainOptions,
        bindings: &Bindings,
    ) -> Result<Checking, BoxError> {
        let boxed = |error: Error| -> BoxError { error.to_string().into() };
        let (role, number) = entry.split_once('.').unwrap_or((entry, "0"));
        let name = if role == "train" { "train" } else { "accumulate" };
        let sizes = splits.sizes_by_length(bindings).swap_remove(number.parse()?);
        let training = self.training(model, &options.overrides, &sizes).map_err(boxed)?;
        let bound = self.bound(&training, &sizes, training.settings.batch, &[name]);
        let (graph, makers) = checking(&bound.map_err(boxed)?.swap_remove(0).graph);
        let entry = EntryGraph { name: "check".into(), graph };
        let Compiler { target, options } = &self.compiler;
        let options = BuildOptions { opt_level: OptLevel::O0, ..options.clone() };
        let built = pipeline::build(&[entry], target.as_target(), &options).map_err(boxed)?;
        Ok(Checking { executable: Arc::from(built.0), makers })
    }

    /// Builds the evaluation for another batch size.
    fn rebuild<'a>(&'a self, training: &'a Training, bindings: &'a Bindings) -> Rebuild<'a> {
        let Compiler { target, options } = &self.compiler;
        Rebuild::new(move |batch| {
            let boxed = |error: Error| -> BoxError { error.to_string().into() };
            let entries = self.bound(training, bindings, batch as i64, &["eval"]).map_err(boxed)?;
            let built = pipeline::build(&entries, target.as_target(), options);
            Ok(Arc::from(built.map_err(boxed)?.0))
        })
    }
}

/// Trains a model of `file` as its `train` section says.
///
/// # Errors
/// If section, data or folder are wrong, or a step fails; checkpoints before it are kept.
pub fn train(
    module: &Module,
    model: &str,
    file: &Path,
    options: &TrainOptions,
    observer: &mut dyn Observer,
) -> Result<Trained, Error> {
    let (splits, bindings) = load(module, model, file, options, None)?;
    let training = module.training(model, &options.overrides, &bindings)?;
    let splits = splits.with_validation(fraction(&training));
    let dir = run_dir(&training, file, model, options);
    let mut trainer = module.start_for(&splits, model, options, &bindings)?;
    let check = |entry: &str| module.checking(entry, model, &splits, options, &bindings);
    let mut rebuild = module.rebuild(&training, &bindings).checking(check);
    let stop = training.settings.stop.as_ref();
    let fit = Fit {
        epochs: training.settings.epochs as u32,
        shuffle: training.settings.shuffle,
        accumulate: training.settings.accumulate as usize,
        monitor: stop.map_or_else(Monitor::default, monitor),
        patience: stop.map(|s| s.patience as u32),
        dir: Some(dir.clone()),
        start: if options.resume { Start::Resume } else { Start::New },
        model: model.to_owned(),
        target: module.compiler.target.describe(),
        vocabulary: splits.vocabulary.clone(),
        interrupt: options.interrupt.clone(),
    };
    let (train, validation) = (&splits.train, splits.validation.as_ref());
    let summary = dlc_train::fit(&mut trainer, train, validation, &mut rebuild, &fit, observer)?;
    let interrupted = summary.reason == dlc_train::StopReason::Interrupted;
    if let Some(weights) = summary.weights.as_ref().filter(|_| !interrupted) {
        weights.apply(&**trainer.executable(), &dir)?;
    }
    let test = match splits.tested().filter(|_| !interrupted) {
        None => None,
        Some((name, data)) => Some((name, trainer.evaluate(data, &mut rebuild)?)),
    };
    Ok(Trained { summary, test, dir })
}

/// What came of [`evaluate`].
pub struct Evaluated {
    /// What was measured: `test`, or `validation` where there is no other data.
    pub data: &'static str,
    /// The means over all samples.
    pub metrics: Metrics,
    /// Weights with elements that are not finite, and how many.
    pub not_finite: Vec<(String, usize)>,
}

/// Loss and metrics of a model on its test data, with the weights in `weights`. Ids stand for what
/// the weights' file says, if it does.
///
/// # Errors
/// If section, data or weights are wrong, or the data has what the weights' vocabulary lacks.
pub fn evaluate(
    module: &Module,
    model: &str,
    file: &Path,
    weights: &WeightsFile,
    options: &TrainOptions,
) -> Result<Evaluated, Error> {
    let learned = weights.read()?;
    let (splits, bindings) = load(module, model, file, options, learned.vocabulary())?;
    let training = module.training(model, &options.overrides, &bindings)?;
    let splits = splits.with_validation(fraction(&training));
    let mut trainer = module.start_for(&splits, model, options, &bindings)?;
    learned.apply(&**trainer.executable(), &weights.path)?;
    let mut rebuild = module.rebuild(&training, &bindings);
    let (data, samples) = splits.tested().ok_or_else(|| {
        Error::Argument("the data set has no samples for testing, nor for validation".into())
    })?;
    let metrics = trainer.evaluate(samples, &mut rebuild)?;
    Ok(Evaluated { data, metrics, not_finite: learned.not_finite() })
}

/// The run's folder: the option's, the section's, or one in `runs/` named after the model.
fn run_dir(training: &Training, file: &Path, model: &str, options: &TrainOptions) -> PathBuf {
    let base = file.parent().unwrap_or(Path::new(""));
    let runs = Path::new("runs");
    let numbered = || match options.resume {
        true => dlc_train::latest_run_dir(runs, model).unwrap_or_else(|| runs.join(model)),
        false => dlc_train::next_run_dir(runs, model),
    };
    let own = training.settings.out.as_ref().map(|out| base.join(out));
    options.out.clone().or(own).unwrap_or_else(numbered)
}

/// The data of the section, and the sizes of dims: those it defines, and the option's. What ids
/// stand for is learned from the data, if no `vocabulary` is given.
fn load(
    module: &Module,
    model: &str,
    file: &Path,
    options: &TrainOptions,
    vocabulary: Option<&Vocabulary>,
) -> Result<(Splits, Bindings), Error> {
    let specs = module.unit.data(model).map_err(|d| module.refuse(&d))?;
    let splits = datasets::load(module, &specs, file, &options.data, vocabulary)?;
    let mut bindings = options.bindings.clone();
    for (dim, &size) in &splits.sizes {
        match bindings.insert(dim.clone(), size) {
            Some(given) if given != size => {
                return Err(Error::Argument(format!(
                    "the data set makes `{dim}` {size}, --bind says {given}"
                )));
            }
            _ => {}
        }
    }
    Ok((splits, bindings))
}

/// The part of the samples that is for validation where the data set says nothing else.
fn fraction(training: &Training) -> f64 {
    match training.settings.validation {
        Validation::Fraction(part) => part,
        Validation::Data(_) => 0.0,
    }
}

/// `val.loss` and `loss` both mean the loss of the validation samples.
fn monitor(stop: &EarlyStop) -> Monitor {
    let metric = stop.quantity.strip_prefix("val.").unwrap_or(&stop.quantity).to_owned();
    let goal = if stop.trend == Trend::Rising { Goal::Higher } else { Goal::Lower };
    Monitor { metric, goal }
}

fn seed_of(training: &Training) -> i32 {
    training.settings.seed as i32
}
