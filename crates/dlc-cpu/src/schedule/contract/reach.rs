//! What of a contraction matters to some rows: a range of the columns and a range of the terms.

use super::{Algorithm, Axes, ContractSchedule, Side, Which};
use crate::schedule::domain::{Check, Domain};
use crate::schedule::tail::{self, Tail};
use crate::schedule::{PlacedStore, Site};
use dlc_kernel::{Axis, DType, Expr, ExprId, Guard, Store};

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
    /// Of points that are computed one by one: the truth value without which a sum is not needed.
    pub needed: Option<ExprId>,
    /// Of sums in place or in tiles: where the terms end that a mask does not make 0.
    pub terms: Option<Ends>,
    /// Of sums in tiles or one by one: where the positions of a side end whose sums a mask leaves something
    /// of.
    pub points: Option<Ends>,
}

/// Where what data leaves of an axis ends: each position of a side has a line along the axis, and what
/// matters to several ends with the longest of theirs.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The side.
    pub of: Which,
    /// The end of a line.
    pub tail: Tail,
}

impl Reach {
    /// The conditions that the outermost axis of the rows and columns or terms of one axis decide.
    pub(super) fn new(
        (conditions, zeros): (&[Check], &[Check]),
        rows: &Axes,
        columns: &Axes,
        depth: &Axes,
    ) -> Reach {
        let [row, inner @ ..] = &rows.axes[..] else { return Reach::default() };
        let only = |axes: &Axes| if let &[axis] = &axes.axes[..] { Some(axis) } else { None };
        let decided_by = |conditions: &[Check], axis: Option<Axis>, none: &Axes| {
            let fits = |check: &&Check| {
                let unit = axis.is_some_and(|axis| check.index.coef(axis).abs() == 1);
                let absent = |axes: &[Axis]| axes.iter().all(|&axis| check.index.coef(axis) == 0);
                let of_row = check.index.coef(*row) != 0 && absent(inner);
                check.div == 1 && unit && absent(&none.axes) && of_row
            };
            conditions.iter().filter(fits).cloned().collect()
        };
        let (column, term) = (only(columns), only(depth));
        let [of_columns, zeros] = [conditions, zeros].map(|all| decided_by(all, column, depth));
        let depth = decided_by(conditions, term, columns);
        Reach { columns: of_columns, zeros, depth, ..Reach::default() }
    }

    /// Adds what masks that data decides leave.
    pub(super) fn look_for_masks(
        &mut self,
        within: (Site, &Domain),
        algorithm: &Algorithm,
        [rows, columns]: [&Side; 2],
        (depth, out): (&Axes, &Axes),
        stores: &[PlacedStore],
    ) {
        let sides = [(Which::Rows, rows), (Which::Columns, columns)];
        let of_points = || sides.iter().find_map(|&s| Ends::of_points(within, s, stores));
        match algorithm {
            Algorithm::Plain => {}
            Algorithm::Dot => {
                let values: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
                self.needed = tail::needed(within.1, &values);
                self.points = of_points().filter(|ends| Some(ends.tail.axis) == out.last());
            }
            Algorithm::Sweep(_) => self.terms = Ends::of_terms(within, sides[0], depth),
            Algorithm::Tiled(tiling) => {
                let of_terms = || sides.iter().find_map(|&s| Ends::of_terms(within, s, depth));
                self.terms = if self.depth.is_empty() { of_terms() } else { None };
                self.points = if tiling.shares.count == 1 { of_points() } else { None };
            }
        }
    }
}

impl Ends {
    /// Where terms end that a factor does not make 0.
    fn of_terms(
        (site, domain): (Site, &Domain),
        (of, side): (Which, &Side),
        depth: &Axes,
    ) -> Option<Ends> {
        let &[axis] = &depth.axes[..] else { return None };
        let tail = Tail::new(site, domain, axis, &[side.operand], |_, value| value == 0.0)?;
        Some(Ends { of, tail })
    }

    /// Where the positions of a side end beyond which all that is stored is fixed: runs of neighbours.
    fn of_points(
        (site, domain): (Site, &Domain),
        (which, side): (Which, &Side),
        stores: &[PlacedStore],
    ) -> Option<Ends> {
        let &[axis] = &side.axes.axes[..] else { return None };
        let is_run = |store: &PlacedStore| {
            let PlacedStore { dtype, place, .. } = store;
            *dtype == DType::F32 && place.quotients.is_empty() && place.linear.coef(axis) == 1
        };
        let values: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
        let tail = Tail::new(site, domain, axis, &values, |_, _| true)?;
        stores.iter().all(is_run).then_some(Ends { of: which.other(), tail })
    }
}

impl ContractSchedule<'_> {
    /// What matters to bands of rows of its blocks, and how many rows a band has, if not everything
    /// matters to all.
    pub fn bands(&self) -> Option<(&Reach, i64)> {
        let Algorithm::Tiled(tiling) = &self.algorithm else { return None };
        let is_flat = tiling.run(Which::Columns, &self.columns).is_none();
        let is_whole = tiling.shares.count == 1 && is_flat;
        let together = tiling.run(Which::Rows, &self.rows).unwrap_or(tiling.tile.rows);
        let rows = super::div_ceil(BAND_ROWS, together) * together;
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
