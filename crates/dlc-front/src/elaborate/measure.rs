//! The loss and the metrics of a `train` section, and how they are averaged over batches.
//!
//! What a program returns tells it by the outputs' names. The mean of `loss` is weighted by the
//! output `weight of loss`, or by samples if there is none; a metric m of which the output is
//! `log of m` is the exponential of its mean.

use dlc_graph::op::{Op, SourceClass};
use dlc_graph::{Role, Value};
use dlc_kernel::{BinaryOp, UnaryOp};

use super::{Elab, Eval};
use crate::Code;
use crate::ast::{ExprId, ExprKind, Ident, Train, TrainKind};
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
        self.add_measure("loss", value);
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
            self.add_measure(&label, result);
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

    /// Adds the outputs for a number that is measured in every batch.
    fn add_measure(&mut self, name: &str, value: Value) {
        let (output, mean) = match self.graph.op(value) {
            Op::Unary(unary) if unary.0 == UnaryOp::Exp => {
                (format!("log of {name}"), self.graph.operands(value)[0])
            }
            _ => (name.to_string(), value),
        };
        self.graph.add_result(output, mean, Role::Output);
        if let Some(weight) = self.weight(mean) {
            self.graph.add_result(format!("weight of {name}"), weight, Role::Output);
        }
    }

    /// What a mean over the batch is a mean of: the divisor, where that depends on the data. What is
    /// added to it or scales it may not depend on them.
    fn weight(&self, mean: Value) -> Option<Value> {
        let operands = self.graph.operands(mean);
        match self.graph.op(mean) {
            Op::Unary(unary) if unary.0 == UnaryOp::Neg => self.weight(operands[0]),
            Op::Binary(binary) => {
                let (a, b) = (operands[0], operands[1]);
                match (binary.0, self.reads_data(a), self.reads_data(b)) {
                    (BinaryOp::Div, true, true) => Some(b),
                    (BinaryOp::Add | BinaryOp::Sub, true, true) => {
                        self.weight(a).filter(|a| self.weight(b) == Some(*a))
                    }
                    (
                        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div,
                        true,
                        false,
                    ) => self.weight(a),
                    (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, false, true) => self.weight(b),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether a value depends on an input.
    fn reads_data(&self, value: Value) -> bool {
        let mut seen = vec![false; value.0 as usize + 1];
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            if std::mem::replace(&mut seen[value.0 as usize], true) {
                continue;
            }
            if let Op::Source(source) = self.graph.op(value)
                && source.class == SourceClass::Input
            {
                return true;
            }
            open.extend(self.graph.operands(value));
        }
        false
    }
}
