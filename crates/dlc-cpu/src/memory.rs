//! Blocks of aligned memory that compiled code works on.

use crate::abi::{ALIGNMENT, SLACK};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// A block of zeroed memory, aligned to [`ALIGNMENT`], with [`SLACK`] readable bytes at its end.
///
/// It gives out addresses only: who may use which bytes when is decided by the executable, which
/// holds a lock around every use.
pub struct Memory {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the block is plain memory that this value alone owns.
unsafe impl Send for Memory {}
// SAFETY: shared references only compute addresses.
unsafe impl Sync for Memory {}

impl Memory {
    /// A block of `bytes` bytes; `None` if there is not that much.
    pub fn new(bytes: u64) -> Option<Memory> {
        let bytes = usize::try_from(bytes).ok()?.checked_add(SLACK)?;
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
        // SAFETY: the layout has at least `SLACK` bytes.
        let start = unsafe { alloc_zeroed(layout) };
        (!start.is_null()).then_some(Memory { start, layout })
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    /// If it lies beyond the block.
    pub fn at(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).expect("offsets lie in memory");
        assert!(offset <= self.layout.size(), "an offset lies in its block");
        // SAFETY: just checked to stay within the allocation.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Bytes a program may take if its user sets no limit: 80 % of the machine's memory or of what the
/// control group grants, whichever is less.
pub fn default_limit() -> u64 {
    let machine = read_kib("/proc/meminfo", "MemTotal:").map(|kib| kib << 10);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    let all = machine.into_iter().chain(group).min().unwrap_or(u64::MAX);
    all / 10 * 8
}

fn read_kib(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
