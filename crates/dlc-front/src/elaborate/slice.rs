//! Brackets: static arguments of functions, subscripts of lists and tensors.

use std::rc::Rc;

use dlc_graph::Shape;
use dlc_graph::op::Gather;
use dlc_kernel::{Access, Index, Size};

use super::value::{Args, Func, Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::{ExprId, ExprKind, Subscript};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl<'u> Elab<'u> {
    /// `f[..]`, `list[i]`, `x[n, i]` in an equation, `x[:, t]` elsewhere.
    pub(super) fn eval_bracket(
        &mut self,
        base: ExprId,
        subscripts: &'u [Subscript],
        span: Span,
    ) -> Eval<Val> {
        let value = match self.frame().indices.is_empty() {
            true => self.eval(base)?,
            false => self.equation_base(base)?,
        };
        match value {
            Val::Func(func) => self.add_statics(&func, subscripts, span),
            Val::List(items) | Val::Tuple(items, _) => self.item(&items, subscripts, span),
            Val::Tensor(tensor) if self.frame().indices.is_empty() => {
                self.slice(&tensor, subscripts, span)
            }
            Val::Tensor(tensor) => self.read(tensor.value, subscripts, span),
            other => {
                let at = self.ast().span(base);
                let title = format!("{} has no subscripts", other.describe());
                let code = match other.is_tensor() {
                    true => Code::BadEquation,
                    false => Code::HyperType,
                };
                Err(self.fail(Diagnostic::error(code, title, at, other.describe())))
            }
        }
    }

    fn add_statics(&mut self, func: &Func, subscripts: &'u [Subscript], span: Span) -> Eval<Val> {
        let mut statics = Vec::new();
        for subscript in subscripts {
            match subscript {
                Subscript::Expr(id) => {
                    let at = self.ast().span(*id);
                    statics.push((self.static_argument(*id)?, at));
                }
                Subscript::Rest { name: Some(name), span } => {
                    statics.push((self.lookup(&name.text, *span)?, *span));
                }
                Subscript::Slice { span, .. } | Subscript::Rest { span, .. } => {
                    let title = "a slice as a static argument";
                    let diagnostic = Diagnostic::error(Code::Arguments, title, *span, "")
                        .note("in the brackets after a function stand numbers and axes");
                    return Err(self.fail(diagnostic));
                }
            }
        }
        let mut func = Func { span, ..func.clone() };
        func.extend(Args { statics, ..Args::default() });
        let applies = match &func.kind {
            super::value::FuncKind::Builtin(builtin, _) => builtin.fills(),
            _ => false,
        };
        match applies {
            true => self.apply(&func, None, span),
            false => Ok(Val::Func(Rc::new(func))),
        }
    }

    /// A static argument: a name without a meaning as a number is that of an axis.
    fn static_argument(&mut self, id: ExprId) -> Eval<Val> {
        let ast = self.ast();
        if let ExprKind::Name(name) = &ast[id].kind {
            return Ok(match self.find(name, ast.span(id)) {
                Some(value @ (Val::Int(_) | Val::List(_) | Val::Str(_) | Val::AxisName(_))) => {
                    value
                }
                Some(Val::Poison) => return Err(super::Reported),
                _ => Val::AxisName(name.clone()),
            });
        }
        self.eval(id)
    }

    fn item(&mut self, items: &[Val], subscripts: &[Subscript], span: Span) -> Eval<Val> {
        if let [Subscript::Expr(id)] = subscripts {
            let at = self.eval_known_size(*id, "a position in a list")?;
            let index = if at < 0 { at.saturating_add(items.len() as i64) } else { at };
            if let Some(item) = usize::try_from(index).ok().and_then(|i| items.get(i)) {
                return Ok(item.clone());
            }
            let title = format!("position {at} in a list of {}", items.len());
            return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, span, "")));
        }
        let title = "a list has one subscript";
        Err(self.fail(Diagnostic::error(Code::SubscriptCount, title, span, "")))
    }

    /// `x[:, t]`, `x[.., 0]`, `E[ids]`: dims that are not mentioned are whole.
    fn slice(&mut self, x: &Tensor, subscripts: &'u [Subscript], span: Span) -> Eval<Val> {
        let shape = self.ty(x.value).shape.clone();
        let subscripts = self.fill_in(subscripts, shape.len(), span)?;
        let (mut axes, mut coords) = (Shape::new(), Vec::new());
        let mut lookups = Vec::new();
        for (subscript, extent) in subscripts.into_iter().zip(&shape) {
            let next = axes.len() as u32;
            match subscript {
                None => {
                    coords.push(Index::axis(next));
                    axes.push(extent.clone());
                }
                Some(Subscript::Slice { start, end, span }) => {
                    let (start, end) = self.slice_ends(*start, *end, extent, *span)?;
                    coords.push(Index::affine([(next, 1)], start.clone()));
                    axes.push(end - start);
                }
                Some(Subscript::Expr(id)) => {
                    let at = self.ast().span(*id);
                    match self.eval(*id)? {
                        Val::Tensor(ids) => {
                            self.check_ids(ids.value, at)?;
                            lookups.push((next, ids.value));
                            coords.push(Index::axis(next));
                            axes.push(extent.clone());
                        }
                        value => {
                            let at_size = self.expect_size(&value, "a position", at)?;
                            coords.push(Index::constant(self.position(&at_size, extent, at)?));
                        }
                    }
                }
                Some(Subscript::Rest { .. }) => unreachable!("filled in"),
            }
        }
        let mut value = self.view(x.value, axes, Access::new(coords), 0.0, span)?;
        for (axis, ids) in lookups.into_iter().rev() {
            value = self.add(Gather { axis, batch: 0 }, &[value, ids], span)?;
        }
        Ok(value.into())
    }

    /// One entry for each dim; `None` is the whole dim.
    fn fill_in(
        &mut self,
        subscripts: &'u [Subscript],
        rank: usize,
        span: Span,
    ) -> Eval<Vec<Option<&'u Subscript>>> {
        let rests = subscripts.iter().filter(|s| matches!(s, Subscript::Rest { .. })).count();
        let fixed = subscripts.len() - rests;
        if fixed > rank || rests > 1 {
            let title = format!("{} subscripts for a tensor of {rank} dims", subscripts.len());
            return Err(self.fail(Diagnostic::error(Code::SubscriptCount, title, span, "")));
        }
        let mut filled = Vec::new();
        for subscript in subscripts {
            match subscript {
                Subscript::Rest { .. } => filled.extend((0..rank - fixed).map(|_| None)),
                other => filled.push(Some(other)),
            }
        }
        filled.resize(rank, None);
        Ok(filled)
    }

    fn slice_ends(
        &mut self,
        start: Option<ExprId>,
        end: Option<ExprId>,
        extent: &Size,
        span: Span,
    ) -> Eval<(Size, Size)> {
        let mut bound = |id: Option<ExprId>, default: Size| match id {
            None => Ok(default),
            Some(id) => {
                let at = self.ast().span(id);
                let value = self.eval(id)?;
                let size = self.expect_size(&value, "the end of a slice", at)?;
                let negative = size.as_const().is_some_and(|v| v < 0);
                Ok(if negative { extent.clone() + size } else { size })
            }
        };
        let (start, end) = (bound(start, Size::ZERO)?, bound(end, extent.clone())?);
        let less = |a: &Size, b: &Size| (a.clone() - b.clone()).as_const().is_some_and(|d| d < 0);
        if less(&end, &start) || less(extent, &end) || less(&start, &Size::ZERO) {
            let title = format!("the slice {start}:{end} of a dim of {extent}");
            return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, span, "")));
        }
        Ok((start, end))
    }
}
