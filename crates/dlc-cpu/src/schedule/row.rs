//! The schedule of a row kernel: along which axis its vectors lie, and how its folds are cut.
//!
//! Vectors lie along an inner axis (a row's elements are neighbours: softmax over classes), or
//! along an outer one (neighbouring rows are: column sums), whichever reads memory in runs. A few
//! long rows that only reduce are cut into chunks, which are folded apart and merged in order; how
//! they are cut depends on their shape alone.

use super::domain::{AxisSet, Domain, Linear, extents, strides};
use super::map::loaded;
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
    /// How many axes are outer. If rows are cut, the last of them counts the chunks of a row.
    pub outer: usize,
    /// How many chunks a row is cut into; 1 if it is not.
    pub chunks: i64,
    /// The steps, in order.
    pub steps: Vec<RowStep>,
    /// Where vectors lie.
    pub lanes: RowLanes,
    /// Whether the inner loops are written out.
    pub unrolled: bool,
}

/// One step of a row.
#[derive(Clone, Debug)]
pub enum RowStep {
    /// A fold over the row.
    Fold(RowFold),
    /// Once per row.
    StoreRow(PlacedStore),
    /// At every point of the row.
    StoreEach(PlacedStore),
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
    /// Running results that are merged at the end of a row.
    pub accumulators: usize,
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
        let mut domain = Domain::new(site.program, exprs, axes)?;
        let all_stores: Vec<&Store> = steps.iter().filter_map(store_of).collect();
        let mut stores = place_stores(site.program, &domain, all_stores)?;
        let roots: Vec<ExprId> = steps.iter().map(value_of).collect();
        let kept = domain.merge(&roots, &mut stores, &[outer.len(), inner.len()]);
        let mut schedule = RowSchedule {
            config: site.config,
            domain,
            outer: kept[0],
            chunks: 1,
            steps: place_steps(steps, stores),
            lanes: RowLanes::None,
            unrolled: false,
        };
        if site.config.opt_level > OptLevel::O0 {
            schedule.optimize(site);
        }
        Ok(schedule)
    }

    /// Memory it needs besides its buffers.
    pub fn workspace(&self) -> Workspace {
        let results = self.folds().len() as i64 * self.chunks * self.rows();
        let shared = if self.chunks > 1 { 4 * results as usize } else { 0 };
        Workspace { shared, scratch: 0 }
    }

    /// The folds, in order.
    pub fn folds(&self) -> Vec<RowFold> {
        let fold = |step: &RowStep| match step {
            RowStep::Fold(fold) => Some(*fold),
            _ => None,
        };
        self.steps.iter().filter_map(fold).collect()
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
        self.steps.iter().map(RowStep::value).collect()
    }

    /// The buffers it touches: what it stores, then what it loads.
    pub fn operands(&self) -> Vec<BufferId> {
        let stores = self.steps.iter().filter_map(RowStep::store);
        let mut operands: Vec<BufferId> = stores.map(|s| s.buffer).collect();
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
        let vectors = self.outer_lanes().map(|a| (self.extent(a) + 3) / 4);
        loops.chain(vectors).collect()
    }

    /// The size of the parallel domain.
    pub fn units(&self) -> i64 {
        self.unit_extents().iter().product()
    }

    /// Points of a row.
    pub fn row_points(&self) -> i64 {
        self.domain.extents[self.outer..].iter().product()
    }

    /// What a unit costs in nanoseconds.
    pub fn unit_cost(&self) -> f64 {
        let row = self.domain.extents[self.outer..].iter().product::<i64>() as f64;
        let (axis, evaluations) = match self.lanes {
            RowLanes::None => (None, row),
            RowLanes::Inner(axis) => {
                let n = self.extent(axis).max(1) as f64;
                (Some(axis), row / n * (n / 4.0).ceil())
            }
            RowLanes::Overlapping(axis) | RowLanes::Partial(axis) => (Some(axis), row),
        };
        let stores: Vec<PlacedStore> =
            self.steps.iter().filter_map(RowStep::store).cloned().collect();
        let each = lanes::vector_cost(&self.domain, &self.roots(), &stores, axis);
        lanes::nanoseconds(evaluations * each + 20.0)
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
        let axes = (0..self.domain.extents.len() as u32).map(Axis);
        let cost = |axis: &Axis| self.cost_along(*axis);
        let best = axes.rev().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        self.lanes = match best {
            None => RowLanes::None,
            Some(axis) if axis.0 as usize >= self.outer => RowLanes::Inner(axis),
            Some(axis) if self.may_overlap(site, axis) => RowLanes::Overlapping(axis),
            Some(axis) => RowLanes::Partial(axis),
        };
        self.cut_rows();
        let inner: i64 = self.inner_loops().iter().map(|&a| self.extent(a)).product();
        let lone = !matches!(self.lanes, RowLanes::Inner(_));
        self.unrolled = lone && inner <= UNROLLED_POINTS;
        self.cut_folds();
    }

    /// Cuts a few long rows that only reduce into chunks.
    fn cut_rows(&mut self) {
        let (rows, points) = (self.rows(), self.row_points());
        let only_reduces = self.steps.iter().all(|step| match step {
            RowStep::Fold(fold) => {
                let uses = self.domain.uses[fold.value.0 as usize];
                !fold.op.is_position() && uses.0 & AxisSet::FOLDED.0 == 0
            }
            RowStep::StoreRow(_) => true,
            RowStep::StoreEach(_) => false,
        });
        if !only_reduces || points < LONG_ROW || rows == 0 || 2 * rows > ENOUGH_UNITS {
            return;
        }
        let axis = Axis(self.outer as u32);
        let (extent, most) = (self.extent(axis), ENOUGH_UNITS / rows);
        let step = if self.lanes == RowLanes::Inner(axis) { 4 } else { 1 };
        let divides = |&chunks: &i64| extent % (chunks * step) == 0;
        let Some(chunks) = (2..=most).rev().find(divides) else { return };
        let mut stores: Vec<PlacedStore> =
            self.steps.iter().filter_map(RowStep::store).cloned().collect();
        self.domain.split(axis, self.outer, extent / chunks, &mut stores);
        self.chunks = chunks;
        self.outer += 1;
        if let RowLanes::Inner(axis) = &mut self.lanes {
            axis.0 += 1;
        }
    }

    /// Instructions for a row, with vectors along `axis`.
    fn cost_along(&self, axis: Axis) -> f64 {
        let n = self.extent(axis).max(1) as f64;
        let stores: Vec<PlacedStore> =
            self.steps.iter().filter_map(RowStep::store).cloned().collect();
        let each = lanes::vector_cost(&self.domain, &self.roots(), &stores, Some(axis));
        let vectors = (n / 4.0).ceil() / n;
        let merge = if axis.0 as usize >= self.outer {
            12.0 * self.steps.len() as f64 / self.row_points().max(1) as f64
        } else {
            0.0
        };
        vectors * (each + 2.0) + merge
    }

    /// Whether rows may be computed twice, at the same time even: nothing is random, and nothing
    /// that is stored is loaded.
    fn may_overlap(&self, site: Site, axis: Axis) -> bool {
        let loaded = loaded(&self.domain, &self.roots());
        let in_place =
            |s: &PlacedStore| loaded.iter().any(|&l| site.storage(l) == site.storage(s.buffer));
        let nodes = self.domain.reachable(&self.roots());
        let random =
            nodes.iter().any(|&id| matches!(self.domain.exprs.get(id), Expr::Random { .. }));
        self.extent(axis) >= 4
            && !random
            && !self.steps.iter().filter_map(RowStep::store).any(in_place)
    }

    /// Cheap elements wait for the addition before them: several running sums hide that.
    fn cut_folds(&mut self) {
        let (domain, lanes) = (&self.domain, self.lanes);
        let axis = match lanes {
            RowLanes::None => None,
            RowLanes::Inner(a) | RowLanes::Overlapping(a) | RowLanes::Partial(a) => Some(a),
        };
        let unrolled = self.unrolled;
        for step in &mut self.steps {
            let RowStep::Fold(fold) = step else { continue };
            let cost = lanes::vector_cost(domain, &[fold.value], &[], axis);
            fold.accumulators = match cost {
                _ if unrolled || fold.op.is_position() => 1,
                c if c < 12.0 => 4,
                c if c < 24.0 => 2,
                _ => 1,
            };
        }
    }
}

impl RowStep {
    /// What is computed.
    pub fn value(&self) -> ExprId {
        match self {
            RowStep::Fold(fold) => fold.value,
            RowStep::StoreRow(store) | RowStep::StoreEach(store) => store.value,
        }
    }

    /// What is stored.
    pub fn store(&self) -> Option<&PlacedStore> {
        match self {
            RowStep::Fold(_) => None,
            RowStep::StoreRow(store) | RowStep::StoreEach(store) => Some(store),
        }
    }
}

fn store_of(step: &Step) -> Option<&Store> {
    match step {
        Step::Fold(..) => None,
        Step::StoreRow(store) | Step::StoreEach(store) => Some(store),
    }
}

fn value_of(step: &Step) -> ExprId {
    match step {
        Step::Fold(_, value) => *value,
        Step::StoreRow(store) | Step::StoreEach(store) => store.value,
    }
}

/// Steps with their stores' places, which come in the order of the storing steps.
fn place_steps(steps: &[Step], stores: Vec<PlacedStore>) -> Vec<RowStep> {
    let mut stores = stores.into_iter();
    let mut next = || stores.next().expect("there is a place for each store");
    let place = |(k, step): (usize, &Step)| match step {
        Step::Fold(op, value) => {
            RowStep::Fold(RowFold { step: k as u32, op: *op, value: *value, accumulators: 1 })
        }
        Step::StoreRow(_) => RowStep::StoreRow(next()),
        Step::StoreEach(_) => RowStep::StoreEach(next()),
    };
    steps.iter().enumerate().map(place).collect()
}

impl fmt::Display for RowSchedule<'_> {
    /// `row [64] x [10] lanes a1; max x1, sum x2, each; 64 units`.
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
        write!(f, "{};", if self.unrolled { ", unrolled" } else { "" })?;
        for step in &self.steps {
            match step {
                RowStep::Fold(fold) => write!(f, " {} x{},", fold.op, fold.accumulators)?,
                RowStep::StoreRow(store) => write!(f, " row b{},", store.buffer.0)?,
                RowStep::StoreEach(store) => write!(f, " each b{},", store.buffer.0)?,
            }
        }
        write!(f, " {} units", self.units())
    }
}
