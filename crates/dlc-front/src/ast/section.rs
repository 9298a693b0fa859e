//! Sections beside the models: `expect`, `train`, and those kept as words and values.

use super::{ExprId, Ident};
use crate::source::Span;

/// `expect LeNet { params == 61_706; shape(image = [32, 1, 28, 28]) == [32, 10] }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// The model.
    pub model: Ident,
    /// What must hold.
    pub claims: Vec<ExprId>,
    /// The whole section.
    pub span: Span,
}

/// `train LeNet { .. }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// The model.
    pub model: Ident,
    /// The statements, in order; whether each occurs as often as it should is not yet checked.
    pub stmts: Vec<TrainStmt>,
    /// The whole section.
    pub span: Span,
}

impl Train {
    /// The first statement for which `pick` gives something: `train.find(TrainKind::loss)`.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a TrainKind) -> Option<T>) -> Option<T> {
        self.stmts.iter().find_map(|stmt| pick(&stmt.kind))
    }
}

/// A statement of a `train` section.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainStmt {
    /// What it sets.
    pub kind: TrainKind,
    /// Where it stands.
    pub span: Span,
}

/// What a statement of a `train` section sets.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainKind {
    /// `data mnist("data/mnist-5k") batch 64 shuffle`.
    Data {
        /// The data set.
        source: ExprId,
        /// `batch 64`.
        batch: Option<ExprId>,
        /// Where `shuffle` stands.
        shuffle: Option<Span>,
    },
    /// `loss cross_entropy(..)`; `name = e` gives it a name.
    Loss(ExprId),
    /// `metric accuracy(..)` or `metric top5 = accuracy(..)`.
    Metric {
        /// The name shown.
        name: Option<Ident>,
        /// The value.
        value: ExprId,
    },
    /// `optim adam(lr = 1e-3)`.
    Optim(ExprId),
    /// `stop after 3 epochs without val.loss improving`.
    Stop {
        /// How many epochs to wait.
        patience: ExprId,
        /// What must improve.
        metric: ExprId,
        /// Which way.
        trend: Trend,
    },
    /// `epochs 10`.
    Epochs(ExprId),
    /// `seed 42`.
    Seed(ExprId),
    /// `batch 64`, as a statement of its own.
    Batch(ExprId),
    /// `accumulate 4`: batches of a step.
    Accumulate(ExprId),
    /// `clip 1.0`: the largest norm of the gradients.
    Clip(ExprId),
    /// `shuffle`, as a statement of its own.
    Shuffle,
    /// `validation 0.1` or `validation mnist("other")`.
    Validation(ExprId),
    /// `out "runs/lenet"`.
    Out(ExprId),
}

/// How a metric gets better: `improving`, `falling`, `rising`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// As its kind does: losses fall, counts rise.
    Improving,
    /// It falls.
    Falling,
    /// It rises.
    Rising,
}

impl Trend {
    /// Every trend.
    pub const ALL: [Trend; 3] = [Trend::Improving, Trend::Falling, Trend::Rising];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Trend::Improving => "improving",
            Trend::Falling => "falling",
            Trend::Rising => "rising",
        }
    }
}

impl TrainKind {
    /// The word that starts the statement.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            TrainKind::Data { .. } => "data",
            TrainKind::Loss(_) => "loss",
            TrainKind::Metric { .. } => "metric",
            TrainKind::Optim(_) => "optim",
            TrainKind::Stop { .. } => "stop",
            TrainKind::Epochs(_) => "epochs",
            TrainKind::Seed(_) => "seed",
            TrainKind::Batch(_) => "batch",
            TrainKind::Accumulate(_) => "accumulate",
            TrainKind::Clip(_) => "clip",
            TrainKind::Shuffle => "shuffle",
            TrainKind::Validation(_) => "validation",
            TrainKind::Out(_) => "out",
        }
    }

    /// The value of a `loss` statement.
    #[must_use]
    pub fn loss(&self) -> Option<ExprId> {
        match self {
            TrainKind::Loss(value) => Some(*value),
            _ => None,
        }
    }
}

/// A section that is kept as words and values: `search LeNet { lr in [1e-4, 1e-3] }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// `search`, `augment` or `entry`.
    pub keyword: Ident,
    /// The name after it.
    pub name: Option<Ident>,
    /// Its statements.
    pub entries: Vec<Entry>,
    /// The whole section.
    pub span: Span,
}

/// A statement of a [`Section`]: a word, then expressions side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The first word.
    pub key: Ident,
    /// What follows it.
    pub values: Vec<ExprId>,
    /// The whole statement.
    pub span: Span,
}
