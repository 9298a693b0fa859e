//! Where the memory of a process that compiles comes from: what the command `dlc` allocates with.

use crate::memory::HUGE_PAGE;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes from which on a block is large.
const LARGE: usize = 4 << 20;

/// A process's allocator. Compilers make many small things for a short time: a tenth of a compilation is
/// theirs, so they come from an allocator that is good at it, and keeps what it gets back. Large things,
/// tensors, go back to the system at once: a process takes what its programs need, and not what reading
/// their parameters once took.
pub struct Allocator;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives the system what small things took.
pub fn give_back() {
    // SAFETY: part of the allocator, which is linked in; it frees nothing that is in use.
    unsafe { mi_collect(true) };
}

impl Allocator {
    /// Who blocks of that layout belong to.
    fn of(layout: Layout) -> &'static dyn GlobalAlloc {
        if layout.size() < LARGE { &MiMalloc } else { &System }
    }
}

/// A block, whose pages are to be huge ones if it is large: that spares most of the address translation.
fn advised(block: *mut u8, layout: Layout) -> *mut u8 {
    if layout.size() >= LARGE && !block.is_null() {
        let start = block.align_offset(HUGE_PAGE);
        let bytes = (layout.size() - start) / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: advice on whole pages within the new block; all works without.
        unsafe { libc::madvise(block.add(start).cast(), bytes, libc::MADV_HUGEPAGE) };
    }
    block
}

// SAFETY: each block is handed on to the allocator that its layout belongs to, now and when it is freed. What
// becomes larger or smaller than `LARGE` is copied.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        advised(unsafe { Allocator::of(layout).alloc(layout) }, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        advised(unsafe { Allocator::of(layout).alloc_zeroed(layout) }, layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; a block of this layout came from there.
        unsafe { Allocator::of(layout).dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if (layout.size() < LARGE) == (size < LARGE) {
            // SAFETY: the caller's promise; both layouts belong to the same allocator.
            return unsafe { Allocator::of(layout).realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that the new size is valid for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the blocks are as long as their layouts say, and two.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}
