//! The schedule of a row kernel: along which axis its vectors lie, and how its folds are cut.
//!
//! Vectors lie along an inner axis (a row's elements are neighbours: softmax over classes), or
//! along an outer one (neighbouring rows are: column sums), whichever reads memory in runs. A few
//! long rows that only reduce are cut into chunks, which are folded apart and merged in order; how
//! they are cut depends on their shape alone. Steps that do not wait for one another's folds share
//! one walk over the row, a [`Pass`].

use super::abreast::{self, Abreast, Blocks};
use super::domain::{AxisSet, Domain, Linear, extents, strides};
use super::map::{is_in_place, loaded};
use super::stretch::{Stretch, vectors_at_once};
use super::tail::Tail;
use super::{Config, PlacedStore, Site, Workspace, lanes, place_stores};
use dlc_kernel::{Axis, BufferId, Expr, ExprId, FoldOp, Form, OptLevel, Step, Store};
use std::fmt;

/// The most points of a row that are written out one by one.
const UNROLLED_POINTS: i64 = 9;

/// Points of a row from which on it may be cut into chunks.
const LONG_ROW: i64 = 1 << 14;

/// Rows and chunks of them that are worth having.
const ENOUGH_UNITS: i64 = 32;

/// How a row kernel is computed.
#[derive(Clone, Debug)]
pub struct RowSchedule<'k> {
    /// What it is made for.
    pub config: Config,
    /// Its axes, merged: `outer` of them, then the inner ones.
    pub domain: Domain<'k>,
    /// How many of its axes are steps of loops, outermost.
    pub steps: usize,
    /// How many axes are outer. If rows are cut, the last of them counts the chunks of a row.
    pub outer: usize,
    /// How many chunks a row is cut into; 1 if it is not.
    pub chunks: i64,
    /// The walks over a row, in order.
    pub passes: Vec<Pass>,
    /// What is stored once per row, after all passes.
    pub stores: Vec<PlacedStore>,
    /// Where vectors lie.
    pub lanes: RowLanes,
    /// Leaves along the outer axis that is vectorized, if they can do all.
    pub abreast: Option<Abreast>,
    /// Whether the inner loops are written out.
    pub unrolled: bool,
    /// What leaves need not walk along: it changes no fold, and its values are those that are
    /// stored at every point, in order.
    pub tail: Option<Tail>,
}

/// One walk over a row. It may use the folds of the passes before it.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// What is folded.
    pub folds: Vec<RowFold>,
    /// What is stored at every point.
    pub stores: Vec<PlacedStore>,
    /// Running results of each fold, which are merged at the end of a row.
    pub accumulators: usize,
    /// The leaf that walks along the lanes, if one can.
    pub stretch: Option<Stretch>,
}

/// A fold over the row.
#[derive(Clone, Copy, Debug)]
pub struct RowFold {
    /// Its result is `Expr::Folded(step)`.
    pub step: u32,
    /// The operation.
    pub op: FoldOp,
    /// What is folded.
    pub value: ExprId,
}

/// Where the vectors of a row kernel lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLanes {
    /// Nowhere: everything is a scalar.
    None,
    /// Along an inner axis.
    Inner(Axis),
    /// Along an outer axis: four rows at a time. The last vector overlaps the one before it.
    Overlapping(Axis),
    /// Along an outer axis; the last vector has `extent % 4` active lanes, if not 0.
    Partial(Axis),
}

impl<'k> RowSchedule<'k> {
    /// The schedule of a row kernel with all sizes bound.
    ///
    /// # Errors
    /// If a size is not bound or there are too many axes.
    ///
    /// # Panics
    /// If `form` is of another kind.
    pub fn new(site: Site<'k>, form: &'k Form) -> Result<RowSchedule<'k>, String> {
        let Form::Row { outer, inner, exprs, steps } = form else {
            panic!("a row's schedule is asked of `{}`", form.name())
        };
        let mut axes = extents(outer)?;
        axes.extend(extents(inner)?);
        let mut domain = Domain::new(site, exprs, axes)?;
        let all_stores: Vec<&Store> = steps.iter().filter_map(Step::store).collect();
        let mut stores = place_stores(site, &domain, all_stores)?;
        let roots: Vec<ExprId> = steps.iter().map(Step::value).collect();
        let groups = [site.steps, outer.len() - site.steps, inner.len()];
        let kept = domain.merge(&roots, &mut stores, &mut [], &groups);
        let mut schedule = RowSchedule {
            config: site.config,
            domain,
            steps: kept[0],
            outer: kept[0] + kept[1],
            chunks: 1,
            passes: Vec::new(),
            stores: Vec::new(),
            lanes: RowLanes::None,
            abreast: None,
            unrolled: false,
            tail: None,
        };
        schedule.share_passes(steps, stores);
        if site.config.opt_level > OptLevel::O0 {
            schedule.optimize(site);
        }
        Ok(schedule)
    }

    /// Memory it needs besides its buffers.
    pub fn workspace(&self) -> Workspace {
        let results = self.folds().len() as i64 * self.chunks * self.rows();
        let shared = match &self.abreast {
            Some(abreast) => abreast.shared_bytes(),
            None if self.chunks > 1 => 4 * results as usize,
            None => 0,
        };
        let keeps = self.passes.iter().flat_map(|p| &p.stretch).any(Stretch::uses_scratch);
        let scratch = match &self.abreast {
            Some(abreast) => abreast.scratch_bytes(),
            None if keeps => 4 * self.row_points() as usize,
            None => 0,
        };
        Workspace { shared, scratch, ..Workspace::default() }
    }

    /// The folds, in order.
    pub fn folds(&self) -> Vec<RowFold> {
        self.passes.iter().flat_map(|p| &p.folds).copied().collect()
    }

    /// All stores.
    pub fn all_stores(&self) -> impl Iterator<Item = &PlacedStore> {
        self.passes.iter().flat_map(|p| &p.stores).chain(&self.stores)
    }

    /// The axes that count rows.
    pub fn row_axes(&self) -> usize {
        self.outer - usize::from(self.chunks > 1)
    }

    /// The number of rows.
    pub fn rows(&self) -> i64 {
        self.domain.extents[..self.row_axes()].iter().product()
    }

    /// Everything that is computed.
    pub fn roots(&self) -> Vec<ExprId> {
        let values = self.folds().into_iter().map(|f| f.value);
        values.chain(self.all_stores().map(|s| s.value)).collect()
    }

    /// The buffers it touches: what it stores, then what it loads.
    pub fn operands(&self) -> Vec<BufferId> {
        let mut operands: Vec<BufferId> = self.all_stores().map(|s| s.buffer).collect();
        operands.extend(loaded(&self.domain, &self.roots()));
        let mut seen = rustc_hash::FxHashSet::default();
        operands.retain(|&id| seen.insert(id));
        operands
    }

    /// The outer axes that are not vectorized.
    pub fn outer_loops(&self) -> Vec<Axis> {
        let axes = (0..self.outer as u32).map(Axis);
        axes.filter(|&a| Some(a) != self.outer_lanes()).collect()
    }

    /// The inner axes that are not vectorized.
    pub fn inner_loops(&self) -> Vec<Axis> {
        let axes = (self.outer as u32..self.domain.extents.len() as u32).map(Axis);
        axes.filter(|&a| self.lanes != RowLanes::Inner(a)).collect()
    }

    /// The outer axis that is vectorized.
    pub fn outer_lanes(&self) -> Option<Axis> {
        match self.lanes {
            RowLanes::Overlapping(axis) | RowLanes::Partial(axis) => Some(axis),
            RowLanes::None | RowLanes::Inner(_) => None,
        }
    }

    /// The extents of the parallel domain, row-major: the outer loops, then vectors of rows.
    pub fn unit_extents(&self) -> Vec<i64> {
        let loops = self.outer_loops().into_iter().map(|a| self.extent(a));
        let together = self.rows_together();
        let vectors = self.outer_lanes().map(|a| (self.extent(a) + together - 1) / together);
        loops.chain(vectors).collect()
    }

    /// Rows of a unit along the outer axis that is vectorized.
    fn rows_together(&self) -> i64 {
        if self.abreast.is_some() { abreast::BLOCK } else { 4 }
    }

    /// The size of the parallel domain.
    pub fn units(&self) -> i64 {
        self.blocks().map_or_else(|| self.unit_extents().iter().product(), |b| b.count)
    }

    /// The blocks that the points of rows side by side are cut into, if they are.
    pub fn blocks(&self) -> Option<&Blocks> {
        self.abreast.as_ref()?.blocks.as_ref()
    }

    /// Points of a row.
    pub fn row_points(&self) -> i64 {
        self.domain.extents[self.outer..].iter().product()
    }

    /// What all passes cost for a unit, in nanoseconds.
    pub fn unit_cost(&self) -> f64 {
        self.cost_of(&self.passes)
    }

    /// What some passes cost for a unit, in nanoseconds.
    pub fn cost_of(&self, passes: &[Pass]) -> f64 {
        let row = self.row_points() as f64;
        let (axis, evaluations) = match self.lanes {
            RowLanes::None => (None, row),
            RowLanes::Inner(axis) => {
                let n = self.extent(axis).max(1) as f64;
                (Some(axis), row / n * (n / 4.0).ceil())
            }
            RowLanes::Overlapping(axis) | RowLanes::Partial(axis) => (Some(axis), row),
        };
        let by_leaves = self.passes.iter().all(|p| p.stretch.is_some()) || self.abreast.is_some();
        let at_once = if by_leaves { vectors_at_once(self.config.level) } else { 1.0 };
        let vectors = match (self.blocks(), axis) {
            (Some(blocks), Some(axis)) => self.extent(axis) as f64 / 4.0 / blocks.count as f64,
            _ => self.rows_together() as f64 / 4.0,
        };
        let instructions = self.instructions(passes, axis);
        lanes::nanoseconds(vectors * evaluations * instructions / at_once + 20.0)
    }

    /// The row-major position of a point in its row.
    pub fn position(&self) -> Linear {
        let inner = &self.domain.extents[self.outer..];
        let strides = strides(inner);
        let axes = (self.outer as u32..).map(Axis);
        Linear { terms: axes.zip(strides).collect(), offset: 0 }
    }

    /// The outer axes.
    pub fn outer_set(&self) -> AxisSet {
        AxisSet::range(0, self.outer)
    }

    /// The extent of an axis.
    pub fn extent(&self, axis: Axis) -> i64 {
        self.domain.extents[axis.0 as usize]
    }

    fn optimize(&mut self, site: Site) {
        let axes = (self.steps as u32..self.domain.extents.len() as u32).map(Axis);
        let cost = |axis: &Axis| self.cost_along(*axis);
        let best = axes.rev().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        self.lanes = match best {
            None => RowLanes::None,
            Some(axis) if axis.0 as usize >= self.outer => RowLanes::Inner(axis),
            Some(axis) if self.may_overlap(site, axis) => RowLanes::Overlapping(axis),
            Some(axis) => RowLanes::Partial(axis),
        };
        let inner: i64 = self.inner_loops().iter().map(|&a| self.extent(a)).product();
        let lone = !matches!(self.lanes, RowLanes::Inner(_));
        self.unrolled = lone && inner <= UNROLLED_POINTS;
        let outer = self.outer_lanes().filter(|_| !self.unrolled);
        self.abreast = outer.and_then(|axis| Abreast::new(self, axis));
        if site.steps == 0 && self.abreast.is_none() {
            self.cut_rows();
        }
        self.cut_folds();
        self.find_stretches(site);
    }

    /// Cuts a few long rows that only reduce into chunks.
    fn cut_rows(&mut self) {
        let (rows, points) = (self.rows(), self.row_points());
        let reduces =
            |pass: &Pass| pass.stores.is_empty() && pass.folds.iter().all(|f| !f.op.is_position());
        let only_reduces = self.passes.len() == 1 && self.passes.iter().all(reduces);
        if !only_reduces || points < LONG_ROW || rows == 0 || 2 * rows > ENOUGH_UNITS {
            return;
        }
        let axis = Axis(self.outer as u32);
        let (extent, most) = (self.extent(axis), ENOUGH_UNITS / rows);
        let step = if self.lanes == RowLanes::Inner(axis) { 4 } else { 1 };
        let divides = |&chunks: &i64| extent % (chunks * step) == 0;
        let Some(chunks) = (2..=most).rev().find(divides) else { return };
        self.domain.split(axis, self.outer, extent / chunks, &mut self.stores);
        self.chunks = chunks;
        self.outer += 1;
        if let RowLanes::Inner(axis) = &mut self.lanes {
            axis.0 += 1;
        }
    }

    /// Instructions for a row, with vectors along `axis`.
    fn cost_along(&self, axis: Axis) -> f64 {
        let n = self.extent(axis).max(1) as f64;
        let vectors = (n / 4.0).ceil() / n;
        let merge = if axis.0 as usize >= self.outer {
            12.0 * self.folds().len() as f64 / self.row_points().max(1) as f64
        } else {
            0.0
        };
        vectors * (self.instructions(&self.passes, Some(axis)) + 2.0) + merge
    }

    /// Instructions of some passes at a point, or at four points along `axis`.
    fn instructions(&self, passes: &[Pass], axis: Option<Axis>) -> f64 {
        let cost = |p: &Pass| lanes::vector_cost(&self.domain, &p.roots(), &p.stores, axis);
        passes.iter().map(cost).sum()
    }

    /// Whether rows may be computed twice, at the same time even: nothing is random, and nothing
    /// that is stored is loaded.
    fn may_overlap(&self, site: Site, axis: Axis) -> bool {
        let nodes = self.domain.reachable(&self.roots());
        let random =
            nodes.iter().any(|&id| matches!(self.domain.exprs.get(id), Expr::Random { .. }));
        let in_place = is_in_place(site, &self.domain, self.all_stores(), &self.roots());
        self.extent(axis) >= 4 && !random && !in_place
    }

    /// Cheap elements wait for the addition before them: several running sums hide that.
    fn cut_folds(&mut self) {
        let (domain, lanes) = (&self.domain, self.lanes);
        let axis = match lanes {
            RowLanes::None => None,
            RowLanes::Inner(a) | RowLanes::Overlapping(a) | RowLanes::Partial(a) => Some(a),
        };
        let unrolled = self.unrolled;
        for pass in &mut self.passes {
            let cost = lanes::vector_cost(domain, &pass.roots(), &pass.stores, axis);
            pass.accumulators = match cost {
                _ if unrolled || pass.folds.is_empty() => 1,
                c if c < 12.0 => 4,
                c if c < 24.0 => 2,
                _ => 1,
            };
        }
    }

    /// Puts every step into the first pass that has the folds it uses; `stores` are the places of
    /// the storing steps, in order.
    fn share_passes(&mut self, steps: &[Step], stores: Vec<PlacedStore>) {
        let mut stores = stores.into_iter();
        let mut next = || stores.next().expect("there is a place for each store");
        // By step that is a fold: the pass after which it is known.
        let mut known = vec![0; steps.len()];
        for (k, step) in steps.iter().enumerate() {
            let value = step.value();
            let used = self.domain.reachable(&[value]);
            let at = used.iter().map(|&id| match self.domain.exprs.get(id) {
                Expr::Folded(step) => known[*step as usize],
                _ => 0,
            });
            let at = at.max().unwrap_or(0);
            if let Step::StoreRow(_) = step {
                self.stores.push(next());
                continue;
            }
            self.passes.resize_with(self.passes.len().max(at + 1), Pass::default);
            let pass = &mut self.passes[at];
            pass.accumulators = 1;
            match step {
                Step::Fold(op, value) => {
                    pass.folds.push(RowFold { step: k as u32, op: *op, value: *value });
                    known[k] = at + 1;
                }
                _ => pass.stores.push(next()),
            }
        }
        self.postpone_stores();
    }

    /// Moves stores of what a later pass computes anyway, and their own pass does not, to that one.
    fn postpone_stores(&mut self) {
        let reached = |roots: &[ExprId]| self.domain.reachable(roots);
        let all: Vec<Vec<ExprId>> = self.passes.iter().map(|p| reached(&p.roots())).collect();
        for at in 0..self.passes.len() {
            let folded: Vec<ExprId> = self.passes[at].folds.iter().map(|f| f.value).collect();
            let own = self.domain.reachable(&folded);
            for store in std::mem::take(&mut self.passes[at].stores) {
                let later = (at + 1..all.len()).find(|&later| all[later].contains(&store.value));
                let to = later.filter(|_| !own.contains(&store.value)).unwrap_or(at);
                self.passes[to].stores.push(store);
            }
        }
    }
}

impl Pass {
    /// What is computed at every point.
    pub fn roots(&self) -> Vec<ExprId> {
        let folds = self.folds.iter().map(|f| f.value);
        folds.chain(self.stores.iter().map(|s| s.value)).collect()
    }
}

impl fmt::Display for RowSchedule<'_> {
    /// `row [64] x [10] lanes a1; max x4; sum x1; each b3 x1; 64 units`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outer, inner) = self.domain.extents.split_at(self.outer);
        write!(f, "row {outer:?} x {inner:?} ")?;
        if self.chunks > 1 {
            write!(f, "in {} chunks, ", self.chunks)?;
        }
        match self.lanes {
            RowLanes::None => write!(f, "in scalars")?,
            RowLanes::Inner(a) => write!(f, "lanes a{}", a.0)?,
            RowLanes::Overlapping(a) => write!(f, "lanes a{}, last vector overlaps", a.0)?,
            RowLanes::Partial(a) => write!(f, "lanes a{}", a.0)?,
        }
        f.write_str(if self.abreast.is_some() { ", abreast by leaves" } else { "" })?;
        self.blocks().iter().try_for_each(|blocks| write!(f, ", in {blocks}"))?;
        write!(f, "{};", if self.unrolled { ", unrolled" } else { "" })?;
        for pass in &self.passes {
            pass.folds.iter().try_for_each(|fold| write!(f, " {}", fold.op))?;
            let names = pass.stores.iter().map(|s| s.buffer.0);
            names.into_iter().try_for_each(|b| write!(f, " each b{b}"))?;
            match &pass.stretch {
                Some(stretch) => {
                    let keeps = stretch.leaf.stores.len() > pass.stores.len();
                    let keeps = if keeps { ", keeping a value" } else { "" };
                    write!(f, " by a leaf x{}{keeps};", stretch.leaf.unroll)?;
                }
                None => write!(f, " x{};", pass.accumulators)?,
            }
        }
        self.stores.iter().try_for_each(|s| write!(f, " row b{},", s.buffer.0))?;
        self.tail.iter().try_for_each(|tail| write!(f, " {tail};"))?;
        write!(f, " {} units", self.units())
    }
}
