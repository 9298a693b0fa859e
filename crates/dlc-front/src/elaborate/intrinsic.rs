//! What the primitive functions do.

use dlc_graph::Shape;
use dlc_graph::op::{Grad, Iota, Reduce, StopGradient};
use dlc_kernel::{BinaryOp, DType, FoldOp, Size};

use super::builtin::{Builtin, Kind};
use super::value::{Args, DEFAULT_FLOAT, Tensor, Val};
use super::{Elab, Eval};
use crate::Code;
use crate::ast::ReduceOp;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A use of a primitive function.
pub(super) struct Use<'a> {
    builtin: &'static Builtin,
    statics: &'a [(Val, Span)],
    named: &'a Args,
    pub args: Vec<(Val, Span)>,
    pub span: Span,
}

impl<'u> Elab<'u> {
    pub(super) fn apply_builtin(
        &mut self,
        builtin: &'static Builtin,
        args: &Args,
        piped: Option<(Val, Span)>,
        span: Span,
    ) -> Eval<Val> {
        let positional = piped.into_iter().chain(args.positional.iter().cloned()).collect();
        let call = Use { builtin, statics: &args.statics, named: args, args: positional, span };
        self.check_named(&call)?;
        let wanted = argument_counts(builtin.kind);
        if !wanted.contains(&call.args.len()) {
            return Err(self.wrong_use(&call));
        }
        if call.args.iter().any(|(v, _)| matches!(v, Val::Poison)) {
            return Err(super::Reported);
        }
        match builtin.kind {
            Kind::Unary(op) => self.unary(op, &call.args[0].0, span),
            Kind::Binary(op) => self.binary(op, &call.args[0].0, &call.args[1].0, span),
            Kind::Cast(dtype) => self.cast(dtype, &call.args[0].0, span),
            Kind::Fold(op) => self.apply_fold(op, &call),
            Kind::Position(op) => self.apply_position(op, &call),
            Kind::Zeros => self.apply_fill(0, &call),
            Kind::Ones => self.apply_fill(1, &call),
            Kind::Full => self.apply_full(&call),
            Kind::ZerosLike => self.apply_fill_like(0, &call),
            Kind::OnesLike => self.apply_fill_like(1, &call),
            Kind::Iota => self.apply_iota(&call),
            Kind::Random => {
                let shape = self.shape_argument(&call)?;
                Ok(self.random(shape, span)?.into())
            }
            Kind::RandomLike => {
                let x = self.tensor(&call.args[0].0, call.args[0].1)?;
                let shape = self.ty(x.value).shape.clone();
                Ok(self.random(shape, span)?.into())
            }
            Kind::Grad => self.apply_grad(&call),
            Kind::StopGradient => self.apply_stop(&call),
            Kind::CeilDiv => self.apply_ceil_div(&call),
            Kind::Shape | Kind::Rank => self.apply_shape(&call),
            Kind::Len => self.apply_len(&call),
            Kind::Spread => self.apply_spread(&call),
            Kind::Named => self.apply_named(&call),
            Kind::As => self.apply_as(&call),
            Kind::Split => self.apply_split(&call),
            Kind::Concat => self.apply_concat(&call),
            Kind::Overwrite => self.apply_overwrite(&call),
            Kind::Transpose => self.apply_transpose(&call),
            Kind::Permute => self.apply_permute(&call),
            Kind::Unsqueeze => self.apply_unsqueeze(&call),
        }
    }

    fn check_named(&mut self, call: &Use<'_>) -> Eval<()> {
        let allowed: &[&str] = match call.builtin.kind {
            Kind::Grad => &["wrt"],
            _ => &[],
        };
        match call.named.named.iter().find(|(name, _, _)| !allowed.contains(&&*name.text)) {
            None => Ok(()),
            Some((name, _, _)) => {
                let title = format!("`{}` has no argument `{}`", call.builtin.name, name.text);
                let diagnostic = Diagnostic::error(Code::Arguments, title, name.span, "")
                    .note(format!("its use: `{}`", call.builtin.usage));
                Err(self.fail(diagnostic))
            }
        }
    }

    /// The error for arguments that do not fit.
    pub(super) fn wrong_use(&mut self, call: &Use<'_>) -> super::Reported {
        let title = format!("`{}` is not used like this", call.builtin.name);
        let diagnostic = Diagnostic::error(Code::Arguments, title, call.span, "")
            .note(format!("its use: `{}`", call.builtin.usage));
        self.fail(diagnostic)
    }

    fn apply_fold(&mut self, op: ReduceOp, call: &Use<'_>) -> Eval<Val> {
        let (x, at) = &call.args[0];
        if let [_, (y, _)] = call.args.as_slice() {
            return match op {
                ReduceOp::Max => self.binary(BinaryOp::Max, x, y, call.span),
                ReduceOp::Min => self.binary(BinaryOp::Min, x, y, call.span),
                _ => Err(self.wrong_use(call)),
            };
        }
        if let Val::List(items) = x {
            return self.fold_list(op, items, call.span);
        }
        let x = self.tensor(x, *at)?;
        let axes = match call.statics.is_empty() {
            true => (0..self.ty(x.value).rank()).collect(),
            false => self.static_axes(call, &x)?,
        };
        self.fold_tensor(op, &x, &axes, call.span)
    }

    pub(super) fn fold_list(&mut self, op: ReduceOp, items: &[Val], span: Span) -> Eval<Val> {
        let (start, op) = match op {
            ReduceOp::Sum | ReduceOp::Mean => (Val::int(0), BinaryOp::Add),
            ReduceOp::Prod => (Val::int(1), BinaryOp::Mul),
            ReduceOp::Max => (items.first().cloned().unwrap_or(Val::int(0)), BinaryOp::Max),
            ReduceOp::Min => (items.first().cloned().unwrap_or(Val::int(0)), BinaryOp::Min),
        };
        items.iter().try_fold(start, |sum, item| self.binary(op, &sum, item, span))
    }

    /// Reduces a tensor over axes, ascending.
    pub(super) fn fold_tensor(
        &mut self,
        op: ReduceOp,
        x: &Tensor,
        axes: &[usize],
        span: Span,
    ) -> Eval<Val> {
        let ty = self.ty(x.value).clone();
        let fold = match op {
            ReduceOp::Sum | ReduceOp::Mean => FoldOp::Sum,
            ReduceOp::Prod => FoldOp::Prod,
            ReduceOp::Max => FoldOp::Max,
            ReduceOp::Min => FoldOp::Min,
        };
        let reduce = Reduce { op: fold, axes: axes.iter().map(|&a| a as u32).collect() };
        let value = self.add(reduce, &[x.value], span)?;
        let names = x.axes.as_ref().map(|names| {
            let kept = names.iter().enumerate().filter(|(i, _)| !axes.contains(i));
            kept.map(|(_, name)| name.clone()).collect()
        });
        let folded = Val::Tensor(Tensor { value, axes: names });
        if op != ReduceOp::Mean {
            return Ok(folded);
        }
        let count: Size = axes.iter().map(|&a| ty.shape[a].clone()).product();
        self.binary(BinaryOp::Div, &folded, &Val::Int(count), span)
    }

    fn apply_position(&mut self, op: FoldOp, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let axes = match call.statics.is_empty() {
            true => {
                vec![self.resolve_axis(&Val::int(-1), Some(&Val::Tensor(x.clone())), call.span)?]
            }
            false => self.static_axes(call, &x)?,
        };
        let reduce = Reduce { op, axes: axes.iter().map(|&a| a as u32).collect() };
        Ok(self.add(reduce, &[x.value], call.span)?.into())
    }

    /// The axes in brackets, ascending and distinct.
    pub(super) fn static_axes(&mut self, call: &Use<'_>, x: &Tensor) -> Eval<Vec<usize>> {
        let of = Val::Tensor(x.clone());
        let mut axes = Vec::new();
        for (axis, at) in call.statics {
            let axis = self.resolve_axis(axis, Some(&of), *at)?;
            if axes.contains(&axis) {
                let title = format!("axis {axis} is given twice");
                return Err(self.fail(Diagnostic::error(Code::OutOfRange, title, *at, "again")));
            }
            axes.push(axis);
        }
        axes.sort_unstable();
        Ok(axes)
    }

    /// The shape given in brackets or as a list.
    fn shape_argument(&mut self, call: &Use<'_>) -> Eval<Shape> {
        let mut shape = Shape::new();
        for (value, at) in call.statics.iter().chain(&call.args) {
            for size in self.expect_sizes(value, *at)? {
                self.check_size(&size, *at)?;
                shape.push(size);
            }
        }
        Ok(shape)
    }

    fn apply_fill(&mut self, value: i64, call: &Use<'_>) -> Eval<Val> {
        let shape = self.shape_argument(call)?;
        Ok(self.full(&Val::int(value), DEFAULT_FLOAT, &shape, call.span)?.into())
    }

    fn apply_full(&mut self, call: &Use<'_>) -> Eval<Val> {
        let mut shape = Shape::new();
        for (value, at) in call.statics {
            shape.extend(self.expect_sizes(value, *at)?);
        }
        let dtype = self.dtype_of(&call.args[0].0).unwrap_or(DEFAULT_FLOAT);
        Ok(self.full(&call.args[0].0, dtype, &shape, call.span)?.into())
    }

    fn apply_fill_like(&mut self, value: i64, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let ty = self.ty(x.value).clone();
        if ty.dtype == DType::Bool {
            let value = Val::Bool(value != 0);
            return Ok(self.full(&value, ty.dtype, &ty.shape, call.span)?.into());
        }
        Ok(self.full(&Val::int(value), ty.dtype, &ty.shape, call.span)?.into())
    }

    fn apply_iota(&mut self, call: &Use<'_>) -> Eval<Val> {
        let (value, at) = match (call.statics, call.args.as_slice()) {
            ([one], []) | ([], [one]) => one.clone(),
            _ => return Err(self.wrong_use(call)),
        };
        let extent = self.expect_size(&value, "the argument of `iota`", at)?;
        self.check_size(&extent, at)?;
        Ok(self.add(Iota { extent }, &[], call.span)?.into())
    }

    fn apply_grad(&mut self, call: &Use<'_>) -> Eval<Val> {
        let named = call.named.named.iter().find(|(name, _, _)| &*name.text == "wrt");
        let wrt = match (call.args.as_slice(), named) {
            ([_, (x, at)], None) => (x.clone(), *at),
            ([_], Some((_, x, at))) => (x.clone(), *at),
            _ => return Err(self.wrong_use(call)),
        };
        let y = self.tensor(&call.args[0].0, call.args[0].1)?.value;
        let (x, at) = wrt;
        if let Val::Tuple(parts, names) = &x {
            let parts: Eval<std::rc::Rc<[Val]>> =
                parts.iter().map(|x| self.grad(y, x, at, call.span)).collect();
            return Ok(Val::Tuple(parts?, names.clone()));
        }
        self.grad(y, &x, at, call.span)
    }

    fn grad(&mut self, y: dlc_graph::Value, x: &Val, at: Span, span: Span) -> Eval<Val> {
        let x = self.tensor(x, at)?;
        let value = self.add(Grad, &[y, x.value], span)?;
        Ok(Val::Tensor(Tensor { value, axes: x.axes }))
    }

    fn apply_stop(&mut self, call: &Use<'_>) -> Eval<Val> {
        let Tensor { value, axes } = self.tensor(&call.args[0].0, call.args[0].1)?;
        let value = self.add(StopGradient, &[value], call.span)?;
        Ok(Val::Tensor(Tensor { value, axes }))
    }

    fn apply_ceil_div(&mut self, call: &Use<'_>) -> Eval<Val> {
        let a = self.expect_size(&call.args[0].0, "the dividend", call.args[0].1)?;
        let b = self.expect_size(&call.args[1].0, "the divisor", call.args[1].1)?;
        if b.as_const() == Some(0) {
            let title = format!("division of {a} by zero");
            let diagnostic = Diagnostic::error(Code::DivisionByZero, title, call.span, "");
            return Err(self.fail(diagnostic));
        }
        Ok(Val::Int(a.ceil_div(&b)))
    }

    fn apply_shape(&mut self, call: &Use<'_>) -> Eval<Val> {
        let x = self.tensor(&call.args[0].0, call.args[0].1)?;
        let shape = &self.ty(x.value).shape;
        Ok(match call.builtin.kind {
            Kind::Rank => Val::int(shape.len() as i64),
            _ => Val::sizes(shape),
        })
    }

    fn apply_len(&mut self, call: &Use<'_>) -> Eval<Val> {
        match &call.args[0].0 {
            Val::List(items) | Val::Tuple(items, _) => Ok(Val::int(items.len() as i64)),
            _ => Err(self.wrong_use(call)),
        }
    }

    /// `spread(5, 2)` and `spread([5, 5], 2)` are `[5, 5]`.
    fn apply_spread(&mut self, call: &Use<'_>) -> Eval<Val> {
        let (value, at) = &call.args[0];
        let count = call.args[1].0.as_int().filter(|n| (0..=8).contains(n));
        let Some(count) = count else { return Err(self.wrong_use(call)) };
        match value {
            Val::List(items) if items.len() as i64 == count => Ok(value.clone()),
            Val::Int(_) | Val::Float(_) => {
                Ok(Val::List((0..count).map(|_| value.clone()).collect()))
            }
            other => {
                let title = format!(
                    "a number or a list of {count} numbers is needed, not {}",
                    other.describe()
                );
                Err(self.fail(Diagnostic::error(Code::HyperType, title, *at, other.describe())))
            }
        }
    }

    /// An axis by position, negative from the end, or by the name an equation gave it.
    pub(super) fn resolve_axis(&mut self, axis: &Val, of: Option<&Val>, at: Span) -> Eval<usize> {
        let of = match of {
            Some(Val::Tensor(tensor)) => Some(tensor.clone()),
            _ => None,
        };
        let rank = of.as_ref().map_or(0, |t| self.ty(t.value).rank());
        if let Val::AxisName(name) = axis {
            let names = of.and_then(|t| t.axes);
            let found = names.as_ref().and_then(|names| names.iter().position(|n| n == name));
            return found.ok_or_else(|| self.unknown_axis(name, names.as_deref(), at));
        }
        let size = self.expect_size(axis, "an axis", at)?;
        let value = self.known_size(&size, "an axis", at)?;
        let index = if value < 0 { value.saturating_add(rank as i64) } else { value };
        match usize::try_from(index) {
            Ok(index) if index < rank => Ok(index),
            _ => {
                let title = format!("there is no axis {value} in a tensor of {rank} dims");
                let mut diagnostic = Diagnostic::error(Code::OutOfRange, title, at, "");
                if rank > 0 {
                    let last = rank - 1;
                    diagnostic = diagnostic
                        .note(format!("axes are 0 to {last}, or -1 to -{rank} from the end"));
                }
                Err(self.fail(diagnostic))
            }
        }
    }

    fn unknown_axis(
        &mut self,
        name: &str,
        names: Option<&[std::sync::Arc<str>]>,
        at: Span,
    ) -> super::Reported {
        let title = format!("the tensor has no axis `{name}`");
        let diagnostic = Diagnostic::error(Code::UnknownName, title, at, "unknown axis");
        let diagnostic = match names {
            Some(names) => {
                let names: Vec<&str> = names.iter().map(|n| &**n).collect();
                diagnostic.note(format!("its axes are `{}`", names.join("`, `")))
            }
            None => diagnostic
                .note("axes have names if an index equation defines the tensor")
                .help("give the axis's number: `-1` is the last"),
        };
        self.fail(diagnostic)
    }
}

impl Use<'_> {
    /// What stands in brackets.
    pub(super) fn statics(&self) -> &[(Val, Span)] {
        self.statics
    }
}

/// How many positional arguments a primitive may have.
fn argument_counts(kind: Kind) -> std::ops::RangeInclusive<usize> {
    match kind {
        Kind::Binary(_) | Kind::CeilDiv | Kind::Spread => 2..=2,
        Kind::Fold(ReduceOp::Max | ReduceOp::Min) | Kind::Grad | Kind::Named => 1..=2,
        Kind::Zeros | Kind::Ones | Kind::Iota | Kind::Random => 0..=8,
        Kind::Concat => 1..=usize::MAX,
        Kind::Overwrite => 3..=3,
        _ => 1..=1,
    }
}
