//! Fused operations and their parts, and the gradient before it is expanded.

use super::{Binary, Fused, FusedKind, Grad, Lowering, OpText, Operation, Part, Sample};
use super::{Reduce, Site, Source, SourceClass, Unary, arity};
use crate::{Graph, Role, ShapeError, Type, Value, eval};
use dlc_kernel::{Array, BinaryOp, DType, FoldOp, Scalar, UnaryOp};
use std::sync::Arc;

impl Operation for Fused {
    fn text(&self) -> OpText {
        OpText::new("fused", vec![("kind", self.kind.name().to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("fused", operands, self.body.sources().count())?;
        for (k, operand) in operands.iter().enumerate() {
            let Some(source) = self.body.source(&k.to_string()) else {
                return Err(ShapeError::new(format!("the body of `fused` has no input `{k}`")));
            };
            if self.body.ty(source) != *operand {
                let want = self.body.ty(source);
                return Err(ShapeError::new(format!(
                    "operand {k} of `fused` is {operand}, not {want}"
                )));
            }
        }
        match self.body.results().first() {
            Some(result) => Ok(self.body.ty(result.value).clone()),
            None => Err(ShapeError::new("the body of `fused` has no result")),
        }
    }

    /// # Panics
    /// Always: differentiation comes before fusion.
    fn grad(&self, _: &mut Graph, _: &Site<'_>) -> Vec<Option<Value>> {
        panic!("differentiation comes before fusion")
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Fused(self)
    }

    /// # Panics
    /// If an id in the body is outside; [`eval`](fn@crate::eval::eval) reports it instead.
    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        eval::body(&self.body, operands).expect("the ids of a fused body are inside")
    }

    fn samples() -> Vec<Sample> {
        let ty = Type::known(DType::F32, &[2, 3]);
        vec![
            Sample::new(
                Fused { kind: FusedKind::Map, body: Arc::new(scaled_tanh(&ty)) },
                [ty.clone(), ty.clone()],
            ),
            Sample::new(Fused { kind: FusedKind::Row, body: Arc::new(exp_sums(&ty)) }, [ty]),
        ]
    }
}

impl FusedKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [FusedKind; 3] = [FusedKind::Map, FusedKind::Row, FusedKind::Contract];

    /// The name in every dump.
    pub const fn name(self) -> &'static str {
        match self {
            FusedKind::Map => "map",
            FusedKind::Row => "row",
            FusedKind::Contract => "contract",
        }
    }
}

fn body_input(g: &mut Graph, position: usize, ty: &Type) -> Value {
    let name = position.to_string().into();
    let default = Scalar::new(ty.dtype, 0.0);
    g.push(Source { name, class: SourceClass::Input, ty: ty.clone(), default }, &[], None)
}

fn scaled_tanh(ty: &Type) -> Graph {
    let mut g = Graph::new();
    let (a, b) = (body_input(&mut g, 0, ty), body_input(&mut g, 1, ty));
    let tanh = g.push(Unary(UnaryOp::Tanh), &[a], None);
    let product = g.push(Binary(BinaryOp::Mul), &[tanh, b], None);
    g.add_result("0", product, Role::Output);
    g
}

fn exp_sums(ty: &Type) -> Graph {
    let mut g = Graph::new();
    let x = body_input(&mut g, 0, ty);
    let exp = g.push(Unary(UnaryOp::Exp), &[x], None);
    let sum = Reduce { op: FoldOp::Sum, axes: [1].into_iter().collect() };
    let sum = g.push(sum, &[exp], None);
    g.add_result("0", sum, Role::Output);
    g
}

impl Operation for Part {
    fn text(&self) -> OpText {
        OpText::new("part", vec![("index", self.0.to_string())])
    }

    /// The type of the first part: a rule sees types alone, so [`Graph::add`] supplies the others.
    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("part", operands, 1)?;
        Ok(operands[0].clone())
    }

    /// # Panics
    /// Always: differentiation comes before fusion.
    fn grad(&self, _: &mut Graph, _: &Site<'_>) -> Vec<Option<Value>> {
        panic!("differentiation comes before fusion")
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Part(self.0)
    }

    /// `operands` are all results of the fused operation.
    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        vec![operands[self.0 as usize].clone()]
    }

    fn samples() -> Vec<Sample> {
        Vec::new()
    }
}

impl Operation for Grad {
    fn text(&self) -> OpText {
        OpText::new("grad", vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("grad", operands, 2)?;
        let (y, x) = (operands[0], operands[1]);
        if y.rank() != 0 || !y.dtype.is_float() {
            let error = ShapeError::new(format!("the derivative of {y}"));
            return Err(error.help("only a float scalar has a gradient: reduce it first"));
        }
        if !x.dtype.is_float() {
            let error = ShapeError::new(format!("the derivative with respect to {x}"));
            return Err(error.help("only floats are differentiable"));
        }
        Ok(x.clone())
    }

    /// # Panics
    /// Always: [`differentiate`](crate::differentiate) expands operands first.
    fn grad(&self, _: &mut Graph, _: &Site<'_>) -> Vec<Option<Value>> {
        panic!("a gradient is expanded before its users")
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Never
    }

    /// # Panics
    /// Always: a derivative is not a function of its operands' values.
    fn eval(&self, _: &[&Array], _: &[&Type]) -> Vec<Array> {
        panic!("gradients are expanded before evaluation")
    }

    fn samples() -> Vec<Sample> {
        Vec::new()
    }
}
