//! Every model of every file in `examples`: its inference, and its training step if it has one.

use dlc::pipeline::{self, EntryGraph};
use dlc::{Bindings, Compiler, Module, OptLevel};
use dlc_front::TrainOverrides;
use dlc_graph::Graph;
use dlc_kernel::{Expr, Exprs, Form, Kernel, Program, Size};
use rustc_hash::FxHashMap;
use std::path::Path;

/// One program of an example.
pub struct Example {
    /// The file's name, without `.dl`.
    pub file: String,
    /// The model.
    pub model: String,
    /// Whether its training step is meant, rather than inference.
    pub train: bool,
    /// Batches of a step: with several, all but the last add to sums of gradients.
    pub batches: i64,
}

/// How large its dims are.
#[derive(Clone, Copy, PartialEq)]
pub enum Sizes {
    /// What the file says, and some number where it leaves that to the data.
    Own,
    /// A few of everything, for an interpreter, in batches of so many.
    Small(i64),
}

/// All of them, by name.
pub fn all() -> Vec<Example> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "dl")).collect();
    files.sort();
    let mut examples = Vec::new();
    for file in files {
        let file = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = module(&file, Sizes::Own);
        let runs = module.models().into_iter().map(|model| (model, false));
        for (model, train) in runs.chain(module.trainable().into_iter().map(|m| (m, true))) {
            let (file, model) = (file.clone(), model.to_owned());
            examples.push(Example { file, model, train, batches: 1 });
        }
    }
    assert!(examples.len() >= 13, "examples are missing");
    examples
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The file, in small sizes with pictures of 32 x 32 where it has those of 224 x 224.
fn module(file: &str, sizes: Sizes) -> Module {
    let path = folder().join(file).with_extension("dl");
    if sizes == Sizes::Own {
        return Compiler::new().compile_file(path).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap().replace("224", "32");
    Compiler::new().compile_text(path.to_str().unwrap(), &text).unwrap()
}

impl Example {
    /// `lenet_LeNet_train`.
    pub fn name(&self) -> String {
        let kind = if self.train { "train" } else { "run" };
        format!("{}_{}_{kind}", self.file, self.model)
    }

    /// Its kernels.
    pub fn program(&self, sizes: Sizes) -> Program {
        let module = module(&self.file, sizes);
        let entries = if self.train {
            self.training(&module, sizes)
        } else {
            let dims = module.unit().dims_of(&self.model).unwrap();
            let bindings =
                dims.iter().enumerate().map(|(i, dim)| (dim.clone(), size(dim, i, sizes)));
            vec![module.model(&self.model).unwrap().entry(&bindings.collect()).unwrap()]
        };
        pipeline::lower(&entries, OptLevel::O2, &mut |_, _| {}).program
    }

    fn training(&self, module: &Module, sizes: Sizes) -> Vec<EntryGraph> {
        let unit = module.unit();
        let mut overrides = TrainOverrides::default();
        if let Sizes::Small(batch) = sizes {
            overrides.batch = Some(batch);
        }
        overrides.accumulate = Some(self.batches);
        // The model's dims are sizes of the data; some of them the section says.
        let data = unit.data(&self.model).unwrap();
        let said = |dim: &str| sizes == Sizes::Own && data[0].number(dim).is_some();
        let dims = unit.dims_of(&self.model).unwrap().into_iter().enumerate();
        let open = dims.filter(|(_, dim)| dim != "N" && !said(dim));
        let mut bindings: Bindings =
            open.map(|(i, dim)| (dim.clone(), size(&dim, i, sizes))).collect();
        let training = unit
            .train(&self.model, &overrides, &bindings)
            .unwrap_or_else(|errors| panic!("{}", unit.render(&errors, dlc_front::Style::Plain)));
        bindings.insert(training.batch_dim.clone(), training.settings.batch);
        let bind = |name, graph: &Graph| EntryGraph { name, graph: graph.bind(&bindings).unwrap() };
        let adds = training.accumulate.iter().map(|graph| bind("accumulate".into(), graph));
        adds.chain([bind("train".into(), &training.step), bind("eval".into(), &training.eval)])
            .collect()
    }
}

/// The size of a dim, the `i`th of its model.
fn size(dim: &str, i: usize, sizes: Sizes) -> i64 {
    match (sizes, dim) {
        (Sizes::Small(batch), "N") => batch,
        (Sizes::Small(_), _) => 5 + i as i64,
        (Sizes::Own, "N") => 32,
        (Sizes::Own, _) => 60 + i as i64,
    }
}

/// Arithmetic of all entries, in operations.
pub fn operations(program: &Program) -> u64 {
    kernels(program).map(Kernel::flops).sum()
}

/// Operations on the longest path through all entries, one after the other; a sum of n terms counts n.
pub fn longest_path(program: &Program) -> f64 {
    let mut paths = Paths::default();
    kernels(program).for_each(|kernel| paths.follow(kernel));
    paths.0.values().fold(0.0, |most, &n| f64::max(most, n))
}

fn kernels(program: &Program) -> impl Iterator<Item = &Kernel> {
    program.entries.iter().flat_map(|entry| &entry.kernels)
}

/// By buffer, the longest path to it so far.
#[derive(Default)]
struct Paths(FxHashMap<dlc_kernel::BufferId, f64>);

impl Paths {
    fn follow(&mut self, kernel: &Kernel) {
        if let Form::Loop { steps, start, body } = &kernel.form {
            start.iter().for_each(|kernel| self.follow(kernel));
            (0..extent(steps)).for_each(|_| body.iter().for_each(|kernel| self.follow(kernel)));
            return;
        }
        let before = kernel.reads().iter().filter_map(|id| self.0.get(id)).fold(0.0, most);
        let parts = kernel.parts();
        let own: f64 = parts.iter().map(|part| longest(part.exprs, &part.roots)).sum();
        let after = before + own + sums(kernel);
        kernel.writes().into_iter().for_each(|id| _ = self.0.insert(id, after));
    }
}

fn most(a: f64, b: &f64) -> f64 {
    a.max(*b)
}

/// Operations on the longest path to one of `roots`.
fn longest(exprs: &Exprs, roots: &[dlc_kernel::ExprId]) -> f64 {
    let mut lengths = FxHashMap::default();
    for id in exprs.reachable(roots.iter().copied()) {
        let below = exprs.get(id).operands().iter().map(|o| lengths[o]).fold(0.0, f64::max);
        let own = match exprs.get(id) {
            Expr::Binary(..) => 1.0,
            // A few units in the last place, docs/accuracy.md has them.
            Expr::Unary(..) => 4.0,
            _ => 0.0,
        };
        lengths.insert(id, below + own);
    }
    roots.iter().map(|id| lengths[id]).fold(0.0, f64::max)
}

/// Terms of the sums of a kernel.
fn sums(kernel: &Kernel) -> f64 {
    let points = |axes: &[Size]| axes.iter().map(extent).product::<i64>() as f64;
    match &kernel.form {
        Form::Row { inner, .. } => points(inner),
        Form::Contract { reduce, .. } => points(reduce),
        Form::Scatter { axes, .. } => points(axes),
        _ => 0.0,
    }
}

fn extent(size: &Size) -> i64 {
    size.as_const().expect("sizes are bound")
}
