//! Compile-time control: `if`, `for`, `repeat`.

use std::rc::Rc;

use dlc_kernel::Size;

use super::scope::Scope;
use super::value::{Func, FuncKind, Val};
use super::{Elab, Eval, MAX_NODES};
use crate::Code;
use crate::ast::{Block, ExprId, ExprKind, Ident};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// Runs the first arm whose condition holds; the others only reserve their names.
    pub(super) fn eval_if(
        &mut self,
        arms: &'u [(ExprId, Block)],
        otherwise: Option<&'u Block>,
    ) -> Eval<Val> {
        let mut result = None;
        for (cond, block) in arms {
            if result.is_none() && self.known_bool(*cond)? {
                result = Some(self.run_block(block)?);
            } else {
                self.reserve(block.span);
            }
        }
        match (result, otherwise) {
            (Some(value), Some(block)) => {
                self.reserve(block.span);
                Ok(value)
            }
            (Some(value), None) => Ok(value),
            (None, Some(block)) => self.run_block(block),
            (None, None) => Ok(Val::Unit),
        }
    }

    /// Counts the unnamed instances in text that is not taken, so that others keep their names.
    pub(super) fn reserve(&mut self, span: Span) {
        let ast = self.ast();
        let file = self.frame().ast;
        for expr in &ast.exprs {
            let inside = expr.span.start >= span.start && expr.span.end <= span.end;
            if let (true, ExprKind::Name(name)) = (inside, &expr.kind)
                && self.unit.find_def(file, name).is_some()
            {
                *self.frame_mut().ordinals.entry(name.clone()).or_default() += 1;
            }
        }
    }

    /// `for k in [1, 2, 3] { .. }`, `for k in 3 { .. }`.
    pub(super) fn eval_for(&mut self, var: &Ident, list: ExprId, body: &'u Block) -> Eval<Val> {
        let span = self.ast().span(list);
        let items = match self.eval(list)? {
            Val::List(items) | Val::Tuple(items, _) => items,
            Val::Int(count) => {
                let count = self.known_count(&count, "for", span)?;
                (0..count).map(Val::int).collect()
            }
            other => {
                let title =
                    format!("`for` runs over a list or a number, not over {}", other.describe());
                let diagnostic = Diagnostic::error(Code::HyperType, title, span, other.describe());
                return Err(self.fail(diagnostic));
            }
        };
        for item in items.iter() {
            self.spend(span)?;
            self.in_scope(|elab| {
                elab.frame_mut().declare(&var.text, item.clone());
                elab.run_block(body)
            })?;
        }
        Ok(Val::Unit)
    }

    /// `repeat 6 { .. }`: rebinds names six times, or is a stage of six stages.
    pub(super) fn eval_repeat(
        &mut self,
        label: Option<&Ident>,
        count: ExprId,
        body: &'u Block,
        span: Span,
    ) -> Eval<Val> {
        let count = self.repeat_count(count)?;
        let path = match label {
            Some(label) => {
                self.claim_member(&label.text, label.span)?;
                self.frame().join(&label.text)
            }
            None => self.frame_mut().next_ordinal(&"repeat".into()),
        };
        let mut members = Vec::new();
        let mut others = 0;
        for k in 0..count {
            self.spend(span)?;
            match self.run_element(format!("{path}.{k}"), body)? {
                Val::Func(func) => {
                    let own =
                        Some(func.path.clone().unwrap_or_else(|| format!("{path}.{k}").into()));
                    members.push(Func { path: own, ..(*func).clone() });
                }
                Val::Unit => {}
                _ => others += 1,
            }
        }
        if others > 0 {
            let title = "`repeat` neither rebinds a name nor is a stage";
            let diagnostic = Diagnostic::error(
                Code::HyperType,
                title,
                body.span,
                "this has a value",
            )
            .help(
                "write `x = x |> ..` to rebind, or a stage: `x |> repeat 6 { linear(8) |> relu }`",
            );
            return Err(self.fail(diagnostic));
        }
        if members.is_empty() && self.is_statement(body) {
            return Ok(Val::Unit);
        }
        let kind = FuncKind::Seq(members.into());
        Ok(Val::Func(Rc::new(Func { kind, path: None, span })))
    }

    /// Whether the body ends without a value, so that `repeat` is no stage.
    fn is_statement(&self, body: &Block) -> bool {
        body.result().is_none()
    }

    fn repeat_count(&mut self, count: ExprId) -> Eval<i64> {
        let span = self.ast().span(count);
        let value = self.eval(count)?;
        let size = self.expect_size(&value, "the count of `repeat`", span)?;
        self.known_count(&size, "repeat", span)
    }

    /// How often `repeat` or `for` runs.
    fn known_count(&mut self, count: &Size, what: &str, span: Span) -> Eval<i64> {
        let value = self.known_size(count, &format!("the count of `{what}`"), span)?;
        if !(0..=MAX_NODES as i64).contains(&value) {
            let title = format!("`{what}` cannot run {value} times");
            let diagnostic = Diagnostic::error(Code::BadSize, title, span, "")
                .note(format!("the limit is {MAX_NODES}"));
            return Err(self.fail(diagnostic));
        }
        Ok(value)
    }

    /// Runs a body whose instances live at `path`.
    fn run_element(&mut self, path: String, body: &'u Block) -> Eval<Val> {
        let frame = self.frame_mut();
        let outer = std::mem::replace(&mut frame.path, path.into());
        let ordinals = std::mem::take(&mut frame.ordinals);
        let members = std::mem::take(&mut frame.members);
        let result = self.in_scope(|elab| elab.run_block(body));
        let frame = self.frame_mut();
        frame.path = outer;
        frame.ordinals = ordinals;
        frame.members = members;
        result
    }

    fn in_scope<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.frame_mut().scopes.push(Scope::default());
        let result = work(self);
        self.frame_mut().scopes.pop();
        result
    }
}
