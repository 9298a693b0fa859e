//! The decisions: roles of axes, tiles, blocks.

use super::choices::{Alternatives, Way, Ways};
use super::tiling::{Ending, LINE, Neighbours, Offer, Problem, Shares, Sums, Tiling, even_block};
use super::{
    Algorithm, Axes, BareLoad, Bundle, ContractSchedule, Epilogue, Origin, PackOrder, Reach, Side,
    Steps,
};
use crate::schedule::domain::{AxisSet, Check, Domain, Linear, Place};
use crate::schedule::map::loaded;
use crate::schedule::stretch::{Kept, Stretch, Task};
use crate::schedule::{Config, PlacedStore, Site};
use dlc_kernel::{Axis, BufferId, DType, Expr, ExprId, OptLevel};
use smallvec::SmallVec;
use std::sync::Arc;

const SMALL_WORK: i64 = 512;
/// Cycles for a term in scalars.
const PLAIN: f64 = 4.0;
/// Cycles to pack an element that is not in a line of the cache with the next one.
const FAR_APART: f64 = 3.0;
/// What it takes more that the next element of a line is not its neighbour.
const IN_STEPS: f64 = 0.75;
/// Cycles to begin a run of elements.
const A_RUN: f64 = 20.0;
/// The same of neighbours that are all inside.
const A_RUN_OF_NEIGHBOURS: f64 = 8.0;
/// Positions that tiles keep to, even if others follow as evenly: they can then make the stores.
const LONG_RUN: i64 = 8;
/// Packed copies of parameters may be so many times larger than the parameters.
const MAX_LASTING_GROWTH: i64 = 2;

/// What the decisions look at.
pub(super) struct Nest<'s, 'k> {
    pub site: Site<'s>,
    pub stores: Vec<PlacedStore>,
    pub conditions: Vec<Check>,
    pub zeros: Vec<Check>,
    pub domain: Domain<'k>,
    /// See [`ContractSchedule::steps`].
    pub steps: SmallVec<[usize; 4]>,
    /// How many axes the result has.
    pub out: usize,
    /// How many axes the sums of a point have.
    pub sums: usize,
    pub bundle: Option<Bundle>,
}

/// Which axes play which part.
struct Roles {
    left: Side,
    right: Side,
    batch: Axes,
    depth: Axes,
}

/// Which side is which, and how the sums are computed.
struct Assigned {
    rows: Side,
    columns: Side,
    algorithm: Algorithm,
    /// About how many cycles it takes.
    cycles: f64,
    /// Whether measurements have chosen it.
    tuned: bool,
}

/// How each side can be supplied, and what becomes of the sums with the left one as rows and with the
/// right one.
struct Terms {
    offers: [Offer; 2],
    endings: [Ending; 2],
}

impl<'k> Nest<'_, 'k> {
    pub fn schedule(self, lhs: ExprId, rhs: ExprId) -> ContractSchedule<'k> {
        let Roles { left, right, batch, depth } = self.roles(lhs, rhs);
        let (out, steps) = (self.axes(0..self.out, |_| true), self.steps.clone());
        let sums = self.axes(self.out..self.out + self.sums, |_| true);
        let work = product([&batch, &left.axes, &right.axes, &depth]);
        let Assigned { rows, columns, algorithm, cycles, tuned } = match self.is_plain(lhs) {
            true => Assigned {
                rows: left,
                columns: right,
                algorithm: Algorithm::Plain,
                cycles: PLAIN * work as f64,
                tuned: false,
            },
            false => self.assign(left, right, &batch, &depth),
        };
        let ending = self.ending_leaf(&rows.axes, &columns.axes, &algorithm);
        let conditions = (&self.conditions[..], &self.zeros[..]);
        let mut reach = Reach::new(conditions, &rows.axes, &columns.axes, &depth);
        let within = (self.site, &self.domain);
        reach.look_for_masks(within, &algorithm, [&rows, &columns], (&depth, &out), &self.stores);
        ContractSchedule {
            tuned,
            config: self.site.config,
            domain: self.domain,
            stores: self.stores,
            out,
            rows,
            columns,
            batch,
            steps,
            depth,
            sums,
            bundle: self.bundle,
            ending,
            reach,
            algorithm,
            cycles,
        }
    }

    /// What can be chosen instead of the schedule's tiles, if it is in tiles.
    pub fn alternatives(&self, lhs: ExprId, rhs: ExprId) -> Option<Alternatives> {
        let Roles { left, right, batch, depth } = self.roles(lhs, rhs);
        let reused = left.axes.points().min(right.axes.points()) > 1;
        let terms = self.terms([&left, &right], &batch, &depth);
        let tiled =
            reused || self.bundle.is_some() || terms.offers.iter().any(Offer::is_kept_matrix);
        let ways = || self.ways(&batch, &depth, &terms);
        (tiled && !self.is_plain(lhs)).then(|| ways().alternatives())
    }

    /// Which axes play which part.
    fn roles(&self, lhs: ExprId, rhs: ExprId) -> Roles {
        let (in_lhs, in_rhs) = (self.uses(lhs), self.uses(rhs));
        let all = self.domain.extents.len();
        let of = |l: bool, r: bool| {
            self.axes(self.step_axes()..self.out, |a| {
                in_lhs.contains(a) == l && in_rhs.contains(a) == r
            })
        };
        let batch = self.axes(0..self.out, |a| {
            (a.0 as usize) < self.step_axes() || in_lhs.contains(a) == in_rhs.contains(a)
        });
        let depth = self.axes(self.out + self.sums..all, |_| true);
        let left = self.side(lhs, of(true, false), &depth);
        let mut right = of(false, true);
        if self.bundle.is_some() {
            // The last of its axes counts the points of a bundle.
            let (sums, at) =
                (self.axes(self.out..self.out + self.sums, |_| true), right.axes.len() - 1);
            right.axes.splice(at..at, sums.axes);
            right.extents.splice(at..at, sums.extents);
        }
        let right = self.side(rhs, right, &depth);
        Roles { left, right, batch, depth }
    }

    /// Whether it is computed in scalars.
    fn is_plain(&self, lhs: ExprId) -> bool {
        let unbundled = self.sums > 0 && self.bundle.is_none();
        unbundled || !self.is_worth_tiles(lhs)
    }

    /// Whether it may be computed otherwise than in scalars.
    pub fn is_worth_tiles(&self, lhs: ExprId) -> bool {
        let floats = self.domain.exprs.dtype(lhs) == DType::F32;
        let optimized = self.site.config.opt_level != OptLevel::O0;
        floats && optimized && self.domain.points() >= SMALL_WORK
    }

    fn uses(&self, operand: ExprId) -> AxisSet {
        self.domain.uses[operand.0 as usize]
    }

    fn step_axes(&self) -> usize {
        self.steps.last().copied().unwrap_or(0)
    }

    /// Of how many loops, from the outermost on, the innermost is the last whose steps are among `axes`.
    fn loops_of(&self, axes: AxisSet) -> usize {
        let steps = |n: &usize| AxisSet::range(self.steps[n - 1], self.steps[*n]);
        (1..self.steps.len()).rev().find(|n| axes.meets(steps(n))).unwrap_or(0)
    }

    fn axes(&self, range: std::ops::Range<usize>, keep: impl Fn(Axis) -> bool) -> Axes {
        let axes: Vec<Axis> = range.map(|a| Axis(a as u32)).filter(|&a| keep(a)).collect();
        let extents = axes.iter().map(|a| self.domain.extents[a.0 as usize]).collect();
        Axes { axes, extents }
    }

    fn side(&self, operand: ExprId, axes: Axes, depth: &Axes) -> Side {
        let bare = self.bare(operand);
        let (order, pack_cost) = self.packing(operand, bare.as_ref(), [&axes, depth]);
        let loops = match self.changes(operand) {
            true => self.steps.len() - 1,
            false => self.loops_of(self.uses(operand)),
        };
        let origin = self.origin(operand, [&axes, depth], loops);
        Side { operand, bare, axes, order, pack_cost, loops, origin }
    }

    /// Where an operand comes from, which differs in so many loops, for the products of its axes and the
    /// depth. What passes between two uses may be too much for the largest cache: between two calls that
    /// is all parameters, between two steps or after packing the operand.
    fn origin(&self, operand: ExprId, [side, depth]: [&Axes; 2], loops: usize) -> Origin {
        let caches = self.site.config.caches;
        let bytes = |floats: i64| usize::try_from(floats).unwrap_or(usize::MAX).saturating_mul(4);
        let lasts = |id: &BufferId| self.site.fixed.contains(id);
        let is_kept = loaded(&self.domain, &[operand]).iter().all(lasts);
        let passing = match is_kept && loops + 1 == self.steps.len() {
            true => self.site.bytes(self.site.fixed.iter().copied()),
            false => bytes(product([side, depth])),
        };
        let is_batch = |a: Axis| self.uses(operand).contains(a) && !side.axes.contains(&a);
        let batch = self.axes(self.step_axes()..self.out, is_batch);
        match caches.are_left_by(passing) {
            true => Origin::Memory,
            false if caches.are_passed_by(bytes(product([&batch, side, depth]))) => Origin::Far,
            false => Origin::Near,
        }
    }

    fn bare(&self, operand: ExprId) -> Option<BareLoad> {
        let Expr::Load { buffer, fill, .. } = *self.domain.exprs.get(operand) else { return None };
        let place = self.domain.places[operand.0 as usize].clone()?;
        let plain = self.site.program.buffer(buffer).dtype == DType::F32 && place.found.is_empty();
        plain.then_some(BareLoad { buffer, place, fill })
    }

    /// Rows and columns: whichever way takes less time.
    fn assign(&self, left: Side, right: Side, batch: &Axes, depth: &Axes) -> Assigned {
        let terms = self.terms([&left, &right], batch, depth);
        let (way, tuned) = self.ways(batch, depth, &terms).pick(self.site.choices);
        let Way { is_swapped, cycles, .. } = way;
        let tiling = way.tiling();
        let (rows, columns) = if is_swapped { (right, left) } else { (left, right) };
        let columns_offer = &terms.offers[usize::from(!is_swapped)];
        let reused = rows.axes.points().min(columns.axes.points()) > 1;
        let algorithm = match reused || self.bundle.is_some() || columns_offer.is_kept_matrix() {
            true => Algorithm::Tiled(tiling),
            false => self.without_reuse(&rows, &columns, depth, tiling),
        };
        let tuned = tuned && matches!(algorithm, Algorithm::Tiled(_));
        Assigned { rows, columns, algorithm, cycles, tuned }
    }

    /// What the ways to compute the contraction in tiles differ by.
    fn terms(&self, sides: [&Side; 2], batch: &Axes, depth: &Axes) -> Terms {
        let [left, right] = sides;
        Terms {
            offers: sides.map(|side| self.offer(side, batch, depth)),
            endings: [self.ending(left, right), self.ending(right, left)],
        }
    }

    /// All ways to compute the contraction in tiles.
    fn ways<'a>(&self, batch: &Axes, depth: &'a Axes, terms: &'a Terms) -> Ways<'a> {
        let batch = batch.extents[self.step_axes()..].iter().product();
        let Config { level, caches, .. } = self.site.config;
        let points = terms.offers.each_ref().map(|offer| offer.points);
        // Bands of rows leave out more terms than threads could share out.
        let is_banded = depth
            .axes
            .iter()
            .any(|&axis| self.conditions.iter().any(|condition| condition.index.coef(axis) != 0));
        let pieces = if is_banded { i64::MAX } else { Shares::pieces(batch, points) };
        let shares = Shares::new(pieces, depth);
        let bundle = self.bundle;
        let problem = |ending| Problem { level, caches, batch, depth, shares, bundle, ending };
        let problems = terms.endings.each_ref().map(problem);
        Ways::new(problems, &terms.offers)
    }

    /// How a side can be supplied.
    fn offer(&self, side: &Side, batch: &Axes, depth: &Axes) -> Offer {
        let (steps, own) = batch.extents.split_at(self.step_axes());
        let (differ, same) = steps.split_at(self.steps[side.loops]);
        let batch: i64 = differ.iter().chain(own).product();
        let positions = batch.saturating_mul(product([&side.axes, depth]));
        let fixed = self.is_fixed(side.operand, positions);
        let once = !fixed && side.loops + 1 < self.steps.len();
        Offer {
            points: side.axes.points(),
            axes: side.axes.axes.len(),
            fixed,
            origin: side.origin,
            once,
            steps: self.steps(side, depth),
            pack_cost: match once {
                true => side.pack_cost / same.iter().product::<i64>().max(1) as f64,
                false => side.pack_cost,
            },
        }
    }

    fn store_coef(&self, axis: Axis) -> i64 {
        self.stores.first().map_or(0, |s| s.place.linear.coef(axis))
    }

    /// In which order an operand is packed, and cycles for an element: long runs of neighbours win;
    /// across the depth they change places on the way.
    fn packing(
        &self,
        operand: ExprId,
        bare: Option<&BareLoad>,
        [side, depth]: [&Axes; 2],
    ) -> (PackOrder, f64) {
        let plain = bare.filter(|bare| bare.place.is_inside() && bare.place.quotients.is_empty());
        let cost = |axes: &Axes, neighbours: f64| {
            let unit = axes.last().is_some_and(|a| self.step(operand, a) == Some(1));
            let Some((bare, axis)) = plain.zip(axes.last()) else {
                let element = if unit { neighbours } else { FAR_APART };
                return element + A_RUN / axes.last_extent().max(1) as f64;
            };
            let run = axes.even_run(&bare.place.linear).max(1) as f64;
            match bare.place.linear.coef(axis).abs() {
                1 => neighbours + A_RUN_OF_NEIGHBOURS / run,
                step if step < LINE => neighbours + IN_STEPS + A_RUN / run,
                _ => FAR_APART + A_RUN / run,
            }
        };
        let (along, across) = (cost(side, 0.5), cost(depth, 1.5));
        if along <= across { (PackOrder::Side, along) } else { (PackOrder::Depth, across) }
    }

    /// How all loads of an operand move along `axis`: 0 if none does, 1 if each is contiguous or
    /// does not, `None` otherwise.
    fn step(&self, operand: ExprId, axis: Axis) -> Option<i64> {
        let mut step = 0;
        for id in self.domain.reachable(&[operand]) {
            let Some(place) = &self.domain.places[id.0 as usize] else { continue };
            if !place.found.is_empty() {
                return None;
            }
            if place.uses().contains(axis) {
                step = place.is_unit_along(axis).then_some(1)?;
            }
        }
        Some(step)
    }

    /// Whether an operand reads what the loops around write, be it at one step only.
    fn changes(&self, operand: ExprId) -> bool {
        let written = |b: &BufferId| self.site.changing.is_some_and(|all| all.contains(b));
        loaded(&self.domain, &[operand]).iter().any(written)
    }

    /// Whether an operand depends on nothing but parameters that the entry leaves as they are, and
    /// is not much larger than they are.
    fn is_fixed(&self, operand: ExprId, positions: i64) -> bool {
        let (mut elements, mut fixed) = (0, true);
        for id in self.domain.reachable(&[operand]) {
            match self.domain.exprs.get(id) {
                Expr::Load { buffer, .. } => {
                    fixed &= self.site.fixed.contains(buffer);
                    elements += self.site.program.buffer(*buffer).elements().unwrap_or(0) as i64;
                }
                Expr::Random { .. } => fixed = false,
                _ => {}
            }
        }
        fixed && positions / MAX_LASTING_GROWTH <= elements
    }

    /// How an operand is walked through where it lies, if nothing of it is outside and every step
    /// is constant.
    fn steps(&self, side: &Side, depth: &Axes) -> Option<Steps> {
        let place = &side.bare.as_ref()?.place;
        let step = |axis: &Axis| place.linear.coef(*axis);
        let plain = place.is_inside() && place.quotients.is_empty();
        let last = side.axes.last_extent();
        let as_one = last < LONG_RUN && side.axes.is_one(place);
        plain.then(|| Steps {
            side: side.axes.last().map_or(1, |axis| step(&axis)),
            run: if as_one { side.axes.points() } else { last },
            depth: depth.axes.iter().map(step).collect(),
        })
    }

    /// What becomes of the sums of these sides.
    fn ending(&self, rows: &Side, columns: &Side) -> Ending {
        let epilogue = match self.bundle {
            None => Epilogue::new(&self.domain, &self.stores, &rows.axes, &columns.axes),
            Some(_) => None,
        };
        let epilogue = epilogue.map(Arc::new);
        let even = |side: &Side| {
            epilogue.as_ref().is_some_and(|epilogue| epilogue.is_even_along(&side.axes))
        };
        let step = columns.axes.last().map_or(1, |axis| self.store_coef(axis));
        let (even_rows, even_columns) = (even(rows), even(columns));
        Ending { epilogue, even_rows, even_columns, columns: Neighbours::by(step) }
    }

    /// The leaf that makes the stores of a run of columns, whose sums are in the scratch room, the
    /// first of them where the run's axis is 0: row by row in one call, where rows are one axis.
    fn ending_leaf(&self, rows: &Axes, columns: &Axes, algorithm: &Algorithm) -> Option<Stretch> {
        let Algorithm::Tiled(tiling) = algorithm else { return None };
        let axis = columns.last().filter(|_| tiling.epilogue().is_none())?;
        let anywhere = columns.axes.len() > 1 && self.bundle.is_none();
        let points = self.bundle.map_or(0, |bundle| bundle.points);
        let down = match (&rows.axes[..], &tiling.sums) {
            (&[down], Sums::Workspace) => Some(down),
            _ => None,
        };
        let make = |down: Option<Axis>| {
            let sum = |(id, expr): (ExprId, &Expr)| {
                let &Expr::Folded(k) = expr else { return None };
                let mut linear = Linear::axis(axis);
                linear.offset = i64::from(k) * points;
                down.into_iter().for_each(|down| linear.add(down, tiling.column_block));
                Some(Kept { id, place: Place { linear, ..Place::default() } })
            };
            let sums: Vec<Kept> = self.domain.exprs.iter().filter_map(sum).collect();
            let task = Task { stores: &self.stores, finds: &sums, anywhere, ..Task::default() };
            Stretch::new(&self.domain, axis, down, task)
        };
        let by_rows = down.and_then(|down| make(Some(down))).filter(|leaf| leaf.lines.is_some());
        let mut leaf = by_rows.or_else(|| make(None))?;
        let steps = AxisSet::range(0, self.step_axes());
        leaf.look_down(|stream| stream.buffer.is_some() && stream.place.uses().meets(steps));
        Some(leaf)
    }

    /// Where an element of an operand is used once, packing does not pay: tiles do that read both where
    /// they lie.
    fn without_reuse(
        &self,
        rows: &Side,
        columns: &Side,
        depth: &Axes,
        tiling: Tiling,
    ) -> Algorithm {
        let along = |axis: Option<Axis>| {
            axis.is_some_and(|axis| {
                [rows, columns].iter().all(|s| self.step(s.operand, axis).is_some())
            })
        };
        let (run, sum) = (columns.axes.last_extent(), depth.last_extent());
        if run >= 8 && along(columns.axes.last()) {
            if tiling.is_in_place() {
                return Algorithm::Tiled(tiling);
            }
            Algorithm::Sweep(even_block(run, 256, 4))
        } else if sum >= 8 && along(depth.last()) {
            Algorithm::Dot
        } else {
            Algorithm::Plain
        }
    }
}

/// The points of all axes together.
fn product<const N: usize>(axes: [&Axes; N]) -> i64 {
    axes.into_iter().fold(1, |n, a| n.saturating_mul(a.points()))
}
