//! The schedule of a map: for each segment, which axis is vectorized and what a unit is.

use super::crossed::Crossed;
use super::domain::{Domain, extents};
use super::stretch::{Stretch, Task, vectors_at_once};
use super::{Config, PlacedStore, Site, lanes, place_stores};
use crate::leaf::loops::MOST_LINES;
use dlc_kernel::{Axis, BufferId, Expr, ExprId, OptLevel, Program, Segment};
use std::fmt;

/// The longest stretch of lanes that is one unit.
const BLOCK: i64 = 1024;

/// Points along lines that are a unit.
const PLANE: i64 = 4096;

/// How one segment of a map is computed.
#[derive(Clone, Debug)]
pub struct MapSchedule<'k> {
    /// What it is made for.
    pub config: Config,
    /// Its axes, merged, and its expressions.
    pub domain: Domain<'k>,
    /// How many of its axes are steps of loops.
    pub steps: usize,
    /// The stores.
    pub stores: Vec<PlacedStore>,
    /// What runs along the lanes.
    pub shape: MapShape,
    /// The leaf that computes the points along the lanes, if one can.
    pub stretch: Option<Stretch>,
    /// If that has lines: how many are a unit.
    pub lines: Option<i64>,
}

/// Points of a unit of [`MapShape::Flat`]: a cache line of the widest elements.
pub const FLAT_UNIT: i64 = 16;

/// The loop nest of a segment.
#[derive(Clone, Debug)]
pub enum MapShape {
    /// Point by point; a unit is a point.
    Scalar,
    /// The only axis, in whole units of [`FLAT_UNIT`] points that may run past its end into the
    /// padding of the buffers; the extent is no part of the code.
    Flat,
    /// Vectors along an axis inside loops over the others.
    Nested {
        /// The axis.
        lanes: Axis,
        /// Points along it that are a unit, a multiple of 4 or all of them.
        block: i64,
        /// What happens to the last `extent % 4` points.
        tail: Tail,
    },
    /// Blocks of two axes, by leaves.
    Crossed(Box<Crossed>),
}

/// What happens to the last points of an axis that 4 does not divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// There are none.
    None,
    /// The last vector overlaps the one before it and computes some points twice.
    Overlap,
    /// A vector with this many active lanes.
    Partial(u8),
}

impl<'k> MapSchedule<'k> {
    /// The schedule of a segment with all sizes bound.
    ///
    /// # Errors
    /// If a size is not bound, there are too many axes, or a type is for storage only.
    pub fn new(site: Site<'k>, segment: &'k Segment) -> Result<MapSchedule<'k>, String> {
        let config = site.config;
        let mut domain = Domain::new(site, &segment.exprs, extents(&segment.axes)?)?;
        let mut stores = place_stores(site, &domain, &segment.stores)?;
        let roots: Vec<ExprId> = segment.stores.iter().map(|s| s.value).collect();
        let groups = [site.steps, segment.axes.len() - site.steps];
        let steps = domain.merge(&roots, &mut stores, &mut [], &groups)[0];
        let shape = MapShape::Scalar;
        let mut schedule =
            MapSchedule { config, domain, steps, stores, shape, stretch: None, lines: None };
        if config.opt_level > OptLevel::O0 {
            schedule.shape = schedule.choose_shape(site);
            let again = !schedule.is_in_place(site);
            let task = Task { stores: &schedule.stores, again, ..Task::default() };
            let down = schedule.down();
            let stretch = |axis| Stretch::new(&schedule.domain, axis, down, task);
            schedule.stretch = schedule.lanes().and_then(stretch);
            if schedule.stretch.is_none()
                && let Some(crossed) =
                    Crossed::new(&schedule.domain, steps, &schedule.stores, again)
            {
                schedule.shape = MapShape::Crossed(Box::new(crossed));
                return Ok(schedule);
            }
            if let MapShape::Nested { block, .. } = schedule.shape
                && schedule.blocks(block) == 1
            {
                let lines = schedule.stretch.iter_mut();
                lines.for_each(|stretch| stretch.join_lines(&schedule.domain));
            }
            if steps == 0
                && outgrows_caches(site, &schedule.domain, &schedule.stores, &schedule.roots())
            {
                schedule.stretch.iter_mut().for_each(Stretch::stream_results);
            }
            schedule.lines = schedule.lines_of_unit();
        }
        Ok(schedule)
    }

    /// The values that are stored.
    pub fn roots(&self) -> Vec<ExprId> {
        self.stores.iter().map(|s| s.value).collect()
    }

    /// The buffers it touches: what it stores, then what it loads.
    pub fn operands(&self) -> Vec<BufferId> {
        let mut operands: Vec<BufferId> = self.stores.iter().map(|s| s.buffer).collect();
        operands.extend(loaded(&self.domain, &self.roots()));
        let mut seen = rustc_hash::FxHashSet::default();
        operands.retain(|&id| seen.insert(id));
        operands
    }

    /// The size of the parallel domain.
    pub fn units(&self) -> i64 {
        match &self.shape {
            MapShape::Scalar => self.domain.points(),
            MapShape::Flat => (self.domain.extents[0] + FLAT_UNIT - 1) / FLAT_UNIT,
            MapShape::Nested { block, .. } => {
                self.rows() * self.line_blocks().unwrap_or(1) * self.blocks(*block)
            }
            MapShape::Crossed(crossed) => {
                let [along, across] = crossed.blocks(&self.domain);
                self.rows() * along * across
            }
        }
    }

    /// Bytes that each worker needs besides its buffers.
    pub fn scratch_bytes(&self) -> usize {
        match &self.shape {
            MapShape::Crossed(crossed) => crossed.scratch_bytes(),
            _ => 0,
        }
    }

    /// Whether leaves compute all of it.
    pub fn is_by_leaf(&self) -> bool {
        self.stretch.is_some() || matches!(self.shape, MapShape::Crossed(_))
    }

    /// The axis that a leaf may go down: the last one that is not vectorized.
    fn down(&self) -> Option<Axis> {
        let nested = matches!(self.shape, MapShape::Nested { .. });
        self.outer().pop().filter(|axis| nested && axis.0 as usize >= self.steps)
    }

    /// The number of lines that are a unit, if the leaf has lines.
    fn lines_of_unit(&self) -> Option<i64> {
        let MapShape::Nested { block, .. } = self.shape else { return None };
        let axis = self.stretch.as_ref()?.lines?;
        let most = (PLANE / block).max(MOST_LINES.into());
        let blocks = (self.extent(axis) + most - 1) / most;
        let together = i64::from(MOST_LINES);
        let rounds = (self.extent(axis) + blocks * together - 1) / (blocks * together).max(1);
        Some(rounds * together)
    }

    /// Blocks of lines, if there are lines.
    pub fn line_blocks(&self) -> Option<i64> {
        let (axis, lines) = (self.stretch.as_ref()?.lines?, self.lines?);
        Some((self.extent(axis) + lines - 1) / lines)
    }

    /// Points of the axes that are not vectorized.
    fn rows(&self) -> i64 {
        self.outer().iter().fold(1, |n, a| n * self.extent(*a))
    }

    /// What a unit costs in nanoseconds.
    pub fn unit_cost(&self) -> f64 {
        let vector = lanes::vector_cost(&self.domain, &self.roots(), &self.stores, self.lanes());
        let vectors = match &self.shape {
            MapShape::Nested { lanes, block, .. } => (self.extent(*lanes).min(*block) + 3) / 4,
            MapShape::Flat => FLAT_UNIT / 4,
            MapShape::Scalar => 1,
            MapShape::Crossed(crossed) => crossed.block[0] * crossed.block[1] / 4,
        };
        let at_once = if self.is_by_leaf() { vectors_at_once(self.config.level) } else { 1.0 };
        let lines = self.lines.unwrap_or(1) as f64;
        lanes::nanoseconds(lines * vectors as f64 * (vector + 2.0) / at_once + 8.0)
    }

    /// The axis that is vectorized.
    pub fn lanes(&self) -> Option<Axis> {
        match &self.shape {
            MapShape::Scalar => None,
            MapShape::Flat => Some(Axis(0)),
            MapShape::Nested { lanes, .. } => Some(*lanes),
            MapShape::Crossed(crossed) => Some(crossed.axes[0]),
        }
    }

    /// The axes that neither vectors, lines of a leaf nor blocks are along, outermost first.
    pub fn outer(&self) -> Vec<Axis> {
        let lanes = self.lanes().filter(|_| !matches!(self.shape, MapShape::Flat));
        let lines = match &self.shape {
            MapShape::Crossed(crossed) => Some(crossed.axes[1]),
            _ => self.stretch.as_ref().and_then(|stretch| stretch.lines),
        };
        let axes = (0..self.domain.extents.len() as u32).map(Axis);
        axes.filter(|&a| Some(a) != lanes && Some(a) != lines).collect()
    }

    /// Blocks of `block` points along the lane axis.
    pub fn blocks(&self, block: i64) -> i64 {
        match self.shape {
            MapShape::Nested { lanes, .. } => (self.extent(lanes) + block - 1) / block.max(1),
            _ => 1,
        }
    }

    /// Points along an axis.
    pub fn extent(&self, axis: Axis) -> i64 {
        self.domain.extents[axis.0 as usize]
    }

    fn choose_shape(&self, site: Site) -> MapShape {
        let axes = (self.steps as u32..self.domain.extents.len() as u32).map(Axis);
        let cost = |axis: &Axis| {
            let n = self.extent(*axis).max(1);
            let vectors = (n as f64 / 4.0).ceil() / n as f64;
            let cost =
                lanes::vector_cost(&self.domain, &self.roots(), &self.stores, Some(*axis)) + 2.0;
            vectors * cost
        };
        // Of equal axes the last, whose neighbours are likeliest to share cache lines.
        let best = axes.rev().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let Some(lanes) = best else { return MapShape::Scalar };
        if self.domain.extents.len() == 1 && self.steps == 0 && self.may_overrun(site.program) {
            return MapShape::Flat;
        }
        let n = self.extent(lanes);
        let block = if n <= 2 * BLOCK { n.max(1) } else { BLOCK };
        MapShape::Nested { lanes, block, tail: self.tail(site, n) }
    }

    fn tail(&self, site: Site, n: i64) -> Tail {
        let nodes = self.domain.reachable(&self.roots());
        let random =
            nodes.iter().any(|&id| matches!(self.domain.exprs.get(id), Expr::Random { .. }));
        match n % 4 {
            0 => Tail::None,
            _ if n > 4 && !random && !self.is_in_place(site) => Tail::Overlap,
            rest => Tail::Partial(rest as u8),
        }
    }

    fn is_in_place(&self, site: Site) -> bool {
        is_in_place(site, &self.domain, &self.stores, &self.roots())
    }

    /// Whether vectors past the end of the only axis touch nothing but padding.
    fn may_overrun(&self, program: &Program) -> bool {
        let n = self.domain.extents[0];
        let whole = |s: &PlacedStore| {
            s.place.linear.offset == 0
                && s.place.linear.coef(Axis(0)) == 1
                && program.buffer(s.buffer).elements() == Some(n as usize)
        };
        let nodes = self.domain.reachable(&self.roots());
        let harmless = |id: &ExprId| match &self.domain.places[id.0 as usize] {
            None => true,
            Some(place) => {
                place.found.is_empty()
                    && (place.is_unit_along(Axis(0)) || !place.uses().contains(Axis(0)))
            }
        };
        self.stores.iter().all(whole) && (n % FLAT_UNIT == 0 || nodes.iter().all(harmless))
    }
}

/// Whether some storage is loaded and stored.
pub(super) fn is_in_place<'s>(
    site: Site,
    domain: &Domain,
    stores: impl IntoIterator<Item = &'s PlacedStore>,
    roots: &[ExprId],
) -> bool {
    let loaded = loaded(domain, roots);
    let loads = |id| loaded.iter().any(|&l| site.storage(l) == site.storage(id));
    stores.into_iter().any(|s| loads(s.buffer))
}

/// Whether what is loaded and stored leaves no room for anything else in the last-level cache, and
/// nothing of it is both: results need not take the place of what is yet to be read.
pub(super) fn outgrows_caches(
    site: Site,
    domain: &Domain,
    stores: &[PlacedStore],
    roots: &[ExprId],
) -> bool {
    let mut touched = loaded(domain, roots);
    touched.extend(stores.iter().map(|s| s.buffer));
    touched.sort_unstable();
    touched.dedup();
    site.config.caches.are_left_by(site.bytes(touched)) && !is_in_place(site, domain, stores, roots)
}

/// The buffers that `roots` load, each once, in order.
pub(super) fn loaded(domain: &Domain, roots: &[ExprId]) -> Vec<BufferId> {
    let mut buffers = Vec::new();
    for id in domain.reachable(roots) {
        if let Expr::Load { buffer, .. } = domain.exprs.get(id)
            && !buffers.contains(buffer)
        {
            buffers.push(*buffer);
        }
    }
    buffers
}

impl fmt::Display for MapSchedule<'_> {
    /// `map [64, 3456] lanes a1 by 1024, 256 units, tail none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {:?} ", &self.domain.extents[..])?;
        match &self.shape {
            MapShape::Scalar => write!(f, "in scalars")?,
            MapShape::Flat => write!(f, "in whole vectors")?,
            MapShape::Crossed(crossed) => write!(f, "lanes {crossed}, by a leaf")?,
            MapShape::Nested { lanes, block, tail } => {
                write!(f, "lanes a{} by {block}", lanes.0)?;
                match tail {
                    Tail::None => {}
                    Tail::Overlap => write!(f, ", last vector overlaps")?,
                    Tail::Partial(n) => write!(f, ", {n} lanes at the end")?,
                }
            }
        }
        let leaf = if self.stretch.is_some() { ", by a leaf" } else { "" };
        write!(f, "{leaf}")?;
        if let (Some(stretch), Some(lines)) = (&self.stretch, self.lines) {
            let (axis, together) =
                (stretch.lines.map_or(0, |a| a.0), stretch.leaf.lines_together());
            write!(f, " down a{axis} by {lines}, {together} lines together")?;
        }
        if self.stretch.as_ref().is_some_and(|stretch| stretch.leaf.streaming) {
            write!(f, ", stores past the caches")?;
        }
        write!(f, "; {} units", self.units())
    }
}
