//! The arena planner: which temporaries share memory.
//!
//! A target calls it after it has chosen layouts and workspaces, so that peak memory is known when
//! a program is built. [`aliases`] says which buffers need no storage of their own, [`lifetimes`]
//! when the others are alive, and [`place`] where they go: in a block of [`Plan::peak`] bytes where
//! blocks that are alive at the same kernel never overlap.
//!
//! ```
//! use dlc_kernel::plan::{Block, place};
//!
//! // Two buffers that are never alive together share their bytes; the third is beside both.
//! let block = |bytes, first, last| Block { bytes, first, last };
//! let plan = place(&[block(256, 0, 1), block(256, 2, 3), block(100, 1, 2)], 64).unwrap();
//! assert_eq!(plan.offsets, [0, 0, 256]);
//! assert_eq!(plan.peak, 384);
//! ```

use crate::{BufferId, Class, Entry, Expr, Form, Kernel, Program, Store};
use rustc_hash::FxHashMap;

/// Alignment of buffers in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: u64 = 64;

/// Memory that is needed while some kernels of an entry run: a temporary, or the workspace of one
/// kernel (`first == last`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its size.
    pub bytes: u64,
    /// Position of the first kernel that needs it.
    pub first: usize,
    /// Position of the last kernel that needs it, at least `first`.
    pub last: usize,
}

/// Where blocks lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One per block, in bytes from the start of the arena, a multiple of the alignment.
    pub offsets: Vec<u64>,
    /// Bytes of the arena, a multiple of the alignment.
    pub peak: u64,
}

/// The blocks' sizes do not fit in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the temporaries need more than 2^64 bytes")]
pub struct Overflow;

/// Places blocks, the largest first, each in the smallest gap that its contemporaries leave.
///
/// # Panics
/// If `alignment` is 0.
pub fn place(blocks: &[Block], alignment: u64) -> Result<Plan, Overflow> {
    let round = |bytes: u64| bytes.checked_next_multiple_of(alignment).ok_or(Overflow);
    let sizes = blocks.iter().map(|b| round(b.bytes)).collect::<Result<Vec<_>, _>>()?;
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), blocks[i].first, i));
    let mut plan = Plan { offsets: vec![0; blocks.len()], peak: 0 };
    for (k, &i) in order.iter().enumerate() {
        let together = order[..k].iter().filter(|&&j| alive_together(&blocks[i], &blocks[j]));
        let mut taken: Vec<_> =
            together.map(|&j| (plan.offsets[j], plan.offsets[j] + sizes[j])).collect();
        taken.sort_unstable();
        plan.offsets[i] = best_gap(&taken, sizes[i]);
        let end = plan.offsets[i].checked_add(sizes[i]).ok_or(Overflow)?;
        plan.peak = plan.peak.max(end);
    }
    Ok(plan)
}

/// Whether some kernel needs both.
pub fn alive_together(a: &Block, b: &Block) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// The start of the smallest gap of at least `size` between `taken` (by start), or their end.
fn best_gap(taken: &[(u64, u64)], size: u64) -> u64 {
    let mut end = 0;
    let mut best: Option<(u64, u64)> = None;
    for &(start, stop) in taken {
        let gap = start.saturating_sub(end);
        if gap >= size && best.is_none_or(|(smallest, _)| gap < smallest) {
            best = Some((gap, end));
        }
        end = end.max(stop);
    }
    best.map_or(end, |(_, at)| at)
}

/// A temporary with storage of its own, and the kernels during which it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The temporary.
    pub buffer: BufferId,
    /// Position of the kernel that writes it.
    pub first: usize,
    /// Position of the last kernel that uses it or an alias of it; the number of kernels if the
    /// caller receives it.
    pub last: usize,
}

/// Buffers that live in the storage of another one, never of an alias itself.
pub type Aliases = FxHashMap<BufferId, BufferId>;

/// The temporaries of an entry that need storage, by first use. Aliases prolong the life of what
/// they stand for; what stands for a parameter or an input needs nothing.
pub fn lifetimes(program: &Program, entry: &Entry, aliases: &Aliases) -> Vec<Lifetime> {
    let mut lives: Vec<Lifetime> = Vec::new();
    let mut places: FxHashMap<BufferId, usize> = FxHashMap::default();
    let mut touch = |buffer: BufferId, at: usize| {
        let buffer = aliases.get(&buffer).copied().unwrap_or(buffer);
        if program.buffer(buffer).class != Class::Temp {
            return;
        }
        let place = *places.entry(buffer).or_insert_with(|| {
            lives.push(Lifetime { buffer, first: at, last: at });
            lives.len() - 1
        });
        lives[place].last = at;
    };
    for (at, kernel) in entry.kernels.iter().enumerate() {
        kernel.writes().into_iter().chain(kernel.reads()).for_each(|id| touch(id, at));
    }
    entry.outputs.iter().for_each(|&id| touch(id, entry.kernels.len()));
    lives
}

/// The temporaries that can live in another buffer's storage if the target lays out both in
/// row-major order: results of a reshape, and results of a map that overwrite an operand at its
/// last use, point by point. Their storage is never written while an older value is still needed;
/// that of `kept` buffers is needed for good.
pub fn aliases(program: &Program, entry: &Entry, kept: &[BufferId]) -> Aliases {
    let mut last_use: FxHashMap<BufferId, usize> = FxHashMap::default();
    let mut last_write: FxHashMap<BufferId, usize> = FxHashMap::default();
    for (at, kernel) in entry.kernels.iter().enumerate() {
        kernel
            .reads()
            .into_iter()
            .chain(kernel.writes())
            .for_each(|id| _ = last_use.insert(id, at));
        kernel.writes().into_iter().for_each(|id| _ = last_write.insert(id, at));
    }
    let needed = entry.outputs.iter().chain(kept);
    needed.for_each(|&id| _ = last_use.insert(id, entry.kernels.len()));
    let mut found = Storage { aliases: Aliases::default(), last_use };
    for (at, kernel) in entry.kernels.iter().enumerate() {
        match &kernel.form {
            Form::Reshape { src, dst } if program.buffer(*dst).class == Class::Temp => {
                let src = found.root(*src);
                // A parameter that is overwritten later would change under its alias.
                if last_write.get(&src).is_none_or(|&write| write <= at) {
                    found.join(*dst, src);
                }
            }
            Form::Map { .. } => overwrite(program, kernel, at, &mut found),
            _ => {}
        }
    }
    found.aliases
}

/// Which buffers share storage so far, and when each storage is last used.
struct Storage {
    aliases: Aliases,
    last_use: FxHashMap<BufferId, usize>,
}

impl Storage {
    fn root(&self, buffer: BufferId) -> BufferId {
        self.aliases.get(&buffer).copied().unwrap_or(buffer)
    }

    fn join(&mut self, buffer: BufferId, root: BufferId) {
        let last = self.last_use[&buffer].max(self.last_use[&root]);
        self.last_use.insert(root, last);
        self.aliases.insert(buffer, root);
    }
}

/// Lets results of a one-segment map take over operands that die at it, and that no later store of
/// it needs.
fn overwrite(program: &Program, kernel: &Kernel, at: usize, found: &mut Storage) {
    let Form::Map { segments } = &kernel.form else { return };
    let [segment] = segments.as_slice() else { return };
    let needed = |stores: &[Store]| {
        let ids = segment.exprs.reachable(stores.iter().map(|store| store.value));
        let loads = ids.into_iter().filter_map(|id| match segment.exprs.get(id) {
            Expr::Load { buffer, access, lookups, .. } => Some((*buffer, access, lookups)),
            _ => None,
        });
        loads.collect::<Vec<_>>()
    };
    let loads = needed(&segment.stores);
    let mut taken = Vec::new();
    for (position, store) in segment.stores.iter().enumerate() {
        let later = needed(&segment.stores[position + 1..]);
        let dst = program.buffer(store.buffer);
        let fits = |src: BufferId| {
            let (own, root) = (program.buffer(src), program.buffer(found.root(src)));
            let dies = found.last_use[&found.root(src)] == at && root.class == Class::Temp;
            let same = own.dtype == dst.dtype && own.shape == dst.shape;
            // All loads from that storage are of the very element that is overwritten.
            let mut from = loads.iter().filter(|l| found.root(l.0) == found.root(src));
            dies && same
                && !taken.contains(&found.root(src))
                && from.all(|l| l.0 == src && l.1 == &store.access && l.2.is_empty())
                && later.iter().all(|l| found.root(l.0) != found.root(src))
        };
        let candidate = loads.iter().map(|l| l.0).find(|&src| fits(src));
        if let Some(src) = candidate.filter(|_| dst.class == Class::Temp) {
            taken.push(found.root(src));
            found.join(store.buffer, found.root(src));
        }
    }
}
