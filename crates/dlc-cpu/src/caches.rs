//! The caches of a machine. They decide which way operands and results take, never what results are.

use crate::machine::Machine;
use std::sync::LazyLock;

/// What a thread has for itself, and what all share, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// The first level.
    pub first: usize,
    /// The second level.
    pub second: usize,
    /// The largest, which threads share. Of one that is larger than usual, shared by so many that this is
    /// a thread's part at best, no more than is usual.
    pub last: usize,
}

impl Caches {
    /// What processors have at least that are as common as their level.
    pub const USUAL: Caches = Caches { first: 32 << 10, second: 512 << 10, last: 32 << 20 };

    /// Those of this machine.
    pub fn here() -> Caches {
        let [first, second, _] = Machine::here().caches;
        Caches { first, second, last: last_level() }
    }

    /// Whether so many bytes are too many for a core's own, beside as many others.
    pub fn are_passed_by(self, bytes: usize) -> bool {
        bytes > self.second / 2
    }

    /// Whether so many bytes are too many for the largest, beside what else is in it.
    pub fn are_left_by(self, bytes: usize) -> bool {
        bytes > self.last / 4 * 3
    }
}

/// Bytes of the largest cache.
fn last_level() -> usize {
    static BYTES: LazyLock<usize> =
        LazyLock::new(|| machine::caches().max().filter(|&b| b > 0).unwrap_or(Caches::USUAL.last));
    (*BYTES).min(Caches::USUAL.last)
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Leaves of `cpuid` that describe one cache for each subleaf: Intel's and AMD's.
    const LEAVES: [u32; 2] = [4, 0x8000_001d];

    /// The most subleaves that are looked at.
    const MOST: u32 = 8;

    /// The sizes of the caches.
    pub fn caches() -> impl Iterator<Item = usize> {
        let known = |leaf: &u32| *leaf <= __cpuid(leaf & 0x8000_0000).eax;
        let sizes = |leaf| (0..MOST).map_while(move |at| size(leaf, at));
        LEAVES.into_iter().filter(known).flat_map(sizes)
    }

    /// The bytes of a cache: lines times partitions, ways and sets, each told as one less.
    fn size(leaf: u32, at: u32) -> Option<usize> {
        let told = __cpuid_count(leaf, at);
        let field = |low: u32, bits: u32| (told.ebx >> low & ((1 << bits) - 1)) as usize + 1;
        let bytes = field(0, 12) * field(12, 10) * field(22, 10) * (told.ecx as usize + 1);
        (told.eax & 0x1f != 0).then_some(bytes)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    /// The sizes of the caches: this machine does not tell.
    pub fn caches() -> impl Iterator<Item = usize> {
        std::iter::empty()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_largest_cache_has_a_size_that_caches_have() {
        let bytes = super::last_level();
        assert!((1 << 18..1 << 32).contains(&bytes), "{bytes} bytes");
    }
}
