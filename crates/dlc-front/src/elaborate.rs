//! Elaboration: the meaning of a syntax tree, as a graph.
//!
//! An [`Elab`] walks definitions with concrete hyperparameters, evaluates what is known at compile
//! time (sizes, hyperparameters, `if`, `repeat`) and adds the rest to a [`Graph`]. What holds:
//!
//! - Every user error becomes a [`Diagnostic`]; the function that finds it returns [`Reported`],
//!   and the statement around it binds its names to [`Val::Poison`], so that one run reports several
//!   independent errors and none twice.
//! - Every graph node carries the place it was written at and the instance it belongs to.
//! - First values of parameters and states go to a second graph, `init`.
//!
//! Start with `expr` (expressions), `call` (application) and `equation` (index equations).

mod builtin;
mod call;
mod check;
mod condition;
mod constraint;
mod data;
mod dims;
mod equation;
mod expr;
mod gather;
mod initial;
mod intrinsic;
mod measure;
mod model;
mod named;
mod number;
mod optimize;
mod overwrite;
mod pointwise;
mod product;
mod promise;
mod read;
mod reduction;
mod repeat;
mod runtime;
mod scan;
mod scope;
mod settings;
mod shape;
mod signature;
mod slice;
mod stage;
mod stmt;
mod training;
mod types;
mod value;
mod warn;

use std::rc::Rc;
use std::sync::Arc;

use dlc_graph::op::Op;
use dlc_graph::{Graph, Type, Value};
use dlc_kernel::{Bindings, Location, Origin, Size};
use indexmap::IndexMap;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Code;
use crate::ast::Ast;
use crate::diagnostic::{Diagnostic, Label};
use crate::source::{FileId, Span};
use crate::unit::Unit;

pub(crate) use check::check;
pub use constraint::{Comparison, Constraint, Relation};
pub(crate) use data::sources as data_sources;
pub use data::{DataArg, DataSpec};
pub(crate) use dims::dims;
pub use model::{Model, ParamInfo, StateInfo};
pub(crate) use model::{elaborate as model, inputs, unknown_model};
use scope::Frame;
pub use settings::{EarlyStop, Settings, TrainOverrides, Validation};
pub use training::Training;
pub(crate) use training::elaborate as training;
pub(crate) use value::DefId;
use value::Val;

/// The most nodes a graph may have.
pub const MAX_NODES: usize = 1_000_000;

/// How deep instances may be nested.
pub const MAX_INSTANCE_DEPTH: usize = 256;

/// The most expressions one elaboration evaluates: a bound on nested `repeat`s.
const MAX_STEPS: u64 = 20_000_000;

/// How deep expressions may nest across instances: a bound on the stack.
const MAX_EVAL_DEPTH: usize = 8192;

/// The most diagnostics one elaboration collects.
const MAX_DIAGNOSTICS: usize = 50;

/// For which use a graph is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// With dropout, batch statistics and state updates.
    Train,
    /// Without them.
    Infer,
}

/// An error has been reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// A value, unless an error has been reported.
pub(crate) type Eval<T> = Result<T, Reported>;

/// An axis of an index equation.
#[derive(Clone, Debug)]
struct AxisInfo {
    name: Arc<str>,
    extent: Size,
}

/// A parameter or state while its graph is built.
#[derive(Clone, Debug)]
struct Stored {
    value: Value,
    ty: Type,
    span: Span,
    origin: Origin,
    /// The next value, for states.
    update: Option<(Value, Span)>,
}

/// A model, the path of its instance, and its inputs.
type Application = (DefId, Rc<str>, Vec<Value>);

/// One elaboration: of a model in one mode, or of the step of a `train` section.
pub(crate) struct Elab<'u> {
    unit: &'u Unit,
    mode: Mode,
    bindings: Bindings,
    graph: Graph,
    init: Graph,
    diagnostics: Vec<Diagnostic>,
    frames: Vec<Frame>,
    params: IndexMap<String, Stored>,
    states: IndexMap<String, Stored>,
    /// The loops whose bodies are being elaborated, outermost first.
    scans: Vec<scan::OpenScan>,
    scalars: IndexMap<String, f64>,
    /// The present values of scheduled run-time scalars.
    followed: FxHashMap<String, Value>,
    /// How many batches make a step of the section.
    accumulate: i64,
    constraints: Vec<Constraint>,
    /// Axes of the equations around the current place; [`dlc_kernel::Axis`] numbers index it.
    axes: Vec<AxisInfo>,
    /// Guards that reads inside a reduction need, innermost last.
    guards: Vec<Vec<dlc_kernel::Guard>>,
    globals: FxHashMap<Arc<str>, Val>,
    /// What models gave where they were applied.
    applications: Vec<(Application, Val)>,
    random_sites: FxHashMap<String, u32>,
    origins: FxHashMap<(Span, Rc<str>), Origin>,
    file_names: FxHashMap<FileId, Arc<str>>,
    with_params: FxHashMap<DefId, bool>,
    steps: u64,
    depth: usize,
    /// The model that the current section is about.
    section: Option<DefId>,
    /// Defaults of run-time scalars that replace the text's.
    scalar_overrides: FxHashMap<String, f64>,
    reported: FxHashSet<(Code, Span, String)>,
    /// Whether first values are being computed: `graph` and `init` are exchanged.
    initializing: bool,
}

impl<'u> Elab<'u> {
    pub fn new(unit: &'u Unit, mode: Mode, bindings: Bindings) -> Elab<'u> {
        Elab {
            unit,
            mode,
            bindings,
            graph: Graph::new(),
            init: Graph::new(),
            diagnostics: Vec::new(),
            frames: Vec::new(),
            params: IndexMap::new(),
            states: IndexMap::new(),
            scans: Vec::new(),
            scalars: IndexMap::new(),
            followed: FxHashMap::default(),
            accumulate: 1,
            constraints: Vec::new(),
            axes: Vec::new(),
            guards: Vec::new(),
            globals: FxHashMap::default(),
            applications: Vec::new(),
            random_sites: FxHashMap::default(),
            origins: FxHashMap::default(),
            file_names: FxHashMap::default(),
            with_params: FxHashMap::default(),
            steps: 0,
            depth: 0,
            section: None,
            scalar_overrides: FxHashMap::default(),
            reported: FxHashSet::default(),
            initializing: false,
        }
    }

    /// The tree that the current frame's expressions are in.
    fn ast(&self) -> &'u Ast {
        self.unit.ast(self.frame().ast)
    }

    /// Adds an operation written at `span`.
    fn add(&mut self, op: impl Into<Op>, operands: &[Value], span: Span) -> Eval<Value> {
        if self.graph.len() >= MAX_NODES {
            let title = format!("the graph exceeds {MAX_NODES} operations");
            return Err(self.fail(Diagnostic::error(Code::TooManyNodes, title, span, "here")));
        }
        let origin = self.origin(span);
        self.graph.add(op, operands, origin).map_err(|error| {
            let title = error.message;
            let mut diagnostic = Diagnostic::error(Code::Operation, title, span, "");
            for &operand in operands {
                diagnostic = self.label_source(diagnostic, operand, span);
            }
            diagnostic.help.extend(error.help);
            self.fail(diagnostic)
        })
    }

    /// The type of a value of the current graph.
    fn ty(&self, value: Value) -> &Type {
        self.graph.ty(value)
    }

    /// The place `span` in the current instance, as graph nodes carry it; inside the standard
    /// library, the place in the user's file where it is used.
    fn origin(&mut self, span: Span) -> Origin {
        let path = self.frame().path.clone();
        let span = self.user_place(span).map_or(span, |(span, _)| span);
        if let Some(origin) = self.origins.get(&(span, path.clone())) {
            return origin.clone();
        }
        let file = self.unit.sources().file(span.file);
        let name = self.file_names.entry(span.file).or_insert_with(|| file.name().into()).clone();
        let place = file.line_col(span.start as usize);
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let location = Location {
            file: name,
            line: clamp(place.line),
            column: clamp(place.column),
            path: (&*path).into(),
        };
        let origin = Some(Arc::new(location));
        self.origins.insert((span, path), origin.clone());
        origin
    }

    /// Records an error. Where it lies in the standard library, the user's call comes first.
    fn fail(&mut self, diagnostic: Diagnostic) -> Reported {
        self.report(diagnostic);
        Reported
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        let diagnostic = self.move_to_user(diagnostic);
        let key = (diagnostic.code, diagnostic.primary.span, diagnostic.title.clone());
        if self.diagnostics.len() < MAX_DIAGNOSTICS && self.reported.insert(key) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn move_to_user(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Some((span, name)) = self.user_place(diagnostic.primary.span) {
            let text = format!("in this use of `{name}`");
            let inner = std::mem::replace(&mut diagnostic.primary, Label { span, text });
            diagnostic.secondary.insert(0, inner);
        }
        diagnostic
    }

    /// For a place in the standard library: the innermost use in the user's file that led there,
    /// and what is used.
    fn user_place(&self, span: Span) -> Option<(Span, Arc<str>)> {
        let user = self.unit.user_file();
        if span.file == user {
            return None;
        }
        let calls = self.frames.iter().rev().filter_map(|f| f.call.as_ref());
        calls.into_iter().find(|(span, _)| span.file == user).cloned()
    }

    /// Adds where an operand comes from, if that is another place than the operation.
    fn label_source(&self, diagnostic: Diagnostic, operand: Value, _at: Span) -> Diagnostic {
        let place = match self.graph.origin(operand) {
            Some(at) => format!(" (from {}:{}:{})", at.file, at.line, at.column),
            None => String::new(),
        };
        diagnostic.note(format!("an operand is {}{place}", self.ty(operand)))
    }

    /// Whether some error has been reported.
    fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}
