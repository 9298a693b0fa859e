//! Rows: a team of threads for one row.

use super::{THREADS, WARP};
use crate::place::{Domain, destination};
use dlc_kernel::{Expr, Program, Size, Step};
use std::fmt;
use std::ops::Range;

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
    /// Teams that share a row; several of them need a launch for each [`Phase`].
    pub parts: u32,
    /// Turns of a team until its part is done.
    pub turns: u32,
    /// Whether what is loaded stays in registers from step to step.
    pub holds: bool,
}

/// The longest row, in elements, that a warp takes.
const WARP_ROW: i64 = 1024;

/// The most turns whose elements are held in registers.
const HELD_TURNS: u32 = 8;

/// How many turns a part has at least, if a row has several.
const PART_TURNS: u32 = 8;

/// Rows are shared until there are about as many blocks: a few for every multiprocessor of a large
/// GPU. Not the GPU's own number: sums must not depend on it.
const ENOUGH_BLOCKS: u32 = 512;

/// The most parts of a row that a member of a team puts together.
const MEMBER_PARTS: u32 = 8;

/// Steps of a shared row that one launch makes: no step needs a fold of its own phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Which steps.
    pub steps: Range<usize>,
    /// The folds of earlier phases that they need.
    pub needs: Vec<u32>,
    /// Teams for each row.
    pub parts: u32,
}

impl<'k> RowSchedule<'k> {
    /// The schedule of a row kernel in so many loops.
    pub fn new(
        program: &Program,
        loops: usize,
        [outer, inner]: [&[Size]; 2],
        exprs: &'k dlc_kernel::Exprs,
        steps: &[Step],
    ) -> RowSchedule<'k> {
        let axes = [outer, inner].concat();
        let roots = steps.iter().map(Step::value);
        let destinations = steps.iter().filter_map(Step::store).map(destination);
        let mut domain = Domain::new(program, (&axes, loops), exprs, roots, destinations);
        let border = domain.merge(outer.len() - loops);
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
        let rows: i64 = domain.extents[..border].iter().product();
        let parts = team.parts(rows, turns);
        let turns = turns.div_ceil(parts);
        RowSchedule { domain, border, team, lanes, parts, turns, holds: turns <= HELD_TURNS }
    }

    /// The launches: one, unless rows are shared.
    pub fn phases(&self, steps: &[Step]) -> Vec<Phase> {
        let mut phases: Vec<Phase> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let needs = if self.parts == 1 { Vec::new() } else { self.folds_of(step) };
            match phases.last_mut() {
                Some(phase) if needs.iter().all(|&k| (k as usize) < phase.steps.start) => {
                    phase.steps.end = at + 1;
                    phase.needs.extend(needs);
                }
                _ => phases.push(Phase { steps: at..at + 1, needs, parts: 1 }),
            }
        }
        for phase in &mut phases {
            phase.needs.sort_unstable();
            phase.needs.dedup();
            let is_shared = |step: &Step| !matches!(step, Step::StoreRow(_));
            if steps[phase.steps.clone()].iter().any(is_shared) {
                phase.parts = self.parts;
            }
        }
        phases
    }

    /// The folds that a step needs.
    fn folds_of(&self, step: &Step) -> Vec<u32> {
        let nodes = self.domain.exprs.reachable([step.value()]);
        let folded = |id| match self.domain.exprs.get(id) {
            Expr::Folded(k) => Some(*k),
            _ => None,
        };
        nodes.into_iter().filter_map(folded).collect()
    }

    /// Bytes that what the parts fold takes, a value and a position for every step.
    pub fn workspace(&self, steps: usize) -> u64 {
        8 * steps as u64 * self.rows() as u64 * u64::from(self.parts)
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

    /// Into how many parts each of so many rows of so many turns goes.
    fn parts(self, rows: i64, turns: u32) -> u32 {
        if self == Team::Warp {
            return 1;
        }
        let blocks = (rows as u64).div_ceil(u64::from(self.rows())).max(1);
        let wanted = u64::from(ENOUGH_BLOCKS).div_ceil(blocks) as u32;
        let most = wanted.min(turns / PART_TURNS).min(MEMBER_PARTS * self.stride());
        // None is empty.
        most.checked_sub(1).map_or(1, |_| turns.div_ceil(turns.div_ceil(most)))
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

impl fmt::Display for RowSchedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outer, inner) = self.domain.extents.split_at(self.border);
        let team = match self.team {
            Team::Warp => "a warp a row",
            Team::Block => "a block a row",
            Team::Column => "a lane a row, 8 warps",
        };
        let (lanes, parts, turns) = (self.lanes, self.parts, self.turns);
        let shared = if parts > 1 { format!(", {parts} parts") } else { String::new() };
        let held = if self.holds { ", held in registers" } else { "" };
        writeln!(
            f,
            "  row {outer:?} x {inner:?}: {team}{shared}, {lanes} a thread, {turns} turns{held}"
        )
    }
}
