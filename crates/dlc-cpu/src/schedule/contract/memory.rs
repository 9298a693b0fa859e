//! The memory of a contraction: panels, shares of sums, and sums that wait for more terms.

use super::{Algorithm, ContractSchedule, Sums, Supply, Tiling, Which};
use crate::schedule::Workspace;

/// The parts of one worker's own workspace, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Where the packed columns are.
    pub columns: i64,
    /// Where the packed rows are.
    pub rows: i64,
    /// Where the sums are.
    pub sums: i64,
    /// Bytes in all.
    pub bytes: i64,
}

impl ContractSchedule<'_> {
    /// The memory it needs besides its buffers.
    pub fn workspace(&self) -> Workspace {
        let bytes = |n: i64| usize::try_from(n).expect("sizes are not negative");
        Workspace {
            lasting: bytes(self.both_packed_bytes(&Supply::AtLoad)),
            shared: bytes(self.shares_offset() + self.shares_bytes()),
            scratch: bytes(self.scratch().bytes),
        }
    }

    /// The workspace of one worker.
    pub fn scratch(&self) -> Scratch {
        let tiling = match &self.algorithm {
            Algorithm::Plain | Algorithm::Dot => return Scratch::EMPTY,
            Algorithm::Sweep(run) => {
                let bytes = align(4 * run);
                return Scratch { bytes, ..Scratch::EMPTY };
            }
            Algorithm::Tiled(tiling) => tiling,
        };
        let per_unit = |which, positions: i64| match tiling.supply(which) {
            Supply::PerUnit => align(4 * tiling.depth_block * positions + VECTOR_BYTES),
            _ => 0,
        };
        let columns = per_unit(Which::Columns, tiling.column_block);
        let rows = per_unit(Which::Rows, tiling.row_block);
        let waits = match tiling.sums {
            Sums::Workspace => true,
            Sums::Registers(_) => tiling.depth_block < self.depth.points(),
            Sums::Shares => false,
        };
        let block = tiling.row_block * tiling.column_block;
        let sums = if waits { align(4 * block) } else { 0 };
        Scratch { columns: 0, rows: columns, sums: columns + rows, bytes: columns + rows + sums }
    }

    /// Bytes of a side packed whole, if it is packed as `supply` says.
    fn packed_bytes(&self, which: Which, supply: &Supply) -> i64 {
        match &self.algorithm {
            Algorithm::Tiled(t) if t.supply(which) == supply => {
                let positions = self.packed_room(which, supply) * self.side(which).axes.points();
                align(4 * positions * self.depth.points() + VECTOR_BYTES)
            }
            _ => 0,
        }
    }

    /// How many products' worth of a side that is packed whole is in memory at a time: a step's, but of
    /// what is packed long before.
    pub fn packed_room(&self, which: Which, supply: &Supply) -> i64 {
        match supply {
            Supply::AtLoad => self.packed_batch(which).points(),
            _ => self.own_batch(),
        }
    }

    /// Bytes of both sides, as far as they are packed whole as `supply` says: rows, then columns.
    fn both_packed_bytes(&self, supply: &Supply) -> i64 {
        self.packed_bytes(Which::Rows, supply) + self.packed_bytes(Which::Columns, supply)
    }

    /// Where a side that is packed whole begins in the workspace that holds it.
    pub fn packed_offset(&self, which: Which, supply: &Supply) -> i64 {
        if which == Which::Rows { 0 } else { self.packed_bytes(Which::Rows, supply) }
    }

    /// Where the shares of the sums begin in the shared workspace: after what is packed.
    pub fn shares_offset(&self) -> i64 {
        self.both_packed_bytes(&Supply::PerCall)
    }

    /// Floats from one row of a share to the next: whole vectors, as shares are added in them.
    pub fn share_step(&self, tiling: &Tiling) -> i64 {
        (self.column_blocks(tiling) * tiling.column_block + 15) & !15
    }

    /// Floats of one share: the sums of a step's batches.
    pub fn share_floats(&self, tiling: &Tiling) -> i64 {
        self.own_batch() * self.rows.axes.points() * self.share_step(tiling)
    }

    fn shares_bytes(&self) -> i64 {
        match &self.algorithm {
            Algorithm::Tiled(t) if t.sums == Sums::Shares => {
                align(4 * t.shares.count * self.share_floats(t))
            }
            _ => 0,
        }
    }
}

impl Scratch {
    const EMPTY: Scratch = Scratch { columns: 0, rows: 0, sums: 0, bytes: 0 };
}

/// What a panel may be read beyond its end: less than the widest vector.
const VECTOR_BYTES: i64 = 64;

fn align(bytes: i64) -> i64 {
    (bytes + 63) & !63
}
