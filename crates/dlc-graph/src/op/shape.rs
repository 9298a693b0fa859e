//! The same elements in another arrangement: reshape and concatenation.

use super::source::extents;
use super::{Concat, Lowering, OpText, Operation, Reshape, Sample, Site, arity};
use crate::{Graph, Shape, ShapeError, Type, Value};
use dlc_kernel::{Array, DType, Size};

impl Operation for Reshape {
    fn text(&self) -> OpText {
        OpText::new("reshape", vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("reshape", operands, 1)?;
        let result = Type { dtype: operands[0].dtype, shape: self.shape.clone() };
        let (have, want) = (operands[0].elements(), result.elements());
        if have != want {
            let message = format!("{} has {have} elements, {result} has {want}", operands[0]);
            return Err(ShapeError::new(message));
        }
        Ok(result)
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let shape = g.ty(at.operands[0]).shape.clone();
        vec![Some(g.reshape(at.cotangent, shape, at.origin))]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Reshape
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        vec![Array::new(extents(types[1]), operands[0].data.clone())]
    }

    fn samples() -> Vec<Sample> {
        let of = |from: &[i64], to: &[i64]| {
            let shape = to.iter().map(|&n| n.into()).collect();
            Sample::new(Reshape { shape }, [Type::known(DType::F32, from)])
        };
        vec![
            of(&[2, 6], &[3, 4]),
            of(&[1, 1], &[]),
            of(&[], &[1]),
            of(&[0, 3], &[5, 0, 2]),
            of(&[2, 3, 4], &[2, 12]),
        ]
    }
}

impl Operation for Concat {
    fn text(&self) -> OpText {
        OpText::new("concat", vec![("axis", self.axis.to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        let axis = self.axis as usize;
        let Some(first) = operands.first() else {
            return Err(ShapeError::new("`concat` of nothing"));
        };
        if axis >= first.rank() {
            return Err(ShapeError::new(format!("{first} has no axis {axis}")));
        }
        let without = |t: &Type| {
            let mut shape = t.shape.clone();
            shape.remove(axis);
            shape
        };
        for other in &operands[1..] {
            let fits = other.dtype == first.dtype
                && other.rank() == first.rank()
                && without(other) == without(first);
            if !fits {
                let message = format!("`concat` along axis {axis} of {first} and {other}");
                return Err(ShapeError::new(message));
            }
        }
        let mut shape = first.shape.clone();
        shape[axis] = operands.iter().fold(Size::ZERO, |n, t| n + t.shape[axis].clone());
        Ok(Type { dtype: first.dtype, shape })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let axis = self.axis as usize;
        let mut start = Size::ZERO;
        let mut parts = Vec::with_capacity(at.operands.len());
        for &operand in at.operands {
            let extent = g.ty(operand).shape[axis].clone();
            let part = g.slice(at.cotangent, axis, start.clone(), extent.clone(), at.origin);
            parts.push(Some(part));
            start = start + extent;
        }
        parts
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Concat { axis: self.axis }
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let (axis, result) = (self.axis as usize, extents(types[operands.len()]));
        let outer: usize = result[..axis].iter().product();
        let mut data = Vec::with_capacity(result.iter().product());
        for row in 0..outer {
            for operand in operands {
                let run: usize = operand.shape[axis..].iter().product();
                data.extend_from_slice(&operand.data[row * run..(row + 1) * run]);
            }
        }
        vec![Array::new(result, data)]
    }

    fn samples() -> Vec<Sample> {
        let of = |axis, shapes: &[&[i64]]| {
            let types: Vec<Type> = shapes.iter().map(|s| Type::known(DType::F32, s)).collect();
            Sample::new(Concat { axis }, types)
        };
        vec![
            of(0, &[&[2, 3], &[1, 3]]),
            of(1, &[&[2, 3], &[2, 0], &[2, 2]]),
            of(0, &[&[4]]),
            of(1, &[&[0, 2], &[0, 1]]),
        ]
    }
}

/// The extents of `shape` but those at `axes`, which ascend.
pub(crate) fn without_axes(shape: &[Size], axes: &[u32]) -> Shape {
    let kept = shape.iter().enumerate().filter(|(i, _)| !axes.contains(&(*i as u32)));
    kept.map(|(_, s)| s.clone()).collect()
}
