//! What an expression of the language can mean while a model is elaborated.

use std::rc::Rc;
use std::sync::Arc;

use dlc_graph::Value;
use dlc_kernel::{DType, Guard, Index, Size};
use smallvec::SmallVec;

use super::builtin::Builtin;
use super::constraint::Relation;
use super::runtime::DynScalar;
use crate::ast::Ident;
use crate::source::Span;

/// A definition, by file and position among its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DefId {
    /// Which syntax tree of the unit.
    pub ast: u32,
    /// Which item of it.
    pub item: u32,
}

/// The meaning of an expression.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    /// A whole number, perhaps symbolic.
    Int(Size),
    /// A number.
    Float(f64),
    /// A truth value known now.
    Bool(bool),
    /// A truth value that is known once sizes are bound.
    Relation(Relation),
    /// A text.
    Str(Rc<str>),
    /// A tensor of the graph.
    Tensor(Tensor),
    /// A run-time scalar that is not in the graph until it is used.
    Scalar(Rc<DynScalar>),
    /// A number at each point of an index equation's axes.
    Cell(Cell),
    /// An affine combination of an index equation's axes.
    Index(Index),
    /// Several values side by side, perhaps with names.
    Tuple(Rc<[Val]>, Option<Rc<[Arc<str>]>>),
    /// A compile-time list.
    List(Rc<[Val]>),
    /// Something that can be applied.
    Func(Rc<Func>),
    /// A name that names nothing else: the axis of a tensor.
    AxisName(Arc<str>),
    /// The value of a statement that has none.
    Unit,
    /// An error has been reported.
    Poison,
}

/// A tensor, with the names of its axes if an equation gave them.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub value: Value,
    pub axes: Option<Rc<[Arc<str>]>>,
}

impl From<Value> for Tensor {
    fn from(value: Value) -> Tensor {
        Tensor { value, axes: None }
    }
}

impl From<Value> for Val {
    fn from(value: Value) -> Val {
        Val::Tensor(value.into())
    }
}

impl From<Tensor> for Val {
    fn from(tensor: Tensor) -> Val {
        Val::Tensor(tensor)
    }
}

/// The axes of a cell, ascending: positions in the elaborator's table of axes.
pub(crate) type Axes = SmallVec<[u32; 4]>;

/// A number at each point of some axes. Axes are numbered by the elaborator's table.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// An affine read that is not yet in the graph; `guards` are further conditions.
    Read { tensor: Value, coords: Vec<Index>, guards: Vec<Guard> },
    /// A tensor whose dims are these axes.
    Data { value: Value, axes: Axes },
}

/// Something that can be applied to tensors.
#[derive(Clone, Debug)]
pub(crate) struct Func {
    pub kind: FuncKind,
    /// The full path of a named instance.
    pub path: Option<Rc<str>>,
    /// Where it was configured.
    pub span: Span,
}

/// What a [`Func`] applies.
#[derive(Clone, Debug)]
pub(crate) enum FuncKind {
    /// A definition with arguments given so far.
    Def(DefId, Args),
    /// A primitive with arguments given so far.
    Builtin(&'static Builtin, Args),
    /// Stages, one after the other; members are `0`, `1`, ...
    Seq(Rc<[Func]>),
}

/// Arguments as given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    pub statics: Vec<(Val, Span)>,
    pub positional: Vec<(Val, Span)>,
    pub named: Vec<(Ident, Val, Span)>,
}

impl Args {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.statics.is_empty() && self.positional.is_empty() && self.named.is_empty()
    }

    /// Adds the arguments of a further call.
    pub fn extend(&mut self, more: Args) {
        self.statics.extend(more.statics);
        self.positional.extend(more.positional);
        self.named.extend(more.named);
    }
}

impl Val {
    /// A known whole number.
    pub fn int(value: i64) -> Val {
        Val::Int(value.into())
    }

    /// A text.
    pub fn str(text: &str) -> Val {
        Val::Str(text.into())
    }

    /// A list of sizes.
    pub fn sizes(sizes: &[Size]) -> Val {
        Val::List(sizes.iter().cloned().map(Val::Int).collect())
    }

    /// Whether it is made of tensors, so that a call with it applies.
    pub fn is_tensor(&self) -> bool {
        match self {
            Val::Tensor(_) | Val::Cell(_) | Val::Index(_) | Val::Scalar(_) => true,
            Val::Tuple(parts, _) => parts.iter().any(Val::is_tensor),
            _ => false,
        }
    }

    /// What it is, for messages: `a tensor`, `the number 3`.
    pub fn describe(&self) -> String {
        match self {
            Val::Int(size) => match size.as_const() {
                Some(value) => format!("the number {value}"),
                None => format!("the size {size}"),
            },
            Val::Float(value) => format!("the number {value}"),
            Val::Bool(true) => "`yes`".into(),
            Val::Bool(false) => "`no`".into(),
            Val::Relation(relation) => format!("the condition {relation}"),
            Val::Str(_) => "a string".into(),
            Val::Tensor(_) => "a tensor".into(),
            Val::Scalar(scalar) => format!("the run-time scalar `{}`", scalar.name),
            Val::Cell(_) => "a number of an index equation".into(),
            Val::Index(_) => "an index".into(),
            Val::Tuple(parts, _) => format!("a tuple of {}", parts.len()),
            Val::List(items) => format!("a list of {}", items.len()),
            Val::Func(_) => "a stage that is not applied".into(),
            Val::AxisName(name) => format!("the axis name `{name}`"),
            Val::Unit => "nothing".into(),
            Val::Poison => "an erroneous value".into(),
        }
    }

    /// The number, if it is a known one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Val::Int(size) => size.as_const().map(|v| v as f64),
            Val::Float(value) => Some(*value),
            Val::Scalar(scalar) => Some(scalar.default),
            _ => None,
        }
    }

    /// The whole number, if it is a known one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Val::Int(size) => size.as_const(),
            _ => None,
        }
    }
}

/// An element type by default: what a type without a dtype has at the top of a model.
pub(crate) const DEFAULT_FLOAT: DType = DType::F32;
