//! What a data set gives: its parts, and what models need to know of it.

use crate::data::{Dataset, Vocabulary};

/// A data set, read.
#[derive(Clone, Debug)]
pub struct Parts {
    /// For training.
    pub train: Dataset,
    /// For validation; `None` if it is to be a part of `train`.
    pub validation: Option<Dataset>,
    /// For the final figure alone.
    pub test: Option<Dataset>,
    /// Sizes of dims that it defines: `T`, the length of a sequence, `V`, the size of the
    /// vocabulary.
    pub sizes: Vec<(&'static str, usize)>,
    /// Those of the dims that are shorter in batches of short samples ([`Dataset::with_lengths`]).
    pub cut: &'static [&'static str],
    /// What ids stand for.
    pub vocabulary: Option<Vocabulary>,
}

impl Parts {
    /// Samples for training, of which a part is to be for validation.
    pub fn of(train: Dataset) -> Parts {
        let (validation, test, sizes, vocabulary) = Default::default();
        Parts { train, validation, test, sizes, cut: &[], vocabulary }
    }
}
