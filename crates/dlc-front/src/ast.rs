//! The syntax tree: what the user wrote, and where.
//!
//! An [`Ast`] is one source file. Expressions live in a flat arena and name each other by
//! [`ExprId`], so that cloning is a copy and dropping never recurses. The tree is at most
//! [`MAX_DEPTH`] levels deep, and a long chain `a + b + c + ...` or `x |> f |> g ...` is *one*
//! node, so that a walk may recurse once per node on a large stack ([`crate::on_large_stack`]).
//!
//! The tree keeps no parentheses, comments or layout. [`print`](print::print) gives it back as
//! source text that parses to the same tree; [`tree`](tree::tree) shows its structure.
//!
//! What the parser guarantees beyond the types: lists that the grammar requires are not empty
//! (targets, chain tails, pipe stages, `if` arms), all operators of one [`ExprKind::Chain`] have
//! one precedence, and comparisons do not chain.

mod expr;
pub(crate) mod level;
pub mod print;
mod section;
pub mod tree;
mod walk;

pub use expr::{
    Arg, BinaryOp, Carry, Expr, ExprId, ExprKind, Link, Order, ReduceOp, Scan, Subscript, UnaryOp,
};
pub use section::{Entry, Expect, Section, Train, TrainKind, TrainStmt, Trend};

use std::ops::Index as Indexing;
use std::sync::Arc;

use crate::source::{FileId, Span};

/// The deepest tree the parser builds, counted in expression nodes from a statement down.
pub const MAX_DEPTH: usize = 2048;

/// A source file: its items in textual order and the arena of their expressions.
#[derive(Clone, Debug, PartialEq)]
pub struct Ast {
    /// The file it was read from.
    pub file: FileId,
    /// The file's items, in order.
    pub items: Vec<Item>,
    /// All expressions; operands come before their users.
    pub exprs: Vec<Expr>,
}

impl Ast {
    /// The definitions (models, blocks, optimizers, initializers), in order.
    pub fn defs(&self) -> impl Iterator<Item = &Def> {
        self.items.iter().filter_map(|item| match item {
            Item::Def(def) => Some(def),
            _ => None,
        })
    }

    /// The definition with this name.
    #[must_use]
    pub fn def(&self, name: &str) -> Option<&Def> {
        self.defs().find(|def| &*def.name.text == name)
    }

    /// An expression's span.
    #[must_use]
    pub fn span(&self, id: ExprId) -> Span {
        self[id].span
    }
}

impl Indexing<ExprId> for Ast {
    type Output = Expr;

    fn index(&self, id: ExprId) -> &Expr {
        &self.exprs[id.0 as usize]
    }
}

/// A name with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    /// The name: ASCII, a letter or `_` first, at most 255 bytes.
    pub text: Arc<str>,
    /// Where it stands.
    pub span: Span,
}

/// A top-level item.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `model`, `block`, `optimizer` or `init`.
    Def(Def),
    /// A top-level `let C = 64`, or a named instance that models share: `enc = Encoder(6)`.
    /// Always [`StmtKind::Let`] or [`StmtKind::Bind`].
    Binding(Stmt),
    /// `expect NAME { .. }`.
    Expect(Expect),
    /// `train NAME { .. }`.
    Train(Train),
    /// `search`, `augment` or `entry`.
    Section(Section),
}

/// What a [`Def`] defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefKind {
    /// An entry point.
    Model,
    /// A reusable part.
    Block,
    /// `optimizer sgd(dyn lr = 0.1)(p, g) { p - lr * g }`: from a parameter and its gradient, the
    /// parameter's next value.
    Optimizer,
    /// `schedule halved(every)(peak) { .. }`: from a run-time scalar, its value at the present step.
    Schedule,
    /// `init xavier_uniform(gain = 1.0)(shape, fan_in, fan_out) { .. }`: a parameter's first value.
    /// The inputs say by name what it wants to know of the parameter.
    Init,
}

impl DefKind {
    /// The keyword that starts such a definition.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            DefKind::Model => "model",
            DefKind::Block => "block",
            DefKind::Optimizer => "optimizer",
            DefKind::Schedule => "schedule",
            DefKind::Init => "init",
        }
    }
}

/// `block Name[statics](hypers)(inputs) -> output where constraints { body }`.
///
/// One pair of parentheses holds the inputs; of two, the first holds the hyperparameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Def {
    /// Which kind.
    pub kind: DefKind,
    /// Its name.
    pub name: Ident,
    /// Static parameters, given in brackets where it is used: `block softmax[axis = -1](x)`.
    pub statics: Vec<Hyper>,
    /// Hyperparameters.
    pub hypers: Vec<Hyper>,
    /// Tensor inputs.
    pub inputs: Vec<Input>,
    /// The declared result; without it the body's is taken.
    pub output: Option<Output>,
    /// `where` constraints.
    pub constraints: Vec<ExprId>,
    /// The body.
    pub body: Block,
    /// From the keyword to the closing brace.
    pub span: Span,
}

/// `C`, `stride = 1`, `dyn lr = 1e-3`: a value fixed where the definition is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyper {
    /// Its name.
    pub name: Ident,
    /// Whether it is a run-time scalar (`dyn`), which can change without recompilation.
    pub is_dyn: bool,
    /// The default.
    pub default: Option<ExprId>,
}

/// `x: f32[..B, I]`: a tensor input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: Ident,
    /// Its type; without one, any tensor fits.
    pub ty: Option<TypeExpr>,
    /// The value if it is not given.
    pub default: Option<ExprId>,
}

/// The declared result of a definition.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// `-> f32[N, 10]`.
    Single(TypeExpr),
    /// `-> (y: f32[N, T], h: f32[N])`.
    Named(Vec<(Ident, TypeExpr)>),
}

/// `f32[N, 3]`, `[..B, I]` (the caller's float type) or `i32` (a scalar).
#[derive(Clone, Debug, PartialEq)]
pub struct TypeExpr {
    /// The element type's name, not yet looked up.
    pub dtype: Option<Ident>,
    /// The dims; empty for a scalar.
    pub dims: Vec<Dim>,
    /// The whole type.
    pub span: Span,
}

/// One dim of a type.
#[derive(Clone, Debug, PartialEq)]
pub enum Dim {
    /// Any number of dims, `..B`; or `..` without a name.
    Rest {
        /// The name they are bound to.
        name: Option<Ident>,
        /// From the dots to the name.
        span: Span,
    },
    /// A size.
    Size(ExprId),
}

/// `{ .. }`: statements. The value of a block is its last statement, if that is an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The statements, in order.
    pub stmts: Vec<Stmt>,
    /// With its braces.
    pub span: Span,
}

impl Block {
    /// The final expression, which is the block's value.
    #[must_use]
    pub fn result(&self) -> Option<ExprId> {
        match self.stmts.last()?.kind {
            StmtKind::Expr(expr) => Some(expr),
            _ => None,
        }
    }
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Stmt {
    /// What it is.
    pub kind: StmtKind,
    /// Where it stands.
    pub span: Span,
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq)]
pub enum StmtKind {
    /// `let C = D / A`: a compile-time value.
    Let {
        /// The names; several take a tuple apart.
        targets: Vec<Ident>,
        /// The value.
        value: ExprId,
    },
    /// `a = e`; `q, k, v = e` takes a tuple apart; `fc = linear(120)` names an instance.
    Bind {
        /// The names, at least one.
        targets: Vec<Ident>,
        /// The value.
        value: ExprId,
    },
    /// `y[n, t, h < Ho] = rhs`: an index equation.
    Equation {
        /// The tensor defined.
        name: Ident,
        /// Its axes, in order; may be empty (`y[] = sum[i] x[i]`).
        indices: Vec<Index>,
        /// The right side, an [`ExprKind::Where`] if it has a condition.
        value: ExprId,
    },
    /// `param W: [I, 4*H] ~ xavier_uniform` or `param b: [O] = 0`.
    Param {
        /// The parameter's name, the last part of its path.
        name: Ident,
        /// Its type.
        ty: TypeExpr,
        /// Its first value.
        init: ParamInit,
    },
    /// `state s = e0`, also `state m: [C] = 0`.
    State {
        /// The state's name.
        name: Ident,
        /// Its type, if given.
        ty: Option<TypeExpr>,
        /// Its value before the first call.
        value: ExprId,
    },
    /// `s <- e`: the state's value at the next call.
    Update {
        /// The state.
        name: Ident,
        /// Its next value.
        value: ExprId,
    },
    /// `yield h` or `yield h at 1`, in a `scan`.
    Yield {
        /// This step's part of the result.
        value: ExprId,
        /// Where the new axis goes.
        at: Option<ExprId>,
    },
    /// An expression: the block's value if it comes last. Compile-time control
    /// ([`ExprKind::If`], [`ExprKind::For`], [`ExprKind::Repeat`], [`ExprKind::Scan`]) is one too.
    Expr(ExprId),
}

/// How a parameter starts.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamInit {
    /// `~ xavier_uniform(gain = 2)`: an initializer.
    Random(ExprId),
    /// `= 0`: a constant.
    Constant(ExprId),
}

/// An index where it is introduced: on the left of an equation, or in a reduction.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Its name.
    pub name: Ident,
    /// `h < Ho`: its extent, if stated.
    pub extent: Option<ExprId>,
}
