//! Elaboration: graphs of small models, numbers of the standard library, gradients of whole models,
//! messages, and broken sources.

mod attention;
mod documented;
mod gradients;
mod graphs;
mod library;
mod losses;
mod mistakes;
mod mutations;
mod steps;
mod support;
