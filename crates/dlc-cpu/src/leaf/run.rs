//! A leaf with memory of its own: what measurements run again and again.

use super::loops::{Loop, Stream};
use super::{GemmArgs, GemmTile, Leaf, MAX_LEVELS};
use crate::jit::Module;
use crate::level::Level;
use crate::memory::Memory;
use dlc_kernel::BuildError;
use std::sync::Arc;

/// Bytes between streams, so that equal elements of two do not fall into one set of a cache.
const APART: usize = 320;

/// A compiled leaf with an argument block that describes memory of its own, all of it ones.
pub struct LeafRun {
    module: Module,
    args: Box<[u64]>,
    /// Owns what `args` points into.
    _memory: Memory,
}

// SAFETY: the addresses in `args` go into its own memory.
unsafe impl Send for LeafRun {}

impl LeafRun {
    /// A loop over `count` elements of streams of four-byte elements.
    ///
    /// # Errors
    /// [`BuildError::Machine`] if this machine lacks the level or there is no memory.
    ///
    /// # Panics
    /// If a stream has other elements, or shares its address.
    pub fn of_loop(level: Level, code: Loop, count: usize) -> Result<LeafRun, BuildError> {
        let mut streams = code.streams.iter().enumerate();
        let own = |(k, s): (usize, &Stream)| s.dtype.bytes() == 4 && usize::from(s.address) == k;
        assert!(streams.all(own), "each stream is of four bytes, at its address");
        let bytes = (4 * count).next_multiple_of(64) + APART;
        let memory = ones(code.streams.len() * bytes)?;
        let mut args = vec![0; code.args_bytes() as usize / 8].into_boxed_slice();
        args[0] = count as u64;
        for stream in 0..code.streams.len() {
            let at = code.address_at(stream) as usize / 8;
            args[at] = memory.at((stream * bytes) as u64) as u64;
        }
        LeafRun::new(level, Leaf::Loop(Arc::new(code)), args, memory)
    }

    /// A register tile over packed panels of `depth` steps.
    ///
    /// # Errors
    /// As [`LeafRun::of_loop`].
    ///
    /// # Panics
    /// If the tile has another left panel or more loops.
    pub fn of_tile(level: Level, tile: GemmTile, depth: usize) -> Result<LeafRun, BuildError> {
        let plain = GemmTile { short: tile.short, ..GemmTile::packed(tile.rows, tile.columns) };
        assert_eq!(tile, plain, "the panels of a tile that is measured are packed");
        let (rows, columns) = (usize::from(tile.rows), usize::from(tile.columns));
        let (left, right) = (4 * rows * depth, 4 * columns * depth);
        let memory = ones(left + right + 4 * rows * columns + 2 * APART)?;
        let args = GemmArgs {
            a: memory.at(0).cast(),
            b: memory.at(left.next_multiple_of(64) as u64).cast(),
            c: memory.at((left + right).next_multiple_of(64) as u64 + 64).cast(),
            counts: [depth as i64, 1, 1],
            a_moves: [4 * rows as i64; MAX_LEVELS],
            b_moves: [4 * columns as i64; MAX_LEVELS],
            a_row: 4,
            c_step: 4 * columns as i64,
            tiles: 1,
            a_tile: 0,
            next: std::ptr::null(),
            accumulate: 0,
            finish: 0,
        };
        // SAFETY: the block is made of words only, without padding.
        let args =
            unsafe { std::mem::transmute::<GemmArgs, [u64; size_of::<GemmArgs>() / 8]>(args) };
        LeafRun::new(level, Leaf::Gemm(tile, None), args.into(), memory)
    }

    fn new(
        level: Level,
        leaf: Leaf,
        args: Box<[u64]>,
        memory: Memory,
    ) -> Result<LeafRun, BuildError> {
        level.require()?;
        Ok(LeafRun { module: Module::of_leaves(level, &[leaf])?, args, _memory: memory })
    }

    /// Runs the leaf so many times.
    pub fn run(&mut self, times: usize) {
        let leaf = self.module.leaf(0);
        for _ in 0..times {
            // SAFETY: the block describes memory that the leaf may use as it does, and this value
            // alone owns it.
            unsafe { leaf(self.args.as_mut_ptr().cast()) };
        }
    }
}

/// Memory that is there: pages nobody has written share one.
fn ones(bytes: usize) -> Result<Memory, BuildError> {
    let full = || BuildError::Machine(format!("there are no {bytes} bytes of memory"));
    let memory = Memory::new(bytes as u64).ok_or_else(full)?;
    // SAFETY: fresh memory of at least so many floats, aligned to a page.
    let floats = unsafe { std::slice::from_raw_parts_mut(memory.at(0).cast::<f32>(), bytes / 4) };
    floats.fill(1.0);
    Ok(memory)
}
