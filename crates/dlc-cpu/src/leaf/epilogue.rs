//! What becomes of the sums of a register tile once all terms are added.
//!
//! An [`Epilogue`] computes its code for every element of the tile, from the element's sum and from
//! streams, and stores some of the values, while the sums are still in registers. Everything besides
//! the sums is found through the argument block of the tile, behind [`GemmArgs`]: for each stream the
//! address of its first element and the bytes from one row of the tile to the next, then the values
//! that are the same for all elements. Elements are of four bytes, or truth values of one. A stream may be loaded and stored; another stream must not overlap one that is
//! stored. The addresses in the block move on: afterwards they are those of the tile below.
//!
//! [`GemmArgs`]: super::GemmArgs

use super::GEMM_ARGS_BYTES;
use super::lanes::{Lanes, Op, Vector};

/// The most streams an epilogue may have: so many registers are left for addresses.
pub const MAX_STREAMS: usize = 8;

/// Straight-line code on the sums of a tile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// What is computed for an element. `Carry(F32, 0)` is its sum, the first of all operations;
    /// `Input(_, k)` is the element of stream `k`; after the streams come the values.
    pub lanes: Lanes,
    /// How the elements of each stream lie.
    pub streams: Vec<Spread>,
    /// How many values of four bytes there are that are the same for all elements.
    pub values: u16,
    /// Streams of neighbours, and what is stored to them.
    pub stores: Vec<(u16, Vector)>,
}

/// How a stream moves along a row of the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Its elements are neighbours.
    Neighbours,
    /// Its elements are neighbours, truth values of one byte.
    Truths,
    /// It stands still: one element is that of the whole row.
    Still,
    /// It is not in memory: its elements are integers that count up. The first one of a row stands
    /// in the place of the address, what is added from row to row in that of the bytes.
    Counting,
}

impl Epilogue {
    /// Where the address of a stream is in the argument block.
    pub fn stream_at(&self, stream: usize) -> i32 {
        GEMM_ARGS_BYTES as i32 + 16 * stream as i32
    }

    /// Where the bytes from one row to the next are.
    pub fn step_at(&self, stream: usize) -> i32 {
        self.stream_at(stream) + 8
    }

    /// Where a value is.
    pub fn value_at(&self, value: usize) -> i32 {
        self.stream_at(self.streams.len()) + 4 * value as i32
    }

    /// Bytes of the argument block, [`GemmArgs`](super::GemmArgs) included.
    pub fn args_bytes(&self) -> u32 {
        (self.value_at(self.values.into()) as u32).next_multiple_of(8)
    }

    /// Everything that is computed.
    pub fn roots(&self) -> Vec<Vector> {
        self.stores.iter().map(|s| s.1).collect()
    }

    /// Whether the elements of a stream are loaded.
    pub fn loads(&self, stream: usize) -> bool {
        let loads = |v| matches!(self.lanes.op(v), Op::Input(_, k) if usize::from(k) == stream);
        self.lanes.reachable(&self.roots()).into_iter().any(loads)
    }
}
