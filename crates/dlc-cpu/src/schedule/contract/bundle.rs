//! Several sums at a point: the gates of a recurrent step, the halves of a gated layer.
//!
//! The sums of a point are as far apart as neighbours of one sum are near. So that a unit has all sums of
//! its points, columns go in *bundles*: for a few neighbouring points, those of the first sum, then
//! those of the second. A panel is packed in that order, and what reads panels knows nothing of it.

use super::choose::Nest;
use super::div_ceil;
use super::tiling::ENOUGH_UNITS;
use crate::schedule::domain::{AxisSet, Check, Linear};
use dlc_kernel::{Axis, ExprId};

/// The most columns of a bundle: a few vectors of each sum.
const MOST_COLUMNS: i64 = 256;

/// What the points of a bundle are a multiple of, unless all points are one bundle: then its columns are
/// whole tiles, at every level.
const STEP: i64 = 16;

/// Columns that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Sums of a point.
    pub sums: i64,
    /// Neighbouring points. The last bundle may have fewer; the rest of its columns is never stored.
    pub points: i64,
    /// The points of all bundles.
    pub all: i64,
}

impl Bundle {
    /// How many columns a bundle is.
    pub fn columns(self) -> i64 {
        self.sums * self.points
    }

    /// Whether all bundles have all their points.
    pub fn is_even(self) -> bool {
        self.all % self.points == 0
    }
}

/// How `extent` neighbours with several sums each are bundled, if they can be: with the fewest columns too
/// many, and then in about as many bundles as are enough to share out.
pub fn bundled(extent: i64, sums: i64) -> Option<Bundle> {
    let most = MOST_COLUMNS / sums.max(1);
    let suits = |&points: &i64| points % STEP == 0 || points == extent;
    let points = (1..=most.min(extent)).filter(suits).min_by_key(|&points| {
        let bundles = div_ceil(extent, points);
        (bundles * points, (bundles - ENOUGH_UNITS).abs())
    });
    points.map(|points| Bundle { sums, points, all: extent })
}

impl Nest<'_, '_> {
    /// Cuts the last axis of the result into those of bundles and of their points, if the second factor
    /// is the one that has it, and has the sums.
    pub fn cut_bundles(&mut self, [lhs, rhs]: [ExprId; 2]) {
        let last = self.out - 1;
        let own =
            AxisSet::range(last, last + 1).union(AxisSet::range(self.out, self.out + self.sums));
        let [in_lhs, in_rhs] = [lhs, rhs].map(|id| self.domain.uses[id.0 as usize]);
        if in_lhs.meets(own) || !own.within(in_rhs) || !self.is_worth_tiles(lhs) {
            return;
        }
        let sums = self.domain.extents[self.out..self.out + self.sums].iter().product();
        let Some(bundle) = bundled(self.domain.extents[last], sums) else { return };
        self.domain.split(Axis(last as u32), last, bundle.points, &mut self.stores);
        self.out += 1;
        if !bundle.is_even() {
            self.end_bundles(rhs, bundle);
        }
        self.bundle = Some(bundle);
    }

    /// Lets what the last bundle reads beyond the last point be outside.
    fn end_bundles(&mut self, rhs: ExprId, bundle: Bundle) {
        let [bundles, points] = [self.out - 2, self.out - 1].map(|axis| Axis(axis as u32));
        let mut index = Linear::axis(points);
        index.add(bundles, bundle.points);
        for id in self.domain.reachable(&[rhs]) {
            let Some(place) = &mut self.domain.places[id.0 as usize] else { continue };
            if place.uses().contains(points) {
                place.checks.push(Check { index: index.clone(), div: 1, extent: bundle.all });
            }
        }
    }
}
