//! The ends of lines that a mask leaves nothing of: what a causal mask hides of a room for
//! keys and values, whose position data gives; what pads short sequences.

use super::Site;
use super::domain::{AxisSet, Domain, Place};
use dlc_kernel::region::fixed_values;
use dlc_kernel::{Axis, BufferId, DType, Expr, ExprId, Scalar};
use std::fmt;

/// How many neighbours are left out, or are not: a multiple of what any leaf takes at once, so that
/// folds take up what is left in the order in which they would take up all.
pub const BLOCK: i64 = 64;

/// Elements at the end of a line which, if all of them are masked, do nothing.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Along which the line is.
    pub axis: Axis,
    /// Its elements.
    pub buffer: BufferId,
    /// Where they are.
    pub place: Place,
    /// What masked ones are.
    pub masked: Scalar,
    /// What becomes of the values asked for where an element is masked.
    pub values: Vec<f64>,
}

impl Tail {
    /// The lines of neighbours along `axis` whose masked elements fix all of `values`, so that these
    /// are as they should be there.
    pub fn new(
        site: Site,
        domain: &Domain,
        axis: Axis,
        values: &[ExprId],
        is_idle: impl Fn(usize, f64) -> bool,
    ) -> Option<Tail> {
        if domain.extents[axis.0 as usize] < 2 * BLOCK {
            return None;
        }
        domain.reachable(values).into_iter().find_map(|load| {
            let Expr::Load { buffer, .. } = *domain.exprs.get(load) else { return None };
            let dtype = site.program.buffer(buffer).dtype;
            let place = domain.places[load.0 as usize].as_ref()?;
            let is_plain = place.is_inside() && place.quotients.is_empty();
            let is_line = is_plain && place.linear.coef(axis) == 1;
            let value = site.regions.masked(domain.exprs, load).filter(|_| is_line)?;
            let found = Masked { id: load, value }.fixes(domain, values)?;
            let idle = found.iter().enumerate().all(|(k, &value)| is_idle(k, value));
            (idle && matches!(dtype, DType::F32 | DType::Bool)).then(|| Tail {
                axis,
                buffer,
                place: place.clone(),
                masked: Scalar::new(dtype, value),
                values: found,
            })
        })
    }
}

impl fmt::Display for Tail {
    /// `up to the last of b7 that is not 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to the last of b{} that is not {}", self.buffer.0, self.masked.value())
    }
}

/// The truth value where all of `values` are fixed if it is false, whatever their sum is.
pub fn needed(domain: &Domain, values: &[ExprId]) -> Option<ExprId> {
    let is_mask = |&id: &ExprId| {
        let waits = domain.uses[id.0 as usize].meets(AxisSet::FOLDED);
        let is_truth = domain.exprs.dtype(id) == DType::Bool && !waits;
        is_truth && Masked { id, value: 0.0 }.fixes(domain, values).is_some()
    };
    domain.reachable(values).into_iter().find(is_mask)
}

/// What an expression is where it is masked.
struct Masked {
    id: ExprId,
    value: f64,
}

impl Masked {
    /// What `values` are then, if all are fixed.
    fn fixes(&self, domain: &Domain, values: &[ExprId]) -> Option<Vec<f64>> {
        let known = |id, _: &Expr| (id == self.id).then_some(self.value);
        let fixed = fixed_values(domain.exprs, known, |_| false);
        values.iter().map(|id| fixed[id.0 as usize]).collect()
    }
}
