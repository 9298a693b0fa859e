//! The compiler as a library: text in, modules and networks out.

use crate::cache::{Cache, Specialized};
use crate::pipeline::{self, EntryGraph};
use crate::target::AnyTarget;
use crate::{Error, Network};
use dlc_cpu::Choices;
use dlc_front::diagnostic::Severity;
use dlc_front::{Constraint, Diagnostic, Mode, Style, TrainOverrides, Unit};
use dlc_graph::Graph;
use dlc_kernel::{Bindings, BuildOptions, OptLevel, Size, Target, Tensor};
use serde_json::json;
use std::path::Path;

/// Settings of a compilation. Cheap to clone.
///
/// ```
/// # fn main() -> Result<(), dlc::Error> {
/// use dlc::{Compiler, Tensor};
///
/// let source = "model Double(x: f32[N]) -> f32[N] { 2 * x }";
/// let module = Compiler::new().compile_text("double.dl", source)?;
/// let network = module.model("Double")?.bind([("N", 3)])?;
/// let x = Tensor::f32([3], vec![1.0, 2.0, 3.0]);
/// let outputs = network.run(&[("x", &x)])?;
/// assert_eq!(outputs[0].as_f32(), Some(&[2.0, 4.0, 6.0][..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Compiler {
    pub(crate) target: AnyTarget,
    pub(crate) options: BuildOptions,
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::new()
    }
}

impl Compiler {
    /// A compiler for this machine's CPU, at `-O2`, with the threads the machine grants.
    pub fn new() -> Compiler {
        let options = BuildOptions { cache: crate::store::cache_dir(), ..BuildOptions::default() };
        Compiler { target: AnyTarget::host(), options }
    }

    /// Compiles for another target: `x86-64-v3`, for example, names a level of the CPU, `sm_90a` a
    /// flavour of PTX.
    ///
    /// # Errors
    /// If no target has that name. One that this machine cannot run can still be dumped.
    pub fn target(self, name: &str) -> Result<Compiler, Error> {
        Ok(Compiler { target: AnyTarget::from_name(name)?, ..self })
    }

    /// Compiles for a device of this machine: `cpu`, or `cuda` for its GPU.
    ///
    /// # Errors
    /// If there is no such device, and why.
    pub fn device(self, name: &str) -> Result<Compiler, Error> {
        Ok(Compiler { target: AnyTarget::of_device(name)?, ..self })
    }

    /// Sets how products of floats are computed: `f32`; on GPUs also `3xtf32`, `tf32`, `f16`,
    /// `bf16`.
    ///
    /// # Errors
    /// If there is no such way, or the target does not have it.
    pub fn math(self, name: &str) -> Result<Compiler, Error> {
        Ok(Compiler { target: self.target.with_math(name)?, ..self })
    }

    /// Sets how hard to optimize.
    pub fn opt_level(mut self, level: OptLevel) -> Compiler {
        self.options.opt_level = level;
        self
    }

    /// Sets the number of threads a call may use, the caller's included; at least 1.
    pub fn threads(mut self, threads: usize) -> Compiler {
        self.options.threads = Some(threads.max(1));
        self
    }

    /// Sets the most bytes that one network may take.
    pub fn memory_limit(mut self, bytes: u64) -> Compiler {
        self.options.memory_limit = Some(bytes);
        self
    }

    /// Sets whether convolutions are computed as direct sums. By default those with 3x3 filters may
    /// be computed by Winograd's algorithm, with fewer multiplications and rounding errors a few
    /// times larger.
    pub fn exact_conv(mut self, exact: bool) -> Compiler {
        self.options.exact_conv = exact;
        self
    }

    /// Sets what tuning has chosen ([`tuned_choices`](crate::tuned_choices)); by default, the cost
    /// model decides everything. They are for the CPU; other targets take none.
    pub fn choices(mut self, choices: Choices) -> Compiler {
        if let AnyTarget::Cpu(target) = self.target {
            self.target = AnyTarget::Cpu(target.with_choices(choices));
        }
        self
    }

    /// The options of every build.
    pub fn options(&self) -> &BuildOptions {
        &self.options
    }

    /// The target that is compiled for.
    pub fn target_ref(&self) -> &dyn Target {
        self.target.as_target()
    }

    /// The target, by its kind.
    pub fn any_target(&self) -> &AnyTarget {
        &self.target
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// If it cannot be read, or its text is not the language.
    pub fn compile_file(&self, path: impl AsRef<Path>) -> Result<Module, Error> {
        let path = path.as_ref();
        let text = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        self.compile_bytes(&path.display().to_string(), &text)
    }

    /// Parses a text; `name` stands for the file's name in messages.
    ///
    /// # Errors
    /// If the text is not the language.
    pub fn compile_text(&self, name: &str, text: &str) -> Result<Module, Error> {
        self.compile_bytes(name, text.as_bytes())
    }

    fn compile_bytes(&self, name: &str, text: &[u8]) -> Result<Module, Error> {
        let unit = Unit::parse(name, text).map_err(|f| Error::Source(f.render(Style::Plain)))?;
        Ok(Module { compiler: self.clone(), unit, cache: Cache::default() })
    }
}

/// A parsed file: its models, blocks and sections. Keeps the program of every binding of its
/// models; may be used from several threads.
pub struct Module {
    pub(crate) compiler: Compiler,
    pub(crate) unit: Unit,
    cache: Cache,
}

impl Module {
    /// The names of its models, in order.
    pub fn models(&self) -> Vec<&str> {
        self.unit.models()
    }

    /// The names of the models that have a `train` section.
    pub fn trainable(&self) -> Vec<&str> {
        self.unit.trains()
    }

    /// Everything that is wrong with the file, under these sizes.
    pub fn check(&self) -> CheckReport {
        let diagnostics = self.unit.check();
        let is_error = |d: &&Diagnostic| d.severity == Severity::Error;
        CheckReport {
            errors: diagnostics.iter().filter(is_error).count(),
            text: self.unit.render(&diagnostics, Style::Plain),
            json: diagnostics.iter().map(|d| self.to_json(d)).collect(),
        }
    }

    /// One line: severity, code, title, and where it starts.
    fn to_json(&self, diagnostic: &Diagnostic) -> String {
        let span = diagnostic.primary.span;
        let file = self.unit.sources().file(span.file);
        let place = file.line_col(span.start as usize);
        let object = json!({
            "severity": match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "code": diagnostic.code.as_str(),
            "title": diagnostic.title,
            "file": file.name(),
            "line": place.line,
            "column": place.column,
            "label": diagnostic.primary.text,
            "notes": diagnostic.notes,
            "help": diagnostic.help,
        });
        object.to_string()
    }

    /// The parsed file itself.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// One of its models.
    ///
    /// # Errors
    /// If there is no model of that name.
    pub fn model(&self, name: &str) -> Result<Model<'_>, Error> {
        match self.models().into_iter().find(|m| *m == name) {
            Some(_) => Ok(Model { module: self, name: name.to_owned() }),
            None => Err(Error::Argument(format!(
                "there is no model `{name}` in this file; it has {}",
                self.models().join(", ")
            ))),
        }
    }

    /// The model's training section, elaborated; `name` as for [`Module::model`].
    pub(crate) fn training(
        &self,
        name: &str,
        overrides: &TrainOverrides,
        bindings: &Bindings,
    ) -> Result<dlc_front::Training, Error> {
        self.unit.train(name, overrides, bindings).map_err(|d| self.refuse(&d))
    }

    /// The graph with all its sizes bound, after the rules on them are checked.
    pub(crate) fn bind_graph(
        &self,
        graph: &Graph,
        constraints: &[Constraint],
        sizes: &Bindings,
    ) -> Result<Graph, Error> {
        let broken = constraints.iter().filter_map(|c| c.check(sizes).err());
        let broken: Vec<Diagnostic> = broken.map(|d| *d).collect();
        if !broken.is_empty() {
            return Err(self.refuse(&broken));
        }
        let known = graph.symbols();
        if let Some(name) = known.iter().find(|n| !sizes.contains_key(*n)) {
            return Err(Error::Argument(format!(
                "the size of dim `{name}` is not known: give it with --bind {name}=SIZE"
            )));
        }
        graph.bind(sizes).map_err(|e| {
            let place = e.origin.map(|o| format!("{}:{}: ", o.file, o.line)).unwrap_or_default();
            Error::Argument(format!("{place}{}", e.error))
        })
    }

    pub(crate) fn refuse(&self, diagnostics: &[Diagnostic]) -> Error {
        Error::Source(self.unit.render(diagnostics, Style::Plain))
    }
}

/// What [`Module::check`] found.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// The number of errors; warnings do not count.
    pub errors: usize,
    /// All diagnostics, rendered with their source lines.
    pub text: String,
    /// Each diagnostic as a JSON object on one line.
    pub json: Vec<String>,
}

/// A model of a [`Module`], whose sizes are still open.
pub struct Model<'m> {
    module: &'m Module,
    name: String,
}

impl Model<'_> {
    /// Compiles the model, in inference mode, for the given sizes. Its parameters are zero until
    /// [`Network::load`] or [`Network::initialize`]. Binding the same sizes again takes the program
    /// that is there; each network has parameters of its own.
    ///
    /// # Errors
    /// If the model is wrong, a size is missing or breaks one of its rules, or it cannot be built.
    pub fn bind<'n>(
        &self,
        sizes: impl IntoIterator<Item = (&'n str, i64)>,
    ) -> Result<Network, Error> {
        let bindings = sizes.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        self.bind_all(&bindings)
    }

    /// As [`Model::bind`].
    pub fn bind_all(&self, bindings: &Bindings) -> Result<Network, Error> {
        let Module { compiler, cache, .. } = self.module;
        let mut stages = Vec::new();
        let specialized = cache.get((self.name.clone(), bindings.clone()), || {
            let (entry, init) = self.elaborate(bindings)?;
            let opt = compiler.options.opt_level;
            let lowered = pipeline::lower(&[entry], opt, &mut |_, _| {});
            stages = lowered.stages;
            Ok(Specialized { program: lowered.program, init })
        })?;
        let executable = compiler.target_ref().build(&specialized.program, &compiler.options)?;
        stages.extend(executable.stage_times().iter().cloned());
        Ok(Network::new(executable, stages, specialized, compiler.clone()))
    }

    /// The model as the entry `run` of a program, in inference mode.
    ///
    /// # Errors
    /// As [`Model::bind`].
    pub fn entry(&self, bindings: &Bindings) -> Result<EntryGraph, Error> {
        Ok(self.elaborate(bindings)?.0)
    }

    /// The sizes of dims that the inputs' shapes tell.
    ///
    /// # Errors
    /// If two inputs disagree on a size, or one has another rank than the signature says.
    pub fn sizes_of(&self, inputs: &[(String, Tensor)]) -> Result<Bindings, Error> {
        let signature = self.module.unit.inputs(&self.name).map_err(|d| self.module.refuse(&d))?;
        let mut sizes = Bindings::new();
        for (name, tensor) in inputs {
            let Some((_, ty)) = signature.iter().find(|(n, _)| n == name) else { continue };
            let differs =
                |(dim, &n): (&Size, &usize)| dim.as_const().is_some_and(|d| d != n as i64);
            if ty.rank() != tensor.shape.len() || ty.shape.iter().zip(&tensor.shape).any(differs) {
                return Err(Error::Argument(format!(
                    "input `{name}` is {}{:?}, the model takes {ty}",
                    tensor.dtype(),
                    tensor.shape
                )));
            }
            for (dim, &extent) in ty.shape.iter().zip(&tensor.shape) {
                let Some(symbol) = dim.as_symbol() else { continue };
                let extent = extent as i64;
                let known = *sizes.entry(symbol.to_owned()).or_insert(extent);
                if known != extent {
                    return Err(Error::Argument(format!(
                        "dim `{symbol}` is {known} in one input and {extent} in `{name}`"
                    )));
                }
            }
        }
        Ok(sizes)
    }

    /// The entry `run` with all its sizes bound, and the graph of first values.
    pub(crate) fn elaborate(&self, bindings: &Bindings) -> Result<(EntryGraph, Graph), Error> {
        let unit = &self.module.unit;
        let model =
            unit.model(&self.name, bindings, Mode::Infer).map_err(|d| self.module.refuse(&d))?;
        let graph = self.module.bind_graph(&model.graph, &model.constraints, bindings)?;
        Ok((EntryGraph { name: "run".into(), graph }, model.init))
    }
}

/// The paragraph on an error code such as `E0203`.
pub fn explain(code: &str) -> Option<&'static str> {
    dlc_front::Code::parse(code).map(dlc_front::Code::explanation)
}
