//! The schedule of a contraction: which axes play which part, and how the work is cut.
//!
//! Every output axis belongs to the *rows* (one operand uses it), the *columns* (the other does) or
//! the *batch* (both, or neither); the reduced axes are the *depth*. The columns are the side that
//! becomes vectors: the one whose axis is contiguous in the output, unless that wastes too much.
//! A side is one flat range, its last axis innermost. Everything here depends on shapes alone,
//! never on the number of threads, so that results do not either.

mod bundle;
mod choices;
mod choose;
mod epilogue;
mod memory;
mod reach;
mod tiling;
mod words;

use super::domain::{Domain, Linear, Place, extents};
use super::map::loaded;
use super::stretch::Stretch;
use super::{Config, PlacedStore, Site, place_stores};
use crate::leaf::{Ahead, AheadRight};
pub use bundle::{Bundle, bundled};
pub use choices::{Alternatives, Choices};
use choose::Nest;
use dlc_kernel::{Axis, BufferId, ExprId, Form, Scalar};
pub use epilogue::{Epilogue, TileStream};
pub use memory::Scratch;
pub use reach::{Ends, Reach};
use smallvec::SmallVec;
use std::fmt;
pub use tiling::{Shares, Steps, Sums, Supply, Tile, Tiling};

/// How one contraction is computed.
#[derive(Clone, Debug)]
pub struct ContractSchedule<'k> {
    /// What it is made for.
    pub config: Config,
    /// Its axes, merged, and its expressions.
    pub domain: Domain<'k>,
    /// The stores.
    pub stores: Vec<PlacedStore>,
    /// The output axes, outermost first.
    pub out: Axes,
    /// The side that is broadcast.
    pub rows: Side,
    /// The side that is vectorized.
    pub columns: Side,
    /// One independent product each; steps of the loops around come first.
    pub batch: Axes,
    /// How many axes of the batch are steps of the outermost loop around, of the outermost two, and so
    /// on, after those of none.
    pub steps: SmallVec<[usize; 4]>,
    /// What is summed over.
    pub depth: Axes,
    /// One sum at every point for each of theirs.
    pub sums: Axes,
    /// How the sums of neighbouring points lie, if there are several.
    pub bundle: Option<Bundle>,
    /// The leaf that makes the stores of a run of columns whose sums are in the scratch room.
    pub ending: Option<Stretch>,
    /// What of it matters.
    pub reach: Reach,
    /// The loops.
    pub algorithm: Algorithm,
    /// Whether measurements have chosen them.
    pub tuned: bool,
    /// About how many cycles it takes one thread.
    pub cycles: f64,
}

/// An operand that is nothing but a load of `f32` at places no data decides.
#[derive(Clone, Debug)]
pub struct BareLoad {
    /// The source.
    pub buffer: BufferId,
    /// Where.
    pub place: Place,
    /// The value outside.
    pub fill: Scalar,
}

/// One operand with the output axes that it alone uses.
#[derive(Clone, Debug)]
pub struct Side {
    /// The operand.
    pub operand: ExprId,
    /// The same, if it is just a load.
    pub bare: Option<BareLoad>,
    /// Its axes.
    pub axes: Axes,
    /// Which way its elements are read when they are packed.
    pub order: PackOrder,
    /// Cycles to pack an element.
    pub pack_cost: f64,
    /// In how many of the loops around, from the outermost on, it differs from step to step; it is the
    /// same at all steps of the others.
    pub loops: usize,
    /// Where its elements come from.
    pub origin: Origin,
}

/// Where an operand comes from: what keeps it from one use to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A core's own caches.
    Near,
    /// The largest cache.
    Far,
    /// Memory.
    Memory,
}

/// A flat range over several axes, the last one innermost.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    /// Outermost first.
    pub axes: Vec<Axis>,
    /// One for each axis.
    pub extents: Vec<i64>,
}

/// The inner loop of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackOrder {
    /// Along the last axis of the side.
    Side,
    /// Along the last axis of the depth.
    Depth,
}

/// The shape of the loop nest.
#[derive(Clone, Debug)]
pub enum Algorithm {
    /// Point by point, in scalars. A unit is a point of the output.
    Plain,
    /// One vector of partial sums for each point, along the last axis of the depth. A unit is a
    /// point of the output.
    Dot,
    /// Runs of this length along the last column axis are summed in place, one term of the depth
    /// after another. A unit is a run.
    Sweep(i64),
    /// Register tiles over packed panels.
    Tiled(Tiling),
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that is broadcast.
    Rows,
    /// The one that is vectorized.
    Columns,
}

/// A part of a contraction that ends before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Packs an operand whole; a unit is a panel.
    Pack(Which),
    /// Computes the sums and, if the depth is not split, the stores.
    Sum,
    /// Adds the shares of a split depth and makes the stores; a unit is a row.
    Finish,
}

impl Stage {
    /// The name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Pack(Which::Rows) => "pack rows",
            Stage::Pack(Which::Columns) => "pack cols",
            Stage::Sum => "sum",
            Stage::Finish => "finish",
        }
    }
}

impl Which {
    /// The side that it is not.
    pub const fn other(self) -> Which {
        match self {
            Which::Rows => Which::Columns,
            Which::Columns => Which::Rows,
        }
    }
}

impl<'k> ContractSchedule<'k> {
    /// The schedule of `form`, which is a contraction of `program` with all sizes bound.
    ///
    /// # Errors
    /// If a size is not bound or there are too many axes.
    ///
    /// # Panics
    /// If `form` is of another kind.
    pub fn new(site: Site, form: &'k Form) -> Result<ContractSchedule<'k>, String> {
        let (nest, lhs, rhs) = nest(site, form)?;
        Ok(nest.schedule(lhs, rhs))
    }

    /// What can be chosen instead of [`ContractSchedule::new`]'s tiles, if they are any.
    ///
    /// # Errors
    /// As [`ContractSchedule::new`].
    ///
    /// # Panics
    /// As [`ContractSchedule::new`].
    pub fn alternatives(site: Site, form: &'k Form) -> Result<Option<Alternatives>, String> {
        let (nest, lhs, rhs) = nest(site, form)?;
        Ok(nest.alternatives(lhs, rhs))
    }

    /// The parts, in order.
    pub fn stages(&self) -> Vec<Stage> {
        let Algorithm::Tiled(tiling) = &self.algorithm else { return vec![Stage::Sum] };
        let whole = |which: &Which| tiling.supply(*which).is_whole();
        let packs = [Which::Rows, Which::Columns].into_iter().filter(whole).map(Stage::Pack);
        let finish = (tiling.sums == Sums::Shares).then_some(Stage::Finish);
        packs.chain([Stage::Sum]).chain(finish).collect()
    }

    /// Whether a part is done when parameters have changed, and not in every call.
    pub fn is_at_load(&self, stage: Stage) -> bool {
        match (&self.algorithm, stage) {
            (Algorithm::Tiled(t), Stage::Pack(which)) => *t.supply(which) == Supply::AtLoad,
            _ => false,
        }
    }

    /// The buffers that are read in every call.
    pub fn read_in_calls(&self) -> Vec<BufferId> {
        let packed = |which| self.is_at_load(Stage::Pack(which));
        let sides = [Which::Rows, Which::Columns].into_iter().filter(|&which| !packed(which));
        let operands = sides.map(|which| self.side(which).operand);
        let roots: Vec<ExprId> = operands.chain(self.stores.iter().map(|s| s.value)).collect();
        loaded(&self.domain, &roots)
    }

    /// A side.
    pub fn side(&self, which: Which) -> &Side {
        if which == Which::Rows { &self.rows } else { &self.columns }
    }

    /// How many units a part has; units are independent of one another.
    pub fn units(&self, stage: Stage) -> i64 {
        let batch = self.batch.points();
        let (rows, columns) = (self.rows.axes.points(), self.columns.axes.points());
        match (&self.algorithm, stage) {
            (Algorithm::Plain | Algorithm::Dot, _) => self.out.points(),
            (Algorithm::Sweep(run), _) => {
                let extent = self.columns.axes.last_extent();
                batch * rows * (columns / extent.max(1)) * div_ceil(extent, *run)
            }
            (Algorithm::Tiled(t), Stage::Pack(which)) => {
                let batch = self.packed_batch(which).points();
                batch * div_ceil(self.side(which).axes.points(), t.tile.extent(which))
            }
            (Algorithm::Tiled(t), Stage::Sum) => {
                batch * self.row_blocks(t) * self.column_blocks(t) * t.shares.count
            }
            (Algorithm::Tiled(_), Stage::Finish) => batch * rows,
        }
    }

    /// Roughly how many multiply-adds' time one unit of a part takes.
    pub fn unit_cost(&self, stage: Stage) -> i64 {
        let points = [&self.batch, &self.rows.axes, &self.columns.axes];
        let points: i64 = points.into_iter().map(Axes::points).product();
        let depth = self.depth.points();
        let cost = match stage {
            Stage::Pack(which) => {
                let batch = self.packed_batch(which).points();
                batch * self.side(which).axes.points() * depth * 8
            }
            Stage::Sum => points * (depth + 8),
            Stage::Finish => points * (self.splits() + 8),
        };
        cost / self.units(stage).max(1)
    }

    /// Shares of the depth.
    pub fn splits(&self) -> i64 {
        match &self.algorithm {
            Algorithm::Tiled(tiling) => tiling.shares.count,
            _ => 1,
        }
    }

    /// Blocks of rows in one batch.
    pub fn row_blocks(&self, tiling: &Tiling) -> i64 {
        div_ceil(self.rows.axes.points(), tiling.row_block)
    }

    /// Blocks of columns in one batch.
    pub fn column_blocks(&self, tiling: &Tiling) -> i64 {
        div_ceil(self.columns.axes.points(), tiling.column_block)
    }

    /// Steps of the depth for one step of its first axis.
    pub fn inner_depth(&self) -> i64 {
        self.depth.extents.iter().skip(1).product()
    }

    /// Whether every packed range of the depth is whole in all axes but the first.
    pub fn depth_is_whole(&self) -> bool {
        match &self.algorithm {
            Algorithm::Tiled(tiling) => {
                !self.depth.axes.is_empty() && tiling.depth_block % self.inner_depth() == 0
            }
            _ => false,
        }
    }

    /// How many axes of the batch are steps.
    fn step_axes(&self) -> usize {
        self.steps.last().copied().unwrap_or(0)
    }

    /// The batch as a side that is packed whole sees it: without the steps at which it is the same.
    pub fn packed_batch(&self, which: Which) -> Axes {
        let same = self.steps[self.side(which).loops]..self.step_axes();
        let mut batch = self.batch.clone();
        batch.axes.drain(same.clone());
        batch.extents.drain(same);
        batch
    }

    /// How many steps the loops around have at which a side that is packed whole is the same.
    pub fn packed_steps(&self, which: Which) -> i64 {
        self.batch.extents[self.steps[self.side(which).loops]..self.step_axes()].iter().product()
    }

    /// How many products the batch has at a step.
    pub fn own_batch(&self) -> i64 {
        self.batch.extents[self.step_axes()..].iter().product()
    }

    /// How many steps the loops around have.
    pub fn step_count(&self) -> i64 {
        self.batch.extents[..self.step_axes()].iter().product()
    }

    /// In how many of the loops around a part is done, at every step of them; it is done before the
    /// others.
    pub fn loops(&self, stage: Stage) -> usize {
        match stage {
            Stage::Pack(_) if self.is_at_load(stage) => 0,
            Stage::Pack(which) => self.side(which).loops,
            Stage::Sum | Stage::Finish => self.steps.len() - 1,
        }
    }

    /// Whether its columns are too many for a core's own caches.
    pub fn reads_from_afar(&self) -> bool {
        let bytes = 4 * self.columns.axes.points().saturating_mul(self.depth.points());
        usize::try_from(bytes).is_ok_and(|bytes| bytes >= self.config.caches.second)
    }

    /// What tiles of that size ask for before anybody reads it: the next panels of sides that come
    /// from beyond a core's own caches, or what they read soon of a panel that only they use, if it
    /// comes from memory.
    pub fn ahead(&self, tiling: &Tiling, size: Tile) -> Ahead {
        let far =
            |which| tiling.supply(which).is_whole() && self.side(which).origin != Origin::Near;
        let panel = i32::try_from(4 * size.rows * self.depth.points()).ok();
        let left = panel.filter(|_| far(Which::Rows) && size.rows == tiling.tile.rows);
        let tiles = tiling.row_block.min(self.rows.axes.points()) / tiling.tile.rows;
        let right = match (far(Which::Columns), tiles > 1) {
            (true, false) if self.columns.origin == Origin::Memory => {
                AheadRight::Step(STREAM_AHEAD)
            }
            (true, true) if tiling.levels(&self.depth) <= 2 => {
                let share = u16::try_from(div_ceil(4 * size.columns, tiles));
                AheadRight::Share(share.expect("panels are narrow"))
            }
            _ => AheadRight::Nothing,
        };
        Ahead { left: left.unwrap_or(0), right }
    }

    /// The output axes but for `axis`.
    pub fn without(&self, axis: Axis) -> Axes {
        let kept = || self.out.axes.iter().zip(&self.out.extents).filter(|a| *a.0 != axis);
        Axes { axes: kept().map(|a| *a.0).collect(), extents: kept().map(|a| *a.1).collect() }
    }
}

/// What is decided about, and the operands.
fn nest<'s, 'k>(site: Site<'s>, form: &'k Form) -> Result<(Nest<'s, 'k>, ExprId, ExprId), String> {
    let Form::Contract { out, sums, reduce, exprs, lhs, rhs, stores } = form else {
        panic!("a contraction's schedule is asked of `{}`", form.name())
    };
    let mut all = extents(out)?;
    all.extend(extents(sums)?);
    all.extend(extents(reduce)?);
    let mut domain = Domain::new(site, exprs, all)?;
    let mut placed = place_stores(site, &domain, stores)?;
    let values = stores.iter().map(|s| s.value);
    let roots: Vec<ExprId> = [*lhs, *rhs].into_iter().chain(values).collect();
    // Bundles are cut from the last axis.
    let last = usize::from(!sums.is_empty() && out.len() > site.steps);
    let loops = std::iter::repeat_n(1, site.steps);
    let own = [out.len() - site.steps - last, last, sums.len(), reduce.len()];
    let groups: Vec<usize> = loops.chain(own).collect();
    let (mut conditions, mut zeros) = (Vec::new(), Vec::new());
    if sums.is_empty() {
        conditions = reach::conditions(site, &domain, [*lhs, *rhs], stores)?;
        zeros = reach::zeros(site, &domain, stores)?;
    }
    let needed = conditions.len();
    conditions.append(&mut zeros);
    let kept = domain.merge(&roots, &mut placed, &mut conditions, &groups);
    let zeros = conditions.split_off(needed);
    let (of_loops, own) = kept.split_at(site.steps);
    let steps = (0..=site.steps).map(|n| of_loops[..n].iter().sum()).collect();
    let (out, sums) = (of_loops.iter().chain(&own[..2]).sum(), own[2]);
    let mut nest =
        Nest { site, stores: placed, conditions, zeros, domain, steps, out, sums, bundle: None };
    if own[1] > 0 {
        nest.cut_bundles([*lhs, *rhs]);
    }
    Ok((nest, *lhs, *rhs))
}

impl Axes {
    /// The product of the extents.
    pub fn points(&self) -> i64 {
        self.extents.iter().product()
    }

    /// The innermost extent, 1 if there is no axis.
    pub fn last_extent(&self) -> i64 {
        self.extents.last().copied().unwrap_or(1)
    }

    /// Whether a place walks through all axes as one: a step along an axis is a whole walk along
    /// the next.
    pub fn is_one(&self, place: &Place) -> bool {
        place.quotients.is_empty() && self.count_as_one(&place.linear)
    }

    /// The same of what is counted along them.
    pub fn count_as_one(&self, linear: &Linear) -> bool {
        self.even_run(linear) == self.points()
    }

    /// How many positions are counted in equal steps, from each multiple of their number on: those of
    /// the last axis, and of others as long as a step along one is a whole walk along the next.
    pub fn even_run(&self, linear: &Linear) -> i64 {
        let as_one = |i: &usize| {
            let [outer, inner] = [i - 1, *i].map(|i| linear.coef(self.axes[i]));
            outer == inner * self.extents[*i]
        };
        let along = (1..self.axes.len()).rev().take_while(as_one).map(|i| self.extents[i - 1]);
        along.fold(self.last_extent(), |run, extent| run * extent)
    }

    /// The innermost axis.
    pub fn last(&self) -> Option<Axis> {
        self.axes.last().copied()
    }
}

/// How many bytes before they are needed panels from memory are asked for: so many that a line is
/// there in time, and few enough that it is still in the second-level cache.
const STREAM_AHEAD: i32 = 4096;

pub(crate) fn div_ceil(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

impl fmt::Display for Axes {
    /// `a0 a2 (64x10)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for axis in &self.axes {
            write!(f, "a{} ", axis.0)?;
        }
        let extents: Vec<String> = self.extents.iter().map(i64::to_string).collect();
        if extents.is_empty() { write!(f, "none") } else { write!(f, "({})", extents.join("x")) }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.order == PackOrder::Side { "side" } else { "depth" };
        write!(f, "{} of e{}, read along its {order}", self.axes, self.operand.0)
    }
}
