//! Run-time scalars: `dyn` arguments, the counters `seed`, `step`, `part` and `steps`, and schedules,
//! which say how a `dyn` argument changes from step to step.
//!
//! A scheduled argument is a run-time scalar like any other, named after the argument: its value
//! is what the schedule starts from, so that overriding it scales the whole schedule.

use std::rc::Rc;

use dlc_graph::op::{Op, Source, SourceClass};
use dlc_graph::{Type, Value};
use dlc_kernel::{BinaryOp, DType, Scalar};

use super::signature::Given;
use super::value::{DEFAULT_FLOAT, DefId, FuncKind, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{DefKind, Hyper};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A run-time scalar: its name as a source of the graph, and its default.
#[derive(Debug)]
pub(super) struct DynScalar {
    pub name: String,
    pub default: f64,
    /// What makes the present value of it.
    pub schedule: Option<Schedule>,
}

/// A schedule with its arguments; the input is left open.
#[derive(Debug)]
pub(super) struct Schedule {
    id: DefId,
    given: Given,
    span: Span,
}

impl<'u> Elab<'u> {
    /// Declares a hyperparameter in the current frame; one marked `dyn` is a run-time scalar, but for a
    /// block's that is 0: what a 0 leaves out is not there.
    pub(super) fn declare_hyper(&mut self, hyper: &Hyper, value: Val, at: Span) -> Eval<()> {
        let value = match hyper.is_dyn {
            true => self.run_time(hyper, value, at)?,
            false if self.in_definition_of(DefKind::Optimizer) && self.is_schedule(&value) => {
                return Err(self.fixed(hyper, at));
            }
            false => value,
        };
        self.frame_mut().declare(&hyper.name.text, value);
        Ok(())
    }

    /// Whether a value is a schedule with what it starts from.
    pub(super) fn is_schedule(&self, value: &Val) -> bool {
        let Val::Func(func) = value else { return false };
        matches!(func.kind, FuncKind::Def(id, _) if self.unit.def(id).kind == DefKind::Schedule)
    }

    fn fixed(&mut self, hyper: &Hyper, at: Span) -> super::Reported {
        let name = &hyper.name.text;
        let title = format!("`{name}` is the same at every step");
        let diagnostic = Diagnostic::error(Code::HyperType, title, at, "a schedule")
            .label(hyper.name.span, "not marked `dyn`")
            .note("only an argument marked `dyn` can follow a schedule");
        self.fail(diagnostic)
    }

    fn run_time(&mut self, hyper: &Hyper, value: Val, at: Span) -> Eval<Val> {
        let (start, at, schedule) = self.scheduled(value, at)?;
        if let Some(default) = start.as_number() {
            let of_optimizer = self.in_definition_of(DefKind::Optimizer);
            let name = match of_optimizer {
                true => hyper.name.text.to_string(),
                false => self.frame().join(&hyper.name.text),
            };
            let default = self.scalar_overrides.get(&name).copied().unwrap_or(default);
            if default == 0.0 && schedule.is_none() && !of_optimizer {
                return Ok(Val::Float(default));
            }
            return Ok(Val::Scalar(Rc::new(DynScalar { name, default, schedule })));
        }
        if start.is_tensor() && schedule.is_none() {
            return Ok(self.handed_on(&start).unwrap_or(start));
        }
        let title = format!("`{}` must be a number", hyper.name.text);
        Err(self.fail(Diagnostic::error(Code::HyperType, title, at, start.describe())))
    }

    /// The run-time scalar that a block hands on to one of its own.
    fn handed_on(&self, value: &Val) -> Option<Val> {
        let Val::Tensor(tensor) = value else { return None };
        let Op::Source(source) = self.graph.op(tensor.value) else { return None };
        let default = *self.scalars.get(&*source.name)?;
        let name = source.name.to_string();
        Some(Val::Scalar(Rc::new(DynScalar { name, default, schedule: None })))
    }

    /// What an argument starts from, and its schedule if it has one.
    fn scheduled(&mut self, value: Val, at: Span) -> Eval<(Val, Span, Option<Schedule>)> {
        let Val::Func(func) = &value else { return Ok((value, at, None)) };
        let FuncKind::Def(id, args) = &func.kind else { return Ok((value, at, None)) };
        let def = self.unit.def(*id);
        if def.kind != DefKind::Schedule {
            return Ok((value, at, None));
        }
        if def.inputs.len() != 1 {
            let title = format!("the schedule `{}` has {} inputs", def.name.text, def.inputs.len());
            let diagnostic = Diagnostic::error(Code::Arguments, title, def.name.span, "")
                .note("a schedule has one input: the number that it starts from")
                .help(format!("write `schedule {}(..)(peak) {{ .. }}`", def.name.text));
            return Err(self.fail(diagnostic));
        }
        let mut given = self.distribute(def, args, None, at)?;
        let Some((start, at)) = given.inputs[0].take() else {
            return Err(self.missing(def, &def.inputs[0].name.text, at));
        };
        Ok((start, at, Some(Schedule { id: *id, given, span: func.span })))
    }

    /// The value of a run-time scalar at the present step; a number inside `where` constraints.
    pub(super) fn use_scalar(&mut self, scalar: &DynScalar, span: Span) -> Eval<Val> {
        if self.frame().scalars_are_numbers {
            return Ok(Val::Float(scalar.default));
        }
        match &scalar.schedule {
            Some(schedule) => self.follow(scalar, schedule),
            None => self.scalar_source(scalar, span),
        }
    }

    /// Applies a schedule, once for all uses of its scalar.
    fn follow(&mut self, scalar: &DynScalar, schedule: &Schedule) -> Eval<Val> {
        if let Some(&value) = self.followed.get(&scalar.name) {
            return Ok(value.into());
        }
        let (name, default) = (scalar.name.clone(), scalar.default);
        let start = DynScalar { name: name.clone(), default, schedule: None };
        let mut given = schedule.given.clone();
        given.inputs[0] = Some((Val::Scalar(Rc::new(start)), schedule.span));
        let result = self.enter_def(schedule.id, name.as_str().into(), given, schedule.span)?;
        let value = self.tensor_as(&result, DEFAULT_FLOAT, schedule.span)?.value;
        let ty = self.ty(value).clone();
        if ty != Type::scalar(DEFAULT_FLOAT) {
            let schedule_name = &self.unit.def(schedule.id).name.text;
            let title = format!("the schedule `{schedule_name}` makes {ty} of the number `{name}`");
            let label = format!("it must make {}", Type::scalar(DEFAULT_FLOAT));
            let diagnostic = Diagnostic::error(Code::OutputMismatch, title, schedule.span, label);
            return Err(self.fail(diagnostic));
        }
        self.followed.insert(name, value);
        Ok(value.into())
    }

    fn scalar_source(&mut self, scalar: &DynScalar, span: Span) -> Eval<Val> {
        if let Some(value) = self.graph.source(&scalar.name) {
            return Ok(value.into());
        }
        self.scalars.insert(scalar.name.clone(), scalar.default);
        let default = Scalar::new(DEFAULT_FLOAT, scalar.default);
        Ok(self.add_scalar(&scalar.name, default, span)?.into())
    }

    /// The scalar `seed`, `step` (the number of steps before this one), `part` (the number of batches
    /// before this one in the step) or `steps` (how many are planned), `i32`.
    pub(super) fn counter(&mut self, name: &str, span: Span) -> Eval<Value> {
        if let Some(value) = self.graph.source(name) {
            return Ok(value);
        }
        let default = if name == "steps" { 1.0 } else { 0.0 };
        self.add_scalar(name, Scalar::new(DType::I32, default), span)
    }

    /// A number that no other batch has.
    pub(super) fn batch_number(&mut self, span: Span) -> Eval<Value> {
        let step = self.counter("step", span)?;
        if self.accumulate == 1 {
            return Ok(step);
        }
        let part = self.counter("part", span)?;
        let before = self.binary(BinaryOp::Mul, &step.into(), &Val::int(self.accumulate), span)?;
        let number = self.binary(BinaryOp::Add, &before, &part.into(), span)?;
        Ok(self.tensor(&number, span)?.value)
    }

    fn add_scalar(&mut self, name: &str, default: Scalar, span: Span) -> Eval<Value> {
        let ty = Type::scalar(default.dtype);
        let source = Source { name: name.into(), class: SourceClass::Scalar, ty, default };
        self.add(source, &[], span)
    }
}
