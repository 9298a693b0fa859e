//! What of a contraction matters to some rows: a range of the columns and a range of the terms.

use super::{Algorithm, Axes, ContractSchedule, Which};
use crate::schedule::domain::{Check, Domain};
use crate::schedule::tail::{self, Tail};
use crate::schedule::{PlacedStore, Site};
use dlc_kernel::{Axis, Expr, ExprId, Guard, Store};

/// How many rows, at least, have their ranges in common: so many that a panel of columns is worth
/// bringing near.
const BAND_ROWS: i64 = 48;

/// Conditions beyond which sums are not needed, or terms are 0.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Over a row, a column and the batch.
    pub columns: Vec<Check>,
    /// The same, of sums that are needed: what is stored instead of them is 0.
    pub zeros: Vec<Check>,
    /// Over a row, a term and the batch.
    pub depth: Vec<Check>,
    /// The one axis of the rows.
    pub row: Option<Axis>,
    /// Of points that are computed one by one: the truth value without which a sum is not needed.
    pub needed: Option<ExprId>,
    /// Of sums in place: the terms of the broadcast factor that a mask makes 0.
    pub tail: Option<Tail>,
}

impl Reach {
    /// The conditions that rows of that one axis and columns or terms of one axis decide.
    pub(super) fn new(
        (conditions, zeros): (&[Check], &[Check]),
        rows: &Axes,
        columns: &Axes,
        depth: &Axes,
    ) -> Reach {
        let &[row] = &rows.axes[..] else { return Reach::default() };
        let only = |axes: &Axes| if let &[axis] = &axes.axes[..] { Some(axis) } else { None };
        let decided_by = |conditions: &[Check], axis: Option<Axis>, none: &Axes| {
            let fits = |check: &&Check| {
                let unit = axis.is_some_and(|axis| check.index.coef(axis).abs() == 1);
                let absent = none.axes.iter().all(|&axis| check.index.coef(axis) == 0);
                check.div == 1 && unit && absent && check.index.coef(row) != 0
            };
            conditions.iter().filter(fits).cloned().collect()
        };
        let (column, term) = (only(columns), only(depth));
        let [of_columns, zeros] = [conditions, zeros].map(|all| decided_by(all, column, depth));
        let depth = decided_by(conditions, term, columns);
        Reach { columns: of_columns, zeros, depth, row: Some(row), ..Reach::default() }
    }

    /// Adds what masks that data decides leave of sums, which are computed one after the other.
    pub(super) fn look_for_masks(
        &mut self,
        (site, domain): (Site, &Domain),
        algorithm: &Algorithm,
        (factor, depth): (ExprId, &Axes),
        stores: &[PlacedStore],
    ) {
        match (algorithm, &depth.axes[..]) {
            (Algorithm::Dot, _) => {
                let values: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
                self.needed = tail::needed(domain, &values);
            }
            (Algorithm::Sweep(_), &[axis]) => {
                self.tail = Tail::new(site, domain, axis, &[factor], |_, value| value == 0.0);
            }
            _ => {}
        }
    }
}

impl ContractSchedule<'_> {
    /// What matters to bands of rows of its blocks, and how many rows a band has, if not everything
    /// matters to all.
    pub fn bands(&self) -> Option<(&Reach, i64)> {
        let Algorithm::Tiled(tiling) = &self.algorithm else { return None };
        let flat = |which| tiling.run(which, self.side(which)).is_none();
        let is_whole = tiling.shares.count == 1 && flat(Which::Rows) && flat(Which::Columns);
        let height = tiling.tile.rows;
        let rows = super::div_ceil(BAND_ROWS, height) * height;
        let Reach { columns, depth, .. } = &self.reach;
        let differ = !columns.is_empty() || !depth.is_empty() || !self.zeros().is_empty();
        (is_whole && differ).then_some((&self.reach, rows))
    }

    /// The conditions beyond which bands store zeros: none, if not tiles make the stores.
    pub fn zeros(&self) -> &[Check] {
        match &self.algorithm {
            Algorithm::Tiled(tiling) if tiling.epilogue().is_some() => &self.reach.zeros,
            _ => &[],
        }
    }
}

/// Over the axes of a contraction: the conditions of `Reach::new`.
///
/// # Errors
/// If a size is not bound.
pub(super) fn conditions(
    site: Site,
    domain: &Domain,
    operands: [ExprId; 2],
    stores: &[Store],
) -> Result<Vec<Check>, String> {
    let mut guards: Vec<Guard> = Vec::new();
    for operand in operands {
        if let Expr::Load { buffer, access, lookups, .. } = domain.exprs.get(operand)
            && lookups.is_empty()
        {
            guards.extend(site.regions.support(*buffer, access));
        }
    }
    let demands = stores.iter().map(|s| site.regions.demand(s.buffer, &s.access));
    let common = demands.reduce(|mut all, own| {
        all.retain(|guard| own.contains(guard));
        all
    });
    guards.extend(common.into_iter().flatten());
    let checks = guards.iter().map(|guard| Check::of_guard(guard, &domain.extents));
    let checks: Vec<Option<Check>> = checks.collect::<Result<_, _>>()?;
    Ok(checks.into_iter().flatten().collect())
}

/// Over the axes of a contraction: conditions beyond which all that is stored is 0.
///
/// # Errors
/// If a size is not bound.
pub(super) fn zeros(site: Site, domain: &Domain, stores: &[Store]) -> Result<Vec<Check>, String> {
    let values: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
    let guards = site.regions.zeros(domain.exprs, &values);
    let checks = guards.iter().map(|guard| Check::of_guard(guard, &domain.extents));
    let checks: Vec<Option<Check>> = checks.collect::<Result<_, _>>()?;
    Ok(checks.into_iter().flatten().collect())
}
