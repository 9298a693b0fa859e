//! `train` sections: the graphs of a training step and of evaluation, and the settings around them.

use std::rc::Rc;
use std::sync::Arc;

use dlc_graph::op::{Grad, Op, Source, SourceClass};
use dlc_graph::{Graph, Role, Type, Value};
use dlc_kernel::{BinaryOp, Bindings, DType, FoldOp, Scalar};
use indexmap::IndexMap;

use super::data::{self, DataSpec, Fields};
use super::model::{infos, unknown_model};
use super::scope::Frame;
use super::settings::{self, Settings, TrainOverrides};
use super::value::{Args, DefId, FuncKind, Val};
use super::{Constraint, Elab, Eval, Mode, ParamInfo, StateInfo};
use crate::Code;
use crate::ast::{DefKind, ExprId, ExprKind, Ident, Train, TrainKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::unit::Unit;

/// A `train` section, elaborated.
#[derive(Clone, Debug)]
pub struct Training {
    /// The model's name.
    pub model: String,
    /// One step: outputs `loss` and the metrics; checks of the loss (`loss`) and of each gradient
    /// (`grad of conv1.weight`); updates of parameters, optimizer state and the model's states.
    pub step: Graph,
    /// Evaluation without dropout: outputs `loss` and the metrics.
    pub eval: Graph,
    /// First values of parameters and of all states, the optimizer's included: outputs by path.
    pub init: Graph,
    /// The data set.
    pub data: DataSpec,
    /// The section's settings.
    pub settings: Settings,
    /// The metrics' names, in order.
    pub metrics: Vec<String>,
    /// The fields of the data set that are inputs of the graphs.
    pub fields: Vec<(String, Type)>,
    /// The parameters.
    pub params: Vec<ParamInfo>,
    /// The states: the model's, then the optimizer's.
    pub states: Vec<StateInfo>,
    /// Run-time scalars with their defaults: `lr`, dropout rates. `seed`, `step` and `steps` come
    /// besides.
    pub scalars: Vec<(String, f64)>,
    /// The name of the dim that is the batch.
    pub batch_dim: String,
    /// What must hold once sizes are bound.
    pub constraints: Vec<Constraint>,
    /// What is odd but no error.
    pub warnings: Vec<Diagnostic>,
}

/// Elaborates a `train` section.
///
/// # Errors
/// All that is wrong with it or with the model in either mode.
pub(crate) fn elaborate(
    unit: &Unit,
    section: &Train,
    overrides: &TrainOverrides,
    bindings: &Bindings,
) -> Result<Training, Vec<Diagnostic>> {
    let Some(id) = unit.model_id(&section.model.text) else {
        return Err(vec![unknown_model(unit, &section.model)]);
    };
    let mut step = Elab::new(unit, Mode::Train, bindings.clone());
    let made = step.run_training(section, id, overrides);
    let mut warnings = take_warnings(&mut step);
    let (Ok(made), false) = (made, step.has_errors()) else {
        return Err(step.diagnostics.into_iter().chain(warnings).collect());
    };
    let mut eval = Elab::new(unit, Mode::Infer, bindings.clone());
    let evaluated = eval.run_evaluation(section, id);
    take_warnings(&mut eval);
    if evaluated.is_err() || eval.has_errors() {
        return Err(eval.diagnostics);
    }
    step.constraints.append(&mut eval.constraints);
    warnings.dedup();
    Ok(assemble(section, step, eval, made, warnings))
}

/// What the elaboration of a section finds besides graphs.
struct Made {
    data: DataSpec,
    settings: Settings,
    metrics: Vec<String>,
    fields: Vec<(String, Type)>,
    batch_dim: String,
}

fn take_warnings(elab: &mut Elab<'_>) -> Vec<Diagnostic> {
    let all = std::mem::take(&mut elab.diagnostics);
    let (errors, warnings) = all.into_iter().partition(Diagnostic::is_error);
    elab.diagnostics = errors;
    warnings
}

fn assemble(
    section: &Train,
    step: Elab<'_>,
    eval: Elab<'_>,
    made: Made,
    warnings: Vec<Diagnostic>,
) -> Training {
    let Made { data, settings, metrics, fields, batch_dim } = made;
    Training {
        model: section.model.text.to_string(),
        data,
        settings,
        metrics,
        fields,
        params: infos(&step.params),
        states: infos(&step.states),
        scalars: step.scalars.iter().map(|(name, value)| (name.clone(), *value)).collect(),
        batch_dim,
        constraints: step.constraints,
        warnings,
        step: step.graph,
        eval: eval.graph,
        init: step.init,
    }
}

impl<'u> Elab<'u> {
    fn run_training(
        &mut self,
        section: &'u Train,
        id: DefId,
        overrides: &TrainOverrides,
    ) -> Eval<Made> {
        let (data, fields) = self.start_section(section, id)?;
        let settings = settings::read(self, section, overrides);
        self.scalar_overrides.extend(overrides.lr.map(|lr| ("lr".to_string(), lr)));
        let loss = self.run_loss(section)?;
        let metrics = self.run_metrics(section)?;
        self.graph.add_result("loss", loss.0, Role::Check);
        self.optimize(section, loss)?;
        self.add_state_updates();
        self.check_rates(section);
        let used = self.used_fields(&fields);
        let settings = settings?;
        Ok(Made { data, settings, metrics, fields: used, batch_dim: fields.batch_dim })
    }

    fn run_evaluation(&mut self, section: &'u Train, id: DefId) -> Eval<()> {
        self.start_section(section, id)?;
        self.run_loss(section)?;
        self.run_metrics(section)?;
        Ok(())
    }

    /// Declares the data set's fields.
    fn start_section(&mut self, section: &'u Train, id: DefId) -> Eval<(DataSpec, Fields)> {
        self.frames.push(Frame::new(0, None, Rc::from("")));
        self.bind_globals();
        self.section = Some(id);
        let source = section.find(|kind| match kind {
            TrainKind::Data { source, .. } => Some(*source),
            _ => None,
        });
        let Some(source) = source else {
            return Err(self.incomplete(section, "data", "data mnist(\"data/mnist-5k\")"));
        };
        let (spec, fields) = data::describe(self, source)?;
        for (name, ty) in &fields.types {
            let source = Source {
                name: (&**name).into(),
                class: SourceClass::Input,
                ty: ty.clone(),
                default: Scalar::new(ty.dtype, 0.0),
            };
            let value = self.add(source, &[], spec.span)?;
            self.frame_mut().declare(&Arc::from(name.as_str()), value.into());
        }
        Ok((spec, fields))
    }

    fn incomplete(&mut self, section: &Train, what: &str, example: &str) -> super::Reported {
        let title = format!("the section has no `{what}`");
        let span = section.model.span;
        let diagnostic =
            Diagnostic::error(Code::IncompleteTraining, title, span, "in this section")
                .help(format!("add a line like `{example}`"));
        self.fail(diagnostic)
    }

    /// The model that the current section is about.
    pub(super) fn section_model(&self) -> Option<DefId> {
        self.section
    }

    /// The loss: one float. Adds the output `loss`.
    fn run_loss(&mut self, section: &'u Train) -> Eval<(Value, Span)> {
        let Some(loss) = section.find(TrainKind::loss) else {
            let example = format!("loss cross_entropy({}(x), label)", section.model.text);
            return Err(self.incomplete(section, "loss", &example));
        };
        let span = self.ast().span(loss);
        let value = self.eval(loss)?;
        let value = self.tensor(&value, span)?.value;
        let ty = self.ty(value).clone();
        if ty.rank() != 0 || !ty.dtype.is_float() {
            let title = format!("the loss is {ty}, not one float number");
            let mut diagnostic =
                Diagnostic::error(Code::BadLoss, title, span, format!("this is {ty}"));
            if ty.rank() > 0 && ty.dtype.is_float() {
                diagnostic = diagnostic.help("take the mean over the batch: `mean(..)`");
            }
            return Err(self.fail(diagnostic));
        }
        self.graph.add_result("loss", value, Role::Output);
        Ok((value, span))
    }

    /// The metrics: numbers. Adds an output for each.
    fn run_metrics(&mut self, section: &'u Train) -> Eval<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for stmt in &section.stmts {
            let TrainKind::Metric { name, value } = &stmt.kind else { continue };
            let label = self.metric_name(name.as_ref(), *value, names.len());
            let span = self.ast().span(*value);
            let result = self.eval(*value)?;
            let result = self.tensor(&result, span)?.value;
            let ty = self.ty(result).clone();
            if ty.rank() != 0 {
                let title = format!("the metric `{label}` is {ty}, not one number");
                let diagnostic =
                    Diagnostic::error(Code::BadLoss, title, span, format!("this is {ty}"));
                return Err(self.fail(diagnostic.help("take the mean over the batch: `mean(..)`")));
            }
            if label == "loss" || names.contains(&label) {
                let title = format!("two metrics are called `{label}`");
                let diagnostic = Diagnostic::error(Code::DuplicateName, title, stmt.span, "")
                    .help("give this one a name: `metric top5 = ..`");
                return Err(self.fail(diagnostic));
            }
            self.graph.add_result(label.clone(), result, Role::Output);
            names.push(label);
        }
        Ok(names)
    }

    pub(super) fn metric_name(&self, name: Option<&Ident>, value: ExprId, at: usize) -> String {
        if let Some(name) = name {
            return name.text.to_string();
        }
        let ast = self.ast();
        let mut id = value;
        loop {
            match &ast[id].kind {
                ExprKind::Call { callee, .. } => id = *callee,
                ExprKind::Bracket { base, .. } => id = *base,
                ExprKind::Pipe { stages, .. } => id = *stages.last().expect("a pipe has stages"),
                ExprKind::Name(name) => return name.to_string(),
                ExprKind::Reduce { op, .. } => return op.name().to_string(),
                _ => return format!("metric{}", at + 1),
            }
        }
    }

    /// Gradients of the loss and the optimizer's step for every parameter it depends on.
    fn optimize(&mut self, section: &'u Train, loss: (Value, Span)) -> Eval<()> {
        let optim = section.find(|kind| match kind {
            TrainKind::Optim(optim) => Some(*optim),
            _ => None,
        });
        let Some(optim) = optim else {
            return Err(self.incomplete(section, "optim", "optim adam(lr = 1e-3)"));
        };
        let (id, args) = self.optimizer(optim)?;
        let params = self.trained_params(loss)?;
        let span = self.ast().span(optim);
        let mut gradients = IndexMap::new();
        for (path, value) in params {
            let gradient = self.add(Grad, &[loss.0, value], loss.1)?;
            self.graph.add_result(format!("grad of {path}"), gradient, Role::Check);
            gradients.insert(path, (value, gradient));
        }
        self.gradients = gradients.values().map(|(_, gradient)| *gradient).collect();
        let name = self.unit.def(id).name.text.clone();
        for (path, (value, gradient)) in gradients {
            let mut args = args.clone();
            args.named.retain(|(n, _, _)| &*n.text != "p" && &*n.text != "g");
            args.positional.push((value.into(), span));
            args.positional.push((gradient.into(), span));
            let given = self.distribute(self.unit.def(id), &args, None, span)?;
            let next = self.enter_def(id, format!("{name}.{path}").into(), given, span)?;
            let next = self.tensor(&next, span)?.value;
            self.check_next(&path, value, next, span)?;
            self.graph.add_result(path, next, Role::Update);
        }
        Ok(())
    }

    fn check_next(&mut self, path: &str, param: Value, next: Value, span: Span) -> Eval<()> {
        let (param, next) = (self.ty(param).clone(), self.ty(next).clone());
        if param == next {
            return Ok(());
        }
        let title =
            format!("the optimizer makes {next} of the parameter `{path}`, which is {param}");
        Err(self.fail(Diagnostic::error(Code::OutputMismatch, title, span, "")))
    }

    fn optimizer(&mut self, optim: ExprId) -> Eval<(DefId, Args)> {
        let span = self.ast().span(optim);
        let value = self.eval(optim)?;
        if let Val::Func(func) = &value
            && let FuncKind::Def(id, args) = &func.kind
            && self.unit.def(*id).kind == DefKind::Optimizer
        {
            return Ok((*id, args.clone()));
        }
        let title = "this is not an optimizer";
        let diagnostic = Diagnostic::error(Code::HyperType, title, span, value.describe()).note(
            "optimizers are defined with `optimizer`: `sgd`, `momentum`, `adam`, `adamw`, ..",
        );
        Err(self.fail(diagnostic))
    }

    /// The parameters with a gradient; a warning for each of the others.
    fn trained_params(&mut self, loss: (Value, Span)) -> Eval<Vec<(String, Value)>> {
        let reached = differentiable(&self.graph, loss.0);
        let (trained, idle): (Vec<_>, Vec<_>) = self
            .params
            .iter()
            .map(|(path, stored)| (path.clone(), stored.value, stored.span))
            .partition(|(_, value, _)| reached[value.0 as usize]);
        if trained.is_empty() {
            let title = "the loss does not depend on any parameter";
            let diagnostic = Diagnostic::error(
                Code::LossWithoutParameters,
                title,
                loss.1,
                "nothing to train",
            )
            .note(
                "`argmax`, comparisons, conversions to integers and `stop_gradient` have no \
                           derivative",
            );
            return Err(self.fail(diagnostic));
        }
        for (path, _, span) in idle {
            let title = format!("the parameter `{path}` has no influence on the loss");
            let diagnostic = Diagnostic::warning(
                Code::UnusedParameter,
                title,
                span,
                "it will stay as it starts",
            );
            self.report(diagnostic.label(loss.1, "this is the loss"));
        }
        Ok(trained.into_iter().map(|(path, value, _)| (path, value)).collect())
    }

    fn used_fields(&self, fields: &Fields) -> Vec<(String, Type)> {
        let live = self.graph.live();
        let used = fields.types.iter().filter(|(name, _)| {
            self.graph.source(name).is_some_and(|value| live[value.0 as usize])
        });
        used.cloned().collect()
    }

    /// Learning rates are positive numbers.
    fn check_rates(&mut self, section: &Train) {
        let Some(&rate) = self.scalars.get("lr") else { return };
        if rate.is_finite() && rate > 0.0 {
            return;
        }
        let span = section.find(|kind| match kind {
            TrainKind::Optim(optim) => Some(self.ast().span(*optim)),
            _ => None,
        });
        let title = format!("the learning rate is {rate}");
        let span = span.unwrap_or(section.span);
        let diagnostic = Diagnostic::error(Code::BadSetting, title, span, "")
            .note("a learning rate is a positive number, often between 1e-4 and 1e-1");
        self.report(diagnostic);
    }
}

/// Which values `y` depends on through operations that have a derivative.
fn differentiable(graph: &Graph, y: Value) -> Vec<bool> {
    let mut reached = vec![false; graph.len()];
    reached[y.0 as usize] = true;
    for i in (0..=y.0).rev() {
        if !reached[i as usize] {
            continue;
        }
        let operands = graph.operands(Value(i));
        for (port, operand) in operands.iter().enumerate() {
            let float = graph.ty(*operand).dtype.is_float();
            if float && passes_gradient(graph.op(Value(i)), port) {
                reached[operand.0 as usize] = true;
            }
        }
    }
    reached
}

fn passes_gradient(op: &Op, port: usize) -> bool {
    match op {
        Op::StopGradient(_) => false,
        Op::Cast(cast) => cast.0.is_float(),
        Op::Reduce(reduce) => !matches!(reduce.op, FoldOp::ArgMax | FoldOp::ArgMin),
        Op::Select(_) => port > 0,
        Op::Gather(_) => port == 0,
        Op::Binary(binary) => !binary.0.is_comparison() && !matches!(binary.0, BinaryOp::FloorDiv),
        _ => true,
    }
}

/// The element type of labels.
pub(super) const LABEL: DType = DType::I32;
