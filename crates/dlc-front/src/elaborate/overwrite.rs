//! Tensors with a part written over: `overwrite[axis](x, at, part)`.

use dlc_graph::Value;
use dlc_graph::op::{Gather, Iota, Overwrite};
use dlc_kernel::{DType, Size};

use super::constraint::{Comparison, Relation};
use super::intrinsic::Use;
use super::value::{Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Elab<'_> {
    /// `x` with `part` in the place of what stands along the axis from `at` on; `at` is a number, or
    /// one for each element of the first dims.
    pub(super) fn apply_overwrite(&mut self, call: &Use<'_>) -> Eval<Val> {
        let [(x, x_at), (at, at_at), (part, part_at)] = call.args.as_slice() else {
            return Err(self.wrong_use(call));
        };
        let [(axis, axis_at)] = call.statics() else { return Err(self.wrong_use(call)) };
        let x = self.tensor(x, *x_at)?;
        let part = self.tensor_as(part, self.ty(x.value).dtype, *part_at)?.value;
        let axis = self.resolve_axis(axis, Some(&Val::Tensor(x.clone())), *axis_at)?;
        let raw = self.tensor_as(at, DType::I32, *at_at)?.value;
        let start = match at {
            Val::Int(size) => {
                self.fits((&x, part), axis, size, call.span)?;
                raw
            }
            _ => {
                self.fits((&x, part), axis, &Size::ZERO, call.span)?;
                self.looked_up((&x, part), axis, raw, call.span)?
            }
        };
        let batch = self.ty(start).rank() as u32;
        let overwrite = Overwrite { axis: axis as u32, batch, in_place: false };
        let value = self.add(overwrite, &[x.value, start, part], call.span)?;
        Ok(Val::Tensor(Tensor { value, axes: x.axes }))
    }

    /// That `part` does not leave `x` if it begins at `at`.
    fn fits(
        &mut self,
        (x, part): (&Tensor, Value),
        axis: usize,
        at: &Size,
        span: Span,
    ) -> Eval<()> {
        let room = self.ty(x.value).shape[axis].clone();
        let Some(extent) = self.ty(part).shape.get(axis).cloned() else { return Ok(()) };
        for (left, right) in [(Size::ZERO, at.clone()), (at.clone() + extent.clone(), room.clone())]
        {
            let title = format!("{extent} elements from {at} on leave an axis of {room}");
            let relation = Relation { left, comparison: Comparison::Le, right };
            self.require(relation, Diagnostic::error(Code::Constraint, title, span, ""))?;
        }
        Ok(())
    }

    /// `start`, looked up among the places where `part` fits into `x`: any other fails the run.
    fn looked_up(
        &mut self,
        (x, part): (&Tensor, Value),
        axis: usize,
        start: Value,
        span: Span,
    ) -> Eval<Value> {
        let room = self.ty(x.value).shape[axis].clone();
        let extent = self.ty(part).shape.get(axis).cloned();
        let Some(extent) = extent.filter(|_| self.ty(start).dtype == DType::I32) else {
            return Ok(start);
        };
        let places = self.add(Iota { extent: room - extent + Size::ONE }, &[], span)?;
        self.add(Gather { axis: 0, batch: 0 }, &[places, start], span)
    }
}
