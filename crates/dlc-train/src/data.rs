//! Data sets in memory and their batches.
//!
//! A [`Dataset`] is a list of named fields over the same samples; subsets share its storage.
//! [`Batches`] copies samples, in a shuffled or natural order, into buffers it reuses.

mod batches;
mod dataset;
pub mod idx;
pub mod mnist;

pub use batches::{Batch, Batches};
pub use dataset::{Dataset, Field};
