//! Elaboration: graphs of small models, numbers of the standard library, gradients of whole models,
//! messages, and broken sources.

mod gradients;
mod graphs;
mod library;
mod losses;
mod mistakes;
mod mutations;
mod support;
