//! A compiled model with its parameters, ready to run.

use crate::cache::Specialized;
use crate::pipeline::{self, EntryGraph};
use crate::{Compiler, Error};
use dlc_graph::Graph;
use dlc_kernel::{Buffer, BufferId, Class, Entry, Executable, Program, StageTime, Tensor};
use dlc_train::WeightsFile;
use std::path::Path;
use std::sync::Arc;

/// A model compiled for fixed sizes, with its storage. [`Network::run`] may be called from several
/// threads at once.
pub struct Network {
    executable: Box<dyn Executable>,
    stages: Vec<StageTime>,
    specialized: Arc<Specialized>,
    compiler: Compiler,
}

/// The results of a run, in the order of the model's signature, with their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(Vec<(String, Tensor)>);

impl Network {
    pub(crate) fn new(
        executable: Box<dyn Executable>,
        stages: Vec<StageTime>,
        specialized: Arc<Specialized>,
        compiler: Compiler,
    ) -> Network {
        Network { executable, stages, specialized, compiler }
    }

    /// Reads all parameters and state from a safetensors file. [`WeightsFile::load`] does so under
    /// other names, and tells of numbers that are not finite.
    ///
    /// # Errors
    /// If the file is not what it should be; all missing, unexpected and mismatched tensors are
    /// listed at once.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Network, Error> {
        crate::memory::freed();
        WeightsFile::new(path.as_ref()).load(&*self.executable)?;
        crate::memory::freed();
        Ok(self)
    }

    /// Gives all parameters and state the values their initializers say.
    ///
    /// # Errors
    /// If the initializing program cannot be built.
    pub fn initialize(self, seed: i32) -> Result<Network, Error> {
        initialize(&self.specialized.init, &*self.executable, seed, &self.compiler)?;
        Ok(self)
    }

    /// Writes all parameters and state to a safetensors file, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(dlc_train::save_weights(path.as_ref(), &*self.executable)?)
    }

    /// Runs the model. Inputs may come in any order.
    ///
    /// # Errors
    /// If an input is missing, unknown, or of another type or shape than the signature's; if an
    /// index in the data is out of range.
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, Error> {
        let program = self.executable.program();
        let entry = &program.entries[0];
        all_known(inputs.iter().map(|(name, _)| *name), program, entry)?;
        let ordered = entry.inputs.iter().map(|&b| find_input(self.buffer(b), inputs));
        let ordered = ordered.collect::<Result<Vec<_>, _>>()?;
        let mut outputs: Vec<Tensor> =
            entry.outputs.iter().map(|&b| empty(self.buffer(b))).collect();
        self.executable.call(0, &ordered, &mut outputs)?;
        let names = entry.outputs.iter().map(|&b| self.buffer(b).name.clone());
        Ok(Outputs(names.zip(outputs).collect()))
    }

    /// As [`Network::run`], with inputs in the order of the signature and outputs that exist
    /// already; allocates nothing.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn run_into(&self, inputs: &[&Tensor], outputs: &mut [Tensor]) -> Result<(), Error> {
        Ok(self.executable.call(0, inputs, outputs)?)
    }

    /// The inputs, in the order of the signature.
    pub fn inputs(&self) -> impl Iterator<Item = &Buffer> {
        self.executable.program().entries[0].inputs.iter().map(|&b| self.buffer(b))
    }

    /// The outputs, in the order of the signature.
    pub fn outputs(&self) -> impl Iterator<Item = &Buffer> {
        self.executable.program().entries[0].outputs.iter().map(|&b| self.buffer(b))
    }

    /// The parameters, in the order the model declares them.
    pub fn parameters(&self) -> impl Iterator<Item = &Buffer> {
        self.executable.program().buffers.iter().filter(|b| b.class == Class::Param)
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
    /// If there is none of that name, or its type or shape differs.
    pub fn write(&self, name: &str, value: &Tensor) -> Result<(), Error> {
        Ok(self.executable.write(name, value)?)
    }

    /// How long each stage of the compilation took; those that were not run again are not listed.
    pub fn stages(&self) -> &[StageTime] {
        &self.stages
    }

    /// The compiled program.
    pub fn executable(&self) -> &dyn Executable {
        &*self.executable
    }

    fn buffer(&self, id: BufferId) -> &Buffer {
        self.executable.program().buffer(id)
    }
}

impl Outputs {
    /// The result of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// All results with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(n, t)| (n.as_str(), t))
    }
}

impl std::ops::Index<usize> for Outputs {
    type Output = Tensor;
    fn index(&self, position: usize) -> &Tensor {
        &self.0[position].1
    }
}

/// Runs the program made of `init` and copies what it computes into `into`.
pub(crate) fn initialize(
    init: &Graph,
    into: &dyn Executable,
    seed: i32,
    compiler: &Compiler,
) -> Result<(), Error> {
    let entry = EntryGraph { name: "init".into(), graph: init.clone() };
    let (program, _) = pipeline::build(&[entry], compiler.target_ref(), &compiler.options)?;
    crate::memory::freed();
    if program.read("seed").is_ok() {
        program.write("seed", &Tensor::i32([], vec![seed]))?;
    }
    let outputs = program.program().entries[0].outputs.iter();
    let outputs: Vec<&Buffer> = outputs.map(|&b| program.program().buffer(b)).collect();
    let mut values: Vec<Tensor> = outputs.iter().map(|b| empty(b)).collect();
    program.call(0, &[], &mut values)?;
    let names: Vec<String> = outputs.iter().map(|buffer| buffer.name.clone()).collect();
    drop(program);
    // Each is freed as soon as it is copied.
    for (name, value) in names.iter().zip(values) {
        into.write(name, &value)?;
    }
    crate::memory::freed();
    Ok(())
}

/// A zeroed tensor of a buffer's type and shape.
pub(crate) fn empty(buffer: &Buffer) -> Tensor {
    Tensor::zeros(buffer.dtype, extents(buffer))
}

/// The extents of a buffer of a built program.
pub(crate) fn extents(buffer: &Buffer) -> Vec<usize> {
    let bound = |s: &dlc_kernel::Size| s.as_const().expect("sizes of a built program are bound");
    buffer.shape.iter().map(|s| bound(s) as usize).collect()
}

fn find_input<'t>(buffer: &Buffer, inputs: &[(&str, &'t Tensor)]) -> Result<&'t Tensor, Error> {
    let given = inputs.iter().find(|(name, _)| *name == buffer.name);
    let (_, tensor) =
        given.ok_or_else(|| Error::Argument(format!("input `{}` is missing", buffer.name)))?;
    fits(tensor, buffer)?;
    Ok(tensor)
}

/// Whether an entry has inputs of all these names.
pub(crate) fn all_known<'n>(
    mut names: impl Iterator<Item = &'n str>,
    program: &Program,
    entry: &Entry,
) -> Result<(), Error> {
    let unknown = |name: &&str| !entry.inputs.iter().any(|&b| program.buffer(b).name == *name);
    match names.find(unknown) {
        Some(name) => Err(Error::Argument(format!("the model has no input `{name}`"))),
        None => Ok(()),
    }
}

/// Whether a tensor is what an input takes.
pub(crate) fn fits(tensor: &Tensor, buffer: &Buffer) -> Result<(), Error> {
    if tensor.dtype() == buffer.dtype && tensor.shape == extents(buffer) {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "input `{}` is {}{:?}, the model takes {}{:?}",
        buffer.name,
        tensor.dtype(),
        tensor.shape,
        buffer.dtype,
        extents(buffer)
    )))
}
