//! Scalar operations on numbers, tensors (broadcast as in NumPy) and the cells of equations.

use std::rc::Rc;

use dlc_graph::op::{Binary, Cast, Const, Extent, Iota, Select, Unary, View};
use dlc_graph::{Shape, Type, Value};
use dlc_kernel::{Access, BinaryOp, DType, Index, Scalar, Size, UnaryOp};

use super::value::{Axes, Cell, DEFAULT_FLOAT, Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Elab<'_> {
    /// `op x` on whatever `x` is.
    pub(super) fn unary(&mut self, op: UnaryOp, x: &Val, span: Span) -> Eval<Val> {
        if let Some(folded) = self.fold_unary(op, x) {
            return Ok(folded);
        }
        match x {
            Val::Index(index) if op == UnaryOp::Neg => Ok(Val::Index(scale(index, -1))),
            Val::Cell(_) | Val::Index(_) => {
                let wanted = if needs_float(op) { Some(DEFAULT_FLOAT) } else { None };
                let (value, axes) = self.cell_data(x, wanted, span)?;
                let value = self.add(Unary(op), &[value], span)?;
                Ok(Val::Cell(Cell::Data { value, axes }))
            }
            _ => {
                let dtype = self.dtype_of(x).unwrap_or(DEFAULT_FLOAT);
                let x = self.tensor_as(x, dtype, span)?;
                let value = self.add(Unary(op), &[x.value], span)?;
                Ok(Val::Tensor(Tensor { value, axes: x.axes }))
            }
        }
    }

    /// `a op b` on whatever they are.
    pub(super) fn binary(&mut self, op: BinaryOp, a: &Val, b: &Val, span: Span) -> Eval<Val> {
        if let Some(folded) = self.fold_binary(op, a, b, span) {
            return folded;
        }
        if self.is_below_steps(op, a, b) {
            return Ok(Val::Bool(true));
        }
        if let (BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod, Val::Index(_), Val::Int(by)) =
            (op, a, b)
        {
            self.refuse_zero(&"an index", by, span)?;
        }
        if let Some(index) = affine(op, a, b) {
            return Ok(Val::Index(index));
        }
        let dtype = self.common_dtype(op, a, b, span)?;
        match (a, b) {
            (Val::Cell(_) | Val::Index(_), _) | (_, Val::Cell(_) | Val::Index(_)) => {
                let a = self.cell_data(a, Some(dtype), span)?;
                let b = self.cell_data(b, Some(dtype), span)?;
                let axes = union(&a.1, &b.1);
                let a = self.spread(a.0, &a.1, &axes, span)?;
                let b = self.spread(b.0, &b.1, &axes, span)?;
                let value = self.add(Binary(op), &[a, b], span)?;
                Ok(Val::Cell(Cell::Data { value, axes }))
            }
            _ => {
                let (a, b) = (self.tensor_as(a, dtype, span)?, self.tensor_as(b, dtype, span)?);
                let shape = self.broadcast_shape(a.value, b.value, span)?;
                let axes = match self.ty(a.value).rank() == shape.len() {
                    true => a.axes.or(b.axes.filter(|axes| axes.len() == shape.len())),
                    false => b.axes,
                };
                let a = self.broadcast_to(a.value, &shape, span)?;
                let b = self.broadcast_to(b.value, &shape, span)?;
                let value = self.add(Binary(op), &[a, b], span)?;
                Ok(Val::Tensor(Tensor { value, axes }))
            }
        }
    }

    /// `a if cond else b`, where the condition is data.
    /// Between several values and as many others, each is chosen.
    pub(super) fn select(&mut self, cond: &Val, a: &Val, b: &Val, span: Span) -> Eval<Val> {
        if let (Val::Tuple(a, names), Val::Tuple(b, _)) = (a, b)
            && a.len() == b.len()
        {
            let parts: Eval<Rc<[Val]>> =
                a.iter().zip(b.iter()).map(|(a, b)| self.select(cond, a, b, span)).collect();
            return Ok(Val::Tuple(parts?, names.clone()));
        }
        let dtype = self.common_dtype(BinaryOp::Eq, a, b, span)?;
        let cells = [cond, a, b].iter().any(|v| matches!(v, Val::Cell(_) | Val::Index(_)));
        if cells {
            let cond = self.cell_data(cond, Some(DType::Bool), span)?;
            let a = self.cell_data(a, Some(dtype), span)?;
            let b = self.cell_data(b, Some(dtype), span)?;
            let axes = union(&union(&cond.1, &a.1), &b.1);
            let cond = self.spread(cond.0, &cond.1, &axes, span)?;
            let a = self.spread(a.0, &a.1, &axes, span)?;
            let b = self.spread(b.0, &b.1, &axes, span)?;
            let value = self.add(Select, &[cond, a, b], span)?;
            return Ok(Val::Cell(Cell::Data { value, axes }));
        }
        let cond = self.tensor_as(cond, DType::Bool, span)?;
        let (a, b) = (self.tensor_as(a, dtype, span)?, self.tensor_as(b, dtype, span)?);
        let sides = self.broadcast_shape(a.value, b.value, span)?;
        let a = self.broadcast_to(a.value, &sides, span)?;
        let shape = self.broadcast_shape(cond.value, a, span)?;
        let a = self.broadcast_to(a, &shape, span)?;
        let b = self.broadcast_to(b.value, &shape, span)?;
        let cond = self.broadcast_to(cond.value, &shape, span)?;
        Ok(self.add(Select, &[cond, a, b], span)?.into())
    }

    /// Converts to another element type.
    pub(super) fn cast(&mut self, dtype: DType, x: &Val, span: Span) -> Eval<Val> {
        match x {
            Val::Float(_) | Val::Int(_) if dtype.is_float() && x.as_number().is_some() => {
                Ok(Val::Float(x.as_number().expect("checked")))
            }
            Val::Int(_) if dtype.is_int() => Ok(x.clone()),
            Val::Float(value) if dtype.is_int() => Ok(Val::int(*value as i64)),
            Val::Cell(_) | Val::Index(_) => {
                let (value, axes) = self.cell_data(x, None, span)?;
                let value = self.cast_value(dtype, value, span)?;
                Ok(Val::Cell(Cell::Data { value, axes }))
            }
            _ => {
                let from = self.dtype_of(x).unwrap_or(dtype);
                let Tensor { value, axes } = self.tensor_as(x, from, span)?;
                let value = self.cast_value(dtype, value, span)?;
                Ok(Val::Tensor(Tensor { value, axes }))
            }
        }
    }

    pub(super) fn cast_value(&mut self, dtype: DType, value: Value, span: Span) -> Eval<Value> {
        if self.ty(value).dtype == dtype {
            return Ok(value);
        }
        self.add(Cast(dtype), &[value], span)
    }

    /// The element type, if the value has one of its own: numbers and indices adapt.
    pub(super) fn dtype_of(&self, val: &Val) -> Option<DType> {
        match val {
            Val::Tensor(tensor) => Some(self.ty(tensor.value).dtype),
            Val::Cell(Cell::Read { tensor: value, .. } | Cell::Data { value, .. }) => {
                Some(self.ty(*value).dtype)
            }
            Val::Scalar(_) => Some(DEFAULT_FLOAT),
            Val::Bool(_) => Some(DType::Bool),
            _ => None,
        }
    }

    fn common_dtype(&mut self, op: BinaryOp, a: &Val, b: &Val, span: Span) -> Eval<DType> {
        match (self.dtype_of(a), self.dtype_of(b)) {
            (Some(a), Some(b)) if a == b => Ok(a),
            (Some(x), Some(y)) => {
                let title = format!("`{}` of {x} and {y}", symbol(op));
                let label = format!("left is {x}, right is {y}");
                let diagnostic = Diagnostic::error(Code::DTypeMismatch, title, span, label)
                    .help(format!("convert one side: `{x}(..)` or `{y}(..)`"));
                Err(self.fail(diagnostic))
            }
            (Some(dtype), None) | (None, Some(dtype)) => Ok(dtype),
            (None, None) => {
                let fraction = [a, b].iter().any(|v| matches!(v, Val::Float(_)));
                let indices = [a, b].iter().any(|v| matches!(v, Val::Index(_)));
                Ok(if indices && !fraction { DType::I32 } else { DEFAULT_FLOAT })
            }
        }
    }

    /// The value as a tensor of `dtype`; numbers become constants.
    pub(super) fn tensor_as(&mut self, val: &Val, dtype: DType, span: Span) -> Eval<Tensor> {
        match val {
            Val::Tensor(tensor) => Ok(tensor.clone()),
            Val::Scalar(scalar) => match self.use_scalar(scalar, span)? {
                Val::Tensor(tensor) => Ok(tensor),
                other => Err(self.not_a_tensor(&other, span)),
            },
            Val::Int(_) | Val::Float(_) | Val::Bool(_) => {
                Ok(self.number_tensor(val, dtype, span)?.into())
            }
            Val::Poison => Err(super::Reported),
            other => Err(self.not_a_tensor(other, span)),
        }
    }

    /// The value as a tensor, whatever its element type.
    pub(super) fn tensor(&mut self, val: &Val, span: Span) -> Eval<Tensor> {
        let dtype = self.dtype_of(val).unwrap_or(DEFAULT_FLOAT);
        self.tensor_as(val, dtype, span)
    }

    fn not_a_tensor(&mut self, val: &Val, span: Span) -> super::Reported {
        let title = format!("a tensor is needed, not {}", val.describe());
        let mut diagnostic = Diagnostic::error(Code::HyperType, title, span, val.describe());
        match val {
            Val::Cell(_) | Val::Index(_) => {
                diagnostic.code = Code::BadEquation;
                diagnostic = diagnostic.note(
                    "inside an index equation everything is one number at each point of its axes",
                );
            }
            Val::Func(_) => {
                diagnostic = diagnostic.help("apply the stage first: `x |> f`, or `f(x)`");
            }
            _ => {}
        }
        self.fail(diagnostic)
    }

    /// A known number as a rank-0 tensor.
    pub(super) fn number_tensor(&mut self, val: &Val, dtype: DType, span: Span) -> Eval<Value> {
        if let Val::Int(size) = val
            && size.as_const().is_none()
        {
            let exact = matches!(dtype, DType::F32 | DType::I32);
            let extent =
                Extent { size: size.clone(), dtype: if exact { dtype } else { DType::I32 } };
            let value = self.add(extent, &[], span)?;
            return self.cast_value(dtype, value, span);
        }
        let number = match val {
            Val::Bool(value) => f64::from(u8::from(*value)),
            _ => val.as_number().expect("the caller passes a number"),
        };
        let fits = match dtype {
            DType::Bool => matches!(val, Val::Bool(_)),
            _ if dtype.is_int() => number.fract() == 0.0 && number.abs() <= i32::MAX.into(),
            _ => !matches!(val, Val::Bool(_)),
        };
        if !fits {
            let title = format!("{number} is not a value of {dtype}");
            let label = format!("the other side is {dtype}");
            let diagnostic = Diagnostic::error(Code::DTypeMismatch, title, span, label)
                .help("convert the tensor: `f32(x)`");
            return Err(self.fail(diagnostic));
        }
        self.add(Const(Scalar::new(dtype, number)), &[], span)
    }

    /// The shape that both broadcast to.
    pub(super) fn broadcast_shape(&mut self, a: Value, b: Value, span: Span) -> Eval<Shape> {
        let (a, b) = (self.ty(a).clone(), self.ty(b).clone());
        match broadcast(&a.shape, &b.shape) {
            Some(shape) => Ok(shape),
            None => Err(self.no_broadcast(&a, &b, span)),
        }
    }

    fn no_broadcast(&mut self, a: &Type, b: &Type, span: Span) -> super::Reported {
        let title = format!("{a} and {b} do not broadcast");
        let label = format!("left is {a}, right is {b}");
        let diagnostic = Diagnostic::error(Code::Broadcast, title, span, label)
            .note("shapes are aligned at the last dim; dims fit if they are equal or one is 1");
        self.fail(diagnostic)
    }

    /// Repeats a tensor along new and size-1 dims.
    pub(super) fn broadcast_to(&mut self, x: Value, shape: &Shape, span: Span) -> Eval<Value> {
        let own = self.ty(x).shape.clone();
        if &own == shape {
            return Ok(x);
        }
        let lead = shape.len() - own.len();
        let coords = own.iter().enumerate().map(|(i, extent)| {
            let stretched = extent != &shape[lead + i];
            if stretched { Index::constant(0i64) } else { Index::axis((lead + i) as u32) }
        });
        self.view(x, shape.clone(), Access::new(coords), 0.0, span)
    }

    /// An affine read.
    pub(super) fn view(
        &mut self,
        x: Value,
        axes: Shape,
        access: Access,
        fill: f64,
        span: Span,
    ) -> Eval<Value> {
        let ty = self.ty(x);
        if access.is_identity() && ty.shape == axes {
            return Ok(x);
        }
        let fill = Scalar::new(ty.dtype, fill);
        self.add(View { axes, access, fill }, &[x], span)
    }

    /// A constant of shape `shape`.
    pub(super) fn full(
        &mut self,
        val: &Val,
        dtype: DType,
        shape: &Shape,
        span: Span,
    ) -> Eval<Value> {
        let number = self.tensor_as(val, dtype, span)?;
        self.broadcast_to(number.value, shape, span)
    }

    /// The positions along axis `axis`, over that axis.
    pub(super) fn iota(&mut self, axis: u32, span: Span) -> Eval<Value> {
        let extent = self.axes[axis as usize].extent.clone();
        self.add(Iota { extent }, &[], span)
    }

    /// A number of an equation as a tensor over its axes. Numbers and indices become `wanted`.
    pub(super) fn cell_data(
        &mut self,
        val: &Val,
        wanted: Option<DType>,
        span: Span,
    ) -> Eval<(Value, Axes)> {
        match val {
            Val::Cell(Cell::Data { value, axes }) => Ok((*value, axes.clone())),
            Val::Cell(Cell::Read { tensor, coords, guards }) => {
                self.read_cell(*tensor, coords, guards, 0.0, span)
            }
            Val::Index(index) => self.index_data(index, wanted.unwrap_or(DType::I32), span),
            other => {
                let dtype = self.dtype_of(other).or(wanted).unwrap_or(DEFAULT_FLOAT);
                let tensor = self.tensor_as(other, dtype, span)?;
                let rank = self.ty(tensor.value).rank();
                if rank > 0 {
                    return Err(self.unsubscripted(tensor.value, span));
                }
                Ok((tensor.value, Axes::new()))
            }
        }
    }

    fn unsubscripted(&mut self, value: Value, span: Span) -> super::Reported {
        let ty = self.ty(value).clone();
        let title = format!("a tensor {ty} without subscripts in an index equation");
        let count = ty.rank();
        let diagnostic = Diagnostic::error(Code::BadEquation, title, span, format!("this is {ty}"))
            .help(format!("give it {count} subscript{}", if count == 1 { "" } else { "s" }));
        self.fail(diagnostic)
    }

    /// An affine combination of indices as data; a quotient is rounded down.
    fn index_data(&mut self, index: &Index, dtype: DType, span: Span) -> Eval<(Value, Axes)> {
        let offset = self.number_tensor(&Val::Int(index.offset.clone()), DType::I32, span)?;
        let mut sum = Val::Cell(Cell::Data { value: offset, axes: Axes::new() });
        let mut first = index.offset == Size::ZERO;
        for &(axis, coef) in &index.terms {
            let value = self.iota(axis.0, span)?;
            let mut term = Val::Cell(Cell::Data { value, axes: [axis.0].into_iter().collect() });
            if coef != 1 {
                term = self.binary(BinaryOp::Mul, &term, &Val::int(coef), span)?;
            }
            sum = match std::mem::take(&mut first) {
                true => term,
                false => self.binary(BinaryOp::Add, &sum, &term, span)?,
            };
        }
        if index.div != 1 {
            let by = self.number_tensor(&Val::int(index.div), DType::I32, span)?;
            let by = Val::Cell(Cell::Data { value: by, axes: Axes::new() });
            sum = self.binary(BinaryOp::FloorDiv, &sum, &by, span)?;
        }
        let (value, axes) = self.cell_data(&sum, None, span)?;
        Ok((self.cast_value(dtype, value, span)?, axes))
    }

    /// The same data over more axes. Both lists ascend.
    pub(super) fn spread(
        &mut self,
        value: Value,
        from: &Axes,
        to: &Axes,
        span: Span,
    ) -> Eval<Value> {
        if from == to {
            return Ok(value);
        }
        let coords = from.iter().map(|axis| {
            let at = to.iter().position(|t| t == axis).expect("axes are only added");
            Index::axis(at as u32)
        });
        let access = Access::new(coords.collect::<Vec<_>>());
        let shape = self.extents(to);
        self.view(value, shape, access, 0.0, span)
    }

    /// The extents of axes of equations.
    pub(super) fn extents(&self, axes: &[u32]) -> Shape {
        axes.iter().map(|&axis| self.axes[axis as usize].extent.clone()).collect()
    }
}

/// The union of ascending lists.
pub(super) fn union(a: &[u32], b: &[u32]) -> Axes {
    let mut all: Axes = a.iter().chain(b).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// NumPy's rule.
pub(super) fn broadcast(a: &[Size], b: &[Size]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Size], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(at) => shape[at].clone(),
        None => Size::ONE,
    };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y || y == Size::ONE => Some(x),
            (x, y) if x == Size::ONE => Some(y),
            _ => None,
        })
        .collect()
}

/// `a op b` if that is affine in indices. Of a quotient only what is also that of the numbers rounded
/// down: `h/2 + 1` is `(h + 2)/2`, but `h/2 + w/2` is not `(h + w)/2`.
fn affine(op: BinaryOp, a: &Val, b: &Val) -> Option<Index> {
    match (op, a, b) {
        (BinaryOp::Add, Val::Index(a), Val::Index(b)) => Some(add(whole(a)?, whole(b)?)),
        (BinaryOp::Sub, Val::Index(a), Val::Index(b)) => {
            Some(add(whole(a)?, &scale(whole(b)?, -1)))
        }
        (BinaryOp::Add, Val::Index(i), Val::Int(n))
        | (BinaryOp::Add, Val::Int(n), Val::Index(i)) => Some(add(i, &Index::constant(n.clone()))),
        (BinaryOp::Sub, Val::Index(i), Val::Int(n)) => {
            Some(add(i, &Index::constant(Size::ZERO - n.clone())))
        }
        (BinaryOp::Sub, Val::Int(n), Val::Index(i)) => {
            Some(add(&scale(whole(i)?, -1), &Index::constant(n.clone())))
        }
        (BinaryOp::Mul, Val::Index(i), Val::Int(n))
        | (BinaryOp::Mul, Val::Int(n), Val::Index(i)) => Some(scale(whole(i)?, n.as_const()?)),
        (BinaryOp::Div, Val::Index(i), Val::Int(n)) => {
            let by = n.as_const().filter(|&by| by >= 1)?;
            Some(Index { div: by, ..Index::axis(0) }.compose(std::slice::from_ref(i)))
        }
        _ => None,
    }
}

fn whole(index: &Index) -> Option<&Index> {
    (index.div == 1).then_some(index)
}

fn add(a: &Index, b: &Index) -> Index {
    Index::affine([(0, 1), (1, 1)], 0i64).compose(&[a.clone(), b.clone()])
}

fn scale(index: &Index, factor: i64) -> Index {
    Index::affine([(0, factor)], 0i64).compose(std::slice::from_ref(index))
}

/// The operator as the language writes it.
fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::FloorDiv => "//",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        other => other.name(),
    }
}

fn needs_float(op: UnaryOp) -> bool {
    !matches!(op, UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign | UnaryOp::Not)
}
