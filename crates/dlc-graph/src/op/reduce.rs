//! Folds over axes.

use super::shape::without_axes;
use super::source::extents;
use super::{Extent, Iota, Lowering, OpText, Operation, Reduce, Sample, Select, Site, arity};
use crate::reader::Points;
use crate::{Graph, Shape, ShapeError, Type, Value};
use dlc_kernel::{
    Access, Array, BinaryOp, DType, FoldOp, Folding, Index, Scalar, Size, fold_dtype, merge_op,
};

impl Operation for Reduce {
    fn text(&self) -> OpText {
        let axes = format!("{:?}", self.axes);
        OpText::new(fold_name(self.op), vec![("axes", axes)])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        let name = fold_name(self.op);
        arity(name, operands, 1)?;
        let x = operands[0];
        if !self.axes.is_sorted_by(|a, b| a < b) {
            return Err(ShapeError::new(format!("the axes of `{name}` do not ascend")));
        }
        if let Some(axis) = self.axes.iter().find(|&&a| a as usize >= x.rank()) {
            return Err(ShapeError::new(format!("{x} has no axis {axis}")));
        }
        if merge_op(self.op).is_some_and(|op| !op.takes(x.dtype)) {
            let error = ShapeError::new(format!("`{name}` of {x}"));
            return Err(error.help("convert it to a number first"));
        }
        Ok(Type { dtype: fold_dtype(self.op, x.dtype), shape: without_axes(&x.shape, &self.axes) })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        vec![match self.op {
            FoldOp::Sum => Some(self.spread(g, at.cotangent, at)),
            FoldOp::Prod => Some(self.prod_grad(g, at)),
            FoldOp::Max | FoldOp::Min => Some(self.extreme_grad(g, at)),
            FoldOp::ArgMax | FoldOp::ArgMin => None,
        }]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Fold(self)
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let x = operands[0];
        let shape = extents(types[1]);
        let rows = shape.iter().product();
        let mut folds = vec![Folding::new(self.op, types[0].dtype); rows];
        let mut points = Points::new(x.shape.iter().map(|&n| n as i64));
        let mut elements = x.data.iter();
        while let (Some(point), Some(&element)) = (points.advance(), elements.next()) {
            folds[self.row(point, &x.shape)].push(element);
        }
        vec![Array::new(shape, folds.iter().map(Folding::result).collect())]
    }

    fn samples() -> Vec<Sample> {
        let mut all = Vec::new();
        for &op in FoldOp::ALL {
            let of = |dtype, shape: &[i64], axes: &[u32]| {
                let reduce = Reduce { op, axes: axes.iter().copied().collect() };
                Sample::new(reduce, [Type::known(dtype, shape)])
            };
            all.push(of(DType::F32, &[2, 3], &[1]));
            all.push(of(DType::F32, &[3, 2, 2], &[0, 2]));
            all.push(of(DType::F32, &[4], &[0]));
            all.push(of(DType::F32, &[2, 2], &[]));
            all.push(of(DType::F32, &[], &[]));
            all.push(of(DType::F32, &[2, 0], &[1]));
            all.push(of(DType::F32, &[0, 2], &[1]));
            all.push(of(DType::I32, &[2, 3], &[1]).within(&[(-3.0, 3.0)]));
        }
        all
    }
}

impl Reduce {
    /// `y`, of the result's shape, at every element of the operand.
    fn spread(&self, g: &mut Graph, y: Value, at: &Site<'_>) -> Value {
        let shape = g.ty(at.operands[0]).shape.clone();
        let rank = shape.len() as u32;
        let kept = (0..rank).filter(|a| !self.axes.contains(a)).map(Index::axis);
        g.view(y, shape, Access::new(kept), at.origin)
    }

    /// To the first extreme element of each row.
    fn extreme_grad(&self, g: &mut Graph, at: &Site<'_>) -> Value {
        let (x, o) = (at.operands[0], at.origin);
        let op = if self.op == FoldOp::Max { FoldOp::ArgMax } else { FoldOp::ArgMin };
        let winner = g.push(Reduce { op, axes: self.axes.clone() }, &[x], o.clone());
        let winner = self.spread(g, winner, at);
        let dy = self.spread(g, at.cotangent, at);
        let position = self.position(g, at);
        let first = g.binary(BinaryOp::Eq, position, winner, o);
        let zero = g.splat_like(dy, 0.0, o);
        g.push(Select, &[first, dy, zero], o.clone())
    }

    /// The row-major position of every element within its row, of the operand's shape.
    fn position(&self, g: &mut Graph, at: &Site<'_>) -> Value {
        let (shape, o) = (g.ty(at.operands[0]).shape.clone(), at.origin);
        let zero = g.constant(Scalar::new(DType::I32, 0.0), o);
        let mut sum = g.splat(zero, shape.clone(), o);
        let mut stride = Size::ONE;
        for &axis in self.axes.iter().rev() {
            let extent = shape[axis as usize].clone();
            let iota = g.push(Iota { extent: extent.clone() }, &[], o.clone());
            let mut step = g.view(iota, shape.clone(), Access::new([Index::axis(axis)]), o);
            if stride != Size::ONE {
                let by = Extent { size: stride.clone(), dtype: DType::I32 };
                let by = g.push(by, &[], o.clone());
                let by = g.splat(by, shape.clone(), o);
                step = g.binary(BinaryOp::Mul, step, by, o);
            }
            let first = stride == Size::ONE;
            sum = if first { step } else { g.binary(BinaryOp::Add, sum, step, o) };
            stride = stride * extent;
        }
        sum
    }

    /// `dy` times the product of the other elements of the row, which is right at zeros too, and
    /// differentiable again.
    fn prod_grad(&self, g: &mut Graph, at: &Site<'_>) -> Value {
        let (x, o) = (at.operands[0], at.origin);
        let shape = g.ty(x).shape.clone();
        let rank = shape.len() as u32;
        let outer: Vec<u32> = (0..rank).filter(|a| !self.axes.contains(a)).collect();
        let order: Vec<u32> = outer.iter().chain(&self.axes).copied().collect();
        let row: Size = self.axes.iter().map(|&a| shape[a as usize].clone()).product();

        let sorted = g.transpose(x, &order, o);
        let sorted_shape = g.ty(sorted).shape.clone();
        let flat = Shape::from_iter([sorted_shape[..outer.len()].iter().cloned().product(), row]);
        let rows = g.reshape(sorted, flat, o);
        let others = products_of_others(g, rows, o);
        let others = g.reshape(others, sorted_shape, o);
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| back[from as usize] = to as u32);
        let others = g.transpose(others, &back, o);
        let dy = self.spread(g, at.cotangent, at);
        g.binary(BinaryOp::Mul, dy, others, o)
    }

    /// Which row the element at `point` belongs to.
    fn row(&self, point: &[i64], shape: &[usize]) -> usize {
        let kept = (0..shape.len()).filter(|&a| !self.axes.contains(&(a as u32)));
        kept.fold(0, |row, a| row * shape[a] + point[a] as usize)
    }
}

/// The name of a reduction by `op`.
pub(crate) const fn fold_name(op: FoldOp) -> &'static str {
    match op {
        FoldOp::Sum => "reduce_sum",
        FoldOp::Prod => "reduce_prod",
        FoldOp::Max => "reduce_max",
        FoldOp::Min => "reduce_min",
        FoldOp::ArgMax => "argmax",
        FoldOp::ArgMin => "argmin",
    }
}

/// For `rows[o, i]`: the product over `j != i` of `rows[o, j]`.
fn products_of_others(g: &mut Graph, rows: Value, o: &dlc_kernel::Origin) -> Value {
    let shape = g.ty(rows).shape.clone();
    let extent = shape[1].clone();
    let square = Shape::from_iter([shape[0].clone(), extent.clone(), extent.clone()]);
    let factor = g.view(rows, square.clone(), Access::new([0, 2].map(Index::axis)), o);
    let iota = g.push(Iota { extent }, &[], o.clone());
    let i = g.view(iota, square.clone(), Access::new([Index::axis(1)]), o);
    let j = g.view(iota, square, Access::new([Index::axis(2)]), o);
    let own = g.binary(BinaryOp::Eq, i, j, o);
    let one = g.splat_like(factor, 1.0, o);
    let factor = g.push(Select, &[own, one, factor], o.clone());
    g.push(Reduce { op: FoldOp::Prod, axes: [2].into_iter().collect() }, &[factor], o.clone())
}
