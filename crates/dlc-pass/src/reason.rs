//! Why two operations that touch are not one kernel.

use std::fmt;

/// The rule that keeps an operation ("it") out of a kernel, noted where the rule is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Its domain is another one.
    OtherAxes,
    /// It is a fold, over another domain.
    OtherFold,
    /// Its readers need it at different places of the domain.
    TwoPlaces,
    /// It needs a value at another place than the kernel computes it.
    ReadsElsewhere,
    /// A reader looks it up where data says, so it must be in memory.
    Lookup,
    /// A lookup would happen at points a view leaves out.
    GuardedLookup,
    /// It would be evaluated for each use of a contraction's operand.
    RepeatedInContraction,
    /// The kernel that makes what it reads can take it in for less.
    CheaperElsewhere,
    /// It would be evaluated for each element that reads it.
    Repeated,
    /// One is before the check, the other after it.
    Check,
    /// A path from one to the other leaves both.
    InBetween,
    /// It is needed elsewhere, in a shape that does not cover the domain.
    OtherShape,
    /// A map stores its results in one order.
    OtherOrder,
    /// An operand is not stored by the contraction that reads it.
    OperandStored,
    /// A row kernel stores contiguous rows.
    RowsApart,
    /// A limit on the operations of a kernel.
    TooManyOperations,
    /// A limit on the tensors a kernel reads.
    TooManyOperands,
    /// A limit on the tensors a kernel writes.
    TooManyResults,
    /// Contractions begin kernels.
    Contraction,
    /// Folds join kernels of rows only.
    Fold,
    /// It has a kernel of its own, whatever is around it.
    Alone,
    /// It had become part of another kernel before.
    Taken,
}

impl Reason {
    /// The reason as a clause.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::OtherAxes => "it runs over other axes",
            Reason::OtherFold => "it folds over other axes",
            Reason::TwoPlaces => "it is read at two places",
            Reason::ReadsElsewhere => "it reads a value at another place than others",
            Reason::Lookup => "data decides where it is read",
            Reason::GuardedLookup => "an index would be looked up where a view is outside",
            Reason::RepeatedInContraction => {
                "a contraction would evaluate it again for each use of an operand"
            }
            Reason::CheaperElsewhere => "what it reads can take it in for less",
            Reason::Repeated => "it would be computed again for each element that reads it",
            Reason::Check => "the check stands between gradients and optimizer",
            Reason::InBetween => "a value in between is computed by another kernel",
            Reason::OtherShape => "it is needed elsewhere in another shape",
            Reason::OtherOrder => "its elements are in another order",
            Reason::OperandStored => "an operand of a contraction is not stored by it",
            Reason::RowsApart => "its rows are not contiguous",
            Reason::TooManyOperations => "the kernel would have too many operations",
            Reason::TooManyOperands => "the kernel would read too many tensors",
            Reason::TooManyResults => "the kernel would write too many tensors",
            Reason::Contraction => "a contraction begins a kernel of its own",
            Reason::Fold => "a fold joins kernels of rows only",
            Reason::Alone => "it always has a kernel of its own",
            Reason::Taken => "another kernel had taken it in",
        }
    }

    /// Whether it says what a kernel is, rather than what was wrong with a wider one.
    pub const fn is_general(self) -> bool {
        matches!(self, Reason::Contraction | Reason::Fold | Reason::Alone | Reason::Taken)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
