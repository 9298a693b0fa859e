//! Scatter-adds: a thread for every point of those axes that are coordinates of the destination by
//! themselves; it walks through the other axes in order. No two threads meet, so every sum has the
//! order of the updates, without atomics.

use super::THREADS;
use crate::place::{Domain, Place};
use dlc_kernel::{Access, BufferId, ExprId, Exprs, Lookup, Program, Size};
use std::fmt;

/// How a scatter-add is computed: the destination is cleared, then updated.
#[derive(Clone, Debug)]
pub struct ScatterSchedule<'k> {
    /// The updates.
    pub domain: Domain<'k>,
    /// The axes that threads share out.
    pub own: Vec<usize>,
    /// Where an update goes.
    pub place: Place,
    /// What is added.
    pub value: ExprId,
}

impl<'k> ScatterSchedule<'k> {
    /// The schedule of a scatter-add of `value` to `buffer`.
    pub fn new(
        program: &Program,
        axes: &[Size],
        exprs: &'k Exprs,
        to: (BufferId, &Access, &[Lookup]),
        value: ExprId,
    ) -> ScatterSchedule<'k> {
        let (buffer, access, lookups) = to;
        let roots = lookups.iter().map(|l| l.index).chain([value]);
        let domain = Domain::new(program, axes, exprs, roots, []);
        let place = Place::new(program, buffer, access, lookups, axes);
        let by_itself = |(dim, index): (usize, &dlc_kernel::Index)| {
            let looked_up = lookups.iter().any(|l| l.dim as usize == dim);
            index.as_axis().filter(|_| !looked_up).map(|axis| axis.0 as usize)
        };
        let mut own: Vec<usize> = access.coords.iter().enumerate().filter_map(by_itself).collect();
        own.sort_unstable();
        own.dedup();
        ScatterSchedule { domain, own, place, value }
    }

    /// Threads that have something to do.
    pub fn threads(&self) -> u64 {
        self.own.iter().map(|&axis| self.domain.extents[axis] as u64).product()
    }

    /// Blocks of the launch that updates.
    pub fn blocks(&self) -> u32 {
        if self.domain.points() == 0 {
            0
        } else {
            self.threads().div_ceil(u64::from(THREADS)) as u32
        }
    }

    /// Elements of the destination.
    pub fn elements(&self) -> u64 {
        self.place.elements as u64
    }
}

impl fmt::Display for ScatterSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (threads, all) = (self.threads(), self.domain.points() as u64);
        let each = all.checked_div(threads).unwrap_or(0);
        writeln!(f, "  clear {}", self.elements())?;
        writeln!(
            f,
            "  scatter_add {:?}: {threads} threads, {each} updates each",
            self.domain.extents
        )
    }
}
