//! The language of dlc: text to graph, and every error a user can make.
//!
//! A model file is read in two steps. [`parse`](fn@parse) turns text into an [`ast::Ast`], in which every
//! node knows its place; elaboration gives names, sizes and hyperparameters their meaning and
//! builds graphs. This crate is the only place where a user's mistakes in a model become messages:
//! [`diagnostic::Diagnostic`] values, collected over the whole file and rendered in rustc's form.
//! After it, anything that goes wrong is dlc's own mistake.
//!
//! - [`source`]: files, byte spans, lines and columns.
//! - [`diagnostic`], [`code`]: messages, and the table of their codes.
//! - [`ast`]: the syntax tree, printed as source or as a tree.
//! - [`parse`](mod@parse): tokens, layout, grammar, tree building.
//! - [`unit`](mod@unit): a file with its library, and what callers ask of it; start there.

pub mod ast;
pub mod code;
pub mod diagnostic;
mod elaborate;
mod library;
pub mod parse;
pub mod source;
mod stack;
pub mod unit;

pub use code::Code;
pub use diagnostic::{Diagnostic, Style, render};
pub use elaborate::{
    Comparison, Constraint, DataArg, DataSpec, EarlyStop, MAX_INSTANCE_DEPTH, MAX_NODES, Mode,
    Model, ParamInfo, Relation, Settings, StateInfo, TrainOverrides, Training, Validation,
};
pub use library::FILES as STANDARD_LIBRARY;
pub use parse::parse;
pub use source::{FileId, Sources, Span};
pub use stack::{STACK_BYTES, on_large_stack};
pub use unit::{ParseFailure, Unit};
