//! Sums of products: what becomes a contraction.
//!
//! The factors of a product that do not depend on the summed indices are multiplied afterwards. Of
//! the others, two make a contraction that reads the tensors in place; more are multiplied pairwise
//! before; a single one is folded, and so is the product of two over the same axes.

use dlc_graph::Value;
use dlc_graph::op::Contract;
use dlc_kernel::{BinaryOp, FoldOp, Guard, Index};

use super::condition::Condition;
use super::pointwise::union;
use super::read::{axes_of, place};
use super::value::{Axes, Cell, Val};
use super::{Elab, Eval};
use crate::ast::{self, ExprId, ExprKind, ReduceOp};
use crate::source::Span;

/// The factors of a sum's body.
#[derive(Debug, Default)]
struct Factors {
    /// Those that depend on summed indices.
    inner: Vec<Val>,
    /// The others, with how they are applied to the sum.
    outer: Vec<(BinaryOp, Val)>,
}

impl<'u> Elab<'u> {
    /// `sum` or `mean` over the axes from `first` on.
    pub(super) fn sum_products(
        &mut self,
        op: ReduceOp,
        body: ExprId,
        condition: Condition,
        first: u32,
        span: Span,
    ) -> Eval<Val> {
        let mut factors = self.factors(body, first, span)?;
        if factors.inner.is_empty() {
            factors.inner.push(Val::Float(1.0));
        }
        while factors.inner.len() > 2 {
            let product = self.binary(BinaryOp::Mul, &factors.inner[0], &factors.inner[1], span)?;
            factors.inner.splice(0..2, [product]);
        }
        let bounds = self.skips(&factors.inner, &condition);
        let mut sum = self.sum_inner(&factors.inner, &condition, first, span)?;
        if op == ReduceOp::Mean {
            let count = self.count_terms(bounds, &condition, first, span)?;
            sum = self.mean_of(sum, &count, span)?;
        }
        for (op, factor) in factors.outer {
            sum = self.binary(op, &sum, &factor, span)?;
        }
        Ok(sum)
    }

    fn sum_inner(
        &mut self,
        inner: &[Val],
        condition: &Condition,
        first: u32,
        span: Span,
    ) -> Eval<Val> {
        let masked: Eval<Vec<Val>> =
            inner.iter().map(|f| self.mask_data(f.clone(), condition, 0.0, span)).collect();
        let masked = masked?;
        let floats = masked.iter().all(|f| self.dtype_of(f).is_some_and(|d| d.is_float()));
        let cell = match masked.as_slice() {
            [a, b] if floats && self.axes_used(a) != self.axes_used(b) => {
                self.contract(a, b, &condition.guards, first, span)?
            }
            [a, b] => {
                let product = self.binary(BinaryOp::Mul, a, b, span)?;
                self.sum_terms(&product, condition, first, span)?
            }
            [one] => self.sum_terms(one, condition, first, span)?,
            _ => unreachable!("factors are multiplied until two are left"),
        };
        Ok(self.settle(cell))
    }

    fn sum_terms(
        &mut self,
        value: &Val,
        condition: &Condition,
        first: u32,
        span: Span,
    ) -> Eval<Cell> {
        if let Some(cell) = self.fold_whole(FoldOp::Sum, value, &condition.guards, first, span)? {
            return Ok(cell);
        }
        let (data, axes) = self.terms(value, &condition.guards, 0.0, first, span)?;
        self.fold_data(FoldOp::Sum, data, &axes, first, span)
    }

    /// Which terms are skipped, apart from conditions on data.
    fn skips(&self, inner: &[Val], condition: &Condition) -> Vec<Guard> {
        let mut guards = condition.guards.clone();
        guards.extend(self.guards.last().into_iter().flatten().cloned());
        for factor in inner {
            if let Val::Cell(Cell::Read { tensor, coords, guards: own }) = factor {
                guards.extend(self.bounds(*tensor, coords));
                guards.extend(own.iter().cloned());
            }
        }
        guards
    }

    /// Takes a product apart and evaluates its factors.
    fn factors(&mut self, body: ExprId, first: u32, span: Span) -> Eval<Factors> {
        let mut factors = Factors::default();
        let ast = self.ast();
        let (head, rest) = match &ast[body].kind {
            ExprKind::Chain { first, rest }
                if rest.iter().all(|l| matches!(l.op, ast::BinaryOp::Mul | ast::BinaryOp::Div)) =>
            {
                (*first, rest.as_slice())
            }
            _ => (body, &[][..]),
        };
        self.add_factor(head, BinaryOp::Mul, first, &mut factors, span)?;
        for link in rest {
            let op = match link.op {
                ast::BinaryOp::Div => BinaryOp::Div,
                _ => BinaryOp::Mul,
            };
            self.add_factor(link.operand, op, first, &mut factors, span)?;
        }
        Ok(factors)
    }

    fn add_factor(
        &mut self,
        id: ExprId,
        op: BinaryOp,
        first: u32,
        factors: &mut Factors,
        span: Span,
    ) -> Eval<()> {
        if let (ExprKind::Chain { .. }, BinaryOp::Mul) = (&self.ast()[id].kind, op)
            && self.is_product(id)
        {
            let nested = self.factors(id, first, span)?;
            factors.inner.extend(nested.inner);
            factors.outer.extend(nested.outer);
            return Ok(());
        }
        let value = self.eval(id)?;
        if self.is_outer(&value, first) {
            factors.outer.push((op, value));
            return Ok(());
        }
        match op {
            BinaryOp::Div => {
                let last = factors.inner.pop().unwrap_or(Val::Float(1.0));
                factors.inner.push(self.binary(BinaryOp::Div, &last, &value, span)?);
            }
            _ => {
                let cell = self.as_cell(value, span)?;
                factors.inner.push(cell);
            }
        }
        Ok(())
    }

    fn is_product(&self, id: ExprId) -> bool {
        match &self.ast()[id].kind {
            ExprKind::Chain { rest, .. } => {
                rest.iter().all(|l| matches!(l.op, ast::BinaryOp::Mul | ast::BinaryOp::Div))
            }
            _ => false,
        }
    }

    /// Indices become data.
    fn as_cell(&mut self, value: Val, span: Span) -> Eval<Val> {
        match value {
            Val::Index(_) => {
                let (value, axes) =
                    self.cell_data(&value, Some(super::value::DEFAULT_FLOAT), span)?;
                Ok(Val::Cell(Cell::Data { value, axes }))
            }
            value => Ok(value),
        }
    }

    /// Whether a factor neither depends on axes from `first` on nor can be outside of its tensor.
    fn is_outer(&self, value: &Val, first: u32) -> bool {
        match value {
            Val::Int(_) | Val::Float(_) => true,
            Val::Index(index) => index.terms.iter().all(|(axis, _)| axis.0 < first),
            Val::Tensor(tensor) => self.ty(tensor.value).rank() == 0,
            Val::Cell(Cell::Data { axes, .. }) => axes.iter().all(|axis| *axis < first),
            Val::Cell(Cell::Read { tensor, coords, guards }) => {
                guards.is_empty()
                    && axes_of(coords, &[]).iter().all(|axis| *axis < first)
                    && self.bounds(*tensor, coords).is_empty()
            }
            _ => false,
        }
    }

    /// The axes of a factor. Two factors with the same axes have nothing to reuse: their product is
    /// taken point by point and folded.
    fn axes_used(&self, value: &Val) -> Axes {
        match value {
            Val::Cell(Cell::Read { coords, guards, .. }) => axes_of(coords, guards),
            Val::Cell(Cell::Data { axes, .. }) => axes.clone(),
            _ => Axes::new(),
        }
    }

    /// The sum over the axes from `first` on of `a * b`.
    fn contract(
        &mut self,
        a: &Val,
        b: &Val,
        guards: &[Guard],
        first: u32,
        span: Span,
    ) -> Eval<Cell> {
        let (left, lhs, mut all) = self.operand(a, span)?;
        let (right, rhs, more) = self.operand(b, span)?;
        all.extend(more);
        all.extend(guards.iter().cloned());
        all.extend(self.guards.last().into_iter().flatten().cloned());
        let reduced: Axes = (first..self.axes.len() as u32).collect();
        let used = union(&axes_of(&lhs, &all), &axes_of(&rhs, &[]));
        let out: Axes = used.iter().filter(|axis| **axis < first).copied().collect();
        let axes: Axes = out.iter().chain(&reduced).copied().collect();
        let contract = Contract {
            out: self.extents(&out),
            reduce: self.extents(&reduced),
            lhs: place(&lhs, &all, &axes),
            rhs: place(&rhs, &[], &axes),
        };
        let value = self.add(contract, &[left, right], span)?;
        Ok(Cell::Data { value, axes: out })
    }

    /// A factor as a tensor with the coordinates at which it is read.
    fn operand(&mut self, factor: &Val, span: Span) -> Eval<(Value, Vec<Index>, Vec<Guard>)> {
        match factor {
            Val::Cell(Cell::Read { tensor, coords, guards }) => {
                Ok((*tensor, coords.to_vec(), guards.clone()))
            }
            factor => {
                let (value, axes) = self.cell_data(factor, None, span)?;
                Ok((value, axes.iter().map(|&axis| Index::axis(axis)).collect(), Vec::new()))
            }
        }
    }
}
