//! Arithmetic of numbers that are known when a model is elaborated: sizes, fractions, truth values.

use std::fmt::Display;

use dlc_kernel::{BinaryOp, DType, Size, UnaryOp};

use super::constraint::{CODE, Comparison, Constraint, Relation};
use super::value::Val;
use super::{Elab, Eval};
use crate::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Elab<'_> {
    /// `op x`, if `x` is a number now; symbolic sizes under other operations than `-` are not.
    pub(super) fn fold_unary(&mut self, op: UnaryOp, x: &Val) -> Option<Val> {
        match (op, x) {
            (UnaryOp::Neg, Val::Int(size)) => Some(Val::Int(Size::ZERO - size.clone())),
            (UnaryOp::Not, Val::Bool(value)) => Some(Val::Bool(!value)),
            (UnaryOp::Not, Val::Relation(relation)) => Some(Val::Relation(relation.negate())),
            (UnaryOp::Abs, Val::Int(size)) => Some(Val::int(size.as_const()?.saturating_abs())),
            (UnaryOp::Not, _) | (_, Val::Scalar(_)) => None,
            _ => Some(Val::Float(op.eval(DType::F64, x.as_number()?))),
        }
    }

    /// `a op b`, if both are numbers, lists or truth values now.
    pub(super) fn fold_binary(
        &mut self,
        op: BinaryOp,
        a: &Val,
        b: &Val,
        span: Span,
    ) -> Option<Eval<Val>> {
        use Val::{Bool, Float, Int, Relation};
        match (a, b) {
            (Int(a), Int(b)) => self.fold_sizes(op, a, b, span).transpose(),
            (Int(_) | Float(_), Int(_) | Float(_)) => {
                let (a, b) = (a.as_number()?, b.as_number()?);
                float_binary(op, a, b).map(Ok)
            }
            (Bool(a), Bool(b)) => fold_bools(op, *a, *b).map(|v| Ok(Bool(v))),
            (Bool(known), Relation(other)) | (Relation(other), Bool(known)) => match (op, known) {
                (BinaryOp::And, true) | (BinaryOp::Or, false) => Some(Ok(Relation(other.clone()))),
                (BinaryOp::And, false) | (BinaryOp::Or, true) => Some(Ok(Bool(*known))),
                _ => None,
            },
            (Val::Str(a), Val::Str(b)) => equality(op, a == b).map(Ok),
            (Val::List(a), Val::List(b)) => self.compare_lists(op, a, b, span).transpose(),
            _ => None,
        }
    }

    fn compare_lists(
        &mut self,
        op: BinaryOp,
        a: &[Val],
        b: &[Val],
        span: Span,
    ) -> Eval<Option<Val>> {
        if !matches!(op, BinaryOp::Eq | BinaryOp::Ne) {
            return Ok(None);
        }
        let mut equal = a.len() == b.len();
        for (a, b) in a.iter().zip(b) {
            match self.fold_binary(BinaryOp::Eq, a, b, span).transpose()? {
                Some(Val::Bool(same)) => equal &= same,
                _ => return Ok(None),
            }
        }
        Ok(equality(op, equal))
    }

    fn fold_sizes(&mut self, op: BinaryOp, a: &Size, b: &Size, span: Span) -> Eval<Option<Val>> {
        let (left, right) = (a.clone(), b.clone());
        Ok(Some(match op {
            BinaryOp::Add => Val::Int(left + right),
            BinaryOp::Sub => Val::Int(left - right),
            BinaryOp::Mul => Val::Int(left * right),
            BinaryOp::Div => Val::Int(self.divide_exactly(a, b, span)?),
            BinaryOp::FloorDiv => {
                self.refuse_zero(a, b, span)?;
                Val::Int(a.floor_div(b))
            }
            BinaryOp::Mod => {
                self.refuse_zero(a, b, span)?;
                Val::Int(left.clone() - right.clone() * left.floor_div(&right))
            }
            BinaryOp::Pow => return Ok(power(a, b)),
            BinaryOp::Max | BinaryOp::Min => return Ok(extremum(op, a, b)),
            BinaryOp::Eq => related(left, Comparison::Eq, right),
            BinaryOp::Ne => related(left, Comparison::Ne, right),
            BinaryOp::Lt => related(left, Comparison::Lt, right),
            BinaryOp::Le => related(left, Comparison::Le, right),
            BinaryOp::And | BinaryOp::Or => return Ok(None),
        }))
    }

    /// `a / b`; where dims are symbolic the remainder is checked once they are bound.
    pub(super) fn divide_exactly(&mut self, a: &Size, b: &Size, span: Span) -> Eval<Size> {
        self.refuse_zero(a, b, span)?;
        if let (Some(x), Some(y)) = (a.as_const(), b.as_const())
            && x % y != 0
        {
            let title = format!("{x} is not divisible by {y}");
            let diagnostic = Diagnostic::error(Code::InexactDivision, title, span, "")
                .note("`/` of whole numbers is exact")
                .help(format!("`//` rounds down; for a fraction write `{x}.0`"));
            return Err(self.fail(diagnostic));
        }
        if a.exact_quotient(b).is_none() {
            let remainder = a.clone() - b.clone() * a.floor_div(b);
            let title = format!("{a} must be divisible by {b}");
            let diagnostic = Diagnostic::error(Code::InexactDivision, title, span, "");
            let relation =
                Relation { left: remainder, comparison: Comparison::Eq, right: Size::ZERO };
            self.constraints.push(Constraint { relation, diagnostic });
        }
        Ok(a.exact_div(b))
    }

    /// Refuses `a / b`, `a // b` and `a % b` if b is 0.
    pub(super) fn refuse_zero(&mut self, a: &dyn Display, b: &Size, span: Span) -> Eval<()> {
        if b.as_const() != Some(0) {
            return Ok(());
        }
        let title = format!("division of {a} by zero");
        Err(self.fail(Diagnostic::error(Code::DivisionByZero, title, span, "the divisor is 0")))
    }

    /// Demands `relation`: proved now, or kept until sizes are bound.
    pub(super) fn require(&mut self, relation: Relation, diagnostic: Diagnostic) -> Eval<()> {
        debug_assert_eq!(diagnostic.code, CODE);
        match relation.decide() {
            Some(true) => Ok(()),
            Some(false) => Err(self.fail(diagnostic)),
            None => {
                self.constraints.push(Constraint { relation, diagnostic });
                Ok(())
            }
        }
    }

    /// A whole number that is known now, for `if`, `repeat` and parameters' shapes.
    pub(super) fn known_size(&mut self, size: &Size, what: &str, span: Span) -> Eval<i64> {
        match size.as_const() {
            Some(value) => Ok(value),
            None => Err(self.unbound(size, what, span)),
        }
    }

    /// The error for a size that is still symbolic.
    pub(super) fn unbound(&mut self, size: &Size, what: &str, span: Span) -> super::Reported {
        let mut dims = std::collections::BTreeSet::new();
        size.collect_symbols(&mut dims);
        let title = format!("{what} must be a number, but is `{size}`");
        let label = format!("this is `{size}`");
        let mut diagnostic = Diagnostic::error(Code::UnboundDim, title, span, label);
        if let Some(dim) = dims.first() {
            diagnostic =
                diagnostic.help(format!("give the dim a value, for example `--bind {dim}=64`"));
        }
        diagnostic.open.extend(dims);
        self.fail(diagnostic)
    }

    /// An element count or extent as a tensor's: not negative, not too large.
    pub(super) fn check_size(&mut self, size: &Size, span: Span) -> Eval<()> {
        match size.as_const() {
            Some(value) if !(0..=dlc_kernel::MAX_DIM).contains(&value) => {
                let title = format!("{value} cannot be a size");
                let diagnostic = Diagnostic::error(Code::BadSize, title, span, "")
                    .note("sizes lie between 0 and 2^48");
                Err(self.fail(diagnostic))
            }
            _ => Ok(()),
        }
    }
}

fn related(left: Size, comparison: Comparison, right: Size) -> Val {
    let relation = Relation { left, comparison, right };
    relation.decide().map_or(Val::Relation(relation), Val::Bool)
}

fn equality(op: BinaryOp, equal: bool) -> Option<Val> {
    match op {
        BinaryOp::Eq => Some(Val::Bool(equal)),
        BinaryOp::Ne => Some(Val::Bool(!equal)),
        _ => None,
    }
}

fn fold_bools(op: BinaryOp, a: bool, b: bool) -> Option<bool> {
    match op {
        BinaryOp::And => Some(a && b),
        BinaryOp::Or => Some(a || b),
        BinaryOp::Eq => Some(a == b),
        BinaryOp::Ne => Some(a != b),
        _ => None,
    }
}

/// `a^b` of known whole numbers; a fraction if the exponent is negative.
fn power(a: &Size, b: &Size) -> Option<Val> {
    let (a, b) = (a.as_const()?, b.as_const()?);
    match u32::try_from(b) {
        Ok(b) => Some(Val::int(a.saturating_pow(b))),
        Err(_) => Some(Val::Float((a as f64).powf(b as f64))),
    }
}

fn extremum(op: BinaryOp, a: &Size, b: &Size) -> Option<Val> {
    let difference = (a.clone() - b.clone()).as_const()?;
    let first = if op == BinaryOp::Max { difference >= 0 } else { difference <= 0 };
    Some(Val::Int(if first { a.clone() } else { b.clone() }))
}

fn float_binary(op: BinaryOp, a: f64, b: f64) -> Option<Val> {
    let value = op.eval(DType::F64, a, b);
    match op {
        BinaryOp::And | BinaryOp::Or => None,
        _ if op.is_comparison() => Some(Val::Bool(value != 0.0)),
        _ => Some(Val::Float(value)),
    }
}
