//! What a signature promises: `where` constraints and the declared result.

use std::rc::Rc;
use std::sync::Arc;

use super::constraint::{CODE, Comparison, Constraint, Relation};
use super::signature::{show, show_sizes};
use super::value::{DEFAULT_FLOAT, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{BinaryOp, Def, ExprId, ExprKind, Output, TypeExpr};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// Proves a definition's `where` clauses or keeps them for when sizes are bound.
    pub(super) fn check_constraints(&mut self, def: &'u Def, span: Span) -> Eval<()> {
        let mut failed = false;
        for &constraint in &def.constraints {
            failed |= self.check_constraint(def, constraint, span).is_err();
        }
        if failed { Err(super::Reported) } else { Ok(()) }
    }

    fn check_constraint(&mut self, def: &'u Def, id: ExprId, span: Span) -> Eval<()> {
        if let ExprKind::Chain { first, rest } = &self.ast()[id].kind
            && rest.iter().all(|link| link.op == BinaryOp::And)
        {
            let parts = std::iter::once(*first).chain(rest.iter().map(|link| link.operand));
            return parts.into_iter().try_for_each(|part| self.check_constraint(def, part, span));
        }
        let value = self.with_numbers(id);
        let at = self.ast().span(id);
        let text = self.unit.sources().text(at);
        let title = format!("`{}` needs `{text}`", def.name.text);
        let label = format!("in this use of `{}`", def.name.text);
        let mut diagnostic = Diagnostic::error(CODE, title, span, label).label(at, "required here");
        let values = self.values_in(id);
        if !values.is_empty() {
            diagnostic = diagnostic.note(format!("here {}", values.join(", ")));
        }
        match value? {
            Val::Bool(true) => Ok(()),
            Val::Bool(false) => Err(self.fail(diagnostic)),
            Val::Relation(relation) => self.require(relation, diagnostic),
            other => {
                let title =
                    format!("a constraint is a comparison of sizes, not {}", other.describe());
                Err(self.fail(Diagnostic::error(Code::NotCompileTime, title, at, "")))
            }
        }
    }

    /// `kernel = 5, H = 3`: what the names in an expression are.
    fn values_in(&mut self, id: ExprId) -> Vec<String> {
        let span = self.ast().span(id);
        let mut names: Vec<&Arc<str>> = Vec::new();
        for expr in self.ast().exprs.iter() {
            let inside = expr.span.start >= span.start && expr.span.end <= span.end;
            if let (true, ExprKind::Name(name)) = (inside, &expr.kind)
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        let shown = names.into_iter().filter_map(|name| match self.find(name, span)? {
            Val::Int(size) if size.to_string() != **name => Some(format!("`{name}` is {size}")),
            Val::Float(value) => Some(format!("`{name}` is {value}")),
            Val::Scalar(scalar) => Some(format!("`{name}` is {}", scalar.default)),
            Val::List(items) => Some(format!("`{name}` is {}", show(&items))),
            _ => None,
        });
        shown.collect()
    }

    /// Compares the body's value with the declared result.
    pub(super) fn check_output(&mut self, def: &'u Def, value: Val) -> Eval<Val> {
        let at = def.body.result().map_or(def.body.span, |id| self.ast().span(id));
        match (&def.output, value) {
            (_, Val::Poison) => Err(super::Reported),
            (None, Val::Unit) => Err(self.no_result(def)),
            (None, value) => Ok(value),
            (Some(Output::Single(ty)), value) => self.check_result(def, ty, value, at),
            (Some(Output::Named(fields)), Val::Tuple(parts, _)) if parts.len() == fields.len() => {
                let checked: Eval<Rc<[Val]>> = parts
                    .iter()
                    .zip(fields)
                    .map(|(part, (_, ty))| self.check_result(def, ty, part.clone(), at))
                    .collect();
                let names = fields.iter().map(|(name, _)| name.text.clone()).collect();
                Ok(Val::Tuple(checked?, Some(names)))
            }
            (Some(Output::Named(fields)), value) if fields.len() == 1 => {
                let (name, ty) = &fields[0];
                let checked = self.check_result(def, ty, value, at)?;
                Ok(Val::Tuple([checked].into(), Some([name.text.clone()].into())))
            }
            (Some(Output::Named(fields)), value) => {
                let title = format!("`{}` returns {} values", def.name.text, fields.len());
                let label = format!("this is {}", value.describe());
                Err(self.fail(Diagnostic::error(Code::OutputMismatch, title, at, label)))
            }
        }
    }

    fn no_result(&mut self, def: &Def) -> super::Reported {
        let title = format!("`{}` has no result", def.name.text);
        let diagnostic = Diagnostic::error(
            Code::OutputMismatch,
            title,
            def.name.span,
            "its body ends without one",
        )
        .help("let the body end with an expression, its value");
        self.fail(diagnostic)
    }

    fn check_result(&mut self, def: &Def, ty: &TypeExpr, value: Val, at: Span) -> Eval<Val> {
        match value {
            Val::Unit => return Err(self.no_result(def)),
            Val::Cell(_) | Val::Index(_) => return Ok(value),
            _ => {}
        }
        let wanted = self.declared_dtype(ty)?;
        let tensor = self.tensor_as(&value, wanted.unwrap_or(DEFAULT_FLOAT), at)?;
        let actual = self.ty(tensor.value).clone();
        let (_, declared) = self.eval_type(ty)?;
        let dtype_fits = wanted.is_none_or(|dtype| dtype == actual.dtype);
        let fits = dtype_fits && declared.len() == actual.shape.len();
        let text = self.unit.sources().text(ty.span);
        let shown = format!("{}{}", wanted.map_or("", |d| d.name()), show_sizes(&declared));
        let title = format!("`{}` returns {actual}, not {shown}", def.name.text);
        let diagnostic =
            Diagnostic::error(Code::OutputMismatch, title, at, format!("this is {actual}"))
                .label(ty.span, format!("declared as {text}"));
        if !fits {
            return Err(self.fail(diagnostic));
        }
        for (left, right) in actual.shape.iter().cloned().zip(declared) {
            let relation = Relation { left, comparison: Comparison::Eq, right };
            match relation.decide() {
                Some(true) => {}
                Some(false) => return Err(self.fail(diagnostic)),
                None => {
                    self.constraints.push(Constraint { relation, diagnostic: diagnostic.clone() })
                }
            }
        }
        Ok(Val::Tensor(tensor))
    }
}
