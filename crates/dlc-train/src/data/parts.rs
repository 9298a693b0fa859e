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
    /// What ids stand for.
    pub vocabulary: Option<Vocabulary>,
}

impl Parts {
    /// Samples for training, of which a part is to be for validation.
    pub fn of(train: Dataset) -> Parts {
        Parts { train, validation: None, test: None, sizes: Vec::new(), vocabulary: None }
    }
}
