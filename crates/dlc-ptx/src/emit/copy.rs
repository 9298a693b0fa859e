//! Copies of whole buffers, of any type: bytes in pieces as large as they can be.

use super::writer::{Given, Writer};
use crate::ir::{Address, CacheHint, Compare, MemType, Space, Special};
use crate::schedule::THREADS;
use dlc_kernel::BufferId;

/// What a thread copies at once: so many of these.
const fn piece(bytes: u64) -> (MemType, usize) {
    if bytes.is_multiple_of(16) {
        (MemType::B32, 4)
    } else if bytes.is_multiple_of(4) {
        (MemType::B32, 1)
    } else {
        (MemType::U8, 1)
    }
}

/// Threads that copy so many bytes.
const fn threads(bytes: u64) -> u64 {
    let (ty, count) = piece(bytes);
    bytes / (ty.bytes() as u64 * count as u64)
}

/// Blocks of a copy of so many bytes.
pub const fn blocks(bytes: u64) -> u32 {
    threads(bytes).div_ceil(THREADS as u64) as u32
}

/// Writes a copy of so many bytes.
pub fn write(w: &mut Writer<'_>, src: BufferId, dst: BufferId, bytes: u64) {
    let (ty, count) = piece(bytes);
    let (block, thread) = (w.b.special(Special::BlockX), w.b.special(Special::Thread));
    let at = w.b.mad(block, THREADS, thread);
    let inside = w.b.set_uint(Compare::Lt, at, threads(bytes) as u32);
    let (from, to) = (w.address(Given::Buffer(src)), w.address(Given::Buffer(dst)));
    w.if_(inside, |w| {
        let step = ty.bytes() * count as u32;
        let [from, to] = [from, to].map(|base| Address::global(w.b.mad_wide(at, step, base), 0));
        let registers = w.b.load(Space::Global, ty, count, from, CacheHint::ReadOnly);
        w.b.store(Space::Global, ty, to, &registers);
    });
}
