//! Primitive functions that rearrange elements, and the matrix product.

use std::rc::Rc;

use dlc_graph::op::{Concat, Contract, Reshape};
use dlc_graph::{Shape, Value};
use dlc_kernel::{Access, Index, Size};

use super::intrinsic::Use;
use super::signature::show_sizes;
use super::value::{Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Elab<'_> {
    /// `as[N, T, A, C]`; one size may be -1 and is computed.
    pub(super) fn apply_as(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let from = self.ty(x.value).clone();
        let mut shape = Shape::new();
        let mut free = None;
        for (value, at) in call.statics() {
            for size in self.expect_sizes(value, *at)? {
                if size.as_const() == Some(-1) && free.is_none() {
                    free = Some(shape.len());
                    shape.push(Size::ONE);
                    continue;
                }
                self.check_size(&size, *at)?;
                shape.push(size);
            }
        }
        let (have, need) = (from.elements(), shape.iter().cloned().product::<Size>());
        if let Some(free) = free {
            shape[free] = self.divide_exactly(&have, &need, call.span)?;
        } else if (have.clone() - need.clone()).as_const().is_some_and(|d| d != 0) {
            let title = format!("{from} cannot be viewed as {}", show_sizes(&shape));
            let label = format!("{have} elements as {need}");
            return Err(self.fail(Diagnostic::error(Code::Operation, title, call.span, label)));
        }
        Ok(self.reshape(x.value, shape, call.span)?.into())
    }

    /// The same elements in another shape. Where only dims of size 1 come and go this is a view,
    /// which passes can compose.
    fn reshape(&mut self, x: Value, shape: Shape, span: Span) -> Eval<Value> {
        let from = self.ty(x).shape.clone();
        let proper = |shape: &Shape| -> Vec<(usize, Size)> {
            let dims = shape.iter().cloned().enumerate();
            dims.filter(|(_, size)| *size != Size::ONE).collect()
        };
        let (old, new) = (proper(&from), proper(&shape));
        if old.len() != new.len() || old.iter().zip(&new).any(|(a, b)| a.1 != b.1) {
            return self.add(Reshape { shape }, &[x], span);
        }
        let mut coords = vec![Index::constant(0i64); from.len()];
        for ((dim, _), (axis, _)) in old.iter().zip(&new) {
            coords[*dim] = Index::axis(*axis as u32);
        }
        self.view(x, shape, Access::new(coords), 0.0, span)
    }

    /// `split[n](x)`, `split[n, axis](x)`: n equal parts of the last axis, or of `axis`.
    pub(super) fn apply_split(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let (count, axis) = match call.statics() {
            [count] => (count.clone(), (Val::int(-1), call.span)),
            [count, axis] => (count.clone(), axis.clone()),
            _ => return Err(self.wrong_use(call)),
        };
        let axis = self.resolve_axis(&axis.0, Some(&Val::Tensor(x.clone())), axis.1)?;
        let size = self.expect_size(&count.0, "the number of parts", count.1)?;
        let parts = self.known_size(&size, "the number of parts", count.1)?;
        if !(1..=4096).contains(&parts) {
            let title = format!("a tensor cannot be split into {parts} parts");
            return Err(self.fail(Diagnostic::error(Code::BadSize, title, count.1, "")));
        }
        let shape = self.ty(x.value).shape.clone();
        let part = self.divide_exactly(&shape[axis], &parts.into(), call.span)?;
        let pieces: Eval<Rc<[Val]>> = (0..parts)
            .map(|k| {
                let start = part.clone() * Size::from(k);
                self.piece(&x, axis, start, part.clone(), call.span)
            })
            .collect();
        Ok(Val::Tuple(pieces?, None))
    }

    /// `extent` positions of an axis from `start` on.
    fn piece(
        &mut self,
        x: &Tensor,
        axis: usize,
        start: Size,
        extent: Size,
        span: Span,
    ) -> Eval<Val> {
        let mut shape = self.ty(x.value).shape.clone();
        let coords = (0..shape.len() as u32).map(|d| match d as usize == axis {
            true => Index::affine([(d, 1)], start.clone()),
            false => Index::axis(d),
        });
        let access = Access::new(coords.collect::<Vec<_>>());
        shape[axis] = extent;
        let value = self.view(x.value, shape, access, 0.0, span)?;
        Ok(Val::Tensor(Tensor { value, axes: x.axes.clone() }))
    }

    /// `concat[axis](x, y, ..)`, also of a tuple.
    pub(super) fn apply_concat(&mut self, call: &Use<'_>) -> Eval<Val> {
        let mut parts = Vec::new();
        for (value, at) in &call.args {
            match value {
                Val::Tuple(items, _) | Val::List(items) => {
                    for item in items.iter() {
                        parts.push(self.tensor(item, *at)?);
                    }
                }
                value => parts.push(self.tensor(value, *at)?),
            }
        }
        let Some(first) = parts.first().cloned() else { return Err(self.wrong_use(call)) };
        let axis = match call.statics() {
            [] => (Val::int(-1), call.span),
            [axis] => axis.clone(),
            _ => return Err(self.wrong_use(call)),
        };
        let axis = self.resolve_axis(&axis.0, Some(&Val::Tensor(first.clone())), axis.1)?;
        let operands: Vec<Value> = parts.iter().map(|part| part.value).collect();
        let value = self.add(Concat { axis: axis as u32 }, &operands, call.span)?;
        Ok(Val::Tensor(Tensor { value, axes: first.axes }))
    }

    /// `transpose(x)` swaps the last two axes, `transpose[i, j](x)` the given ones.
    pub(super) fn apply_transpose(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let of = Val::Tensor(x.clone());
        let (i, j) = match call.statics() {
            [] => ((Val::int(-2), call.span), (Val::int(-1), call.span)),
            [i, j] => (i.clone(), j.clone()),
            _ => return Err(self.wrong_use(call)),
        };
        let i = self.resolve_axis(&i.0, Some(&of), i.1)?;
        let j = self.resolve_axis(&j.0, Some(&of), j.1)?;
        let mut order: Vec<usize> = (0..self.ty(x.value).rank()).collect();
        order.swap(i, j);
        self.permute(&x, &order, call.span)
    }

    /// `permute[0, 2, 1](x)`.
    pub(super) fn apply_permute(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let of = Val::Tensor(x.clone());
        let order: Eval<Vec<usize>> = call
            .statics()
            .iter()
            .map(|(axis, at)| self.resolve_axis(axis, Some(&of), *at))
            .collect();
        let order = order?;
        let rank = self.ty(x.value).rank();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            let title = format!("`permute` names each of the {rank} axes once");
            return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, call.span, "")));
        }
        self.permute(&x, &order, call.span)
    }

    /// Dim `i` of the result is dim `order[i]` of `x`.
    fn permute(&mut self, x: &Tensor, order: &[usize], span: Span) -> Eval<Val> {
        let own = self.ty(x.value).shape.clone();
        let shape = order.iter().map(|&i| own[i].clone()).collect();
        let place = |dim| order.iter().position(|&i| i == dim).expect("a permutation") as u32;
        let access = Access::new((0..own.len()).map(|dim| Index::axis(place(dim))));
        let axes = x.axes.as_ref().map(|names| order.iter().map(|&i| names[i].clone()).collect());
        let value = self.view(x.value, shape, access, 0.0, span)?;
        Ok(Val::Tensor(Tensor { value, axes }))
    }

    /// `unsqueeze[axis](x)`: a new axis of size 1 at that position of the result.
    pub(super) fn apply_unsqueeze(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let (axis, at) = match call.statics() {
            [(axis, at)] => (self.expect_size(axis, "an axis", *at)?, *at),
            _ => return Err(self.wrong_use(call)),
        };
        let axis = self.known_size(&axis, "an axis", at)?;
        let mut shape = self.ty(x.value).shape.clone();
        let rank = shape.len() as i64;
        let index = if axis < 0 { axis.saturating_add(rank + 1) } else { axis };
        if !(0..=rank).contains(&index) {
            let title = format!("a new axis cannot stand at {axis} in a tensor of {rank} dims");
            return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, at, "")));
        }
        shape.insert(index as usize, Size::ONE);
        Ok(self.reshape(x.value, shape, call.span)?.into())
    }

    /// `a @ b`: rows times columns, leading dims broadcast; vectors as in NumPy.
    pub(super) fn matmul(&mut self, a: &Val, b: &Val, span: Span) -> Eval<Val> {
        let (a, b) = (self.tensor(a, span)?, self.tensor(b, span)?);
        let (left, right) = (self.ty(a.value).clone(), self.ty(b.value).clone());
        let (n, m) = (left.rank(), right.rank());
        let inner = left.shape.last().zip(right.shape.get(m.saturating_sub(2).min(m)));
        let fits = n > 0 && m > 0 && inner.is_some_and(|(a, b)| a == b);
        let (lead, tail) = (n.saturating_sub(2), m.saturating_sub(2));
        let batch = super::pointwise::broadcast(&left.shape[..lead], &right.shape[..tail]);
        let (Some(batch), true) = (batch, fits) else {
            return Err(self.bad_matmul(&left, &right, span));
        };
        let (rows, columns) = (n > 1, m > 1);
        let count = batch.len() + usize::from(rows) + usize::from(columns);
        let (row, column) = (batch.len() as u32, (batch.len() + usize::from(rows)) as u32);
        let k = Index::axis(count as u32);
        let mut out = batch.clone();
        out.extend(rows.then(|| left.shape[n - 2].clone()));
        out.extend(columns.then(|| right.shape[m - 1].clone()));
        let mut lhs = batch_coords(&left.shape[..lead], &batch);
        lhs.extend(rows.then(|| Index::axis(row)));
        lhs.push(k.clone());
        let mut rhs = batch_coords(&right.shape[..tail], &batch);
        rhs.push(k);
        rhs.extend(columns.then(|| Index::axis(column)));
        let reduce = [left.shape[n - 1].clone()].into_iter().collect();
        let contract = Contract { out, reduce, lhs: Access::new(lhs), rhs: Access::new(rhs) };
        Ok(self.add(contract, &[a.value, b.value], span)?.into())
    }

    fn bad_matmul(
        &mut self,
        left: &dlc_graph::Type,
        right: &dlc_graph::Type,
        span: Span,
    ) -> super::Reported {
        let title = format!("{left} @ {right} do not fit");
        let label = format!("left is {left}, right is {right}");
        let diagnostic = Diagnostic::error(Code::Operation, title, span, label).note(
            "the last dim on the left is the last but one on the right; dims before broadcast",
        );
        self.fail(diagnostic)
    }
}

/// Where an operand with leading dims `own` is read, for broadcast leading dims `batch`.
fn batch_coords(own: &[Size], batch: &Shape) -> Vec<Index> {
    let skipped = batch.len() - own.len();
    let coords = own.iter().enumerate().map(|(i, size)| match size == &batch[skipped + i] {
        true => Index::axis((skipped + i) as u32),
        false => Index::constant(0i64),
    });
    coords.collect()
}
