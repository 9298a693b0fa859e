//! The leaves of a row's passes, where vectors lie along an inner axis.

use super::domain::{Linear, Place, strides};
use super::map::{is_in_place, outgrows_caches};
use super::row::{Pass, RowLanes, RowSchedule};
use super::stretch::{Kept, Stretch, Task};
use super::tail::Tail;
use super::{PlacedStore, Site, lanes};
use dlc_kernel::{Axis, DType, ExprId};
use smallvec::SmallVec;

/// The longest row of which a value is kept between passes: half of a second-level cache.
const KEPT_POINTS: i64 = 1 << 16;

impl RowSchedule<'_> {
    /// Leaves for the passes. Two passes that need the same costly value share it.
    pub(super) fn find_stretches(&mut self, site: Site) {
        let RowLanes::Inner(axis) = self.lanes else { return };
        let (row, down) = (self.folds(), self.inner_loops().pop());
        let again = !is_in_place(site, &self.domain, self.all_stores(), &self.roots());
        let stretch = |pass: &Pass, leaves: &[Kept], finds: &[Kept]| {
            let (stores, folds, states) = (&pass.stores, &pass.folds, &[]);
            let row = &row;
            let task = Task { stores, folds, states, row, leaves, finds, again, ..Task::default() };
            Stretch::new(&self.domain, axis, down, task)
        };
        let mut found: Vec<_> = self.passes.iter().map(|p| stretch(p, &[], &[])).collect();
        for second in 1..self.passes.len() {
            let Some(kept) = self.shared_value(axis, second) else { continue };
            let kept = [kept];
            let first = stretch(&self.passes[second - 1], &kept, &[]);
            let second_stretch = stretch(&self.passes[second], &[], &kept);
            if let (Some(first), Some(next)) = (first, second_stretch) {
                (found[second - 1], found[second]) = (Some(first), Some(next));
                break;
            }
        }
        self.passes.iter_mut().zip(found).for_each(|(pass, stretch)| pass.stretch = stretch);
        self.tail = self.find_tail(site, axis);
        let stores: Vec<PlacedStore> = self.all_stores().cloned().collect();
        if outgrows_caches(site, &self.domain, &stores, &self.roots()) {
            self.spare_caches();
        }
    }

    /// What a mask leaves out of a row that leaves walk along in one call each.
    fn find_tail(&self, site: Site, axis: Axis) -> Option<Tail> {
        let is_line = |pass: &Pass| pass.stretch.as_ref().is_some_and(|s| s.lines.is_none());
        if !self.inner_loops().is_empty() || self.chunks > 1 || !self.passes.iter().all(is_line) {
            return None;
        }
        let (folds, stores) = (self.folds(), self.passes.iter().flat_map(|p| &p.stores));
        let mut values: Vec<ExprId> = folds.iter().map(|f| f.value).collect();
        for store in stores {
            let is_line = store.dtype == DType::F32 && store.place.linear.coef(axis) == 1;
            values.push(Some(store.value).filter(|_| is_line)?);
        }
        let is_idle = |k: usize, value: f64| {
            folds.get(k).is_none_or(|f| !f.op.is_position() && value == f.op.neutral())
        };
        let mut tail = Tail::new(site, &self.domain, axis, &values, is_idle)?;
        tail.values.drain(..folds.len());
        Some(tail)
    }

    /// Results pass by the caches, and the costliest pass brings the next row near.
    fn spare_caches(&mut self) {
        let next = self.outer_loops().last().copied();
        let stretches = self.passes.iter_mut().flat_map(|p| &mut p.stretch);
        let mut stretches: Vec<&mut Stretch> = stretches.collect();
        stretches.iter_mut().for_each(|s| s.stream_results());
        let costliest = stretches.into_iter().max_by_key(|s| s.leaf.lanes.len());
        if let (Some(stretch), Some(next)) = (costliest, next) {
            stretch.look_ahead(next);
        }
    }

    /// A value that pass `second` needs and the pass before it computes too, if a row of them is
    /// sooner loaded than computed.
    fn shared_value(&self, axis: Axis, second: usize) -> Option<Kept> {
        if self.row_points() > KEPT_POINTS {
            return None;
        }
        let [early, late] = [second - 1, second].map(|pass| self.passes[pass].roots());
        let [early, late] = [early, late].map(|roots| self.domain.reachable(&roots));
        let worthy = |id: &ExprId| {
            early.contains(id)
                && self.domain.exprs.dtype(*id) == DType::F32
                && self.is_costly(*id, axis)
        };
        let id = late.into_iter().rev().find(worthy)?;
        Some(Kept { id, place: Place { linear: self.position_along(axis), ..Place::default() } })
    }

    /// The position of a point in its row, if `axis` were the innermost.
    fn position_along(&self, axis: Axis) -> Linear {
        let mut axes = self.inner_loops();
        axes.push(axis);
        let extents: Vec<i64> = axes.iter().map(|&a| self.extent(a)).collect();
        let mut terms: SmallVec<_> = axes.into_iter().zip(strides(&extents)).collect();
        terms.sort_unstable();
        Linear { terms, offset: 0 }
    }

    /// Whether a value that differs along `axis` costs more than to store and load it. Neighbours in
    /// memory do not: to a leaf, conditions are where it begins and ends.
    fn is_costly(&self, id: ExprId, axis: Axis) -> bool {
        const MEMORY: f64 = 6.0;
        let varies = self.domain.uses[id.0 as usize].contains(axis);
        let place = self.domain.places[id.0 as usize].as_ref();
        let is_there = place.is_some_and(|p| p.is_unit_along(axis) && p.found.is_empty());
        varies && !is_there && lanes::vector_cost(&self.domain, &[id], &[], Some(axis)) > MEMORY
    }
}
