//! Affine reads of one operand.

use super::{Lowering, OpText, Operation, Sample, Site, View, arity};
use crate::reader::{Points, Reader};
use crate::{Graph, ShapeError, Type, Value, adjoint};
use dlc_kernel::{Access, Array, Axis, DType, Guard, Index, Scalar, Size};

impl Operation for View {
    fn text(&self) -> OpText {
        let mut attributes = vec![("axes", format!("{:?}", self.axes))];
        attributes.push(("access", format!("{:?}", self.access)));
        attributes.push(("fill", self.fill.value().to_string()));
        OpText::new("view", attributes)
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("view", operands, 1)?;
        check_access("view", &self.access, operands[0], self.axes.len())?;
        if self.fill.dtype != operands[0].dtype {
            let message = format!("`view` of {} fills with {}", operands[0], self.fill.dtype);
            return Err(ShapeError::new(message));
        }
        Ok(Type { dtype: operands[0].dtype, shape: self.axes.clone() })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        vec![Some(adjoint::of_view(g, self, at))]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, at| {
            let access = self.access.compose(at, &[], points.axes());
            points.operand_or(0, &access, self.fill.value())
        }))
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let reader = Reader::new(&self.access, &operands[0].shape, &self.axes);
        let shape = super::source::extents(types[1]);
        let mut data = Vec::with_capacity(shape.iter().product());
        let (mut rows, length) = Points::rows(&self.axes);
        while let Some(start) = rows.advance() {
            let run = reader.run(start, self.axes.len().saturating_sub(1));
            let element = |k| run.at(k).map_or(self.fill.value(), |at| operands[0].data[at]);
            data.extend((0..length).map(element));
        }
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let of = |from: &[i64], to: &[i64], coords: &[Index]| {
            view_sample(from, to, Access::new(coords.iter().cloned()), 0.0)
        };
        let a = Index::axis;
        let affine =
            |terms: &[(u32, i64)], offset: i64| Index::affine(terms.iter().copied(), offset);
        let half = Index { div: 2, ..affine(&[(0, 1)], -1) };
        let below = Guard { index: affine(&[(0, 1), (1, -1)], 0), extent: Size::from(2i64) };
        let band = Access { guards: [below].into_iter().collect(), ..Access::identity(2) };
        vec![
            of(&[3], &[2, 3], &[a(1)]),
            of(&[], &[2, 2], &[]),
            of(&[2, 3], &[3, 2], &[a(1), a(0)]),
            of(&[4], &[2], &[affine(&[(0, 1)], 1)]),
            of(&[5, 2], &[2, 2], &[affine(&[(0, 2)], 1), a(1)]),
            of(&[3], &[6], &[affine(&[(0, 1)], -2)]),
            of(&[5], &[5], &[affine(&[(0, -1)], 4)]),
            of(&[2, 6], &[2, 2, 3], &[a(0), affine(&[(1, 2), (2, 1)], -1)]),
            of(&[3, 3], &[3], &[a(0), a(0)]),
            of(&[3, 4], &[4], &[Index::constant(1i64), a(0)]),
            of(&[4], &[9], &[half]),
            of(&[0, 3], &[3, 0], &[a(1), a(0)]),
            of(&[0], &[2], &[a(0)]),
            view_sample(&[3, 3], &[3, 3], band, 1.5),
            view_sample(&[2], &[4], Access::new([affine(&[(0, 1)], -1)]), f64::NEG_INFINITY),
        ]
    }
}

fn view_sample(from: &[i64], to: &[i64], access: Access, fill: f64) -> Sample {
    let axes = to.iter().map(|&n| n.into()).collect();
    let view = View { axes, access, fill: Scalar::new(DType::F32, fill) };
    Sample::new(view, [Type::known(DType::F32, from)])
}

/// Whether `access` reads a tensor of type `operand` over `axes` axes.
pub(crate) fn check_access(
    name: &str,
    access: &Access,
    operand: &Type,
    axes: usize,
) -> Result<(), ShapeError> {
    if access.coords.len() != operand.rank() {
        let coords = access.coords.len();
        return Err(ShapeError::new(format!("`{name}` reads {operand} with {coords} coordinates")));
    }
    let indices = access.coords.iter().chain(access.guards.iter().map(|g| &g.index));
    for index in indices {
        let known = index.terms.iter().all(|&(Axis(a), _)| (a as usize) < axes);
        if !known || index.div < 1 {
            return Err(ShapeError::new(format!("`{name}` over {axes} axes has a bad index")));
        }
    }
    Ok(())
}
