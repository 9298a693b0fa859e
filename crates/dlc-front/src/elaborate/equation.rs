//! Index equations: `y[n, o] = b[o] + sum[i] x[n, i] * W[o, i]`.
//!
//! Every axis of an equation has a number in the elaborator's table: first those on the left, in
//! order, then those of reductions as they are met. The right side evaluates to a [`Cell`]: a number
//! at each point of some of these axes.

use std::sync::Arc;

use dlc_kernel::Size;

use super::value::{Cell, Val};
use super::{AxisInfo, Elab, Eval};
use crate::Code;
use crate::ast::{Ast, ExprId, ExprKind, Ident, Index, Subscript};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// An index whose extent is looked for, with the extent and the place that says so.
type Wanted = (Arc<str>, Option<(Size, Span)>);

impl<'u> Elab<'u> {
    /// The tensor that an equation defines.
    pub(super) fn run_equation(
        &mut self,
        name: &Ident,
        indices: &'u [Index],
        value: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let guards = std::mem::take(&mut self.guards);
        let bases = std::mem::take(&mut self.frame_mut().bases);
        let first = self.axes.len();
        let result = self.equation_value(name, indices, value, span);
        self.axes.truncate(first);
        let frame = self.frame_mut();
        frame.indices.clear();
        frame.bases = bases;
        self.guards = guards;
        result
    }

    fn equation_value(
        &mut self,
        name: &Ident,
        indices: &'u [Index],
        value: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let first = self.axes.len() as u32;
        self.introduce(indices, &[value], span)?;
        let cell = self.eval(value)?;
        if let Val::Func(_) | Val::Tuple(..) | Val::List(_) | Val::Unit = cell {
            let title = format!("`{}` is defined by {}", name.text, cell.describe());
            let at = self.ast().span(value);
            let diagnostic = Diagnostic::error(Code::BadEquation, title, at, cell.describe())
                .note("the right side of an index equation is one number at each point");
            return Err(self.fail(diagnostic));
        }
        let (value, axes) = self.cell_data(&cell, None, span)?;
        let own = (first..first + indices.len() as u32).collect();
        if axes.iter().any(|axis| *axis < first) {
            let title = "an equation inside a block that is applied to single numbers";
            let diagnostic = Diagnostic::error(Code::BadEquation, title, span, "")
                .help("apply the block to a whole tensor, in a statement of its own");
            return Err(self.fail(diagnostic));
        }
        let value = self.spread(value, &axes, &own, span)?;
        let names = indices.iter().map(|index| index.name.text.clone()).collect();
        Ok(Self::named_tensor(value, names))
    }

    /// Gives indices their axes; extents are stated or found in the `uses`.
    pub(super) fn introduce(
        &mut self,
        indices: &'u [Index],
        uses: &[ExprId],
        span: Span,
    ) -> Eval<()> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for (k, index) in indices.iter().enumerate() {
            if let Some(first) = indices[..k].iter().find(|i| i.name.text == index.name.text) {
                let title = format!("the index `{}` occurs twice", index.name.text);
                let at = index.name.span;
                let diagnostic = Diagnostic::error(Code::DuplicateName, title, at, "again")
                    .label(first.name.span, "first here")
                    .note("for a diagonal use two indices and `where i == j`");
                return Err(self.fail(diagnostic));
            }
            if index.extent.is_none() {
                wanted.push((index.name.text.clone(), None));
            }
        }
        for &id in uses {
            self.find_extents(id, &mut wanted, &mut Vec::new())?;
        }
        let mut axes = Vec::new();
        for index in indices {
            let extent = self.extent_of(index, &wanted, span)?;
            axes.push(AxisInfo { name: index.name.text.clone(), extent });
        }
        for axis in axes {
            let number = self.axes.len() as u32;
            self.frame_mut().indices.push((axis.name.clone(), number));
            self.axes.push(axis);
        }
        Ok(())
    }

    fn extent_of(&mut self, index: &Index, wanted: &[Wanted], _span: Span) -> Eval<Size> {
        if let Some(extent) = index.extent {
            let at = self.ast().span(extent);
            let value = self.eval(extent)?;
            let size = self.expect_size(&value, "an index's extent", at)?;
            self.check_size(&size, at)?;
            return Ok(size);
        }
        let found = wanted.iter().find(|(name, _)| *name == index.name.text);
        if let Some((_, Some((size, _)))) = found {
            return Ok(size.clone());
        }
        let name = &index.name.text;
        let title = format!("the extent of the index `{name}` is not known");
        let at = index.name.span;
        let diagnostic = Diagnostic::error(Code::UnknownExtent, title, at, "how far does it run?")
            .note("it stands alone in no subscript on the right side")
            .help(format!("state it: `{name} < ..`"));
        Err(self.fail(diagnostic))
    }

    /// Finds the dims at which wanted indices stand alone, in an expression of an equation.
    fn find_extents(
        &mut self,
        id: ExprId,
        wanted: &mut Vec<Wanted>,
        shadowed: &mut Vec<Arc<str>>,
    ) -> Eval<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let ast = self.ast();
        match &ast[id].kind {
            ExprKind::Bracket { base, subscripts } => {
                self.find_in_subscripts(*base, subscripts, wanted, shadowed)
            }
            ExprKind::Reduce { indices, body, .. } => {
                let depth = shadowed.len();
                shadowed.extend(indices.iter().map(|i| i.name.text.clone()));
                let result = self.find_extents(*body, wanted, shadowed);
                shadowed.truncate(depth);
                result
            }
            kind => {
                for child in operands(kind) {
                    self.find_extents(child, wanted, shadowed)?;
                }
                Ok(())
            }
        }
    }

    fn find_in_subscripts(
        &mut self,
        base: ExprId,
        subscripts: &'u [Subscript],
        wanted: &mut Vec<Wanted>,
        shadowed: &mut Vec<Arc<str>>,
    ) -> Eval<()> {
        let ast: &'u Ast = self.ast();
        if let Val::Tensor(tensor) = self.equation_base(base)? {
            let shape = self.ty(tensor.value).shape.clone();
            for (subscript, extent) in subscripts.iter().zip(shape) {
                let Subscript::Expr(at) = subscript else { continue };
                let ExprKind::Name(name) = &ast[*at].kind else { continue };
                if !shadowed.contains(name)
                    && let Some((_, slot)) = wanted.iter_mut().find(|(n, _)| n == name)
                {
                    let span = ast.span(base).to(ast.span(*at));
                    match slot {
                        Some((known, first)) if *known != extent => {
                            let (known, first) = (known.clone(), *first);
                            return Err(self.two_extents(name, (known, first), (extent, span)));
                        }
                        Some(_) => {}
                        None => *slot = Some((extent, span)),
                    }
                }
            }
        }
        for subscript in subscripts {
            if let Subscript::Expr(at) = subscript {
                self.find_extents(*at, wanted, shadowed)?;
            }
        }
        Ok(())
    }

    fn two_extents(&mut self, name: &str, a: (Size, Span), b: (Size, Span)) -> super::Reported {
        let title = format!("the index `{name}` has two extents: {} and {}", a.0, b.0);
        let diagnostic =
            Diagnostic::error(Code::ExtentMismatch, title, b.1, format!("{} here", b.0))
                .label(a.1, format!("{} here", a.0))
                .help(format!("if both are meant, state the extent: `{name} < {}`", a.0));
        self.fail(diagnostic)
    }

    /// The tensor that is subscripted: evaluated once in an equation, outside of its indices.
    pub(super) fn equation_base(&mut self, base: ExprId) -> Eval<Val> {
        if let Some(known) = self.frame().bases.get(&base) {
            return Ok(known.clone());
        }
        let indices = std::mem::take(&mut self.frame_mut().indices);
        let value = self.eval(base);
        let frame = self.frame_mut();
        frame.indices = indices;
        let value = value?;
        frame.bases.insert(base, value.clone());
        Ok(value)
    }

    /// Whether one of `names` is mentioned within `span`.
    pub(super) fn mentions(&self, id: ExprId, names: &[Arc<str>]) -> bool {
        let ast = self.ast();
        let span = ast.span(id);
        ast.exprs.iter().any(|expr| {
            let inside = expr.span.start >= span.start && expr.span.end <= span.end;
            inside && matches!(&expr.kind, ExprKind::Name(name) if names.contains(name))
        })
    }

    /// A number of an equation without axes is a tensor like any other.
    pub(super) fn settle(&self, cell: Cell) -> Val {
        match cell {
            Cell::Data { value, axes } if axes.is_empty() => value.into(),
            cell => Val::Cell(cell),
        }
    }
}

/// The operands of an expression, but for what introduces indices or is subscripted.
fn operands(kind: &ExprKind) -> Vec<ExprId> {
    match kind {
        ExprKind::Tuple(parts) | ExprKind::List(parts) => parts.clone(),
        ExprKind::Unary { operand, .. } => vec![*operand],
        ExprKind::Chain { first, rest } => {
            std::iter::once(*first).chain(rest.iter().map(|link| link.operand)).collect()
        }
        ExprKind::Select { value, cond, otherwise } => vec![*value, *cond, *otherwise],
        ExprKind::Where { value, cond, otherwise } => {
            [*value, *cond].into_iter().chain(*otherwise).collect()
        }
        ExprKind::Pipe { input, stages } => {
            std::iter::once(*input).chain(stages.iter().copied()).collect()
        }
        ExprKind::Call { args, .. } => args.iter().map(|arg| arg.value).collect(),
        _ => Vec::new(),
    }
}
