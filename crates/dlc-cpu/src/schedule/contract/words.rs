//! Words for the parts of a tiling, as dumps show them.

use super::tiling::{Ending, Neighbours, Tiling};
use super::{Algorithm, ContractSchedule, Reach, Sums, Supply, Which};
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
        f.write_str(match self.columns {
            Neighbours::Together => ", neighbours",
            Neighbours::Apart => "",
            Neighbours::Crowded => ", crowded",
        })
    }
}

impl fmt::Display for Reach {
    /// `some columns and some terms for each`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_columns = self.columns.is_empty() && self.zeros.is_empty();
        f.write_str(match (all_columns, self.depth.is_empty()) {
            (true, true) => "all columns and terms for each",
            (true, false) => "some terms for each",
            (false, true) => "some columns for each",
            (false, false) => "some columns and some terms for each",
        })
    }
}

impl fmt::Display for ContractSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.algorithm {
            Algorithm::Plain => writeln!(f, "contract plain, a unit is a point"),
            Algorithm::Dot => writeln!(f, "contract dot, a unit is a point"),
            Algorithm::Sweep(run) => {
                writeln!(f, "contract sweep, a unit is a run of {run} columns")
            }
            Algorithm::Tiled(t) => write_tiling(t, &self.describe_sums(t), f),
        }?;
        writeln!(f, "rows     {}", self.rows)?;
        writeln!(f, "columns  {}", self.columns)?;
        writeln!(f, "batch    {}", self.batch)?;
        writeln!(f, "depth    {}", self.depth)?;
        if let Some((reach, rows)) = self.bands() {
            writeln!(f, "bands    {rows} rows, {reach}")?;
        }
        if let Some(mask) = self.reach.needed {
            writeln!(f, "sums     where e{}", mask.0)?;
        }
        if let Some(ends) = &self.reach.points {
            let name = if ends.of == Which::Rows { "columns" } else { "rows" };
            writeln!(f, "points   {name} {}", ends.tail)?;
        }
        if let Some(ends) = &self.reach.terms {
            writeln!(f, "terms    {}", ends.tail)?;
        }
        for stage in self.stages() {
            writeln!(f, "{:<9} {} units", stage.name(), self.units(stage))?;
        }
        let space = self.workspace();
        write!(f, "memory   {} B per worker, {} B shared", space.scratch, space.shared)?;
        if space.lasting > 0 { write!(f, ", {} B lasting", space.lasting) } else { Ok(()) }
    }
}

impl ContractSchedule<'_> {
    /// `4 sums a point, sums in workspace, stores by a leaf`.
    pub fn describe_sums(&self, t: &Tiling) -> String {
        let several = self.bundle.map_or(String::new(), |b| format!("{} sums a point, ", b.sums));
        let by = if self.ending.is_some() { ", stores by a leaf" } else { "" };
        format!("{several}{}{by}", t.sums)
    }
}

fn write_tiling(t: &Tiling, sums: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "contract tiled {}x{}, {sums}", t.tile.rows, t.tile.columns)?;
    writeln!(f, "panels   rows {}, columns {}", t.rows, t.columns)?;
    write!(f, "blocks   {} rows, {} columns, ", t.row_block, t.column_block)?;
    write!(f, "{} deep", t.depth_block)?;
    writeln!(
        f,
        "{}",
        if t.shares.count > 1 { format!("; {} shares", t.shares.count) } else { String::new() }
    )
}
