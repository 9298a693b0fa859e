//! Expressions.

use std::rc::Rc;
use std::sync::Arc;

use dlc_kernel::{BinaryOp as Op, Size, UnaryOp};

use super::scope::member_path;
use super::value::{Tensor, Val};
use super::{Elab, Eval, MAX_EVAL_DEPTH, MAX_STEPS};
use crate::Code;
use crate::ast::{self, BinaryOp, Expr, ExprId, ExprKind, Ident, Link};
use crate::diagnostic::{Diagnostic, nearest};
use crate::source::Span;

impl<'u> Elab<'u> {
    /// The value of an expression of the current frame.
    pub(super) fn eval(&mut self, id: ExprId) -> Eval<Val> {
        self.spend(self.ast().span(id))?;
        self.depth += 1;
        let value = self.eval_kind(id);
        self.depth -= 1;
        value
    }

    /// Counts a step of elaboration; reports a text that takes too many or nests too deep.
    pub(super) fn spend(&mut self, span: Span) -> Eval<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            let title = format!("elaboration takes more than {MAX_STEPS} steps");
            return Err(self.fail(Diagnostic::error(Code::TooManyNodes, title, span, "here")));
        }
        if self.depth > MAX_EVAL_DEPTH {
            let title = format!("expressions and instances nest more than {MAX_EVAL_DEPTH} deep");
            return Err(self.fail(Diagnostic::error(Code::InstancesTooDeep, title, span, "here")));
        }
        Ok(())
    }

    fn eval_kind(&mut self, id: ExprId) -> Eval<Val> {
        let ast = self.ast();
        let Expr { kind, span } = &ast[id];
        let span = *span;
        match kind {
            ExprKind::Int(value) => Ok(Val::int(*value)),
            ExprKind::Float(value) => Ok(Val::Float(*value)),
            ExprKind::Size(sizes) => Ok(Val::List(sizes.iter().copied().map(Val::int).collect())),
            ExprKind::Bool(value) => Ok(Val::Bool(*value)),
            ExprKind::Str(text) => Ok(Val::str(text)),
            ExprKind::Name(name) => self.lookup(name, span),
            ExprKind::Tuple(parts) => Ok(Val::Tuple(self.eval_all(parts)?, None)),
            ExprKind::List(items) => Ok(Val::List(self.eval_all(items)?)),
            ExprKind::Unary { op, operand } => self.eval_unary(*op, *operand, span),
            ExprKind::Chain { first, rest } => self.eval_chain(*first, rest),
            ExprKind::Select { value, cond, otherwise } => {
                self.eval_select(*value, *cond, *otherwise, span)
            }
            ExprKind::Where { value, cond, otherwise } => {
                self.eval_where(*value, *cond, *otherwise, span)
            }
            ExprKind::Pipe { input, stages } => self.eval_pipe(*input, stages, span),
            ExprKind::Call { callee, args } => self.eval_call(*callee, args, span),
            ExprKind::Bracket { base, subscripts } => self.eval_bracket(*base, subscripts, span),
            ExprKind::Field { base, name } => self.eval_field(*base, name),
            ExprKind::Reduce { op, indices, body } => self.eval_reduce(*op, indices, *body, span),
            ExprKind::If { arms, otherwise } => self.eval_if(arms, otherwise.as_ref()),
            ExprKind::Repeat { label, count, body } => {
                self.eval_repeat(label.as_ref(), *count, body, span)
            }
            ExprKind::For { var, list, body } => self.eval_for(var, *list, body),
            ExprKind::Scan(scan) => self.eval_scan(scan, span),
        }
    }

    fn eval_all(&mut self, ids: &[ExprId]) -> Eval<Rc<[Val]>> {
        ids.iter().map(|&id| self.eval(id)).collect()
    }

    fn eval_unary(&mut self, op: ast::UnaryOp, operand: ExprId, span: Span) -> Eval<Val> {
        let value = self.eval(operand)?;
        let op = match op {
            ast::UnaryOp::Neg => UnaryOp::Neg,
            ast::UnaryOp::Not => UnaryOp::Not,
        };
        self.unary(op, &value, span)
    }

    fn eval_chain(&mut self, first: ExprId, rest: &[Link]) -> Eval<Val> {
        let ast = self.ast();
        let mut left = self.eval(first)?;
        let start = ast.span(first);
        for link in rest {
            if let (BinaryOp::And, Val::Bool(false)) | (BinaryOp::Or, Val::Bool(true)) =
                (link.op, &left)
            {
                return Ok(left);
            }
            let right = self.eval(link.operand)?;
            let span = start.to(ast.span(link.operand));
            left = self.operator(link.op, &left, &right, span)?;
        }
        Ok(left)
    }

    /// `left op right` as written.
    pub(super) fn operator(
        &mut self,
        op: BinaryOp,
        left: &Val,
        right: &Val,
        span: Span,
    ) -> Eval<Val> {
        let (op, left, right) = match op {
            BinaryOp::MatMul => return self.matmul(left, right, span),
            BinaryOp::Gt => (Op::Lt, right, left),
            BinaryOp::Ge => (Op::Le, right, left),
            _ => (scalar_op(op), left, right),
        };
        for side in [left, right] {
            if let Val::Func(_) | Val::Str(_) | Val::List(_) | Val::Tuple(..) | Val::AxisName(_) =
                side
                && !matches!(op, Op::Eq | Op::Ne)
            {
                return Err(self.not_arithmetic(side, span));
            }
        }
        self.binary(op, left, right, span)
    }

    fn not_arithmetic(&mut self, side: &Val, span: Span) -> super::Reported {
        let title = format!("{} cannot be calculated with", side.describe());
        let label = format!("one side is {}", side.describe());
        let mut diagnostic = Diagnostic::error(Code::HyperType, title, span, label);
        if self.is_schedule(side) {
            diagnostic = diagnostic.help("a schedule is scaled by the number that it starts from");
        } else if let Val::Func(_) = side {
            diagnostic = diagnostic.help("apply the stage to a tensor first: `x |> f`");
        }
        self.fail(diagnostic)
    }

    fn eval_select(
        &mut self,
        value: ExprId,
        cond: ExprId,
        otherwise: ExprId,
        span: Span,
    ) -> Eval<Val> {
        let test = self.eval(cond)?;
        match test {
            Val::Bool(true) => {
                let taken = self.eval(value);
                self.reserve(self.ast().span(otherwise));
                taken
            }
            Val::Bool(false) => {
                self.reserve(self.ast().span(value));
                self.eval(otherwise)
            }
            Val::Relation(_) => Err(self.undecided(&test, cond)),
            _ => {
                let (a, b) = (self.eval(value)?, self.eval(otherwise)?);
                self.select(&test, &a, &b, span)
            }
        }
    }

    /// A truth value that is known now; a run-time scalar stands for the number that it starts with.
    pub(super) fn known_bool(&mut self, cond: ExprId) -> Eval<bool> {
        match self.with_numbers(cond)? {
            Val::Bool(value) => Ok(value),
            other => Err(self.undecided(&other, cond)),
        }
    }

    fn undecided(&mut self, value: &Val, cond: ExprId) -> super::Reported {
        let span = self.ast().span(cond);
        if let Val::Relation(relation) = value {
            let (left, right) = (&relation.left, &relation.right);
            let size = if left.as_const().is_some() { right } else { left };
            return self.unbound(&size.clone(), "a size in a condition", span);
        }
        let title =
            format!("a condition must be known at compile time, but is {}", value.describe());
        let diagnostic = Diagnostic::error(Code::NotCompileTime, title, span, value.describe())
            .help("to choose between the elements of tensors write `a if condition else b`");
        self.fail(diagnostic)
    }

    fn eval_field(&mut self, base: ExprId, name: &Ident) -> Eval<Val> {
        if let Some(path) = self.instance_path(base)? {
            return self.member_of(&path, name);
        }
        let span = self.ast().span(base);
        match self.eval(base)? {
            Val::Tuple(parts, Some(names)) => match names.iter().position(|n| *n == name.text) {
                Some(at) => Ok(parts[at].clone()),
                None => {
                    Err(self.unknown_field(name, names.iter().map(|n| n.to_string()).collect()))
                }
            },
            Val::Func(_) => Err(self.unknown_field(name, Vec::new())),
            other => {
                let title = format!("{} has no fields", other.describe());
                let diagnostic =
                    Diagnostic::error(Code::UnknownField, title, span, other.describe());
                Err(self.fail(diagnostic))
            }
        }
    }

    /// The path of `fc`, or of `net.fc`, which has members of its own.
    fn instance_path(&mut self, id: ExprId) -> Eval<Option<Rc<str>>> {
        match &self.ast()[id].kind {
            ExprKind::Name(_) => match self.eval(id)? {
                Val::Func(func) => Ok(func.path.clone()),
                _ => Ok(None),
            },
            ExprKind::Field { base, name } => {
                let Some(outer) = self.instance_path(*base)? else { return Ok(None) };
                let path = member_path(&outer, &name.text);
                let prefix = format!("{path}.");
                let mut members = self.params.keys().chain(self.states.keys());
                Ok(members.any(|m| m.starts_with(&prefix)).then(|| path.into()))
            }
            _ => Ok(None),
        }
    }

    /// `fc.weight`: a parameter or state of a named instance.
    fn member_of(&mut self, path: &str, name: &Ident) -> Eval<Val> {
        let full = member_path(path, &name.text);
        if let Some(stored) = self.params.get(&full).or_else(|| self.states.get(&full)) {
            return Ok(stored.value.into());
        }
        let prefix = format!("{path}.");
        let members = self.params.keys().chain(self.states.keys());
        let known = members.filter_map(|m| m.strip_prefix(&prefix)).map(String::from).collect();
        Err(self.unknown_field(name, known))
    }

    fn unknown_field(&mut self, name: &Ident, known: Vec<String>) -> super::Reported {
        let title = format!("there is no field `{}`", name.text);
        let mut diagnostic =
            Diagnostic::error(Code::UnknownField, title, name.span, "unknown field");
        if let Some(near) = nearest(&name.text, known.iter().map(|k| &**k)) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        } else if known.is_empty() {
            diagnostic = diagnostic
                .note("an instance has its parameters as fields once it has been applied");
        } else {
            diagnostic = diagnostic.note(format!("there are: `{}`", known.join("`, `")));
        }
        self.fail(diagnostic)
    }

    /// A whole number.
    pub(super) fn expect_size(&mut self, val: &Val, what: &str, span: Span) -> Eval<Size> {
        match val {
            Val::Int(size) => Ok(size.clone()),
            Val::Poison => Err(super::Reported),
            other => {
                let code = if other.is_tensor() { Code::NotCompileTime } else { Code::BadSize };
                let title = format!("{what} must be a whole number, not {}", other.describe());
                Err(self.fail(Diagnostic::error(code, title, span, other.describe())))
            }
        }
    }

    /// A whole number that is known now.
    pub(super) fn eval_known_size(&mut self, id: ExprId, what: &str) -> Eval<i64> {
        let span = self.ast().span(id);
        let value = self.eval(id)?;
        let size = self.expect_size(&value, what, span)?;
        self.known_size(&size, what, span)
    }

    /// A tensor with the axis names that an equation gives it.
    pub(super) fn named_tensor(value: dlc_graph::Value, names: Vec<Arc<str>>) -> Val {
        Val::Tensor(Tensor { value, axes: Some(names.into()) })
    }
}

fn scalar_op(op: BinaryOp) -> Op {
    match op {
        BinaryOp::Or => Op::Or,
        BinaryOp::And => Op::And,
        BinaryOp::Eq => Op::Eq,
        BinaryOp::Ne => Op::Ne,
        BinaryOp::Lt | BinaryOp::Gt => Op::Lt,
        BinaryOp::Le | BinaryOp::Ge => Op::Le,
        BinaryOp::Add => Op::Add,
        BinaryOp::Sub => Op::Sub,
        BinaryOp::Mul | BinaryOp::MatMul => Op::Mul,
        BinaryOp::Div => Op::Div,
        BinaryOp::FloorDiv => Op::FloorDiv,
        BinaryOp::Rem => Op::Mod,
    }
}
