//! Blocks of aligned memory that compiled code works on.

use crate::abi::SLACK;
use std::ops::Range;
use std::path::Path;
use std::ptr;

/// Blocks from this size on are made of pages of this size, which spare the hardware most of its
/// address translation.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// The size of all other pages, or of a part of them.
const PAGE: usize = 4096;

/// A block of zeroed memory, aligned to a page, with [`SLACK`] readable bytes at its end.
///
/// It gives out addresses only: who may use which bytes when is decided by the executable, which
/// holds a lock around every use.
pub struct Memory {
    start: *mut u8,
    bytes: usize,
    map: *mut libc::c_void,
    map_bytes: usize,
}

// SAFETY: the block is plain memory that this value alone owns.
unsafe impl Send for Memory {}
// SAFETY: shared references only compute addresses.
unsafe impl Sync for Memory {}

impl Memory {
    /// A block of `bytes` bytes; `None` if there is not that much.
    pub fn new(bytes: u64) -> Option<Memory> {
        let bytes = usize::try_from(bytes).ok()?.checked_add(SLACK)?;
        let is_huge = bytes >= HUGE_PAGE;
        let map_bytes = if is_huge { bytes.checked_add(HUGE_PAGE)? } else { bytes };
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous map touches nothing that exists.
        let map = unsafe { libc::mmap(ptr::null_mut(), map_bytes, protection, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        let skipped = if is_huge { map.align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: the map has room for `bytes` bytes after the next boundary of a huge page.
        let start = unsafe { map.cast::<u8>().add(skipped) };
        if is_huge {
            // SAFETY: advice on pages of our own map. Without huge pages all still works.
            unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        let memory = Memory { start, bytes, map, map_bytes };
        // Nobody writes the end, but the tails of what lies before it are loaded with it.
        memory.populate((bytes - SLACK) as u64..bytes as u64);
        Some(memory)
    }

    /// Has the pages of a range there before they are touched: masked loads of leaves that reach
    /// into one which is not are very slow.
    ///
    /// # Panics
    /// If the range leaves the block.
    pub fn populate(&self, range: Range<u64>) {
        let (first, end) = (self.at(range.start), self.at(range.end));
        let before = first as usize % PAGE;
        let bytes = end as usize - first as usize + before;
        // SAFETY: advice on pages of our own map, whose start is aligned to one. If it is not taken
        // they come when they are touched.
        unsafe { libc::madvise(first.sub(before).cast(), bytes, libc::MADV_POPULATE_WRITE) };
    }

    /// The address of the byte at `offset`.
    ///
    /// # Panics
    /// If it lies beyond the block.
    pub fn at(&self, offset: u64) -> *mut u8 {
        let offset = usize::try_from(offset).expect("offsets lie in memory");
        assert!(offset <= self.bytes, "an offset lies in its block");
        // SAFETY: just checked to stay within the map.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size, and nobody uses the block any more.
        unsafe { libc::munmap(self.map, self.map_bytes) };
    }
}

/// Bytes a program may take if its user sets no limit: 80 % of the machine's memory or of what the
/// process's control groups grant, whichever is less.
pub fn default_limit() -> u64 {
    let machine = read_kib("/proc/meminfo", "MemTotal:").map(|kib| kib << 10);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_limit(&groups, &|path| std::fs::read_to_string(path).ok());
    let all = machine.into_iter().chain(group).min().unwrap_or(u64::MAX);
    all / 10 * 8
}

/// The least limit of the groups that `groups`, a `/proc/PID/cgroup`, names and of those around them.
fn group_limit(groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let own = Path::new(path.trim_start_matches('/'));
        let limit =
            |group: &Path| read(&Path::new(root).join(group).join(file))?.trim().parse().ok();
        own.ancestors().filter_map(limit).min()
    };
    groups.lines().filter_map(of_line).min()
}

fn read_kib(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let find = |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path);
        group_limit(groups, &|path| find(path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn the_least_limit_of_all_groups_around_counts() {
        let files = [
            ("/sys/fs/cgroup/user/memory.max", "3000\n"),
            ("/sys/fs/cgroup/user/job/memory.max", "max\n"),
            ("/sys/fs/cgroup/other/memory.max", "10\n"),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit("0::/user/job\n", &files), Some(3000));
        assert_eq!(limit("0::/\n", &files), None);
        assert_eq!(limit("0::/\n", &[("/sys/fs/cgroup/memory.max", "500\n")]), Some(500));
        let old = "7:cpu,cpuacct:/job\n5:memory:/job\n0::/user\n";
        assert_eq!(limit(old, &files), Some(2000));
        assert_eq!(limit("", &files), None);
    }
}
