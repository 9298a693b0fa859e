//! Where along its axis a stretch is inside the tensors it loads: a range, given all other axes.

use super::domain::{Check, Domain, Linear};
use super::stretch::Stretch;
use dlc_kernel::Axis;
use smallvec::SmallVec;

/// Conditions that hold together.
pub type Checks = SmallVec<[Check; 2]>;

/// The points of a stretch at which some conditions hold.
#[derive(Clone, Debug)]
pub struct Window {
    /// The conditions.
    pub checks: Checks,
    /// What is done at the other points, if anything.
    pub beyond: Option<Stretch>,
    /// Whether there may be such points before the window.
    pub before: bool,
    /// Whether there may be such points after it, or no window at all.
    pub after: bool,
}

impl Window {
    /// The points along `axis` of `domain` at which all `checks` hold.
    pub fn new(domain: &Domain, axis: Axis, checks: Checks, beyond: Option<Stretch>) -> Window {
        let sides: Vec<[bool; 2]> = checks.iter().map(|c| sides(domain, axis, c)).collect();
        let [before, after] = [0, 1].map(|side| sides.iter().any(|s| s[side]));
        Window { checks, beyond, before, after }
    }

    /// Whether the window is a box of points along `axis` and lines along `down`, and beyond it is
    /// nothing but constants: then these can be stored to all points first.
    pub fn is_box(&self, axis: Axis, down: Axis) -> bool {
        let even = |c: &Check| {
            let [along, across] = [axis, down].map(|a| c.index.coef(a));
            across == 0 || along == 0 && c.div == 1
        };
        let is_constant = |beyond: &Stretch| {
            let leaf = &beyond.leaf;
            leaf.uniforms == 0 && !(0..leaf.streams.len()).any(|stream| leaf.loads(stream))
        };
        self.checks.iter().all(even) && self.beyond.as_ref().is_some_and(is_constant)
    }
}

/// Whether a condition may fail before the points at which it holds, and after them.
fn sides(domain: &Domain, axis: Axis, check: &Check) -> [bool; 2] {
    let terms = check.index.terms.iter().filter(|t| t.0 != axis).copied().collect();
    let rest = Linear { terms, offset: check.index.offset };
    let Some((least, largest)) = rest.range(&domain.extents) else { return [false; 2] };
    let last = domain.extents[axis.0 as usize] - 1;
    let below = check.extent * check.div;
    match check.index.coef(axis) {
        0 => [false, true],
        c if c > 0 => [least < 0, largest + c * last >= below],
        c => [largest >= below, least + c * last < 0],
    }
}
