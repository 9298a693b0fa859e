//! Reductions: `sum[i] x[n, i] * W[o, i]`, `max[r, s] x[2*h + r, 2*w + s]`, `mean[u](s)`.
//!
//! A term is skipped where a read leaves its tensor or a `where` condition fails. `mean` divides by
//! the number of terms that are not skipped.

use std::sync::Arc;

use dlc_graph::Value;
use dlc_graph::op::Reduce;
use dlc_kernel::{BinaryOp, DType, FoldOp, Guard, Index, Size};

use super::condition::Condition;
use super::pointwise::union;
use super::read::axes_of;
use super::value::{Axes, Cell, Val};
use super::{Elab, Eval};
use crate::ast::{self, ExprId, ReduceOp};
use crate::source::Span;

impl<'u> Elab<'u> {
    /// A reduction over indices, or of a whole tensor over named axes.
    pub(super) fn eval_reduce(
        &mut self,
        op: ReduceOp,
        indices: &'u [ast::Index],
        body: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let names: Vec<Arc<str>> = indices.iter().map(|i| i.name.text.clone()).collect();
        let stated = indices.iter().any(|index| index.extent.is_some());
        if !stated && self.frame().indices.is_empty() && !self.mentions(body, &names) {
            return self.reduce_axes(op, indices, body, span);
        }
        let first = self.axes.len();
        let count = self.frame().indices.len();
        let result = self.reduce_indices(op, indices, body, span);
        self.axes.truncate(first);
        self.frame_mut().indices.truncate(count);
        result
    }

    /// `sum[u](s)`: axes by name, or by names of numbers.
    fn reduce_axes(
        &mut self,
        op: ReduceOp,
        indices: &[ast::Index],
        body: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let at = self.ast().span(body);
        let value = self.eval(body)?;
        let tensor = self.tensor(&value, at)?;
        let of = Val::Tensor(tensor.clone());
        let mut axes = Vec::new();
        for index in indices {
            let named = match self.find(&index.name.text, index.name.span) {
                Some(Val::Int(size)) => Val::Int(size),
                _ => Val::AxisName(index.name.text.clone()),
            };
            axes.push(self.resolve_axis(&named, Some(&of), index.name.span)?);
        }
        axes.sort_unstable();
        axes.dedup();
        self.fold_tensor(op, &tensor, &axes, span)
    }

    fn reduce_indices(
        &mut self,
        op: ReduceOp,
        indices: &'u [ast::Index],
        body: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let first = self.axes.len() as u32;
        let waiting = self.frame().pending.clone();
        let uses: Vec<ExprId> = std::iter::once(body).chain(waiting.iter().copied()).collect();
        self.introduce(indices, &uses, span)?;
        self.guards.push(Vec::new());
        let cell = self.reduce_terms(op, indices, body, &waiting, first, span);
        self.guards.pop();
        let cell = cell?;
        Ok(cell)
    }

    fn reduce_terms(
        &mut self,
        op: ReduceOp,
        indices: &'u [ast::Index],
        body: ExprId,
        waiting: &[ExprId],
        first: u32,
        span: Span,
    ) -> Eval<Val> {
        let names: Vec<Arc<str>> = indices.iter().map(|i| i.name.text.clone()).collect();
        let mut condition = Condition::default();
        for &part in waiting {
            if self.mentions(part, &names) && self.all_bound(part) {
                self.add_condition(part, &mut condition)?;
            }
        }
        match op {
            ReduceOp::Sum | ReduceOp::Mean => {
                let sum = self.sum_products(op, body, condition, first, span)?;
                Ok(sum)
            }
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Prod => {
                let value = self.eval(body)?;
                let fold = match op {
                    ReduceOp::Max => FoldOp::Max,
                    ReduceOp::Min => FoldOp::Min,
                    _ => FoldOp::Prod,
                };
                let cell = self.fold_cell(fold, value, condition, first, span)?;
                Ok(self.settle(cell))
            }
        }
    }

    /// Whether all indices that a waiting condition is about are introduced.
    fn all_bound(&self, part: ExprId) -> bool {
        let ast = self.ast();
        let span = ast.span(part);
        let outer = &self.frame().pending_names;
        ast.exprs.iter().all(|expr| {
            let inside = expr.span.start >= span.start && expr.span.end <= span.end;
            match &expr.kind {
                ast::ExprKind::Name(name) if inside && outer.contains(name) => {
                    self.frame().indices.iter().any(|(n, _)| n == name)
                }
                _ => true,
            }
        })
    }

    /// Folds a cell over the axes from `first` on.
    pub(super) fn fold_cell(
        &mut self,
        op: FoldOp,
        value: Val,
        condition: Condition,
        first: u32,
        span: Span,
    ) -> Eval<Cell> {
        let neutral = self.neutral(op, &value);
        let value = self.mask_data(value, &condition, neutral, span)?;
        if let Some(cell) = self.fold_whole(op, &value, &condition.guards, first, span)? {
            return Ok(cell);
        }
        let (data, axes) = self.terms(&value, &condition.guards, neutral, first, span)?;
        self.fold_data(op, data, &axes, first, span)
    }

    /// Folds a tensor that is read whole, each dim under an index of its own, where it stands: no
    /// view moves its elements before.
    pub(super) fn fold_whole(
        &mut self,
        op: FoldOp,
        value: &Val,
        guards: &[Guard],
        first: u32,
        span: Span,
    ) -> Eval<Option<Cell>> {
        let Val::Cell(Cell::Read { tensor, coords, guards: own }) = value else { return Ok(None) };
        let noted = self.guards.last().is_some_and(|noted| !noted.is_empty());
        let axes: Option<Vec<u32>> = coords.iter().map(|c| c.as_axis().map(|a| a.0)).collect();
        let Some(axes) = axes else { return Ok(None) };
        let distinct = union(&axes, &[]).len() == axes.len();
        let all_reduced = (first..self.axes.len() as u32).all(|axis| axes.contains(&axis));
        let conditions = noted || !guards.is_empty() || !own.is_empty();
        if conditions || !distinct || !all_reduced || !self.bounds(*tensor, coords).is_empty() {
            return Ok(None);
        }
        let folded = (0..axes.len() as u32).filter(|&dim| axes[dim as usize] >= first).collect();
        let value = self.add(Reduce { op, axes: folded }, &[*tensor], span)?;
        let kept: Axes = axes.iter().filter(|a| **a < first).copied().collect();
        let sorted = union(&kept, &[]);
        let coords: Vec<Index> = kept.iter().map(|&axis| Index::axis(axis)).collect();
        let value = self.view_cell(value, &coords, &[], &sorted, 0.0, span)?;
        Ok(Some(Cell::Data { value, axes: sorted }))
    }

    /// Folds data over the axes from `first` on, which are its last.
    pub(super) fn fold_data(
        &mut self,
        op: FoldOp,
        data: Value,
        axes: &Axes,
        first: u32,
        span: Span,
    ) -> Eval<Cell> {
        let kept: Axes = axes.iter().filter(|a| **a < first).copied().collect();
        let folded = (kept.len() as u32..axes.len() as u32).collect();
        let value = self.add(Reduce { op, axes: folded }, &[data], span)?;
        Ok(Cell::Data { value, axes: kept })
    }

    fn neutral(&self, op: FoldOp, value: &Val) -> f64 {
        match self.dtype_of(value) {
            Some(dtype) if dtype.is_int() => op.neutral().clamp(i32::MIN.into(), i32::MAX.into()),
            _ => op.neutral(),
        }
    }

    /// Puts the neutral element where conditions on data fail.
    pub(super) fn mask_data(
        &mut self,
        value: Val,
        condition: &Condition,
        neutral: f64,
        span: Span,
    ) -> Eval<Val> {
        condition
            .data
            .iter()
            .try_fold(value, |value, cond| self.select(cond, &value, &Val::Float(neutral), span))
    }

    /// All terms as a tensor over the outer axes they use and all axes from `first` on; the neutral
    /// element where a term is skipped.
    pub(super) fn terms(
        &mut self,
        value: &Val,
        guards: &[Guard],
        neutral: f64,
        first: u32,
        span: Span,
    ) -> Eval<(Value, Axes)> {
        let reduced: Axes = (first..self.axes.len() as u32).collect();
        let (source, coords, mut all) = match value {
            Val::Cell(Cell::Read { tensor, coords, guards: own }) => {
                (*tensor, coords.to_vec(), own.clone())
            }
            value => {
                let (data, axes) = self.cell_data(value, None, span)?;
                (data, axes.iter().map(|&axis| Index::axis(axis)).collect(), Vec::new())
            }
        };
        all.extend(guards.iter().cloned());
        all.extend(self.guards.last().into_iter().flatten().cloned());
        let axes = union(&axes_of(&coords, &all), &reduced);
        let value = self.view_cell(source, &coords, &all, &axes, neutral, span)?;
        Ok((value, axes))
    }

    /// The number of terms that are not skipped, as a float: a size, or a count over a mask.
    pub(super) fn count_terms(
        &mut self,
        bounds: Vec<Guard>,
        condition: &Condition,
        first: u32,
        span: Span,
    ) -> Eval<Val> {
        if bounds.is_empty() && condition.data.is_empty() {
            let count: Size =
                self.axes[first as usize..].iter().map(|a| a.extent.clone()).product();
            return Ok(Val::Int(count));
        }
        let one = self.number_tensor(&Val::int(1), DType::F32, span)?;
        let one = Val::Cell(Cell::Data { value: one, axes: Axes::new() });
        let one = self.mask_data(one, condition, 0.0, span)?;
        let (data, axes) = self.terms(&one, &bounds, 0.0, first, span)?;
        let cell = self.fold_data(FoldOp::Sum, data, &axes, first, span)?;
        Ok(self.settle(cell))
    }

    /// `total / count` for `mean`.
    pub(super) fn mean_of(&mut self, total: Val, count: &Val, span: Span) -> Eval<Val> {
        self.binary(BinaryOp::Div, &total, count, span)
    }
}
