//! Copies of whole buffers.

use super::writer::{Given, Writer, memory_type};
use crate::ir::{Address, CacheHint, Compare, Space, Special};
use crate::schedule::THREADS;
use dlc_kernel::BufferId;

/// How many elements a thread copies.
const fn lanes(elements: u64) -> u64 {
    if elements.is_multiple_of(4) { 4 } else { 1 }
}

/// Blocks of a copy of `elements` elements.
pub const fn blocks(elements: u64) -> u32 {
    (elements / lanes(elements)).div_ceil(THREADS as u64) as u32
}

/// Writes a copy of `elements` elements.
pub fn write(w: &mut Writer<'_>, src: BufferId, dst: BufferId, elements: u64) {
    let ty = memory_type(w.program.buffer(src).dtype);
    let lanes = lanes(elements);
    let threads = (elements / lanes) as u32;
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let inside = w.b.set_uint(Compare::Lt, at, threads);
    let (from, to) = (w.address(Given::Buffer(src)), w.address(Given::Buffer(dst)));
    w.if_(inside, |w| {
        let bytes = ty.bytes() * lanes as u32;
        let [from, to] = [from, to].map(|base| Address::global(w.b.mad_wide(at, bytes, base), 0));
        let hint = CacheHint::ReadOnly;
        let registers = w.b.load(Space::Global, ty, lanes as usize, from, hint);
        w.b.store(Space::Global, ty, to, &registers);
    });
}
