//! A [`Program`]: logical buffers, and for each entry the kernels that run, in order.

use crate::{Access, BinaryOp, DType, ExprId, Exprs, FoldOp, Lookup, Size};
use smallvec::SmallVec;
use std::sync::Arc;

/// A buffer of a [`Program`], printed `b7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// Where something comes from in the user's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file's name as the user gave it.
    pub file: Arc<str>,
    /// First line, from 1.
    pub line: u32,
    /// First column in characters, from 1.
    pub column: u32,
    /// The instance it belongs to (`conv1`, `blocks.3.norm`); empty at the top of a model.
    pub path: Arc<str>,
}

/// Where a graph node, kernel or check comes from, if from a user's text at all.
pub type Origin = Option<Arc<Location>>;

/// What a buffer is for; decides who may write it and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A parameter: lives as long as the executable; written only by committing kernels.
    Param,
    /// Other state that persists between calls (moments, running statistics); as `Param`.
    State,
    /// A run-time scalar (rank 0) with a default, written between calls: `lr`, a dropout rate.
    Scalar,
    /// Given by the caller of one entry.
    Input,
    /// Handed to the caller of one entry.
    Output,
    /// Lives within one call.
    Temp,
}

/// A logical tensor in memory: no strides and no address, those are the target's choice.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The path of a parameter or state, the name of an input or output, or a readable temp name.
    pub name: String,
    /// Storage type.
    pub dtype: DType,
    /// Extents; bound when a program is built, but for sizes a target supports at run time.
    pub shape: SmallVec<[Size; 4]>,
    /// What it is for.
    pub class: Class,
    /// The value before the first write, for `Scalar`; 0 otherwise.
    pub default: f64,
}

/// Writes `value` at a point. Distinct points of the domain go to distinct elements, all inside.
#[derive(Clone, Debug)]
pub struct Store {
    /// The destination.
    pub buffer: BufferId,
    /// Where, as a function of the domain's axes; no guards, `div` 1.
    pub access: Access,
    /// What.
    pub value: ExprId,
}

/// One part of a map kernel: the stores are made at every point of `axes`.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The domain.
    pub axes: SmallVec<[Size; 4]>,
    /// Everything that is computed at a point.
    pub exprs: Exprs,
    /// At least one.
    pub stores: Vec<Store>,
}

/// One step of a row kernel.
#[derive(Clone, Debug)]
pub enum Step {
    /// Folds an expression over the inner axes; `Expr::Folded(k)` is the result of step `k`.
    Fold(FoldOp, ExprId),
    /// Stores once per row: neither access nor value uses an inner axis.
    StoreRow(Store),
    /// Stores at every point of the row.
    StoreEach(Store),
}

impl Step {
    /// What it computes.
    pub fn value(&self) -> ExprId {
        match self {
            Step::Fold(_, element) => *element,
            Step::StoreRow(store) | Step::StoreEach(store) => store.value,
        }
    }

    /// What it stores, if it stores anything.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Step::Fold(..) => None,
            Step::StoreRow(store) | Step::StoreEach(store) => Some(store),
        }
    }
}

/// What a scatter does to an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterMode {
    /// Adds to it, after the whole buffer has been set to 0.
    Add,
    /// Replaces it; the others stay. Points have elements of their own, and an index outside is no
    /// error: whoever needs to know looks it up before.
    Overwrite,
}

impl ScatterMode {
    /// Its name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            ScatterMode::Add => "scatter_add",
            ScatterMode::Overwrite => "overwrite",
        }
    }
}

/// What a kernel computes. Nothing here says how: loops, tiles and threads are the target's.
#[allow(clippy::large_enum_variant, reason = "a program has few, each made once")]
#[derive(Clone, Debug)]
pub enum Form {
    /// Pointwise work over the union of segments: activations, optimizer updates, concatenation.
    /// A store may overwrite a buffer that the same segment loads at the same point.
    Map {
        /// Independent of one another.
        segments: Vec<Segment>,
    },
    /// For each point of `outer`: the steps in order. A plain reduction is one fold and one
    /// `StoreRow`; softmax is two folds and a `StoreEach`. Axes: `outer` first, then `inner`.
    Row {
        /// One row for each point.
        outer: SmallVec<[Size; 4]>,
        /// The points of a row.
        inner: SmallVec<[Size; 4]>,
        /// Everything that is computed.
        exprs: Exprs,
        /// In order; an expression may use any fold before its step.
        steps: Vec<Step>,
    },
    /// `acc[out] = sum over reduce of lhs * rhs`, then the stores, where `Expr::Folded(0)` is the
    /// sum. Matrix products, convolutions and their gradients. Axes: `out` first, then `sums`, then
    /// `reduce`.
    Contract {
        /// The domain of the result.
        out: SmallVec<[Size; 4]>,
        /// A point has a sum for each of their points: `Expr::Folded(k)` is that of number `k`, in
        /// row-major order. Lowering gives points one sum, and no axes here; a target that computes
        /// the gates of a recurrent step together has one for each gate.
        sums: SmallVec<[Size; 4]>,
        /// Summed over.
        reduce: SmallVec<[Size; 4]>,
        /// Everything that is computed.
        exprs: Exprs,
        /// Over all axes; often a load, with its prologue if there is one. A fill of 0 outside.
        lhs: ExprId,
        /// As `lhs`.
        rhs: ExprId,
        /// Over the `out` axes only.
        stores: Vec<Store>,
    },
    /// For every point of `axes`, in row-major order: `buffer[access, lookups]` takes up `value`.
    /// Points outside are skipped.
    Scatter {
        /// How.
        mode: ScatterMode,
        /// The domain of the updates.
        axes: SmallVec<[Size; 4]>,
        /// Everything that is computed.
        exprs: Exprs,
        /// The destination.
        buffer: BufferId,
        /// Coordinates; 0 where a lookup decides.
        access: Access,
        /// At least one.
        lookups: SmallVec<[Lookup; 1]>,
        /// What is added or written.
        value: ExprId,
    },
    /// `dst` holds the elements of `src` in row-major order under another shape. Free where the
    /// target lays out both in that order.
    Reshape {
        /// Read.
        src: BufferId,
        /// Written whole.
        dst: BufferId,
    },
    /// `start` once, then `body` at every step `0..steps`, in order. What a step needs of earlier
    /// ones is in memory: a carried value is a buffer with one more element than there are steps,
    /// whose first is written by `start`.
    ///
    /// The domain of every kernel of `body` begins with the step (of a `Map`, in every segment; of a
    /// `Row`, `outer`; of a `Contract`, `out`). At step `t` it runs for the points whose first
    /// axis is `t`. In loops within loops the steps of the outer ones come before, for `start`
    /// too. A `Scatter` at a step sets to 0 what has the steps as its first coordinates.
    Loop {
        /// How often `body` runs.
        steps: Size,
        /// Runs before the first step.
        start: Vec<Kernel>,
        /// Maps, rows, contractions, scatters and loops, at least one.
        body: Vec<Kernel>,
    },
    /// Sets the error word if any element of a buffer is not finite.
    Check {
        /// What is tested, in this order; the first offender is named.
        buffers: Vec<BufferId>,
    },
}

/// One launch, as the program sees it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Readable and unique within its entry: `conv1_relu`, `softmax_2`. Letters, digits, `_`.
    pub name: String,
    /// The line that asked for it.
    pub origin: Origin,
    /// What it computes.
    pub form: Form,
}

/// One thing a program can be called for: `init`, `train`, `eval`, `run`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Unique within the program: what it does, and after a `.` what tells it from others that do
    /// the same for other sizes.
    pub name: String,
    /// Buffers of class `Input`, in calling order.
    pub inputs: Vec<BufferId>,
    /// Buffers the caller receives, in calling order; mostly of class `Output`.
    pub outputs: Vec<BufferId>,
    /// In execution order.
    pub kernels: Vec<Kernel>,
    /// Kernels from here on write parameters and state; they are skipped once the error word is
    /// set, so that a failing call changes nothing.
    pub commit: usize,
}

impl Entry {
    /// What it does: `train`.
    pub fn role(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// What a target compiles: entries that share parameters and state.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// All buffers of all entries. `Param`, `State` and `Scalar` are shared by name.
    pub buffers: Vec<Buffer>,
    /// At least one.
    pub entries: Vec<Entry>,
}

impl Program {
    /// The buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

impl Buffer {
    /// Number of elements, if all extents are bound.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, s| n.checked_mul(s.as_const()?.try_into().ok()?))
    }
}

impl Kernel {
    /// How errors name it: ``kernel `softmax_2` (lenet.dl:4)``.
    pub fn place(&self) -> String {
        place(&self.name, &self.origin)
    }
}

/// How errors name a kernel: ``kernel `softmax_2` (lenet.dl:4)``.
pub fn place(name: &str, origin: &Origin) -> String {
    match origin {
        Some(at) => format!("kernel `{name}` ({}:{})", at.file, at.line),
        None => format!("kernel `{name}`"),
    }
}

impl Form {
    /// The form's name in dumps.
    pub const fn name(&self) -> &'static str {
        match self {
            Form::Map { .. } => "map",
            Form::Row { .. } => "row",
            Form::Contract { .. } => "contract",
            Form::Scatter { mode, .. } => mode.name(),
            Form::Reshape { .. } => "reshape",
            Form::Loop { .. } => "loop",
            Form::Check { .. } => "check",
        }
    }

    /// A contraction of two factors whose points have one sum.
    pub fn contract(
        out: SmallVec<[Size; 4]>,
        reduce: SmallVec<[Size; 4]>,
        exprs: Exprs,
        [lhs, rhs]: [ExprId; 2],
        stores: Vec<Store>,
    ) -> Form {
        Form::Contract { out, sums: SmallVec::new(), reduce, exprs, lhs, rhs, stores }
    }

    /// Whether it is a contraction whose points have several sums.
    pub fn has_several_sums(&self) -> bool {
        matches!(self, Form::Contract { sums, .. } if !sums.is_empty())
    }
}

/// How many sums a point of a contraction has, if the sizes are bound.
pub fn sum_count(sums: &[Size]) -> u32 {
    let count: Option<i64> = sums.iter().map(Size::as_const).product();
    count.and_then(|n| n.try_into().ok()).unwrap_or(1)
}

/// The binary operation that merges two partial folds, for folds of values.
pub const fn merge_op(op: FoldOp) -> Option<BinaryOp> {
    match op {
        FoldOp::Sum => Some(BinaryOp::Add),
        FoldOp::Prod => Some(BinaryOp::Mul),
        FoldOp::Max => Some(BinaryOp::Max),
        FoldOp::Min => Some(BinaryOp::Min),
        FoldOp::ArgMax | FoldOp::ArgMin => None,
    }
}
