//! The target's decisions for each kernel, before any code: what `--emit schedule` shows.

pub mod attention;
pub mod contract;
pub mod gradient;
pub mod map;
pub mod plane;
pub mod row;
pub mod scatter;

use crate::place::{Domain, Spot};

/// Threads of a block, unless a kernel has reasons for another number.
pub const THREADS: u32 = 256;

/// Lanes of a warp.
pub const WARP: u32 = 32;

/// How many neighbours along the last axis a thread takes at once: as many as can be loaded and
/// stored together wherever something is stored, up to 4.
pub fn lanes(domain: &Domain<'_>) -> usize {
    let Some(along) = domain.extents.len().checked_sub(1) else { return 1 };
    let fits = |lanes: &i64| {
        let vector = |spot: &Spot| spot.is_vector(along, *lanes);
        let some_load = domain.stores.is_empty() && domain.loads.values().any(vector);
        domain.extents[along] % lanes == 0
            && domain.stores.iter().all(|s| vector(s) || s.step(along) == Some(0))
            && (some_load || domain.stores.iter().any(vector))
    };
    [4, 2].into_iter().find(fits).unwrap_or(1) as usize
}
