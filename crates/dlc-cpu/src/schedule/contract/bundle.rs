//! Several sums at a point: the gates of a recurrent step, the halves of a gated layer.
//!
//! The sums of a point are as far apart as neighbours of one sum are near. So that a unit has all sums of
//! its points, columns go in *bundles*: for a few neighbouring points, those of the first sum, then
//! those of the second. A panel is packed in that order, and what reads panels knows nothing of it.

use super::choose::Nest;
use crate::schedule::domain::AxisSet;
use dlc_kernel::{Axis, ExprId};

/// The most columns of a bundle: a few vectors of each sum, so that there are bundles for all threads.
const MOST_COLUMNS: i64 = 256;

/// The fewest, unless all points are one bundle.
const FEWEST_POINTS: i64 = 16;

/// The most columns of a bundle that has all points.
const MOST_OF_ALL: i64 = 1024;

/// Columns that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Sums of a point.
    pub sums: i64,
    /// Neighbouring points.
    pub points: i64,
}

impl Bundle {
    /// How many columns a bundle is.
    pub fn columns(self) -> i64 {
        self.sums * self.points
    }
}

/// How `extent` neighbours with several sums each are bundled, if they can be.
pub fn bundled(extent: i64, sums: i64) -> Option<Bundle> {
    let divides = |n: &i64| extent % n == 0;
    let cut = (FEWEST_POINTS..=MOST_COLUMNS / sums.max(1))
        .filter(divides)
        .max_by_key(|n| (n % 16 == 0, *n));
    let whole = (extent > 0 && extent * sums <= MOST_OF_ALL).then_some(extent);
    cut.or(whole).map(|points| Bundle { sums, points })
}

impl Nest<'_, '_> {
    /// Cuts the last axis of the result into those of bundles and of their points, if the second factor
    /// is the one that has it, and has the sums.
    pub fn cut_bundles(&mut self, [lhs, rhs]: [ExprId; 2]) {
        let last = self.out - 1;
        let own =
            AxisSet::range(last, last + 1).union(AxisSet::range(self.out, self.out + self.sums));
        let [in_lhs, in_rhs] = [lhs, rhs].map(|id| self.domain.uses[id.0 as usize]);
        if in_lhs.meets(own) || !own.within(in_rhs) {
            return;
        }
        let sums = self.domain.extents[self.out..self.out + self.sums].iter().product();
        let Some(bundle) = bundled(self.domain.extents[last], sums) else { return };
        self.domain.split(Axis(last as u32), last, bundle.points, &mut self.stores);
        self.out += 1;
        self.bundle = Some(bundle);
    }
}
