//! The optimizer's part of a `train` section: gradients, what is done to them, the next parameters.
//!
//! Gradients of several batches are added up in states, one for each parameter: the graph of a
//! batch that only adds to them is one, that of the batch that ends the step another.

use dlc_graph::op::{Binary, Grad, Op, SourceClass};
use dlc_graph::{Graph, Role, Value};
use dlc_kernel::{BinaryOp, FoldOp, UnaryOp};
use indexmap::IndexMap;

use super::value::{Args, DEFAULT_FLOAT, DefId, FuncKind, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{DefKind, ExprId, ReduceOp, Train, TrainKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// The parameters by path, each with its gradient.
type Gradients = IndexMap<String, (Value, Value)>;

/// What keeps the division by a gradient's norm from being one by 0, as in PyTorch.
const CLIP_EPS: f64 = 1e-6;

impl<'u> Elab<'u> {
    /// Gradients of the loss and the optimizer's step for every parameter it depends on.
    pub(super) fn optimize(
        &mut self,
        section: &'u Train,
        loss: (Value, Span),
        clip: Option<f64>,
    ) -> Eval<()> {
        let optim = section.find(|kind| match kind {
            TrainKind::Optim(optim) => Some(*optim),
            _ => None,
        });
        let Some(optim) = optim else {
            return Err(self.incomplete(section, "optim", "optim adam(lr = 1e-3)"));
        };
        let (id, args) = self.optimizer(optim)?;
        let span = self.ast().span(optim);
        let mut gradients = self.gradients(loss)?;
        if self.accumulate > 1 {
            self.average(&mut gradients, loss.1)?;
        }
        if let Some(clip) = clip {
            self.clip(&mut gradients, clip, loss.1)?;
        }
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

    /// Adds the gradients of the loss to what other batches gave.
    pub(super) fn add_up(&mut self, loss: (Value, Span)) -> Eval<()> {
        for (path, (param, gradient)) in self.gradients(loss)? {
            let (sum, total) = self.add_to_sum(&path, param, gradient, loss.1)?;
            self.set_sum(&sum, total, loss.1);
        }
        Ok(())
    }

    /// The gradient of the loss for every parameter it depends on, checked to be finite.
    fn gradients(&mut self, loss: (Value, Span)) -> Eval<Gradients> {
        let mut gradients = Gradients::new();
        for (path, value) in self.trained_params(loss)? {
            let gradient = self.add(Grad, &[loss.0, value], loss.1)?;
            self.graph.add_result(format!("grad of {path}"), gradient, Role::Check);
            gradients.insert(path, (value, gradient));
        }
        Ok(gradients)
    }

    /// Makes each gradient the mean over all batches of the step; the sums begin again at 0.
    fn average(&mut self, gradients: &mut Gradients, span: Span) -> Eval<()> {
        let part = self.counter("part", span)?;
        let part = self.cast_value(DEFAULT_FLOAT, part, span)?;
        let count = self.binary(BinaryOp::Add, &part.into(), &Val::Float(1.0), span)?;
        for (path, (param, gradient)) in gradients {
            let (sum, total) = self.add_to_sum(path, *param, *gradient, span)?;
            let ty = self.ty(*param).clone();
            let zero = self.full(&Val::int(0), ty.dtype, &ty.shape, span)?;
            self.set_sum(&sum, zero, span);
            let mean = self.binary(BinaryOp::Div, &total.into(), &count, span)?;
            *gradient = self.tensor(&mean, span)?.value;
        }
        Ok(())
    }

    /// The state with the sum of a parameter's gradients so far, by its path, and the next sum.
    fn add_to_sum(
        &mut self,
        path: &str,
        param: Value,
        gradient: Value,
        span: Span,
    ) -> Eval<(String, Value)> {
        let sum = format!("sum of grads of {path}");
        let ty = self.ty(param).clone();
        let first = self.in_init(|e| e.full(&Val::int(0), ty.dtype, &ty.shape, span))?;
        let stored = self.store(sum.clone(), SourceClass::State, ty, first, span)?;
        let total = self.binary(BinaryOp::Add, &stored.value.into(), &gradient.into(), span)?;
        self.states.insert(sum.clone(), stored);
        Ok((sum, self.tensor(&total, span)?.value))
    }

    fn set_sum(&mut self, sum: &str, next: Value, span: Span) {
        self.states.get_mut(sum).expect("it was just made").update = Some((next, span));
    }

    /// Scales all gradients alike, so that their common norm is at most `bound`. The norm must be
    /// finite, or the step fails.
    fn clip(&mut self, gradients: &mut Gradients, bound: f64, span: Span) -> Eval<()> {
        let norm = self.norm(gradients.values().map(|(_, gradient)| *gradient).collect(), span)?;
        self.graph.add_result("norm of the gradients", norm, Role::Check);
        let above = self.binary(BinaryOp::Add, &norm.into(), &Val::Float(CLIP_EPS), span)?;
        let ratio = self.binary(BinaryOp::Div, &Val::Float(bound), &above, span)?;
        let scale = self.binary(BinaryOp::Min, &ratio, &Val::Float(1.0), span)?;
        for (_, gradient) in gradients.values_mut() {
            let scaled = self.binary(BinaryOp::Mul, &(*gradient).into(), &scale, span)?;
            *gradient = self.tensor(&scaled, span)?.value;
        }
        Ok(())
    }

    /// The root of the sum of squares of all elements of tensors.
    fn norm(&mut self, tensors: Vec<Value>, span: Span) -> Eval<Value> {
        let mut squares = Vec::new();
        for tensor in tensors {
            let square = self.add(Binary(BinaryOp::Mul), &[tensor, tensor], span)?;
            let axes: Vec<usize> = (0..self.ty(square).rank()).collect();
            squares.push(self.fold_tensor(ReduceOp::Sum, &square.into(), &axes, span)?);
        }
        let total = self.fold_list(ReduceOp::Sum, &squares, span)?;
        let norm = self.unary(UnaryOp::Sqrt, &total, span)?;
        Ok(self.tensor(&norm, span)?.value)
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
}

/// Which values `y` depends on through operations that have a derivative.
pub(super) fn differentiable(graph: &Graph, y: Value) -> Vec<bool> {
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
        Op::Overwrite(_) => port != 1,
        Op::Binary(binary) => !binary.0.is_comparison() && !matches!(binary.0, BinaryOp::FloorDiv),
        _ => true,
    }
}
