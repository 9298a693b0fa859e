//! Statements and bodies.

use std::rc::Rc;

use super::value::{Func, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{Block, ExprId, Ident, Stmt, StmtKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// Runs a body. Its value is that of its last statement, if this is an expression.
    pub(super) fn run_block(&mut self, block: &'u Block) -> Eval<Val> {
        let mut last = Val::Unit;
        let mut failed = false;
        for (at, stmt) in block.stmts.iter().enumerate() {
            let before = self.diagnostics.len();
            last = self.run_stmt(stmt);
            failed |= matches!(last, Val::Poison) && self.diagnostics.len() >= before;
            let ends = at + 1 == block.stmts.len();
            if !ends && self.is_lost(&last) {
                self.warn_unused_value(stmt);
            }
        }
        match last {
            Val::Poison => Err(super::Reported),
            Val::Unit if failed => Err(super::Reported),
            last => Ok(last),
        }
    }

    fn is_lost(&self, value: &Val) -> bool {
        matches!(value, Val::Tensor(_) | Val::Func(_) | Val::Int(_) | Val::Float(_))
    }

    /// Runs a statement; errors are reported and poison the names it binds.
    pub(super) fn run_stmt(&mut self, stmt: &'u Stmt) -> Val {
        match &stmt.kind {
            StmtKind::Let { targets, value } => {
                let value = self.eval(*value).unwrap_or(Val::Poison);
                self.bind_all(targets, value, stmt.span, Binding::Let)
            }
            StmtKind::Bind { targets, value } => self.run_bind(targets, *value, stmt.span),
            StmtKind::Equation { name, indices, value } => {
                let value = self.run_equation(name, indices, *value, stmt.span);
                let ok = value.is_ok();
                let assigned = self.assign(name, value.unwrap_or(Val::Poison));
                if ok && assigned.is_ok() { Val::Unit } else { Val::Poison }
            }
            StmtKind::Param { name, ty, init } => {
                let value = self.run_param(name, ty, init, stmt.span);
                self.declare_member(name, value)
            }
            StmtKind::State { name, ty, value } => {
                let value = self.run_state(name, ty.as_ref(), *value, stmt.span);
                self.declare_member(name, value)
            }
            StmtKind::Update { name, value } => match self.run_update(name, *value, stmt.span) {
                Ok(()) => Val::Unit,
                Err(_) => Val::Poison,
            },
            StmtKind::Yield { value, at } => {
                self.run_yield(*value, *at, stmt.span).unwrap_or(Val::Poison)
            }
            StmtKind::Expr(expr) => self.eval(*expr).unwrap_or(Val::Poison),
        }
    }

    fn declare_member(&mut self, name: &Ident, value: Eval<Val>) -> Val {
        let ok = value.is_ok();
        self.frame_mut().declare(&name.text, value.unwrap_or(Val::Poison));
        if ok { Val::Unit } else { Val::Poison }
    }

    fn run_bind(&mut self, targets: &'u [Ident], value: ExprId, span: Span) -> Val {
        let mut value = self.eval(value).unwrap_or(Val::Poison);
        if let (Val::Func(func), [name]) = (&value, targets)
            && func.path.is_none()
        {
            value = match self.name_instance(func, name) {
                Ok(instance) => instance,
                Err(_) => Val::Poison,
            };
        }
        self.bind_all(targets, value, span, Binding::Assign)
    }

    /// `fc = linear(120)` names an instance.
    fn name_instance(&mut self, func: &Func, name: &Ident) -> Eval<Val> {
        self.claim_member(&name.text, name.span)?;
        let path = self.frame().join(&name.text);
        Ok(Val::Func(Rc::new(Func { path: Some(path.into()), ..func.clone() })))
    }

    fn bind_all(&mut self, targets: &[Ident], value: Val, span: Span, how: Binding) -> Val {
        let mut failed = matches!(value, Val::Poison);
        let values = match self.take_apart(targets, value, span) {
            Ok(values) => values,
            Err(_) => vec![Val::Poison; targets.len()],
        };
        for (target, value) in targets.iter().zip(values) {
            match how {
                Binding::Let => self.frame_mut().declare(&target.text, value),
                Binding::Assign => failed |= self.assign(target, value).is_err(),
            }
        }
        if failed { Val::Poison } else { Val::Unit }
    }

    fn take_apart(&mut self, targets: &[Ident], value: Val, span: Span) -> Eval<Vec<Val>> {
        match (targets, value) {
            (_, Val::Poison) => Err(super::Reported),
            ([target], Val::Unit) => {
                let title = format!("`{}` is given no value", target.text);
                Err(self.fail(Diagnostic::error(Code::HyperType, title, span, "this has no value")))
            }
            ([_], value) => Ok(vec![value]),
            (_, Val::Tuple(parts, _) | Val::List(parts)) if parts.len() == targets.len() => {
                Ok(parts.to_vec())
            }
            (_, other) => {
                let title = format!("{} names for {}", targets.len(), other.describe());
                let diagnostic = Diagnostic::error(Code::HyperType, title, span, other.describe());
                Err(self.fail(diagnostic))
            }
        }
    }
}

/// How a statement gives its names.
#[derive(Clone, Copy)]
enum Binding {
    /// In the innermost scope.
    Let,
    /// Where the name is already, if it is.
    Assign,
}
