//! Data sets in memory and their batches.
//!
//! A [`Dataset`] is a list of named fields over the same samples; subsets share its storage.
//! [`Batches`] copies samples, in a shuffled or natural order, into buffers it reuses.

mod batches;
mod bpe;
mod chorales;
mod dataset;
pub mod idx;
pub mod mnist;
mod parts;
mod sequences;
pub mod text;
mod vocabulary;

pub use batches::{Batch, Batches};
pub use chorales::chorales;
pub use dataset::{Dataset, Field};
pub use parts::Parts;
pub use sequences::sequences;
pub use vocabulary::{END, Unit, Vocabulary};
