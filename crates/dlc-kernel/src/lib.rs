//! The kernel IR of dlc: which kernels, over which buffers, computing what, in which order.
//!
//! A [`Program`] is what a target reads. Its buffers are logical (type, extents, class; no strides,
//! no addresses). Its kernels come in a few structured forms ([`Form`]) that say *what* is computed
//! at every point of a domain, through one DAG of scalar expressions ([`Exprs`]); *how* (loops,
//! tiles, vectors, threads, layouts) is the target's own business and never appears here.
//!
//! What holds, and [`verify()`] checks (each [`Rule`] says more):
//! - Every access has one coordinate per dim of its buffer, over axes of its domain.
//! - Loads are total: outside the buffer they give their fill. Stores are always inside, and
//!   distinct points write distinct elements.
//! - A `Temp` or `Output` is written whole by one kernel before any kernel of that entry reads it.
//! - A kernel reads what it writes only in a map, at the very point that is written.
//! - Parameters and state are written only by kernels at or after [`Entry::commit`], which is where
//!   a failed call stops; before it, nothing that outlives the call has changed, and once something
//!   has, nothing can fail any more.
//! - Types are explicit: operands have one type, and buffers store their computing type.
//!
//! Folds have a fixed order that depends on shapes alone, so results never depend on threads.
//!
//! Start with [`program`], then [`Expr`], [`Access`] and [`Size`]. Around them:
//! - [`eval`](mod@eval) runs a program slowly and exactly: the oracle every target is tested
//!   against. Scalar semantics are [`UnaryOp::eval`], [`BinaryOp::eval`], [`cast`], [`Folding`] and
//!   [`philox`].
//! - `Display` of a [`Program`] is what `--emit kernels` shows.
//! - [`plan`] lets temporaries share memory once a target has chosen layouts.
//! - [`mod@place`] turns accesses into element offsets, for targets whose buffers are row-major.
//! - [`region`] says which elements of tensors matter.
//! - [`lanes`] says how targets compute scalar operations: straight-line code, without width.
//! - [`Target`] and [`Executable`] are what a target offers.
#![forbid(unsafe_code)]

mod array;
mod cost;
mod dtype;
pub mod eval;
mod expr;
mod index;
pub mod lanes;
mod part;
pub mod philox;
pub mod place;
pub mod plan;
mod print;
pub mod program;
pub mod region;
mod scalar;
mod size;
mod target;
mod tensor;
pub mod verify;

pub use array::{Array, Point, points};
pub use dtype::DType;
pub use eval::Machine;
pub use expr::{Expr, ExprId, Exprs, Lookup, Scalar, fold_dtype};
pub use index::{Access, Axis, Guard, Index, lcm};
pub use part::{Fold, Part};
pub use program::{
    Buffer, BufferId, Class, Entry, Form, Kernel, Location, Origin, Program, ScatterMode, Segment,
    Step, Store, merge_op, place,
};
pub use scalar::{BinaryOp, FoldOp, Folding, UnaryOp, cast};
pub use size::{Bindings, MAX_DIM, Size, SizeError};
pub use target::{
    BuildError, BuildOptions, Decision, Decisions, Executable, Made, OptLevel, RunError, StageTime,
    Target,
};
pub use tensor::{Data, Tensor};
pub use verify::{Rule, VerifyError, verify};
