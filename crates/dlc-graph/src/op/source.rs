//! Operations without differentiable operands: sources, constants, sizes, positions, randomness.

use super::{
    Const, Extent, Iota, Lowering, OpText, Operation, Points, Random, Sample, Site, Source,
    SourceClass,
};
use super::{arity, no_operand_cotangents};
use crate::{Graph, ShapeError, Type, Value};
use dlc_kernel::{Array, BinaryOp, DType, Expr, ExprId, Index, Scalar, Size, philox};

impl Operation for Source {
    fn text(&self) -> OpText {
        OpText::new(self.class.name(), vec![("name", format!("{:?}", &*self.name))])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity(self.class.name(), operands, 0)?;
        if self.class == SourceClass::Scalar && self.ty.rank() != 0 {
            let message = format!("`{}` changes between calls, so it is a scalar", self.name);
            return Err(ShapeError::new(message).help(format!("its type is {}", self.ty)));
        }
        Ok(self.ty.clone())
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Source
    }

    fn eval(&self, _: &[&Array], types: &[&Type]) -> Vec<Array> {
        vec![full(types, self.default.value())]
    }

    fn samples() -> Vec<Sample> {
        let source = |class, ty: Type| {
            let default = Scalar::new(ty.dtype, 2.0);
            Sample::new(Source { name: "conv1.weight".into(), class, ty, default }, [])
        };
        vec![
            source(SourceClass::Param, Type::known(DType::F32, &[2, 3])),
            source(SourceClass::Input, Type::known(DType::I32, &[0])),
            source(SourceClass::State, Type::known(DType::F32, &[])),
            source(SourceClass::Scalar, Type::known(DType::F32, &[])),
        ]
    }
}

impl Operation for Const {
    fn text(&self) -> OpText {
        OpText::new("const", vec![("value", self.0.value().to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("const", operands, 0)?;
        Ok(Type::scalar(self.0.dtype))
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        let scalar = self.0;
        Lowering::Point(Box::new(move |points, _| points.exprs().add(Expr::Const(scalar))))
    }

    fn eval(&self, _: &[&Array], types: &[&Type]) -> Vec<Array> {
        vec![full(types, self.0.value())]
    }

    fn samples() -> Vec<Sample> {
        let of = |dtype, value| Sample::new(Const(Scalar::new(dtype, value)), []);
        vec![
            of(DType::F32, 1.5),
            of(DType::F32, f64::NEG_INFINITY),
            of(DType::F32, -0.0),
            of(DType::I32, -3.0),
            of(DType::Bool, 1.0),
        ]
    }
}

impl Operation for Extent {
    fn text(&self) -> OpText {
        OpText::new("extent", vec![("size", self.size.to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("extent", operands, 0)?;
        match self.dtype {
            DType::F32 | DType::I32 => Ok(Type::scalar(self.dtype)),
            other => Err(ShapeError::new(format!("a size is an i32 or an f32, not {other}"))),
        }
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, _| {
            points.exprs().add(Expr::Extent(self.size.clone(), self.dtype))
        }))
    }

    fn eval(&self, _: &[&Array], types: &[&Type]) -> Vec<Array> {
        vec![full(types, known(&self.size) as f64)]
    }

    fn samples() -> Vec<Sample> {
        let of = |dtype, size: i64| Sample::new(Extent { size: size.into(), dtype }, []);
        vec![of(DType::I32, 7), of(DType::F32, 0)]
    }
}

impl Operation for Iota {
    fn text(&self) -> OpText {
        OpText::new("iota", vec![("extent", self.extent.to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("iota", operands, 0)?;
        Ok(Type::new(DType::I32, [self.extent.clone()]))
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, at| points.index(&at[0])))
    }

    fn eval(&self, _: &[&Array], types: &[&Type]) -> Vec<Array> {
        let shape = extents(types[0]);
        let data = (0..shape[0]).map(|i| i as f64).collect();
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        [5i64, 1, 0].map(|n| Sample::new(Iota { extent: n.into() }, [])).into()
    }
}

impl Operation for Random {
    fn text(&self) -> OpText {
        OpText::new("random", vec![("site", format!("{:#x}", self.site))])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("random", operands, 2)?;
        if operands.iter().any(|t| **t != Type::scalar(DType::I32)) {
            return Err(ShapeError::new("seed and step of `random` are i32 scalars"));
        }
        Ok(Type { dtype: DType::F32, shape: self.shape.clone() })
    }

    fn grad(&self, _: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        no_operand_cotangents(at)
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, at| {
            let (seed, step) = (points.operand(0, &[]), points.operand(1, &[]));
            let element = position(points, at, &self.shape);
            points.exprs().add(Expr::Random { site: self.site, seed, step, element })
        }))
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let shape = extents(types[2]);
        let (seed, step) = (operands[0].data[0] as i32, operands[1].data[0] as i32);
        let uniform = |i| f64::from(philox::uniform(seed, step, self.site, i));
        let data = (0..shape.iter().product::<usize>()).map(|i| uniform(i as i32)).collect();
        vec![Array::new(shape, data)]
    }

    fn samples() -> Vec<Sample> {
        let scalar = || Type::scalar(DType::I32);
        let of = |site, shape: &[i64]| {
            let shape = shape.iter().map(|&n| n.into()).collect();
            Sample::new(Random { site, shape }, [scalar(), scalar()]).within(&[(0.0, 9.0); 2])
        };
        vec![of(7, &[2, 3]), of(u64::MAX, &[]), of(7, &[0, 2])]
    }
}

/// The row-major position of `at` in a tensor of shape `shape`, `I32`.
fn position(points: &mut dyn Points, at: &[Index], shape: &[Size]) -> ExprId {
    let mut sum = points.exprs().constant(DType::I32, 0.0);
    for (index, extent) in at.iter().zip(shape) {
        let coordinate = points.index(index);
        let exprs = points.exprs();
        let extent = match extent.as_const() {
            Some(n) => exprs.constant(DType::I32, n as f64),
            None => exprs.add(Expr::Extent(extent.clone(), DType::I32)),
        };
        let scaled = exprs.add(Expr::Binary(BinaryOp::Mul, sum, extent));
        sum = exprs.add(Expr::Binary(BinaryOp::Add, scaled, coordinate));
    }
    sum
}

/// A size as a number.
pub(crate) fn known(size: &Size) -> i64 {
    size.as_const().expect("sizes are bound before evaluation")
}

/// A shape as numbers.
pub(crate) fn extents(ty: &Type) -> Vec<usize> {
    ty.shape.iter().map(|s| known(s) as usize).collect()
}

/// A tensor of the last of `types`, with `value` everywhere.
fn full(types: &[&Type], value: f64) -> Array {
    let shape = extents(types[types.len() - 1]);
    let count = shape.iter().product();
    Array::new(shape, vec![value; count])
}
