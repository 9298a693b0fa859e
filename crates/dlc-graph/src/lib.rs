//! The tensor graph of dlc.
//!
//! A [`Graph`] says which tensors are computed from what. Nodes are operations ([`op::Op`]), edges
//! are tensors; forward, gradient and fused graphs are all of this one type. What holds:
//!
//! - Every node has a type; [`Graph::add`] infers it or refuses, so no ill-typed graph exists.
//! - A graph only grows. Operands have smaller numbers than users; equal operations on equal
//!   operands are one node. What must stay distinct although it looks equal (randomness) carries
//!   what distinguishes it as an attribute.
//! - A graph is pure. A training step *returns* the next parameters ([`Role::Update`]); writing
//!   them in place is the kernel program's business.
//! - Sizes may be symbolic until a program is made.
//! - A [`Fused`](op::Fused) operation is defined by its body.
//!
//! Gradients are graphs: [`differentiate`] replaces every `grad`, each operation's rule says how,
//! and [`adjoint()`] is the one idea behind the rules of affine reads. Text goes both ways
//! ([`Graph::parse`], `Display`), sizes get values by [`Graph::bind`], and [`verify()`] checks all
//! of the above between passes.
//!
//! Operations are declared once, in [`op`]; start there. [`eval`](mod@eval) is the reference in
//! f64.
#![forbid(unsafe_code)]

mod adjoint;
mod bind;
mod build;
mod cost;
mod differentiate;
mod error;
pub mod eval;
mod graph;
mod kept;
pub mod op;
mod parse;
mod print;
mod reader;
mod rebuild;
mod scan;
mod table;
mod ty;
mod verify;

pub use adjoint::{Adjoint, adjoint};
pub use bind::BindError;
pub use cost::{EXPENSIVE, cost};
pub use differentiate::{differentiate, pullback};
pub use error::ShapeError;
pub use graph::{Graph, MAX_NODES, Operands, Outcome, Role, Value};
pub use parse::ParseError;
pub use scan::{Carried, Loop};
pub use ty::{MAX_BYTES, MAX_RANK, Shape, Type};
pub use verify::{verify, verify_differentiated};
