//! `where` conditions: affine ones become guards, the others selects.

use dlc_kernel::{Guard, Index, Size};

use super::pointwise::union;
use super::read::axes_of;
use super::value::{Cell, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{BinaryOp, ExprId, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// What must hold: guards on axes, and truth values that are data.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub guards: Vec<Guard>,
    pub data: Vec<Val>,
}

impl<'u> Elab<'u> {
    /// `value where cond else otherwise`. The conditions on a reduction's own indices wait for it;
    /// the others select.
    pub(super) fn eval_where(
        &mut self,
        value: ExprId,
        cond: ExprId,
        otherwise: Option<ExprId>,
        span: Span,
    ) -> Eval<Val> {
        let reduced = self.reduced_names(value);
        let (inner, own): (Vec<ExprId>, Vec<ExprId>) =
            self.conjuncts(cond).into_iter().partition(|&part| self.mentions(part, &reduced));
        let frame = self.frame_mut();
        let (depth, names) = (frame.pending.len(), frame.pending_names.len());
        frame.pending.extend(inner);
        frame.pending_names.extend(reduced);
        let result = self.eval(value);
        let frame = self.frame_mut();
        frame.pending.truncate(depth);
        frame.pending_names.truncate(names);
        let value = result?;
        if own.is_empty() {
            return Ok(value);
        }
        let Some(otherwise) = otherwise else {
            let at = self.ast().span(cond);
            let title = "a condition that selects needs an `else`";
            let diagnostic =
                Diagnostic::error(Code::MissingElse, title, at, "what stands elsewhere?")
                    .help("write `.. where condition else 0`");
            return Err(self.fail(diagnostic));
        };
        let otherwise = self.eval(otherwise)?;
        let mut condition = Condition::default();
        for part in own {
            self.add_condition(part, &mut condition)?;
        }
        self.select_where(value, &condition, &otherwise, span)
    }

    /// The names of the indices that reductions in an expression introduce and that do not mean
    /// something already.
    fn reduced_names(&self, value: ExprId) -> Vec<std::sync::Arc<str>> {
        let ast = self.ast();
        let span = ast.span(value);
        let inside = ast
            .exprs
            .iter()
            .filter(|expr| expr.span.start >= span.start && expr.span.end <= span.end);
        let indices = inside.filter_map(|expr| match &expr.kind {
            ExprKind::Reduce { indices, .. } => Some(indices),
            _ => None,
        });
        let names = indices.flatten().map(|index| index.name.text.clone());
        names.filter(|name| !self.frame().indices.iter().any(|(n, _)| n == name)).collect()
    }

    /// The parts of a condition that `and` joins.
    pub(super) fn conjuncts(&self, cond: ExprId) -> Vec<ExprId> {
        let mut parts = Vec::new();
        let mut open = vec![cond];
        while let Some(id) = open.pop() {
            match &self.ast()[id].kind {
                ExprKind::Chain { first, rest } if rest[0].op == BinaryOp::And => {
                    open.extend(rest.iter().rev().map(|link| link.operand));
                    open.push(*first);
                }
                _ => parts.push(id),
            }
        }
        parts
    }

    /// Adds one conjunct to a condition.
    pub(super) fn add_condition(&mut self, id: ExprId, condition: &mut Condition) -> Eval<()> {
        let ast = self.ast();
        let span = ast.span(id);
        if let ExprKind::Chain { first, rest } = &ast[id].kind
            && let [link] = rest.as_slice()
            && link.op.is_comparison()
        {
            let (left, right) = (self.eval(*first)?, self.eval(link.operand)?);
            if let Some(guard) = self.guard(link.op, &left, &right) {
                condition.guards.push(guard);
                return Ok(());
            }
            let value = self.operator(link.op, &left, &right, span)?;
            return self.add_truth(value, span, condition);
        }
        let value = self.eval(id)?;
        self.add_truth(value, span, condition)
    }

    fn add_truth(&mut self, value: Val, span: Span, condition: &mut Condition) -> Eval<()> {
        match value {
            Val::Bool(true) => {}
            Val::Bool(false) => {
                let never = Guard { index: Index::constant(0i64), extent: Size::ZERO };
                condition.guards.push(never);
            }
            Val::Cell(_) | Val::Tensor(_) => condition.data.push(value),
            other => {
                let title = format!("a condition is needed, not {}", other.describe());
                return Err(self.fail(Diagnostic::error(Code::HyperType, title, span, "")));
            }
        }
        Ok(())
    }

    /// A comparison of affine functions of axes as a guard.
    fn guard(&self, op: BinaryOp, left: &Val, right: &Val) -> Option<Guard> {
        let (a, b) = (as_index(left)?, as_index(right)?);
        if a.terms.is_empty() && b.terms.is_empty() {
            return None;
        }
        let one = Index::constant(1i64);
        let difference = match op {
            BinaryOp::Eq => {
                return Some(Guard { index: minus(&a, &b), extent: Size::ONE });
            }
            BinaryOp::Le => minus(&b, &a),
            BinaryOp::Lt => minus(&minus(&b, &a), &one),
            BinaryOp::Ge => minus(&a, &b),
            BinaryOp::Gt => minus(&minus(&a, &b), &one),
            _ => return None,
        };
        Some(Guard { extent: self.bound(&difference), index: difference })
    }

    /// One more than the largest value of an affine function.
    fn bound(&self, index: &Index) -> Size {
        let rising = index.terms.iter().filter(|(_, coef)| *coef > 0);
        let reach = rising.fold(Size::ZERO, |sum, (axis, coef)| {
            let last = self.axes[axis.0 as usize].extent.clone() - Size::ONE;
            sum + last * Size::from(*coef)
        });
        index.offset.clone() + reach + Size::ONE
    }

    /// Selects between cells.
    fn select_where(
        &mut self,
        value: Val,
        condition: &Condition,
        otherwise: &Val,
        span: Span,
    ) -> Eval<Val> {
        if condition.data.is_empty()
            && let Some(fill) = otherwise.as_number()
            && matches!(value, Val::Cell(_))
        {
            let (data, axes) = self.cell_data(&value, None, span)?;
            let guards = axes_of(&[], &condition.guards);
            let all = union(&axes, &guards);
            let coords: Vec<Index> = axes.iter().map(|&axis| Index::axis(axis)).collect();
            let value = self.view_cell(data, &coords, &condition.guards, &all, fill, span)?;
            return Ok(Val::Cell(Cell::Data { value, axes: all }));
        }
        let mut truth = condition.data.clone();
        if !condition.guards.is_empty() {
            truth.push(self.mask(&condition.guards, span)?);
        }
        let mut truth = truth.into_iter();
        let first = truth.next().expect("a condition has a part");
        let all = truth.try_fold(first, |all, part| {
            self.binary(dlc_kernel::BinaryOp::And, &all, &part, span)
        })?;
        self.select(&all, &value, otherwise, span)
    }

    /// Guards as truth values over the axes they use.
    fn mask(&mut self, guards: &[Guard], span: Span) -> Eval<Val> {
        let axes = axes_of(&[], guards);
        let yes = self.number_tensor(&Val::Bool(true), dlc_kernel::DType::Bool, span)?;
        let value = self.view_cell(yes, &[], guards, &axes, 0.0, span)?;
        Ok(Val::Cell(Cell::Data { value, axes }))
    }
}

fn as_index(val: &Val) -> Option<Index> {
    match val {
        Val::Index(index) if index.div == 1 => Some(index.clone()),
        Val::Int(size) => Some(Index::constant(size.clone())),
        _ => None,
    }
}

fn minus(a: &Index, b: &Index) -> Index {
    let left = a.terms.iter().map(|&(axis, coef)| (axis.0, coef));
    let right = b.terms.iter().map(|&(axis, coef)| (axis.0, -coef));
    Index::affine(left.chain(right), a.offset.clone() - b.offset.clone())
}
