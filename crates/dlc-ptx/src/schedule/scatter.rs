//! Scatters: a thread for every point of those axes that are coordinates of the destination by
//! themselves, and for every share of the indices that data may give; it walks through the other
//! axes in order and makes the updates of its share. No two threads meet, so every sum has the
//! order of the updates, without atomics.
//!
//! The cost: every share reads all indices, and each value is read once. What is overwritten has a
//! thread for every point.

use super::THREADS;
use crate::place::{Destination, Domain, Spot, bound};
use dlc_kernel::{ExprId, Exprs, Program, ScatterMode, Size};
use std::fmt;

/// A few blocks for every multiprocessor of a large GPU.
const ENOUGH_BLOCKS: u32 = 512;

/// How a scatter is computed: the destination is cleared, if values are added, then updated.
#[derive(Clone, Debug)]
pub struct ScatterSchedule<'k> {
    /// What happens at an element.
    pub mode: ScatterMode,
    /// The updates.
    pub domain: Domain<'k>,
    /// The axes that threads share out.
    pub own: Vec<usize>,
    /// A power of two: the index of the first lookup, modulo that, says whose the update is.
    pub shares: u32,
    /// Where an update goes.
    pub spot: Spot,
    /// The destination's extents along the steps of the loops around.
    pub around: Vec<i64>,
    /// Elements of the destination that are cleared: at a step, those that have it as coordinate.
    pub elements: u64,
    /// What is added or written.
    pub value: ExprId,
}

impl<'k> ScatterSchedule<'k> {
    /// The schedule of a scatter of `value` to a destination, in so many loops.
    pub fn new(
        program: &Program,
        mode: ScatterMode,
        (axes, loops): (&[Size], usize),
        exprs: &'k Exprs,
        to: Destination<'_>,
        value: ExprId,
    ) -> ScatterSchedule<'k> {
        let (buffer, access, lookups) = to;
        let roots = lookups.iter().map(|l| l.index).chain([value]);
        let domain = Domain::new(program, (axes, loops), exprs, roots, [to]);
        let spot = domain.stores[0].clone();
        let (around, inside) = program.buffer(buffer).shape.split_at(loops);
        let around = around.iter().map(bound).collect();
        let elements = inside.iter().map(bound).product::<i64>() as u64;
        let by_itself = |(dim, index): (usize, &dlc_kernel::Index)| {
            let looked_up = lookups.iter().any(|l| l.dim as usize == dim);
            let axis = index.as_axis().filter(|_| !looked_up)?;
            (axis.0 as usize).checked_sub(loops)
        };
        let mut own: Vec<usize> = match mode {
            ScatterMode::Add => access.coords.iter().enumerate().filter_map(by_itself).collect(),
            ScatterMode::Overwrite => (0..domain.extents.len()).collect(),
        };
        own.sort_unstable();
        own.dedup();
        let mut schedule =
            ScatterSchedule { mode, domain, own, shares: 1, spot, around, elements, value };
        schedule.shares = schedule.enough_shares();
        schedule
    }

    /// Shares until there are enough blocks, but no more than indices, nor than updates.
    fn enough_shares(&self) -> u32 {
        let Some(found) = self.spot.place.found.first() else { return 1 };
        let wanted = u64::from(ENOUGH_BLOCKS) / u64::from(self.blocks().max(1));
        let updates = (self.domain.points() as u64).checked_div(self.threads()).unwrap_or(0);
        let most = wanted.min(found.extent as u64).min(updates).max(1);
        1 << most.ilog2()
    }

    /// Threads that have something to do.
    pub fn threads(&self) -> u64 {
        self.own.iter().map(|&axis| self.domain.extents[axis] as u64).product()
    }

    /// Blocks of the launch that updates, for each share.
    pub fn blocks(&self) -> u32 {
        if self.domain.points() == 0 {
            0
        } else {
            self.threads().div_ceil(u64::from(THREADS)) as u32
        }
    }
}

impl fmt::Display for ScatterSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (threads, all) = (self.threads(), self.domain.points() as u64);
        let each = all.checked_div(threads).unwrap_or(0);
        if self.mode == ScatterMode::Add {
            writeln!(f, "  clear {}", self.elements)?;
        }
        let (mode, extents, shares) = (self.mode.name(), &self.domain.extents, self.shares);
        writeln!(
            f,
            "  {mode} {extents:?}: {threads} threads x {shares} shares, {each} updates each"
        )
    }
}
