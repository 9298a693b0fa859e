//! Words for the parts of a tiling, as dumps show them.

use super::tiling::Ending;
use super::{Sums, Supply};
use std::fmt;

impl fmt::Display for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Supply::Direct(steps) => {
                write!(f, "in place by {} and {:?}", steps.side, &steps.depth[..])
            }
            Supply::AtLoad => f.write_str("packed at load"),
            Supply::PerCall => f.write_str("packed per call"),
            Supply::PerUnit => f.write_str("packed per unit"),
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sums::Registers(_) => f.write_str("stores from registers"),
            Sums::Workspace => f.write_str("sums in workspace"),
            Sums::Shares => f.write_str("sums in shares"),
        }
    }
}

impl fmt::Display for Ending {
    /// `a leaf's stores of even rows and columns, neighbours`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.epilogue.is_some() { "a leaf's stores" } else { "stores" })?;
        f.write_str(match (self.even_rows, self.even_columns) {
            (true, true) => " of even rows and columns",
            (true, false) => " of even rows",
            (false, true) => " of even columns",
            (false, false) => "",
        })?;
        f.write_str(if self.contiguous { ", neighbours" } else { "" })
    }
}
