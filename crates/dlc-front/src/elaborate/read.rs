//! Reading tensors in index equations.

use dlc_graph::Value;
use dlc_kernel::{Access, DType, Guard, Index, Size};
use smallvec::SmallVec;

use super::pointwise::union;
use super::value::{Axes, Cell, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::Subscript;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// One coordinate of a read.
#[derive(Clone, Debug)]
pub(super) enum Coord {
    /// An affine function of axes.
    Affine(Index),
    /// Data: `I32` over some axes.
    Data(Value, Axes),
}

impl<'u> Elab<'u> {
    /// `x[n, s*h + r, ids[n]]` in an equation.
    pub(super) fn read(
        &mut self,
        tensor: Value,
        subscripts: &'u [Subscript],
        span: Span,
    ) -> Eval<Val> {
        let ty = self.ty(tensor).clone();
        if subscripts.len() != ty.rank() {
            let title = format!("{} subscripts for {ty}", subscripts.len());
            let label = format!("this is {ty}");
            let diagnostic = Diagnostic::error(Code::SubscriptCount, title, span, label)
                .note("in an index equation a tensor has one subscript for each dim");
            return Err(self.fail(diagnostic));
        }
        let mut coords = Vec::new();
        for (subscript, extent) in subscripts.iter().zip(&ty.shape) {
            coords.push(self.coordinate(subscript, extent)?);
        }
        self.read_at(tensor, coords, span)
    }

    /// Reads at coordinates of any kind.
    pub(super) fn read_at(&mut self, tensor: Value, coords: Vec<Coord>, span: Span) -> Eval<Val> {
        if coords.iter().any(|c| matches!(c, Coord::Data(..))) {
            return self.gather(tensor, coords, span);
        }
        let coords = coords.into_iter().map(|c| match c {
            Coord::Affine(index) => index,
            Coord::Data(..) => unreachable!("checked above"),
        });
        Ok(Val::Cell(Cell::Read { tensor, coords: coords.collect(), guards: Vec::new() }))
    }

    fn coordinate(&mut self, subscript: &'u Subscript, extent: &Size) -> Eval<Coord> {
        let id = match subscript {
            Subscript::Expr(id) => *id,
            Subscript::Slice { span, .. } | Subscript::Rest { span, .. } => {
                let title = "a slice in an index equation";
                let diagnostic = Diagnostic::error(Code::BadEquation, title, *span, "")
                    .help("give the dim an index, or slice in a statement before the equation");
                return Err(self.fail(diagnostic));
            }
        };
        let span = self.ast().span(id);
        match self.eval(id)? {
            Val::Index(index) => Ok(Coord::Affine(index)),
            Val::Int(size) => {
                Ok(Coord::Affine(Index::constant(self.position(&size, extent, span)?)))
            }
            value @ (Val::Cell(_) | Val::Tensor(_)) => {
                let (ids, axes) = self.cell_data(&value, None, span)?;
                self.check_ids(ids, span)?;
                Ok(Coord::Data(ids, axes))
            }
            other => {
                let title = format!("a subscript cannot be {}", other.describe());
                Err(self.fail(Diagnostic::error(Code::BadEquation, title, span, "")))
            }
        }
    }

    /// Subscripts by data are whole numbers.
    pub(super) fn check_ids(&mut self, ids: Value, span: Span) -> Eval<()> {
        let dtype = self.ty(ids).dtype;
        if dtype == DType::I32 {
            return Ok(());
        }
        let title = format!("a subscript is {dtype}, not i32");
        let diagnostic =
            Diagnostic::error(Code::DTypeMismatch, title, span, format!("this is {dtype}"))
                .help("convert it: `i32(..)`");
        Err(self.fail(diagnostic))
    }

    /// A fixed position in a dim, negative from the end.
    pub(super) fn position(&mut self, at: &Size, extent: &Size, span: Span) -> Eval<Size> {
        let negative = at.as_const().is_some_and(|v| v < 0);
        let position = if negative { extent.clone() + at.clone() } else { at.clone() };
        let outside = match (position.as_const(), extent.as_const()) {
            (Some(p), Some(n)) => p < 0 || p >= n,
            (Some(p), None) => p < 0,
            _ => false,
        };
        if outside {
            let title = format!("position {at} in a dim of {extent}");
            return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, span, "")));
        }
        Ok(position)
    }

    /// An affine read as a tensor over the axes it uses; `fill` outside. Inside a reduction the
    /// conditions for being inside are noted, so that the term can be skipped.
    pub(super) fn read_cell(
        &mut self,
        tensor: Value,
        coords: &[Index],
        guards: &[Guard],
        fill: f64,
        span: Span,
    ) -> Eval<(Value, Axes)> {
        let bounds = self.bounds(tensor, coords);
        if let Some(noted) = self.guards.last_mut() {
            noted.extend(bounds);
            noted.extend(guards.iter().cloned());
        }
        let axes = axes_of(coords, guards);
        let value = self.view_cell(tensor, coords, guards, &axes, fill, span)?;
        Ok((value, axes))
    }

    /// A read as a tensor over `axes`, which ascend and contain all that it uses.
    pub(super) fn view_cell(
        &mut self,
        tensor: Value,
        coords: &[Index],
        guards: &[Guard],
        axes: &Axes,
        fill: f64,
        span: Span,
    ) -> Eval<Value> {
        let access = place(coords, guards, axes);
        let shape = self.extents(axes);
        self.view(tensor, shape, access, fill, span)
    }

    /// The conditions under which a read is inside its tensor, but for those that always hold.
    pub(super) fn bounds(&self, tensor: Value, coords: &[Index]) -> Vec<Guard> {
        let extents: Vec<Size> = self.axes.iter().map(|axis| axis.extent.clone()).collect();
        let shape = &self.ty(tensor).shape;
        let outside = coords.iter().zip(shape).filter(|(c, n)| !c.is_inside(&extents, n));
        outside.map(|(c, n)| Guard { index: c.clone(), extent: n.clone() }).collect()
    }
}

/// The axes that coordinates and guards use, ascending.
pub(super) fn axes_of(coords: &[Index], guards: &[Guard]) -> Axes {
    let indices = coords.iter().chain(guards.iter().map(|g| &g.index));
    let used: SmallVec<[u32; 4]> =
        indices.flat_map(|index| index.terms.iter().map(|t| t.0.0)).collect();
    union(&used, &[])
}

/// An access over `axes`: their numbers become positions.
pub(super) fn place(coords: &[Index], guards: &[Guard], axes: &Axes) -> Access {
    let number = |axis: dlc_kernel::Axis| {
        let at = axes.iter().position(|a| *a == axis.0).expect("all axes are listed");
        dlc_kernel::Axis(at as u32)
    };
    let mut access = Access::new(coords.iter().map(|c| c.renumber(&number)));
    let mut placed: Vec<Guard> = guards
        .iter()
        .map(|g| Guard { index: g.index.renumber(&number), extent: g.extent.clone() })
        .collect();
    placed.sort();
    placed.dedup();
    access.guards.extend(placed);
    access
}
