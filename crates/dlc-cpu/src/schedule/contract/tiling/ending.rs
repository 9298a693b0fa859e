//! What becomes of the sums, as the choice of a tiling sees it.

use super::{Cut, Epilogue, LINE};
use std::sync::Arc;

/// What becomes of the sums, as rows and columns see it.
#[derive(Clone, Debug)]
pub(in super::super) struct Ending {
    /// How a tile itself can make the stores, if its points are even.
    pub epilogue: Option<Arc<Epilogue>>,
    /// Whether the rows are one axis to every tensor of the stores.
    pub even_rows: bool,
    /// The same of the columns.
    pub even_columns: bool,
    /// Where columns are in the first store.
    pub columns: Neighbours,
}

/// Where neighbours are in a tensor that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Neighbours {
    /// Next to each other.
    Together,
    /// In lines of their own.
    Apart,
    /// In lines that want the same few places in the first level.
    Crowded,
}

impl Neighbours {
    /// Those that are so many elements apart.
    pub fn by(step: i64) -> Neighbours {
        match step {
            1 => Neighbours::Together,
            step if step != 0 && step % (32 * LINE) == 0 => Neighbours::Crowded,
            _ => Neighbours::Apart,
        }
    }
}

impl Ending {
    /// How a tile of these sides makes the stores.
    pub(super) fn of_tile(&self, rows: Cut, columns: Cut) -> Option<&Arc<Epilogue>> {
        let even = |cut: Cut, is_one: bool| is_one || cut.is_even();
        let fits = even(rows, self.even_rows) && even(columns, self.even_columns);
        self.epilogue.as_ref().filter(|_| fits)
    }

    /// Cycles to store a point.
    pub(super) fn store_cost(&self, rows: Cut, columns: Cut) -> f64 {
        match (self.of_tile(rows, columns), self.columns) {
            (Some(_), _) => 0.25,
            (None, Neighbours::Together) => 0.75,
            (None, Neighbours::Apart) => 2.5,
            (None, Neighbours::Crowded) => 10.0,
        }
    }
}
