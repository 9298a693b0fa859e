//! The loss and the metrics of a `train` section, and how they are averaged over batches.
//!
//! What a program returns tells it by the outputs' names. The mean of `loss` is weighted by the
//! output `weight of loss`, or by samples if there is none; a metric m of which the output is
//! `log of m` is the exponential of its mean.

use dlc_graph::op::{Op, SourceClass};
use dlc_graph::{Role, Value};
use dlc_kernel::{BinaryOp, UnaryOp};

use super::optimize::differentiable;
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{ExprId, ExprKind, Ident, Train, TrainKind, Trend};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// The loss: one float.
    pub(super) fn run_loss(&mut self, section: &'u Train) -> Eval<(Value, Span)> {
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
        self.add_weight("loss", value);
        Ok((value, span))
    }

    /// The metrics: numbers, each with its name.
    pub(super) fn run_metrics(&mut self, section: &'u Train) -> Eval<Vec<String>> {
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
            self.add_metric(&label, result);
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

    /// Adds the outputs for a metric.
    fn add_metric(&mut self, name: &str, value: Value) {
        let (output, mean) = match self.graph.op(value) {
            Op::Unary(unary) if unary.0 == UnaryOp::Exp => {
                (format!("log of {name}"), self.graph.operands(value)[0])
            }
            _ => (name.to_string(), value),
        };
        self.graph.add_result(output, mean, Role::Output);
        self.add_weight(name, mean);
    }

    /// Adds an output for what the mean weighs, if that is not the number of samples.
    fn add_weight(&mut self, name: &str, mean: Value) {
        if let Some(weight) = self.weight(mean) {
            self.graph.add_result(format!("weight of {name}"), weight, Role::Output);
        }
    }

    /// What a mean over the batch is a mean of: the divisor, where that depends on the data. What is
    /// added to it or scales it may not depend on them.
    fn weight(&self, mean: Value) -> Option<Value> {
        let count = mean.0 as usize + 1;
        let (mut reads_data, mut weights) = (vec![false; count], vec![None; count]);
        for value in self.graph.values().take(count) {
            let operands = self.graph.operands(value);
            let reads = |v: &Value| reads_data[v.0 as usize];
            let weight = |v: Value| weights[v.0 as usize];
            let found = match (self.graph.op(value), &*operands) {
                (Op::Unary(unary), &[x]) if unary.0 == UnaryOp::Neg => weight(x),
                (Op::Binary(binary), &[a, b]) => match (binary.0, reads(&a), reads(&b)) {
                    (BinaryOp::Div, true, true) => Some(b),
                    (BinaryOp::Add | BinaryOp::Sub, true, true) => {
                        weight(a).filter(|_| weight(a) == weight(b))
                    }
                    (BinaryOp::Mul, true, true) => None,
                    // At most one of them has a weight.
                    (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, ..) => weight(a).or(weight(b)),
                    (BinaryOp::Div, true, false) => weight(a),
                    _ => None,
                },
                _ => None,
            };
            let is_input = matches!(self.graph.op(value), Op::Source(source)
                if source.class == SourceClass::Input);
            reads_data[value.0 as usize] = is_input || operands.iter().any(reads);
            weights[value.0 as usize] = found;
        }
        weights[mean.0 as usize]
    }

    /// How a quantity improves: one by which parameters could be trained falls, as a loss does; one
    /// that counts, without a derivative, rises.
    pub(super) fn trend(&self, quantity: &str) -> Trend {
        let name = quantity.strip_prefix("val.").unwrap_or(quantity);
        let named = |output: &str| output.strip_prefix("log of ").unwrap_or(output) == name;
        let found = self.graph.results().iter().find(|r| named(&r.name));
        let trains = found.is_some_and(|result| {
            let reached = differentiable(&self.graph, result.value);
            self.params.values().any(|param| reached[param.value.0 as usize])
        });
        if trains { Trend::Falling } else { Trend::Rising }
    }
}
