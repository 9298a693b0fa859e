//! Models: the graphs of one model with its parameters, states and constraints.

use std::rc::Rc;

use dlc_graph::op::{Op, Source, SourceClass};
use dlc_graph::{Graph, Role, Shape, Type, Value};
use dlc_kernel::{Bindings, Origin, Scalar, Size};

use super::initial::output_name;
use super::scope::Frame;
use super::signature::{Given, show_sizes};
use super::value::{DEFAULT_FLOAT, DefId, Val};
use super::{Constraint, Elab, Eval, Mode, Stored};
use crate::Code;
use crate::ast::{BinaryOp, Def, Dim, Expect, ExprId, ExprKind, Ident, Input};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::unit::Unit;

/// A model elaborated in one mode.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Inputs are sources of class `Input`; results are the outputs and, in training mode, the next
    /// values of states.
    pub graph: Graph,
    /// The first value of every parameter and state: outputs by path. Its only source is the scalar
    /// `seed` (and run-time scalars that first values mention).
    pub init: Graph,
    /// Names and types of the inputs.
    pub inputs: Vec<(String, Type)>,
    /// Names and types of the outputs.
    pub outputs: Vec<(String, Type)>,
    /// The parameters, in order of creation.
    pub params: Vec<ParamInfo>,
    /// The states, in order of creation.
    pub states: Vec<StateInfo>,
    /// Run-time scalars with their defaults.
    pub scalars: Vec<(String, f64)>,
    /// What must hold once sizes are bound.
    pub constraints: Vec<Constraint>,
    /// What is odd but no error.
    pub warnings: Vec<Diagnostic>,
}

/// A parameter: a tensor that is trained and stored.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// Its path, `conv1.weight`: its name in files.
    pub path: String,
    /// Its type; all sizes are numbers.
    pub ty: Type,
    /// Where it is declared.
    pub origin: Origin,
}

/// A state: a tensor that persists between calls and is stored, but not trained by gradient.
pub type StateInfo = ParamInfo;

impl Model {
    /// The number of elements of all parameters.
    #[must_use]
    pub fn param_count(&self) -> i64 {
        count(&self.params)
    }
}

/// The number of elements of parameters.
fn count(params: &[ParamInfo]) -> i64 {
    let sizes = params.iter().filter_map(|p| p.ty.elements().as_const());
    sizes.fold(0, i64::saturating_add)
}

/// What parameters or states are, for callers.
pub(super) fn infos(stored: &indexmap::IndexMap<String, Stored>) -> Vec<ParamInfo> {
    let info = |(path, s): (&String, &Stored)| ParamInfo {
        path: path.clone(),
        ty: s.ty.clone(),
        origin: s.origin.clone(),
    };
    stored.iter().map(info).collect()
}

/// Elaborates a model.
pub(crate) fn elaborate(
    unit: &Unit,
    id: DefId,
    bindings: &Bindings,
    mode: Mode,
) -> (Option<Model>, Vec<Diagnostic>) {
    let mut elab = Elab::new(unit, mode, bindings.clone());
    let model = elab.run_model(id);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        elab.diagnostics.into_iter().partition(Diagnostic::is_error);
    match model {
        Ok(model) if errors.is_empty() => (Some(Model { warnings, ..model }), Vec::new()),
        _ => (None, errors.into_iter().chain(warnings).collect()),
    }
}

/// Names and types of a model's inputs, all sizes open, whatever its body needs to know of them.
pub(crate) fn inputs(unit: &Unit, id: DefId) -> Result<Vec<(String, Type)>, Vec<Diagnostic>> {
    let mut elab = Elab::new(unit, Mode::Infer, Bindings::new());
    let def = unit.def(id);
    match elab.start_model(def) {
        Ok(inputs) if !elab.has_errors() => Ok(elab.input_types(def, &inputs)),
        _ => Err(elab.diagnostics),
    }
}

impl<'u> Elab<'u> {
    /// Declares the inputs.
    fn start_model(&mut self, def: &'u Def) -> Eval<Vec<(Value, Span)>> {
        self.frames.push(Frame::new(0, None, Rc::from("")));
        self.bind_globals();
        self.model_inputs(def)
    }

    fn input_types(&self, def: &Def, inputs: &[(Value, Span)]) -> Vec<(String, Type)> {
        let named = |(&(value, _), input): (&(Value, Span), &Input)| {
            (input.name.text.to_string(), self.ty(value).clone())
        };
        inputs.iter().zip(&def.inputs).map(named).collect()
    }

    fn run_model(&mut self, id: DefId) -> Eval<Model> {
        let def = self.unit.def(id);
        let inputs = self.start_model(def)?;
        self.check_bindings(def)?;
        let given = Given {
            statics: vec![None; def.statics.len()],
            hypers: vec![None; def.hypers.len()],
            inputs: inputs.iter().map(|(v, span)| Some(((*v).into(), *span))).collect(),
        };
        let result = self.enter_def(id, Rc::from(""), given, def.name.span)?;
        let outputs = self.add_outputs(&result, def.name.span)?;
        self.add_state_updates();
        self.warn_model(def);
        Ok(Model {
            name: def.name.text.to_string(),
            inputs: self.input_types(def, &inputs),
            outputs,
            params: infos(&self.params),
            states: infos(&self.states),
            scalars: self.scalars.iter().map(|(name, value)| (name.clone(), *value)).collect(),
            constraints: std::mem::take(&mut self.constraints),
            warnings: Vec::new(),
            graph: self.finished_graph(),
            init: std::mem::take(&mut self.init),
        })
    }

    /// The graph, without what stood for steps while loops were built.
    pub(super) fn finished_graph(&mut self) -> Graph {
        let graph = std::mem::take(&mut self.graph);
        let has_holes = graph.distinct_ops().any(|op| matches!(op, Op::Hole(_)));
        if has_holes { graph.prune() } else { graph }
    }

    /// The next values of states as results.
    pub(super) fn add_state_updates(&mut self) {
        for (path, stored) in &self.states {
            if let Some((next, _)) = stored.update {
                self.graph.add_result(path.clone(), next, Role::Update);
            }
        }
    }

    fn model_inputs(&mut self, def: &'u Def) -> Eval<Vec<(Value, Span)>> {
        let inputs: Vec<Eval<(Value, Span)>> =
            def.inputs.iter().map(|input| self.model_input(def, input)).collect();
        inputs.into_iter().collect()
    }

    fn model_input(&mut self, def: &'u Def, input: &'u Input) -> Eval<(Value, Span)> {
        let span = input.name.span;
        let Some(ty) = &input.ty else {
            let title = format!("the input `{}` of a model needs a type", input.name.text);
            let diagnostic = Diagnostic::error(Code::Arguments, title, span, "no type")
                .help(format!("write `{}: f32[N, 10]`", input.name.text));
            return Err(self.fail(diagnostic));
        };
        let dtype = self.declared_dtype(ty)?.unwrap_or(DEFAULT_FLOAT);
        let mut shape = Shape::new();
        for dim in &ty.dims {
            shape.push(self.model_dim(def, dim)?);
        }
        let source = Source {
            name: (&*input.name.text).into(),
            class: SourceClass::Input,
            ty: Type { dtype, shape },
            default: Scalar::new(dtype, 0.0),
        };
        Ok((self.add(source, &[], span)?, span))
    }

    /// A dim of a model's input: a number, a bound name, or a symbol.
    fn model_dim(&mut self, def: &'u Def, dim: &Dim) -> Eval<Size> {
        let id = match dim {
            Dim::Size(id) => *id,
            Dim::Rest { span, .. } => {
                let title = "the rank of a model's input must be known";
                let diagnostic =
                    Diagnostic::error(Code::BadSize, title, *span, "any number of dims")
                        .note("`..` stands for dims of a block's input, which its caller decides");
                return Err(self.fail(diagnostic));
            }
        };
        let span = self.ast().span(id);
        if let ExprKind::Name(name) = &self.ast()[id].kind {
            let hyper = def.hypers.iter().find(|h| h.name.text == *name);
            if let Some(default) = hyper.and_then(|h| h.default) {
                let value = self.eval(default)?;
                return self.expect_size(&value, "a dim", span);
            }
            if let Some(&bound) = self.bindings.get(&**name) {
                let size = Size::from(bound);
                self.check_size(&size, span)?;
                return Ok(size);
            }
            if !self.globals.contains_key(name) {
                return Ok(Size::symbol(name));
            }
        }
        let value = self.eval(id)?;
        let size = self.expect_size(&value, "a dim", span)?;
        self.check_size(&size, span)?;
        Ok(size)
    }

    /// Every binding names a dim of the model.
    fn check_bindings(&mut self, def: &'u Def) -> Eval<()> {
        let dims = self.unit.dims(def);
        let unknown: Vec<String> =
            self.bindings.keys().filter(|name| !dims.contains(*name)).cloned().collect();
        for name in &unknown {
            let title = format!("`{}` has no dim `{name}`", def.name.text);
            let known: Vec<&str> = dims.iter().map(String::as_str).collect();
            let diagnostic = Diagnostic::error(Code::UnknownBinding, title, def.name.span, "")
                .note(format!("its dims: `{}`", known.join("`, `")));
            self.report(diagnostic);
        }
        if unknown.is_empty() { Ok(()) } else { Err(super::Reported) }
    }

    fn add_outputs(&mut self, result: &Val, span: Span) -> Eval<Vec<(String, Type)>> {
        let (parts, names) = match result {
            Val::Tuple(parts, names) => (parts.to_vec(), names.clone()),
            single => (vec![single.clone()], None),
        };
        let mut outputs = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let name = match &names {
                Some(names) => names[i].clone(),
                None => output_name(i, parts.len()),
            };
            let value = self.tensor(part, span)?.value;
            self.graph.add_result(&*name, value, Role::Output);
            outputs.push((name.to_string(), self.ty(value).clone()));
        }
        Ok(outputs)
    }
}

/// Checks the claims of an `expect` section.
pub(crate) fn check_expectations(unit: &Unit, expect: &Expect) -> Vec<Diagnostic> {
    let Some(id) = unit.model_id(&expect.model.text) else {
        return vec![unknown_model(unit, &expect.model)];
    };
    let claims = expect.claims.iter().filter_map(|&claim| check_claim(unit, id, claim).err());
    claims.flatten().collect()
}

/// The error for a model that does not exist.
pub(crate) fn unknown_model(unit: &Unit, name: &Ident) -> Diagnostic {
    let title = format!("there is no model `{}`", crate::diagnostic::sanitize(&name.text));
    let diagnostic = Diagnostic::error(Code::UnknownModel, title, name.span, "unknown model");
    let models = unit.models();
    match crate::diagnostic::nearest(&name.text, models.iter().copied()) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None if models.is_empty() => diagnostic.note("the file has no model"),
        None => diagnostic.note(format!("the file has: `{}`", models.join("`, `"))),
    }
}

/// A claim is a comparison of `params`, `shape(input = [..])`, numbers and lists.
fn check_claim(unit: &Unit, id: DefId, claim: ExprId) -> Result<(), Vec<Diagnostic>> {
    let ast = unit.ast(0);
    let span = ast.span(claim);
    let (first, link) = match &ast[claim].kind {
        ExprKind::Chain { first, rest } if rest.len() == 1 && rest[0].op.is_comparison() => {
            (*first, rest[0])
        }
        _ => {
            let title = "an expectation is a comparison";
            let diagnostic = Diagnostic::error(Code::ExpectationFailed, title, span, "")
                .help("write `params == 61_706` or `shape(image = [32, 1, 28, 28]) == [32, 10]`");
            return Err(vec![diagnostic]);
        }
    };
    let left = claim_value(unit, id, first)?;
    let right = claim_value(unit, id, link.operand)?;
    if compare(&left, link.op, &right) {
        return Ok(());
    }
    let title = format!("expected `{}`", unit.sources().text(span));
    let label = format!("left is {}, right is {}", show(&left), show(&right));
    Err(vec![Diagnostic::error(Code::ExpectationFailed, title, span, label)])
}

/// A side of a claim: numbers, or lists of them.
#[derive(Clone, Debug, PartialEq)]
enum Fact {
    Number(i64),
    Sizes(Vec<Size>),
    Shapes(Vec<Vec<Size>>),
}

fn compare(left: &Fact, op: BinaryOp, right: &Fact) -> bool {
    match (left, right, op) {
        (Fact::Number(a), Fact::Number(b), BinaryOp::Lt) => a < b,
        (Fact::Number(a), Fact::Number(b), BinaryOp::Le) => a <= b,
        (Fact::Number(a), Fact::Number(b), BinaryOp::Gt) => a > b,
        (Fact::Number(a), Fact::Number(b), BinaryOp::Ge) => a >= b,
        (_, _, BinaryOp::Eq) => left == right,
        (_, _, BinaryOp::Ne) => left != right,
        _ => false,
    }
}

fn show(fact: &Fact) -> String {
    match fact {
        Fact::Number(value) => value.to_string(),
        Fact::Sizes(sizes) => show_sizes(sizes),
        Fact::Shapes(shapes) => {
            let shown: Vec<String> = shapes.iter().map(|s| show_sizes(s)).collect();
            format!("[{}]", shown.join(", "))
        }
    }
}

fn claim_value(unit: &Unit, id: DefId, expr: ExprId) -> Result<Fact, Vec<Diagnostic>> {
    let ast = unit.ast(0);
    match &ast[expr].kind {
        ExprKind::Name(name) if &**name == "params" => {
            let (model, errors) = elaborate(unit, id, &Bindings::new(), Mode::Infer);
            model.map(|m| Fact::Number(m.param_count())).ok_or(errors)
        }
        ExprKind::Call { callee, args } if matches!(&ast[*callee].kind, ExprKind::Name(n) if &**n == "shape") =>
        {
            let mut bindings = Bindings::new();
            for arg in args {
                bind_shape(unit, id, arg, &mut bindings)?;
            }
            shape_of(unit, id, &bindings, ast.span(expr))
        }
        _ => claim_constant(unit, expr),
    }
}

fn claim_constant(unit: &Unit, expr: ExprId) -> Result<Fact, Vec<Diagnostic>> {
    let mut elab = Elab::new(unit, Mode::Infer, Bindings::new());
    elab.frames.push(Frame::new(0, None, Rc::from("")));
    elab.bind_globals();
    let span = unit.ast(0).span(expr);
    let fact = elab.eval(expr).and_then(|value| match &value {
        Val::Int(size) => elab.known_size(size, "a number", span).map(Fact::Number),
        Val::List(items)
            if items.iter().all(|i| matches!(i, Val::List(_))) && !items.is_empty() =>
        {
            let shapes: Eval<Vec<Vec<Size>>> =
                items.iter().map(|i| Ok(elab.expect_sizes(i, span)?.to_vec())).collect();
            Ok(Fact::Shapes(shapes?))
        }
        value => Ok(Fact::Sizes(elab.expect_sizes(value, span)?.to_vec())),
    });
    fact.map_err(|_| elab.diagnostics)
}

/// Binds the dims of the input `arg.name` to the sizes given for it.
fn bind_shape(
    unit: &Unit,
    id: DefId,
    arg: &crate::ast::Arg,
    bindings: &mut Bindings,
) -> Result<(), Vec<Diagnostic>> {
    let ast = unit.ast(0);
    let span = ast.span(arg.value);
    let refuse = |title: String| vec![Diagnostic::error(Code::ExpectationFailed, title, span, "")];
    let def = unit.def(id);
    let input = match &arg.name {
        Some(name) => def.inputs.iter().find(|input| input.name.text == name.text),
        None => def.inputs.first(),
    };
    let Some(ty) = input.and_then(|input| input.ty.as_ref()) else {
        return Err(refuse(format!("`{}` has no such input", def.name.text)));
    };
    let Fact::Sizes(sizes) = claim_constant(unit, arg.value)? else {
        return Err(refuse("a shape is a list of sizes".into()));
    };
    if sizes.len() != ty.dims.len() {
        return Err(refuse(format!("{} sizes for {} dims", sizes.len(), ty.dims.len())));
    }
    for (dim, size) in ty.dims.iter().zip(&sizes) {
        let (Dim::Size(dim), Some(value)) = (dim, size.as_const()) else { continue };
        match &ast[*dim].kind {
            ExprKind::Name(name) if unit.dims(def).contains(&**name) => {
                if bindings.insert(name.to_string(), value).is_some_and(|old| old != value) {
                    return Err(refuse(format!("`{name}` would have two sizes")));
                }
            }
            _ => {
                if claim_constant(unit, *dim)? != Fact::Sizes(vec![value.into()])
                    && claim_constant(unit, *dim)? != Fact::Number(value)
                {
                    let text = unit.sources().text(ast.span(*dim));
                    return Err(refuse(format!("{value} for the dim `{text}`")));
                }
            }
        }
    }
    Ok(())
}

fn shape_of(
    unit: &Unit,
    id: DefId,
    bindings: &Bindings,
    span: Span,
) -> Result<Fact, Vec<Diagnostic>> {
    let (model, errors) = elaborate(unit, id, bindings, Mode::Infer);
    let model = model.ok_or(errors)?;
    for constraint in &model.constraints {
        constraint.check(bindings).map_err(|error| vec![error.label(span, "for these sizes")])?;
    }
    let shapes = model.outputs.iter().map(|(_, ty)| ty.bind(bindings).shape.to_vec());
    let mut shapes: Vec<Vec<Size>> = shapes.collect();
    match shapes.len() {
        1 => Ok(Fact::Sizes(shapes.remove(0))),
        _ => Ok(Fact::Shapes(shapes)),
    }
}
