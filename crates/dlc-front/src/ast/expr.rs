//! Expressions and what they are made of.

use std::sync::Arc;

use super::{Block, Ident, Index};
use crate::source::Span;

/// An expression in an [`Ast`](super::Ast)'s arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub u32);

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands, without parentheses around it.
    pub span: Span,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `61_706`; never negative.
    Int(i64),
    /// `1e-3`; finite, never negative.
    Float(f64),
    /// `5x5`: sugar for `[5, 5]`; at least two numbers.
    Size(Vec<i64>),
    /// `yes`, `no`.
    Bool(bool),
    /// `"data/mnist"`, escapes resolved.
    Str(String),
    /// A name.
    Name(Arc<str>),
    /// `(a, b)`, or `a, b` on the right of a binding or as a result. `()` is empty, `(a,)` has one.
    Tuple(Vec<ExprId>),
    /// `[1, 2, 3]`.
    List(Vec<ExprId>),
    /// `-a`, `not a`.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// Its operand.
        operand: ExprId,
    },
    /// `a + b - c`: operators of one precedence, to be applied from the left. `a * b` has one link.
    Chain {
        /// The leftmost operand.
        first: ExprId,
        /// The operators with their right operands, at least one.
        rest: Vec<Link>,
    },
    /// `value if cond else otherwise`.
    Select {
        /// The value if the condition holds.
        value: ExprId,
        /// The condition.
        cond: ExprId,
        /// The value if not.
        otherwise: ExprId,
    },
    /// `value where cond else otherwise`, on the right of a binding or in parentheses.
    Where {
        /// The value where the condition holds.
        value: ExprId,
        /// The condition, on indices and data.
        cond: ExprId,
        /// The value elsewhere.
        otherwise: Option<ExprId>,
    },
    /// `x |> f |> g(2)`: each stage is applied to what comes from its left.
    Pipe {
        /// What goes in.
        input: ExprId,
        /// The stages, at least one: a name, call, bracket, field or [`ExprKind::Repeat`].
        stages: Vec<ExprId>,
    },
    /// `conv(6, 5x5, pad = 2)`.
    Call {
        /// What is called.
        callee: ExprId,
        /// Positional arguments first, then named ones.
        args: Vec<Arg>,
    },
    /// `softmax[u]`, `x[:, t]`, `as[N, T, A, C]`: static arguments or subscripts.
    Bracket {
        /// What stands before the bracket.
        base: ExprId,
        /// What stands in it.
        subscripts: Vec<Subscript>,
    },
    /// `fc.weight`.
    Field {
        /// The thing with the field.
        base: ExprId,
        /// The field.
        name: Ident,
    },
    /// `sum[i, u < T] x[n, i] * W[o, i]`, whose body is a product, or `sum[i](x[i])`, without a
    /// blank, whose body is what the parentheses hold. Outside an index equation `sum[u](s)` (an
    /// axis name and a tensor) has this form too; `sum[1](x)` is a call.
    Reduce {
        /// How terms are combined.
        op: ReduceOp,
        /// The indices summed over, at least one.
        indices: Vec<Index>,
        /// One product.
        body: ExprId,
    },
    /// `if c { .. } else if d { .. } else { .. }`: decided when the model is elaborated.
    If {
        /// Conditions with their blocks, at least one.
        arms: Vec<(ExprId, Block)>,
        /// The last `else`.
        otherwise: Option<Block>,
    },
    /// `repeat 6 { .. }`, `blocks: repeat 6 { .. }`, as a stage or a statement.
    Repeat {
        /// The list's name.
        label: Option<Ident>,
        /// How many times.
        count: ExprId,
        /// What is stacked.
        body: Block,
    },
    /// `for k in [1, 2, 3] { .. }`: unrolled when the model is elaborated.
    For {
        /// The variable.
        var: Ident,
        /// The list.
        list: ExprId,
        /// The body.
        body: Block,
    },
    /// `scan t in T with h, c = zeros[N, H] { .. }`.
    Scan(Box<Scan>),
}

/// A loop over an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The step's index.
    pub var: Ident,
    /// How many steps.
    pub extent: ExprId,
    /// Which step comes first.
    pub order: Order,
    /// What is carried from step to step.
    pub carries: Vec<Carry>,
    /// One step.
    pub body: Block,
}

/// Which step of a loop comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// The first.
    Forward,
    /// The last: `reverse`.
    Reverse,
    /// The last if a condition holds, `reverse if c`.
    ReverseIf(ExprId),
}

/// `h, c = zeros[N, H]`: carried values that start alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Carry {
    /// The names, at least one.
    pub names: Vec<Ident>,
    /// Their value before the first step.
    pub value: ExprId,
}

/// An operator and its right operand in an [`ExprKind::Chain`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: Span,
    /// The operand on its right.
    pub operand: ExprId,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// `pad` in `pad = 2`.
    pub name: Option<Ident>,
    /// The value.
    pub value: ExprId,
}

/// One entry between brackets.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscript {
    /// An index, axis, size or other value.
    Expr(ExprId),
    /// `:`, `a:`, `:b`, `a:b`.
    Slice {
        /// First index, 0 if absent.
        start: Option<ExprId>,
        /// One past the last index, the axis's size if absent.
        end: Option<ExprId>,
        /// The whole slice.
        span: Span,
    },
    /// `..` or `..B`: the axes in between.
    Rest {
        /// The dims' name.
        name: Option<Ident>,
        /// From the dots to the name.
        span: Span,
    },
}

/// An operator before its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`: exact on dims.
    Div,
    /// `//`: towards minus infinity.
    FloorDiv,
    /// `%`
    Rem,
    /// `@`: matrix product.
    MatMul,
}

impl BinaryOp {
    /// The operator as written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::FloorDiv => "//",
            BinaryOp::Rem => "%",
            BinaryOp::MatMul => "@",
        }
    }

    /// Whether the result is a truth value of an order or equality test.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }
}

/// How a reduction combines its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// `sum`
    Sum,
    /// `max`
    Max,
    /// `min`
    Min,
    /// `mean`
    Mean,
    /// `prod`
    Prod,
}

impl ReduceOp {
    /// All of them.
    pub const ALL: [ReduceOp; 5] =
        [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min, ReduceOp::Mean, ReduceOp::Prod];

    /// The name it is written with.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::Mean => "mean",
            ReduceOp::Prod => "prod",
        }
    }
}
