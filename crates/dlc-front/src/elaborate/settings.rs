//! The settings of a `train` section: numbers and flags.

use super::value::Val;
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{ExprId, Train, TrainKind, Trend};
use crate::diagnostic::{Diagnostic, nearest};
use crate::source::Span;

/// Settings from the command line, which override the file's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainOverrides {
    /// Examples in a batch.
    pub batch: Option<i64>,
    /// Batches of a step.
    pub accumulate: Option<i64>,
    /// How often the data is gone through.
    pub epochs: Option<i64>,
    /// The seed of everything random.
    pub seed: Option<i64>,
    /// The default of the run-time scalar `lr`.
    pub lr: Option<f64>,
}

/// `stop after 3 epochs without val.loss improving`.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlyStop {
    /// How many epochs to wait.
    pub patience: i64,
    /// What must improve: `val.loss`, `val.accuracy`, `loss`.
    pub quantity: String,
    /// Which way.
    pub trend: Trend,
    /// Where it is written.
    pub span: Span,
}

/// What stands for the validation data.
#[derive(Clone, Debug, PartialEq)]
pub enum Validation {
    /// A fixed part of the training data.
    Fraction(f64),
    /// Another data set.
    Data(super::data::DataSpec),
}

/// What a section says beside the data, the loss, the metrics and the optimizer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Examples in a batch.
    pub batch: i64,
    /// Batches of a step: their gradients' mean is what the optimizer is given.
    pub accumulate: i64,
    /// The largest norm of all gradients together.
    pub clip: Option<f64>,
    /// Whether the order of examples changes with each epoch.
    pub shuffle: bool,
    /// How often the data is gone through.
    pub epochs: i64,
    /// The seed of everything random.
    pub seed: i64,
    /// When to stop early.
    pub stop: Option<EarlyStop>,
    /// What stands for the validation data.
    pub validation: Validation,
    /// Where checkpoints go, if the section says so.
    pub out: Option<String>,
}

/// Reads a section's settings.
pub(super) fn read(
    elab: &mut Elab<'_>,
    section: &Train,
    overrides: &TrainOverrides,
) -> Eval<Settings> {
    refuse_repeated(elab, section)?;
    let mut settings = Settings {
        batch: overrides.batch.unwrap_or(64),
        accumulate: overrides.accumulate.unwrap_or(1),
        clip: None,
        shuffle: false,
        epochs: overrides.epochs.unwrap_or(10),
        seed: overrides.seed.unwrap_or(0),
        stop: None,
        validation: Validation::Fraction(0.1),
        out: None,
    };
    for stmt in &section.stmts {
        read_one(elab, &stmt.kind, section, overrides, &mut settings)?;
    }
    Ok(settings)
}

fn read_one(
    elab: &mut Elab<'_>,
    kind: &TrainKind,
    section: &Train,
    overrides: &TrainOverrides,
    settings: &mut Settings,
) -> Eval<()> {
    match kind {
        TrainKind::Data { batch, shuffle, .. } => {
            settings.shuffle |= shuffle.is_some();
            if let Some(batch) = batch {
                settings.batch = overrides.batch.unwrap_or(at_least(elab, *batch, "batch", 1)?);
            }
        }
        TrainKind::Batch(batch) => {
            settings.batch = overrides.batch.unwrap_or(at_least(elab, *batch, "batch", 1)?);
        }
        TrainKind::Accumulate(count) => {
            let count = at_least(elab, *count, "accumulate", 1)?;
            settings.accumulate = overrides.accumulate.unwrap_or(count);
        }
        TrainKind::Clip(bound) => settings.clip = Some(clip(elab, *bound)?),
        TrainKind::Shuffle => settings.shuffle = true,
        TrainKind::Epochs(epochs) => {
            settings.epochs = overrides.epochs.unwrap_or(at_least(elab, *epochs, "epochs", 1)?);
        }
        TrainKind::Seed(seed) => {
            settings.seed = overrides.seed.unwrap_or(at_least(elab, *seed, "seed", 0)?);
        }
        TrainKind::Stop { patience, metric, trend } => {
            let patience = at_least(elab, *patience, "the patience", 1)?;
            settings.stop = Some(early_stop(elab, section, patience, (*metric, *trend))?);
        }
        TrainKind::Validation(value) => settings.validation = validation(elab, *value)?,
        TrainKind::Out(path) => settings.out = Some(text(elab, *path)?),
        TrainKind::Loss(_) | TrainKind::Metric { .. } | TrainKind::Optim(_) => {}
    }
    Ok(())
}

fn refuse_repeated(elab: &mut Elab<'_>, section: &Train) -> Eval<()> {
    for (k, stmt) in section.stmts.iter().enumerate() {
        let keyword = stmt.kind.keyword();
        let first = section.stmts[..k].iter().find(|s| s.kind.keyword() == keyword);
        if let (Some(first), true) = (first, keyword != "metric") {
            let title = format!("`{keyword}` occurs twice");
            let diagnostic =
                Diagnostic::error(Code::DuplicateStatement, title, stmt.span, "again here")
                    .label(first.span, "first here");
            return Err(elab.fail(diagnostic));
        }
    }
    Ok(())
}

fn at_least(elab: &mut Elab<'_>, id: ExprId, what: &str, least: i64) -> Eval<i64> {
    let value = elab.eval_known_size(id, what)?;
    if (least..=i32::MAX.into()).contains(&value) {
        return Ok(value);
    }
    let span = elab.ast().span(id);
    let title = format!("{what} is {value}");
    let diagnostic = Diagnostic::error(Code::BadSetting, title, span, "")
        .note(format!("it lies between {least} and {}", i32::MAX));
    Err(elab.fail(diagnostic))
}

fn clip(elab: &mut Elab<'_>, id: ExprId) -> Eval<f64> {
    let span = elab.ast().span(id);
    let value = elab.eval(id)?;
    match value.as_number() {
        Some(bound) if bound.is_finite() && bound > 0.0 => Ok(bound),
        _ => {
            let title = format!("a norm to clip at is a positive number, not {}", value.describe());
            Err(elab.fail(Diagnostic::error(Code::BadSetting, title, span, "")))
        }
    }
}

fn text(elab: &mut Elab<'_>, id: ExprId) -> Eval<String> {
    let span = elab.ast().span(id);
    match elab.eval(id)? {
        Val::Str(text) => Ok(text.to_string()),
        other => {
            let title = format!("a text is needed, not {}", other.describe());
            Err(elab.fail(Diagnostic::error(Code::HyperType, title, span, other.describe())))
        }
    }
}

fn validation(elab: &mut Elab<'_>, id: ExprId) -> Eval<Validation> {
    let span = elab.ast().span(id);
    if let crate::ast::ExprKind::Call { .. } = elab.ast()[id].kind {
        return Ok(Validation::Data(super::data::describe(elab, id)?.0));
    }
    match elab.eval(id)?.as_number() {
        Some(fraction) if (0.0..1.0).contains(&fraction) => Ok(Validation::Fraction(fraction)),
        _ => {
            let title = "validation is a part of the data or another data set";
            let diagnostic = Diagnostic::error(Code::BadSetting, title, span, "")
                .help("write `validation 0.1` or `validation mnist(\"DIR\")`");
            Err(elab.fail(diagnostic))
        }
    }
}

/// The quantity is the loss or a metric, `val.` before it for that of the validation data.
fn early_stop(
    elab: &mut Elab<'_>,
    section: &Train,
    patience: i64,
    (metric, trend): (ExprId, Trend),
) -> Eval<EarlyStop> {
    let span = elab.ast().span(metric);
    let quantity = elab.unit.sources().text(span).to_string();
    let mut known = vec!["loss".to_string()];
    for stmt in &section.stmts {
        if let TrainKind::Metric { name, value } = &stmt.kind {
            known.push(elab.metric_name(name.as_ref(), *value, known.len() - 1));
        }
    }
    let plain = quantity.strip_prefix("val.").unwrap_or(&quantity);
    if known.iter().any(|name| name == plain) {
        return Ok(EarlyStop { patience, quantity, trend, span });
    }
    let title = format!("there is no quantity `{quantity}`");
    let mut diagnostic = Diagnostic::error(Code::UnknownName, title, span, "unknown quantity")
        .note(format!(
            "there are: `{}`, with `val.` before for validation data",
            known.join("`, `")
        ));
    if let Some(near) = nearest(plain, known.iter().map(String::as_str)) {
        diagnostic = diagnostic.help(format!("did you mean `val.{near}`?"));
    }
    Err(elab.fail(diagnostic))
}
