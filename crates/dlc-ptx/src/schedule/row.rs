//! Rows: a team of threads for one row.

use super::{THREADS, WARP};
use crate::place::Domain;
use dlc_kernel::{Program, Size, Step, Store};
use std::fmt;

/// Who computes a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Team {
    /// A warp; a block has 8 rows.
    Warp,
    /// A block.
    Block,
    /// One lane of each of a block's warps; a block has 32 rows, side by side in memory.
    Column,
}

/// How a row kernel is computed.
#[derive(Clone, Debug)]
pub struct RowSchedule<'k> {
    /// All points, axes merged within the outer ones and within the inner ones.
    pub domain: Domain<'k>,
    /// How many of its axes are outer ones.
    pub border: usize,
    /// Who computes a row.
    pub team: Team,
    /// Neighbours along the last axis for each thread and turn.
    pub lanes: usize,
    /// Turns of the team until a row is done.
    pub turns: u32,
    /// Whether what is loaded stays in registers from step to step.
    pub holds: bool,
}

/// The longest row, in elements, that a warp takes.
const WARP_ROW: i64 = 1024;

/// The most turns whose elements are held in registers.
const HELD_TURNS: u32 = 8;

impl<'k> RowSchedule<'k> {
    /// The schedule of a row kernel.
    pub fn new(
        program: &Program,
        outer: &[Size],
        inner: &[Size],
        exprs: &'k dlc_kernel::Exprs,
        steps: &[Step],
    ) -> RowSchedule<'k> {
        let axes = [outer, inner].concat();
        let roots = steps.iter().map(root);
        let stores = steps.iter().filter_map(store);
        let mut domain = Domain::new(program, &axes, exprs, roots, stores);
        let border = domain.merge(outer.len());
        let length: i64 = domain.extents[border..].iter().product();
        let team = match () {
            () if is_column(&domain, border) => Team::Column,
            () if length <= WARP_ROW => Team::Warp,
            () => Team::Block,
        };
        let lanes = if team == Team::Column || border == domain.extents.len() {
            1
        } else {
            super::lanes(&domain)
        };
        let turns = (length as u64).div_ceil(u64::from(team.stride()) * lanes as u64) as u32;
        RowSchedule { domain, border, team, lanes, turns, holds: turns <= HELD_TURNS }
    }

    /// The number of rows.
    pub fn rows(&self) -> i64 {
        self.domain.extents[..self.border].iter().product()
    }

    /// The number of elements of a row.
    pub fn length(&self) -> i64 {
        self.domain.extents[self.border..].iter().product()
    }

    /// Blocks of the launch.
    pub fn blocks(&self) -> u32 {
        (self.rows() as u64).div_ceil(u64::from(self.team.rows())) as u32
    }
}

impl Team {
    /// Threads that share a row.
    pub const fn stride(self) -> u32 {
        match self {
            Team::Warp => WARP,
            Team::Block => THREADS,
            Team::Column => THREADS / WARP,
        }
    }

    /// Rows of a block.
    pub const fn rows(self) -> u32 {
        THREADS / self.stride()
    }
}

/// Whether neighbouring rows, not neighbouring elements of a row, are neighbours in memory.
fn is_column(domain: &Domain<'_>, border: usize) -> bool {
    let Some(outer) = border.checked_sub(1) else { return false };
    let Some(inner) = domain.extents.len().checked_sub(1).filter(|&i| i >= border) else {
        return false;
    };
    let places = || domain.loads.values().filter(|p| p.step(inner) != Some(0));
    let along = |axis: usize| places().filter(|p| p.step(axis) == Some(1)).count();
    domain.extents[outer] > 1 && along(outer) > along(inner)
}

/// What a step computes.
pub fn root(step: &Step) -> dlc_kernel::ExprId {
    match step {
        Step::Fold(_, element) => *element,
        Step::StoreRow(store) | Step::StoreEach(store) => store.value,
    }
}

fn store(step: &Step) -> Option<&Store> {
    match step {
        Step::Fold(..) => None,
        Step::StoreRow(store) | Step::StoreEach(store) => Some(store),
    }
}

impl fmt::Display for RowSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outer, inner) = self.domain.extents.split_at(self.border);
        let team = match self.team {
            Team::Warp => "a warp a row",
            Team::Block => "a block a row",
            Team::Column => "a lane a row, 8 warps",
        };
        let (lanes, turns) = (self.lanes, self.turns);
        let held = if self.holds { ", held in registers" } else { "" };
        writeln!(f, "  row {outer:?} x {inner:?}: {team}, {lanes} a thread, {turns} turns{held}")
    }
}
