//! Scalar operations on every element.

use super::{
    Binary, Cast, Elementwise, Lowering, OpText, Operation, Sample, Select, Site, StopGradient,
    Unary, arity,
};
use crate::{Graph, ShapeError, Type, Value};
use dlc_kernel::{Array, BinaryOp, DType, Expr, ExprId, UnaryOp};

impl Elementwise for Unary {
    fn element(&self, operands: &[ExprId]) -> Expr {
        Expr::Unary(self.0, operands[0])
    }
}

impl Operation for Unary {
    fn text(&self) -> OpText {
        OpText::new(self.0.name(), vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity(self.0.name(), operands, 1)?;
        if !self.0.takes(operands[0].dtype) {
            return Err(ShapeError::new(format!("`{}` of {}", self.0, operands[0])));
        }
        Ok(operands[0].clone())
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        vec![unary_grad(self.0, g, at)]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Each(self)
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        vec![operands[0].map(|x| self.0.eval(types[0].dtype, x))]
    }

    fn samples() -> Vec<Sample> {
        let mut all = Vec::new();
        for &op in UnaryOp::ALL {
            let dtype = if op == UnaryOp::Not { DType::Bool } else { DType::F32 };
            let range = match op {
                UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt => (0.5, 2.0),
                UnaryOp::Abs | UnaryOp::Sign => (-2.0, -0.5),
                UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round => (0.1, 0.4),
                UnaryOp::Not => (0.0, 1.0),
                _ => (-1.5, 1.5),
            };
            for shape in [&[2, 3][..], &[]] {
                all.push(Sample::new(Unary(op), [Type::known(dtype, shape)]).within(&[range]));
            }
        }
        let empty = Type::known(DType::F32, &[0, 3]);
        all.push(Sample::new(Unary(UnaryOp::Exp), [empty]));
        let ints = Type::known(DType::I32, &[4]);
        all.push(Sample::new(Unary(UnaryOp::Abs), [ints]).within(&[(-3.0, 3.0)]));
        all
    }
}

/// `dy * f'(x)`, expressed through `y = f(x)` where that is cheaper.
fn unary_grad(op: UnaryOp, g: &mut Graph, at: &Site<'_>) -> Option<Value> {
    let (x, y, dy) = (at.operands[0], at.result, at.cotangent);
    let o = at.origin;
    let number = |g: &mut Graph, c| g.splat_like(x, c, o);
    Some(match op {
        UnaryOp::Neg => g.unary(UnaryOp::Neg, dy, o),
        UnaryOp::Abs => {
            let sign = g.unary(UnaryOp::Sign, x, o);
            g.binary(BinaryOp::Mul, dy, sign, o)
        }
        UnaryOp::Exp => g.binary(BinaryOp::Mul, dy, y, o),
        UnaryOp::Log => g.binary(BinaryOp::Div, dy, x, o),
        UnaryOp::Sqrt => {
            let half = number(g, 0.5);
            let scaled = g.binary(BinaryOp::Mul, dy, half, o);
            g.binary(BinaryOp::Div, scaled, y, o)
        }
        UnaryOp::Rsqrt => {
            let (factor, square) = (number(g, -0.5), g.binary(BinaryOp::Mul, y, y, o));
            let cube = g.binary(BinaryOp::Mul, square, y, o);
            let slope = g.binary(BinaryOp::Mul, factor, cube, o);
            g.binary(BinaryOp::Mul, dy, slope, o)
        }
        UnaryOp::Sin => {
            let cos = g.unary(UnaryOp::Cos, x, o);
            g.binary(BinaryOp::Mul, dy, cos, o)
        }
        UnaryOp::Cos => {
            let sin = g.unary(UnaryOp::Sin, x, o);
            let product = g.binary(BinaryOp::Mul, dy, sin, o);
            g.unary(UnaryOp::Neg, product, o)
        }
        UnaryOp::Tanh => {
            let (one, square) = (number(g, 1.0), g.binary(BinaryOp::Mul, y, y, o));
            let slope = g.binary(BinaryOp::Sub, one, square, o);
            g.binary(BinaryOp::Mul, dy, slope, o)
        }
        UnaryOp::Sigmoid => {
            let one = number(g, 1.0);
            let rest = g.binary(BinaryOp::Sub, one, y, o);
            let slope = g.binary(BinaryOp::Mul, y, rest, o);
            g.binary(BinaryOp::Mul, dy, slope, o)
        }
        UnaryOp::Erf => {
            let factor = number(g, std::f64::consts::FRAC_2_SQRT_PI);
            let square = g.binary(BinaryOp::Mul, x, x, o);
            let exponent = g.unary(UnaryOp::Neg, square, o);
            let bell = g.unary(UnaryOp::Exp, exponent, o);
            let slope = g.binary(BinaryOp::Mul, factor, bell, o);
            g.binary(BinaryOp::Mul, dy, slope, o)
        }
        UnaryOp::NormalCdf => {
            // The density, exp(-x^2 / 2 - ln(2 pi) / 2).
            let half = number(g, -0.5);
            let shift = number(g, 0.5 * std::f64::consts::TAU.ln());
            let square = g.binary(BinaryOp::Mul, x, x, o);
            let exponent = g.binary(BinaryOp::Mul, square, half, o);
            let exponent = g.binary(BinaryOp::Sub, exponent, shift, o);
            let slope = g.unary(UnaryOp::Exp, exponent, o);
            g.binary(BinaryOp::Mul, dy, slope, o)
        }
        UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Not => {
            return None;
        }
    })
}

impl Elementwise for Binary {
    fn element(&self, operands: &[ExprId]) -> Expr {
        Expr::Binary(self.0, operands[0], operands[1])
    }
}

impl Operation for Binary {
    fn text(&self) -> OpText {
        OpText::new(self.0.name(), vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity(self.0.name(), operands, 2)?;
        let (a, b) = (operands[0], operands[1]);
        if a != b {
            return Err(ShapeError::new(format!("`{}` of {a} and {b}", self.0)));
        }
        if !self.0.takes(a.dtype) {
            return Err(ShapeError::new(format!("`{}` of two {}", self.0, a.dtype)));
        }
        let dtype = if self.0.is_comparison() { DType::Bool } else { a.dtype };
        Ok(Type { dtype, shape: a.shape.clone() })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let (da, db) = binary_grad(self.0, g, at);
        vec![da, db]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Each(self)
    }

    fn eval(&self, operands: &[&Array], types: &[&Type]) -> Vec<Array> {
        let dtype = types[0].dtype;
        vec![operands[0].zip(operands[1], |a, b| self.0.eval(dtype, a, b))]
    }

    fn samples() -> Vec<Sample> {
        let mut all = Vec::new();
        for &op in BinaryOp::ALL {
            let dtype = match op {
                BinaryOp::And | BinaryOp::Or => DType::Bool,
                _ => DType::F32,
            };
            let ranges = match op {
                BinaryOp::And | BinaryOp::Or => [(0.0, 1.0); 2],
                BinaryOp::Pow | BinaryOp::Div => [(0.5, 2.0), (1.0, 2.0)],
                BinaryOp::Mod | BinaryOp::FloorDiv => [(5.1, 5.9), (2.0, 2.5)],
                BinaryOp::Max | BinaryOp::Lt | BinaryOp::Eq => [(0.0, 1.0), (1.1, 2.0)],
                BinaryOp::Min | BinaryOp::Le | BinaryOp::Ne => [(1.1, 2.0), (0.0, 1.0)],
                _ => [(-1.5, 1.5); 2],
            };
            for shape in [&[2, 3][..], &[]] {
                let ty = Type::known(dtype, shape);
                all.push(Sample::new(Binary(op), [ty.clone(), ty]).within(&ranges));
            }
        }
        let empty = Type::known(DType::F32, &[3, 0]);
        all.push(Sample::new(Binary(BinaryOp::Mul), [empty.clone(), empty]));
        for op in [BinaryOp::Add, BinaryOp::Mod, BinaryOp::Max, BinaryOp::Eq, BinaryOp::Div] {
            let ints = Type::known(DType::I32, &[6]);
            all.push(Sample::new(Binary(op), [ints.clone(), ints]).within(&[(-3.0, 3.0); 2]));
        }
        all
    }
}

fn binary_grad(op: BinaryOp, g: &mut Graph, at: &Site<'_>) -> (Option<Value>, Option<Value>) {
    let (a, b, dy, o) = (at.operands[0], at.operands[1], at.cotangent, at.origin);
    match op {
        BinaryOp::Add => (Some(dy), Some(dy)),
        BinaryOp::Sub => (Some(dy), Some(g.unary(UnaryOp::Neg, dy, o))),
        BinaryOp::Mul => {
            let da = g.binary(BinaryOp::Mul, dy, b, o);
            (Some(da), Some(g.binary(BinaryOp::Mul, dy, a, o)))
        }
        BinaryOp::Div => {
            let da = g.binary(BinaryOp::Div, dy, b, o);
            let product = g.binary(BinaryOp::Mul, da, at.result, o);
            (Some(da), Some(g.unary(UnaryOp::Neg, product, o)))
        }
        BinaryOp::Mod => {
            let quotient = g.binary(BinaryOp::FloorDiv, a, b, o);
            let product = g.binary(BinaryOp::Mul, dy, quotient, o);
            (Some(dy), Some(g.unary(UnaryOp::Neg, product, o)))
        }
        BinaryOp::Pow => (Some(pow_base_grad(g, at)), Some(pow_exponent_grad(g, at))),
        BinaryOp::Max | BinaryOp::Min => {
            let (low, high) = if op == BinaryOp::Max { (b, a) } else { (a, b) };
            let first = g.binary(BinaryOp::Lt, low, high, o);
            let zero = g.splat_like(dy, 0.0, o);
            let da = g.push(Select, &[first, dy, zero], o.clone());
            (Some(da), Some(g.push(Select, &[first, zero, dy], o.clone())))
        }
        BinaryOp::FloorDiv
        | BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::And
        | BinaryOp::Or => (None, None),
    }
}

/// `dy * b * a^(b-1)`, and 0 where `b` is 0.
fn pow_base_grad(g: &mut Graph, at: &Site<'_>) -> Value {
    let (a, b, dy, o) = (at.operands[0], at.operands[1], at.cotangent, at.origin);
    match g.as_splat(b).map(|s| s.value()) {
        Some(0.0) => return g.splat_like(a, 0.0, o),
        Some(1.0) => return dy,
        Some(2.0) => {
            let twice = g.binary(BinaryOp::Add, a, a, o);
            return g.binary(BinaryOp::Mul, dy, twice, o);
        }
        _ => {}
    }
    let (zero, one) = (g.splat_like(a, 0.0, o), g.splat_like(a, 1.0, o));
    let less = g.binary(BinaryOp::Sub, b, one, o);
    let power = g.binary(BinaryOp::Pow, a, less, o);
    let slope = g.binary(BinaryOp::Mul, b, power, o);
    let product = g.binary(BinaryOp::Mul, dy, slope, o);
    if g.as_splat(b).is_some() {
        return product;
    }
    let flat = g.binary(BinaryOp::Eq, b, zero, o);
    g.push(Select, &[flat, zero, product], o.clone())
}

/// `dy * a^b * log(a)`, and 0 where `a` is 0 and `b` is not negative.
fn pow_exponent_grad(g: &mut Graph, at: &Site<'_>) -> Value {
    let (a, b, dy, o) = (at.operands[0], at.operands[1], at.cotangent, at.origin);
    let zero = g.splat_like(a, 0.0, o);
    let log = g.unary(UnaryOp::Log, a, o);
    let slope = g.binary(BinaryOp::Mul, at.result, log, o);
    let product = g.binary(BinaryOp::Mul, dy, slope, o);
    let origin = g.binary(BinaryOp::Eq, a, zero, o);
    let upward = g.binary(BinaryOp::Le, zero, b, o);
    let flat = g.binary(BinaryOp::And, origin, upward, o);
    g.push(Select, &[flat, zero, product], o.clone())
}

impl Elementwise for Select {
    fn element(&self, operands: &[ExprId]) -> Expr {
        Expr::Select(operands[0], operands[1], operands[2])
    }
}

impl Operation for Select {
    fn text(&self) -> OpText {
        OpText::new("select", vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("select", operands, 3)?;
        let (condition, a, b) = (operands[0], operands[1], operands[2]);
        if condition.dtype != DType::Bool {
            return Err(ShapeError::new(format!("a condition is a bool, not {condition}")));
        }
        if a != b || a.shape != condition.shape {
            let message = format!("`select` under {condition} between {a} and {b}");
            return Err(ShapeError::new(message));
        }
        Ok(a.clone())
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let (condition, dy, o) = (at.operands[0], at.cotangent, at.origin);
        let zero = g.splat_like(dy, 0.0, o);
        let da = g.push(Select, &[condition, dy, zero], o.clone());
        let db = g.push(Select, &[condition, zero, dy], o.clone());
        vec![None, Some(da), Some(db)]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Each(self)
    }

    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        let mut result = operands[2].clone();
        for (i, value) in result.data.iter_mut().enumerate() {
            if operands[0].data[i] != 0.0 {
                *value = operands[1].data[i];
            }
        }
        vec![result]
    }

    fn samples() -> Vec<Sample> {
        let of = |dtype, shape: &[i64]| {
            let (condition, side) = (Type::known(DType::Bool, shape), Type::known(dtype, shape));
            Sample::new(Select, [condition, side.clone(), side]).within(&[
                (0.0, 1.0),
                (-2.0, 2.0),
                (-2.0, 2.0),
            ])
        };
        vec![of(DType::F32, &[3, 4]), of(DType::F32, &[]), of(DType::I32, &[5])]
    }
}

impl Elementwise for Cast {
    fn element(&self, operands: &[ExprId]) -> Expr {
        Expr::Cast(self.0, operands[0])
    }
}

impl Operation for Cast {
    fn text(&self) -> OpText {
        OpText::new("cast", vec![("to", self.0.to_string())])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("cast", operands, 1)?;
        Ok(Type { dtype: self.0, shape: operands[0].shape.clone() })
    }

    fn grad(&self, g: &mut Graph, at: &Site<'_>) -> Vec<Option<Value>> {
        let from = g.ty(at.operands[0]).dtype;
        let smooth = from.is_float() && self.0.is_float();
        vec![smooth.then(|| g.push(Cast(from), &[at.cotangent], at.origin.clone()))]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Each(self)
    }

    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        vec![operands[0].map(|x| dlc_kernel::cast(self.0, x))]
    }

    fn samples() -> Vec<Sample> {
        let of =
            |from, to, range| Sample::new(Cast(to), [Type::known(from, &[2, 3])]).within(&[range]);
        vec![
            of(DType::F32, DType::I32, (1.1, 1.9)),
            of(DType::I32, DType::F32, (-9.0, 9.0)),
            of(DType::F32, DType::Bool, (0.5, 1.5)),
            of(DType::Bool, DType::F32, (0.0, 1.0)),
            of(DType::I32, DType::U8, (0.0, 255.0)),
        ]
    }
}

impl Operation for StopGradient {
    fn text(&self) -> OpText {
        OpText::new("stop_gradient", vec![])
    }

    fn shape(&self, operands: &[&Type]) -> Result<Type, ShapeError> {
        arity("stop_gradient", operands, 1)?;
        Ok(operands[0].clone())
    }

    fn grad(&self, _: &mut Graph, _: &Site<'_>) -> Vec<Option<Value>> {
        vec![None]
    }

    fn lower(&self) -> Lowering<'_> {
        Lowering::Point(Box::new(|points, at| points.operand(0, at)))
    }

    fn eval(&self, operands: &[&Array], _: &[&Type]) -> Vec<Array> {
        vec![operands[0].clone()]
    }

    fn samples() -> Vec<Sample> {
        let of = |shape: &[i64]| Sample::new(StopGradient, [Type::known(DType::F32, shape)]);
        vec![of(&[2, 3]), of(&[])]
    }
}
