//! Writes over a part of a tensor whose place data decides.

use super::source::extents;
use super::{Gather, Iota, Lowering, OpText, Operation, Overwrite, PointRule, Sample, Site, arity};
use crate::reader::Points;
use crate::{Graph, Shape, ShapeError, Type, Value};
use dlc_kernel::{Access, Array, BinaryOp, DType, Expr, Index, Size};

/// What starts are.
const STARTS: &str = "a start is i32: one number, or one for each element of dims before the axis";

impl Operation for Overwrite {
    fn text(&self) -> OpText {
        let attributes = vec![
            ("axis", self.axis.to_string()),
            ("batch", self.batch.to_string()),
            ("in_place", u8::from(self.in_place).to_string()),
        ];
        OpText::new("overwrite", attributes)
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("overwrite", operands, 3)?;
        let (x, start, part) = (operands[0], operands[1], operands[2]);
        let (axis, batch) = (self.axis as usize, self.batch as usize);
        if axis < batch || axis >= x.rank() {
            let message = format!("`overwrite` along axis {axis} of {x} from {start} on");
            return Err(ShapeError::new(message).help(STARTS));
        }
        if start.dtype != DType::I32 || start.shape[..] != x.shape[..batch] {
            let error = ShapeError::new(format!("`overwrite` of {x} from {start} on"));
            return Err(error.help(STARTS));
        }
        let mut shape = x.shape.clone();
        shape[axis] = part.shape.get(axis).cloned().unwrap_or(Size::ZERO);
        if part.dtype != x.dtype || part.shape != shape {
            let message = format!("`overwrite` along axis {axis} of {x} with {part}");
            return Err(ShapeError::new(message).help("they differ along that axis only"));
        }
        Ok(x.clone())
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let (start, part, dy) = (at.operands[1], at.operands[2], at.cotangent);
        let zeros = g.splat_like(part, 0.0, at.origin);
        let around = Overwrite { in_place: false, ..self.clone() };
        let dx = g.push(around, &[dy, start, zeros], at.origin.clone());
        let extent = g.ty(part).shape[self.axis as usize].clone();
        let places: Shape = g.ty(start).shape.iter().cloned().chain([extent.clone()]).collect();
        let along = g.push(Iota { extent }, &[], at.origin.clone());
        let along = g.broadcast(along, places.clone(), at.origin);
        let from = Access::new((0..self.batch).map(Index::axis));
        let from = g.view(start, places, from, at.origin);
        let ids = g.binary(BinaryOp::Add, from, along, at.origin);
        let gather = Gather { axis: self.axis, batch: self.batch };
        let dpart = g.push(gather, &[dy, ids], at.origin.clone());
        vec![Some(dx), None, Some(dpart)]
    }

    fn lower(&self) -> Lowering<'_> {
        if self.in_place { Lowering::Overwrite(self) } else { Lowering::Point(self.rule()) }
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let (x, start, part) = (operands[0], operands[1], operands[2]);
        let (axis, batch) = (self.axis as usize, self.batch as usize);
        let shape = extents(types[3]);
        let mut data = x.data.clone();
        let mut points = Points::new(part.shape.iter().map(|&n| n as i64));
        let mut values = part.data.iter();
        while let (Some(point), Some(value)) = (points.advance(), values.next()) {
            let row = |at: usize, (&p, &n): (&i64, &usize)| at * n + p as usize;
            let from = start.data[point[..batch].iter().zip(&shape).fold(0, row)] as i64;
            let mut place = point.to_vec();
            place[axis] += from;
            if (0..shape[axis] as i64).contains(&place[axis]) {
                data[place.iter().zip(&shape).fold(0, row)] = *value;
            }
        }
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let of = |axis: u32, batch: u32, x: &[i64], extent: i64| {
            let mut part = x.to_vec();
            part[axis as usize] = extent;
            let types = [
                Type::known(DType::F32, x),
                Type::known(DType::I32, &x[..batch as usize]),
                Type::known(DType::F32, &part),
            ];
            let starts = (0.0, (x[axis as usize] - extent) as f64);
            let op = Overwrite { axis, batch, in_place: false };
            Sample::new(op, types).within(&[(-1.5, 1.5), starts, (-1.5, 1.5)])
        };
        vec![
            of(1, 0, &[2, 5, 3], 2),
            of(1, 1, &[2, 5, 3], 2),
            of(2, 1, &[2, 2, 4], 1),
            of(0, 0, &[4], 4),
            of(0, 0, &[4], 0),
            of(1, 1, &[0, 3], 2),
        ]
    }
}

impl Overwrite {
    /// The value at a point: that of the part, if the point is one of its.
    fn rule(&self) -> PointRule<'_> {
        Box::new(|points, at| {
            let (axis, batch) = (self.axis as usize, self.batch as usize);
            let own = points.operand(0, at);
            let extent = points.shape(2)[axis].clone();
            if extent == Size::ZERO {
                return own;
            }
            let start = points.operand(1, &at[..batch]);
            let place = points.index(&at[axis]);
            let exprs = points.exprs();
            let zero = exprs.constant(DType::I32, 0.0);
            let extent = match extent.as_const() {
                Some(n) => exprs.constant(DType::I32, n as f64),
                None => exprs.add(Expr::Extent(extent, DType::I32)),
            };
            let along = exprs.add(Expr::Binary(BinaryOp::Sub, place, start));
            let behind = exprs.add(Expr::Binary(BinaryOp::Le, zero, along));
            let before = exprs.add(Expr::Binary(BinaryOp::Lt, along, extent));
            let inside = exprs.add(Expr::Binary(BinaryOp::And, behind, before));
            let along = exprs.add(Expr::Select(inside, along, zero));
            let new = points.lookup(2, at, self.axis, along);
            points.exprs().add(Expr::Select(inside, new, own))
        })
    }
}
