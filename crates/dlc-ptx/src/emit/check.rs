//! Checks: whether all elements of some buffers are finite.

use super::writer::Writer;
use crate::ir::{Address, CacheHint, Compare, F32, IntOp, MemType, Space, Special};
use crate::schedule::THREADS;
use dlc_kernel::BufferId;

/// The most blocks; each goes through the buffer in steps of the whole grid.
const MAX_BLOCKS: u64 = 1024;

/// Blocks for buffers the largest of which has `elements` elements.
pub fn blocks(elements: u64) -> u32 {
    elements.div_ceil(u64::from(THREADS)).min(MAX_BLOCKS) as u32
}

/// Writes the check of one buffer, the `what`th of its kernel, by that many blocks.
pub fn write(w: &mut Writer<'_>, buffer: BufferId, what: u32, elements: u64, blocks: u32) {
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let first = w.b.mad(block, THREADS, thread);
    let base = w.buffer(buffer);
    w.for_range(first, elements as u32, blocks * THREADS, |w, i| {
        let from = Address::global(w.b.mad_wide(i, 4, base), 0);
        let word = w.b.load(Space::Global, MemType::F32, 1, from, CacheHint::Streaming);
        let bits = w.b.bits(F32(word[0].number));
        let exponent = w.b.int(IntOp::And, bits, 0x7f80_0000);
        let beyond = w.b.set_int(Compare::Eq, exponent, 0x7f80_0000);
        w.if_(beyond, |w| w.fail(what, i, elements as u32));
    });
}
