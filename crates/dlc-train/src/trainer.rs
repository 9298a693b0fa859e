//! One step at a time: a compiled training program, its batches and its weights.

use crate::data::{Batch, Batches, Dataset};
use crate::metrics::{self, Mean, Meter, Metrics};
use crate::weights::{self, extents, type_of, type_of_buffer};
use crate::{Error, Rebuild, Weights, WeightsFile};
use dlc_kernel::{Buffer, Class, Executable, RunError, Tensor};
use smallvec::SmallVec;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A compiled training program with its storage and the number of steps done.
///
/// ```no_run
/// # use dlc_train::{Batch, Trainer, Error};
/// # use dlc_kernel::{Executable, Tensor};
/// # fn f(program: std::sync::Arc<dyn Executable>, x: Tensor, y: Tensor) -> Result<(), Error> {
/// let mut trainer = Trainer::new(program, 42)?;
/// let batch = Batch::new([("x", x), ("y", y)]);
/// for _ in 0..100 {
///     let metrics = trainer.step(&batch)?;
///     println!("{}", metrics.loss());
/// }
/// trainer.save_weights("model.safetensors".as_ref())?;
/// # Ok(()) }
/// ```
pub struct Trainer {
    executable: Arc<dyn Executable>,
    /// The entries `train`, each for batches of another shape.
    train: Calls,
    accumulate: Option<Calls>,
    eval: Option<Calls>,
    steps: u64,
    /// Batches added to the next step.
    parts: u64,
    seed: i32,
    counts_steps: bool,
    /// Whether a schedule waits for [`Trainer::plan`].
    unplanned: bool,
}

/// The entries that do one thing: the same computation for batches of different shapes.
pub(crate) struct Calls(Vec<Call>);

/// One entry of a program, with the buffers for its results.
struct Call {
    executable: Arc<dyn Executable>,
    entry: usize,
    outputs: Vec<Tensor>,
    /// The metrics among the outputs, and their names.
    meters: Vec<Meter>,
    names: Arc<[String]>,
}

impl Trainer {
    /// A trainer before its first step: sets `seed` and `step`, then calls entry `init` if there
    /// is one.
    ///
    /// # Errors
    /// If the program has no entry `train` with a scalar output `loss`, or a call fails.
    pub fn new(executable: Arc<dyn Executable>, seed: i32) -> Result<Trainer, Error> {
        let no_train = || Error::Usage("the program has no entry `train`".into());
        let train = Calls::find(&executable, "train")?.ok_or_else(no_train)?;
        let accumulate = Calls::find(&executable, "accumulate")?;
        let eval = Calls::find(&executable, "eval")?;
        let counts_steps = has_scalar(&*executable, "step");
        let unplanned = has_scalar(&*executable, "steps");
        let mut trainer = Trainer {
            executable,
            train,
            accumulate,
            eval,
            steps: 0,
            parts: 0,
            seed,
            counts_steps,
            unplanned,
        };
        if has_scalar(&*trainer.executable, "seed") {
            trainer.executable.write("seed", &Tensor::i32([], vec![seed]))?;
        }
        trainer.set_steps(0)?;
        let entries = &trainer.executable.program().entries;
        if let Some(init) = entries.iter().position(|e| e.name == "init") {
            trainer.executable.call(init, &[], &mut [])?;
        }
        Ok(trainer)
    }

    /// Says how many steps are planned in all. Schedules that go by it need it before the first
    /// step, and stay at their end after the last. [`crate::fit`] plans by its epochs.
    ///
    /// # Errors
    /// If it is more than a run can have.
    pub fn plan(&mut self, steps: u64) -> Result<(), Error> {
        if has_scalar(&*self.executable, "steps") {
            self.write_count("steps", steps)?;
            self.unplanned = false;
        }
        Ok(())
    }

    /// Does one step on `batch`, which has a tensor for each input of the program, and on those given
    /// to [`Trainer::accumulate`] before it.
    ///
    /// # Errors
    /// If the batch does not fit, an index in it is out of range, or the loss or a gradient is
    /// not finite. The weights are then as before, if the program checks before it commits. If a
    /// schedule goes by the number of steps, and nobody has said it.
    pub fn step(&mut self, batch: &Batch) -> Result<Metrics, Error> {
        if self.unplanned {
            let message = "a schedule goes by the number of steps: call `plan` before `step`";
            return Err(Error::Usage(message.into()));
        }
        let metrics = self.train.run(batch)?;
        self.set_parts(0)?;
        self.set_steps(self.steps + 1)?;
        finite(metrics)
    }

    /// Adds the gradients of a batch to the next step, which goes by the mean over all its batches.
    ///
    /// # Errors
    /// As [`Trainer::step`]; if the program has no entry `accumulate`.
    pub fn accumulate(&mut self, batch: &Batch) -> Result<Metrics, Error> {
        let no_entry = || Error::Usage("the program has no entry `accumulate`".into());
        let metrics = self.accumulate.as_mut().ok_or_else(no_entry)?.run(batch)?;
        self.set_parts(self.parts + 1)?;
        finite(metrics)
    }

    /// What made the first number of a step that is not finite, for a batch that ends the step or is
    /// only added to it; `None` where it cannot be found out.
    pub(crate) fn culprit(
        &self,
        batch: &Batch,
        ends: bool,
        rebuild: &mut Rebuild<'_>,
    ) -> Option<String> {
        let calls = if ends { Some(&self.train) } else { self.accumulate.as_ref() }?;
        let entry = &self.executable.program().entries[calls.fitting(batch).entry];
        let checking = rebuild.check(&entry.name)?;
        checking.culprit(&*self.executable, batch).ok()?.map(str::to_owned)
    }

    /// Measures one batch of the program's size; changes nothing.
    ///
    /// # Errors
    /// As [`Trainer::step`]; if the program has no entry `eval`.
    pub fn measure(&mut self, batch: &Batch) -> Result<Metrics, Error> {
        self.eval.as_mut().ok_or_else(no_eval)?.run(batch)
    }

    /// The means of all metrics over all samples of `data`.
    ///
    /// # Errors
    /// As [`Trainer::measure`], or if `rebuild` fails.
    pub fn evaluate(
        &mut self,
        data: &Dataset,
        rebuild: &mut Rebuild<'_>,
    ) -> Result<Metrics, Error> {
        let never = AtomicBool::new(false);
        Ok(self.evaluate_until(data, rebuild, &never)?.expect("nobody interrupts it"))
    }

    /// As [`Trainer::evaluate`], or `None` soon after `interrupt` is set.
    pub(crate) fn evaluate_until(
        &mut self,
        data: &Dataset,
        rebuild: &mut Rebuild<'_>,
        interrupt: &AtomicBool,
    ) -> Result<Option<Metrics>, Error> {
        let calls = self.eval.as_mut().ok_or_else(no_eval)?;
        let size = calls.any().batch_size()?;
        let mut mean = Mean::default();
        let mut batches = calls.batches(data)?;
        for index in 0..batches.count() {
            if interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            mean.add(&calls.run(batches.get(index))?, size);
        }
        let names = calls.any().names.clone();
        let rest: Vec<u32> = (data.len() / size * size..data.len()).map(|p| p as u32).collect();
        if !rest.is_empty() {
            let calls = rebuild.calls(rest.len())?;
            let present = Weights::of(&*self.executable)?;
            present.apply(&*calls.any().executable, Path::new("the present weights"))?;
            let data = data.subset(&rest).without_lengths();
            let metrics = calls.run(calls.batches(&data)?.get(0))?;
            mean.add(&metrics, rest.len());
        }
        Ok(Some(mean.metrics(&names)))
    }

    /// Batches of `data` for [`Trainer::step`], in natural order.
    ///
    /// # Errors
    /// If the data lacks a field that the program needs, or has another type there.
    pub fn batches<'d>(&self, data: &'d Dataset) -> Result<Batches<'d>, Error> {
        self.train.batches(data)
    }

    /// Samples of a batch.
    ///
    /// # Errors
    /// If the program's inputs do not agree on it.
    pub fn batch_size(&self) -> Result<usize, Error> {
        self.train.any().batch_size()
    }

    /// The names of the metrics, in the program's order.
    pub fn metric_names(&self) -> &Arc<[String]> {
        &self.train.any().names
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The seed it was made with.
    pub fn seed(&self) -> i32 {
        self.seed
    }

    /// How many numbers are learned.
    pub fn parameter_count(&self) -> usize {
        let buffers = self.executable.program().buffers.iter();
        let parameters = buffers.filter(|b| b.class == Class::Param);
        parameters.map(|b| extents(b).iter().product::<usize>()).sum()
    }

    /// Sets a run-time scalar (`lr`) from the next step on.
    ///
    /// # Errors
    /// If the program has none of that name.
    pub fn set_scalar(&self, name: &str, value: f64) -> Result<(), Error> {
        let buffers = &self.executable.program().buffers;
        let is_scalar = |b: &&dlc_kernel::Buffer| b.class == Class::Scalar;
        let Some(buffer) = buffers.iter().filter(is_scalar).find(|b| b.name == name) else {
            let names: Vec<&str> =
                buffers.iter().filter(is_scalar).map(|b| b.name.as_str()).collect();
            let names = names.join(", ");
            let message = format!("the program has no run-time scalar `{name}`; it has: {names}");
            return Err(Error::Usage(message));
        };
        let tensor = match buffer.dtype {
            dlc_kernel::DType::I32 => Tensor::i32([], vec![value as i32]),
            _ => Tensor::f32([], vec![value as f32]),
        };
        Ok(self.executable.write(name, &tensor)?)
    }

    /// A copy of a parameter, state or run-time scalar.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn read(&self, name: &str) -> Result<Tensor, Error> {
        Ok(self.executable.read(name)?)
    }

    /// Sets a parameter, state or run-time scalar.
    ///
    /// # Errors
    /// If there is none of that name, or its type differs.
    pub fn write(&self, name: &str, value: &Tensor) -> Result<(), Error> {
        Ok(self.executable.write(name, value)?)
    }

    /// The present weights.
    ///
    /// # Errors
    /// If the executable refuses to tell.
    pub fn weights(&self) -> Result<Weights, Error> {
        Ok(Weights::of(&*self.executable)?)
    }

    /// Writes the present weights to a safetensors file, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_weights(&self, path: &Path) -> Result<(), Error> {
        weights::save_weights(path, &*self.executable)
    }

    /// Reads weights from a safetensors file; tells which have elements that are not finite.
    ///
    /// # Errors
    /// As [`WeightsFile::load`].
    pub fn load_weights(&self, path: &Path) -> Result<Vec<(String, usize)>, Error> {
        WeightsFile::new(path).load(&*self.executable)
    }

    /// The compiled program.
    pub fn executable(&self) -> &Arc<dyn Executable> {
        &self.executable
    }

    pub(crate) fn has_eval(&self) -> bool {
        self.eval.is_some()
    }

    pub(crate) fn set_steps(&mut self, steps: u64) -> Result<(), Error> {
        self.steps = steps;
        match self.counts_steps {
            true => self.write_count("step", steps),
            false => Ok(()),
        }
    }

    fn set_parts(&mut self, parts: u64) -> Result<(), Error> {
        self.parts = parts;
        match has_scalar(&*self.executable, "part") {
            true => self.write_count("part", parts),
            false => Ok(()),
        }
    }

    fn write_count(&self, name: &str, steps: u64) -> Result<(), Error> {
        let too_many = |_| Error::Usage("a run has at most 2^31 - 1 steps".into());
        let count = i32::try_from(steps).map_err(too_many)?;
        Ok(self.executable.write(name, &Tensor::i32([], vec![count]))?)
    }
}

impl Calls {
    /// The entries that do that, if there are any.
    pub(crate) fn find(
        executable: &Arc<dyn Executable>,
        role: &str,
    ) -> Result<Option<Calls>, Error> {
        let entries = executable.program().entries.iter().enumerate();
        let named = entries.filter(|(_, entry)| entry.role() == role);
        let calls = named.map(|(index, _)| Call::new(executable, index));
        let calls = calls.collect::<Result<Vec<Call>, Error>>()?;
        Ok((!calls.is_empty()).then_some(Calls(calls)))
    }

    /// One of them, for what all have in common.
    fn any(&self) -> &Call {
        &self.0[0]
    }

    /// The one that takes batches of this shape.
    fn fitting(&self, batch: &Batch) -> &Call {
        self.0.iter().find(|call| call.takes(batch)).unwrap_or(self.any())
    }

    /// Runs the one that takes batches of this shape.
    fn run(&mut self, batch: &Batch) -> Result<Metrics, Error> {
        let fitting = self.0.iter().position(|call| call.takes(batch)).unwrap_or(0);
        self.0[fitting].run(batch)
    }

    fn batches<'d>(&self, data: &'d Dataset) -> Result<Batches<'d>, Error> {
        let names: Vec<&str> = self.any().inputs().map(|b| b.name.as_str()).collect();
        let batches = Batches::new(data, &names, self.any().batch_size()?)?;
        let lengths = data.lengths();
        let lengths = if lengths.is_empty() { vec![usize::MAX] } else { Vec::from_iter(lengths) };
        for length in lengths {
            let mut misfits = self.0.iter().map(|call| call.misfit(data, length));
            if let Some(misfit) = misfits.next().flatten()
                && !misfits.any(|m| m.is_none())
            {
                return Err(misfit);
            }
        }
        Ok(batches)
    }
}

impl Call {
    fn new(executable: &Arc<dyn Executable>, index: usize) -> Result<Call, Error> {
        let program = executable.program();
        let buffers: Vec<_> =
            program.entries[index].outputs.iter().map(|&b| program.buffer(b)).collect();
        let outputs = buffers.iter().map(|b| Tensor::zeros(b.dtype, extents(b))).collect();
        let scalars: Vec<Option<&str>> =
            buffers.iter().map(|b| b.shape.is_empty().then_some(b.name.as_str())).collect();
        let (names, meters) = Meter::find(&scalars);
        metrics::require_loss(&names, &program.entries[index].name)?;
        let (executable, names) = (executable.clone(), names.into());
        Ok(Call { executable, entry: index, outputs, meters, names })
    }

    fn inputs(&self) -> impl Iterator<Item = &Buffer> {
        let program = self.executable.program();
        program.entries[self.entry].inputs.iter().map(|&b| program.buffer(b))
    }

    /// Whether the tensors of a batch have the extents of the inputs.
    fn takes(&self, batch: &Batch) -> bool {
        let mut inputs = self.inputs();
        inputs.all(|b| batch.get(&b.name).is_some_and(|t| same_extents(&t.shape, b)))
    }

    /// Why batches of that length do not fit, if they do not.
    fn misfit(&self, data: &Dataset, length: usize) -> Option<Error> {
        self.inputs().find_map(|buffer| {
            let field = &data.fields()[data.position(&buffer.name)?];
            let (wanted, given) = (extents(buffer), field.shape_at(length));
            let fits = field.dtype() == buffer.dtype && given == wanted[1..];
            let given = [&wanted[..1], &given].concat();
            let given = format!("{}{given:?}", field.dtype());
            (!fits).then(|| mismatch(&buffer.name, &given, buffer))
        })
    }

    fn run(&mut self, batch: &Batch) -> Result<Metrics, Error> {
        let program = self.executable.program();
        let inputs = program.entries[self.entry].inputs.iter().map(|&b| {
            let buffer = program.buffer(b);
            let missing = || Error::Usage(format!("the batch has no `{}`", buffer.name));
            let tensor = batch.get(&buffer.name).ok_or_else(missing)?;
            if tensor.dtype() != buffer.dtype || !same_extents(&tensor.shape, buffer) {
                return Err(mismatch(&buffer.name, &type_of(tensor), buffer));
            }
            Ok(tensor)
        });
        let inputs = inputs.collect::<Result<SmallVec<[&Tensor; 8]>, Error>>()?;
        self.executable.call(self.entry, &inputs, &mut self.outputs)?;
        let values = self.meters.iter().map(|meter| meter.read(&self.outputs));
        Ok(Metrics::of(self.names.clone(), values))
    }

    /// The common first extent of the inputs.
    fn batch_size(&self) -> Result<usize, Error> {
        let mut sizes = self.inputs().map(|b| extents(b).first().copied());
        let first = sizes.next().flatten().filter(|&n| n > 0);
        match first {
            Some(size) if sizes.all(|s| s == first) => Ok(size),
            _ => Err(Error::Usage(
                "all inputs of a training program start with the same axis of samples".into(),
            )),
        }
    }
}

fn same_extents(shape: &[usize], buffer: &dlc_kernel::Buffer) -> bool {
    let extents = buffer.shape.iter().map(|s| s.as_const());
    shape.len() == buffer.shape.len()
        && shape.iter().zip(extents).all(|(&d, e)| i64::try_from(d).ok() == e)
}

fn mismatch(name: &str, given: &str, buffer: &dlc_kernel::Buffer) -> Error {
    let expected = type_of_buffer(buffer);
    Error::Usage(format!("`{name}` is {given} in the data, the model takes {expected}"))
}

/// The metrics, if the loss is finite.
fn finite(metrics: Metrics) -> Result<Metrics, Error> {
    match metrics.loss().is_finite() {
        true => Ok(metrics),
        false => Err(RunError::NotFinite { name: "loss".into() }.into()),
    }
}

pub(crate) fn no_eval() -> Error {
    Error::Usage("the program has no entry `eval`".into())
}

fn has_scalar(executable: &dyn Executable, name: &str) -> bool {
    let buffers = &executable.program().buffers;
    buffers.iter().any(|b| b.class == Class::Scalar && b.name == name)
}
