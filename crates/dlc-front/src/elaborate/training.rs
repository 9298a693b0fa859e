//! `train` sections: the graphs of a training step and of evaluation, and the settings around them.

use std::rc::Rc;
use std::sync::Arc;

use dlc_graph::op::{Source, SourceClass};
use dlc_graph::{Graph, Role, Type};
use dlc_kernel::{Bindings, DType, Scalar};

use super::data::{self, DataSpec, Fields};
use super::model::{infos, unknown_model};
use super::scope::Frame;
use super::settings::{self, Settings, TrainOverrides};
use super::value::DefId;
use super::{Constraint, Elab, Eval, Mode, ParamInfo, StateInfo};
use crate::Code;
use crate::ast::{Train, TrainKind, Trend};
use crate::diagnostic::Diagnostic;
use crate::unit::Unit;

/// A `train` section, elaborated.
#[derive(Clone, Debug)]
pub struct Training {
    /// The model's name.
    pub model: String,
    /// One step: outputs `loss` and the metrics; checks of the loss (`loss`) and of each gradient
    /// (`grad of conv1.weight`); updates of parameters, optimizer state and the model's states.
    /// The outputs' names tell how they are averaged: beside `loss` there may be `weight of loss`,
    /// for a metric m `weight of m`, and `log of m` in its stead.
    pub step: Graph,
    /// A batch of a step that other batches end, if several make one: outputs and checks as above;
    /// updates of the model's states and of the sums of gradients.
    pub accumulate: Option<Graph>,
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
    /// Run-time scalars with their defaults: `lr`, dropout rates. `seed`, `step`, `part` and `steps`
    /// come besides.
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
    let accumulate = match made.settings.accumulate {
        1 => None,
        count => Some(accumulation(unit, section, id, count, bindings)?),
    };
    step.constraints.append(&mut eval.constraints);
    warnings.dedup();
    Ok(Training { accumulate, ..assemble(section, step, eval, made, warnings) })
}

/// What the elaboration of a section finds besides graphs.
struct Made {
    data: DataSpec,
    settings: Settings,
    metrics: Vec<String>,
    fields: Vec<(String, Type)>,
    batch_dim: String,
}

/// The graph of a batch that only adds to the gradients.
fn accumulation(
    unit: &Unit,
    section: &Train,
    id: DefId,
    count: i64,
    bindings: &Bindings,
) -> Result<Graph, Vec<Diagnostic>> {
    let mut elab = Elab::new(unit, Mode::Train, bindings.clone());
    let made = elab.run_accumulation(section, id, count);
    take_warnings(&mut elab);
    if made.is_err() || elab.has_errors() {
        return Err(elab.diagnostics);
    }
    Ok(elab.graph)
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
        accumulate: None,
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
        let batch = overrides.batch.or(fields.batch);
        let settings =
            settings::read(self, section, &TrainOverrides { batch, ..overrides.clone() });
        self.scalar_overrides.extend(overrides.lr.map(|lr| ("lr".to_string(), lr)));
        let clip = settings.as_ref().ok().and_then(|s| s.clip);
        self.accumulate = settings.as_ref().map_or(1, |s| s.accumulate);
        let loss = self.run_loss(section)?;
        let metrics = self.run_metrics(section)?;
        self.graph.add_result("loss", loss.0, Role::Check);
        self.optimize(section, loss, clip)?;
        self.add_state_updates();
        self.check_rates(section);
        let used = self.used_fields(&fields);
        let mut settings = settings?;
        if let Some(stop) = &mut settings.stop
            && stop.trend == Trend::Improving
        {
            stop.trend = self.trend(&stop.quantity);
        }
        Ok(Made { data, settings, metrics, fields: used, batch_dim: fields.batch_dim })
    }

    /// What a batch adds to a step that others end.
    fn run_accumulation(&mut self, section: &'u Train, id: DefId, count: i64) -> Eval<()> {
        self.start_section(section, id)?;
        self.accumulate = count;
        let loss = self.run_loss(section)?;
        self.run_metrics(section)?;
        self.graph.add_result("loss", loss.0, Role::Check);
        self.add_up(loss)?;
        self.add_state_updates();
        Ok(())
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

    pub(super) fn incomplete(
        &mut self,
        section: &Train,
        what: &str,
        example: &str,
    ) -> super::Reported {
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

/// The element type of labels.
pub(super) const LABEL: DType = DType::I32;
