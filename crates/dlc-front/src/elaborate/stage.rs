//! Pipelines.

use std::rc::Rc;

use super::value::{Func, FuncKind, Val};
use super::{Elab, Eval};
use crate::ast::{ExprId, ExprKind};
use crate::source::Span;

impl<'u> Elab<'u> {
    /// `x |> f |> g(2)`; without a tensor at its head a pipeline is a stage itself.
    pub(super) fn eval_pipe(
        &mut self,
        input: ExprId,
        stages: &'u [ExprId],
        span: Span,
    ) -> Eval<Val> {
        let start = self.ast().span(input);
        let value = self.eval(input)?;
        if let Val::Func(first) = &value {
            return self.compose(first, stages, span);
        }
        let (mut value, mut at) = (value, start);
        for &stage in stages {
            let span = self.ast().span(stage);
            value = self.eval_stage(stage, value, at, span)?;
            at = start.to(span);
        }
        Ok(value)
    }

    fn eval_stage(&mut self, stage: ExprId, value: Val, at: Span, span: Span) -> Eval<Val> {
        let func = self.stage_function(stage)?;
        self.apply(&func, Some((value, at)), span)
    }

    /// The function that a stage applies, with its arguments.
    fn stage_function(&mut self, stage: ExprId) -> Eval<Func> {
        let ast = self.ast();
        let span = ast.span(stage);
        match &ast[stage].kind {
            ExprKind::Call { callee, args } => {
                let mut func = self.eval_callee(*callee)?;
                let given = self.eval_args(args)?;
                func.extend(given);
                Ok(Func { span, ..func })
            }
            _ => Ok(Func { span, ..self.eval_callee(stage)? }),
        }
    }

    fn compose(&mut self, first: &Func, stages: &'u [ExprId], span: Span) -> Eval<Val> {
        let mut members = vec![first.clone()];
        for &stage in stages {
            members.push(self.stage_function(stage)?);
        }
        let kind = FuncKind::Seq(members.into());
        Ok(Val::Func(Rc::new(Func { kind, path: None, span })))
    }
}
