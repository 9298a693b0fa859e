//! Contractions with long sums and few results for each element, as the gradient of a depthwise
//! convolution's filter: rows that fold one product for each place of the window.
//!
//! No element of an operand meets two of the other but those of a few places, so a register tile would have
//! nothing to keep. A walk over both operands computes several places at once.

use super::entries::replace_kernels;
use super::substitute::Substitution;
use super::walk::with_copies;
use super::written_out::is_reused;
use dlc_kernel::{
    Axis, BinaryOp, DType, Expr, ExprId, Exprs, FoldOp, Form, Index, Kernel, Program, Size, Step,
    Store,
};

/// The most places of a window.
const MOST_PLACES: i64 = 64;

/// The most places that one walk folds: so many sums stay in registers.
const AT_ONCE: usize = 8;

/// The fewest terms of a sum that are worth a walk.
const LONG: i64 = 64;

/// Folds the places of contractions that have few.
pub(super) fn fold_places(program: Program) -> Program {
    replace_kernels(program, |program, _, kernel| match folded(program, &kernel) {
        Some(kernels) => kernels,
        None => vec![kernel],
    })
}

/// A contraction whose results are places of a window, for each row.
struct Places<'k> {
    exprs: &'k Exprs,
    operands: [ExprId; 2],
    /// By axis of the results: the extent, if it counts places.
    places: Vec<Option<i64>>,
    /// The axes of a row: those of results that are no places, then those of the sum.
    axes: Vec<Size>,
    /// How many of them are outer.
    outer: usize,
}

/// The rows that do what a contraction does, after the copies that they read.
fn folded(program: &mut Program, kernel: &Kernel) -> Option<Vec<Kernel>> {
    let Form::Contract { stores, .. } = &kernel.form else { return None };
    let places = Places::of(&kernel.form)?;
    let lane = places.lane()?;
    let count = places.count();
    let mut written = Exprs::new();
    let values: Vec<ExprId> = (0..count).map(|at| places.product(&mut written, at)).collect();
    let points = places.axes.iter().try_fold(count, |n, a| n.checked_mul(a.as_const()?))?;
    let (mut kernels, written) =
        with_copies(program, kernel, &written, (&places.axes, lane), points)?;
    let all: Vec<(i64, ExprId)> = (0..).zip(values).collect();
    let walks = all.len().div_ceil(AT_ONCE);
    for (at, some) in all.chunks(all.len().div_ceil(walks)).enumerate() {
        let name = format!("{}_places{}", kernel.name, at + 1);
        let form = places.row(written.clone(), some, stores);
        kernels.push(Kernel { name, origin: kernel.origin.clone(), form });
    }
    Some(kernels)
}

impl<'k> Places<'k> {
    fn of(form: &'k Form) -> Option<Places<'k>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, .. } = form else { return None };
        let operands = [*lhs, *rhs];
        let floats = operands.iter().all(|&id| exprs.dtype(id) == DType::F32);
        let terms = reduce.iter().try_fold(1i64, |n, a| n.checked_mul(a.as_const()?))?;
        let single = floats && !form.has_several_sums();
        if !single || terms < LONG || is_reused(out, exprs, operands) {
            return None;
        }
        let uses = |operand: ExprId, axis: Axis| exprs.loads([operand]).any(|(_, a)| a.uses(axis));
        let is_summed = |axis: Axis| axis.0 as usize >= out.len();
        let slides = |axis: Axis| {
            let mut coords = exprs.loads(operands).flat_map(|(_, access)| &access.coords);
            coords.any(|c| c.uses(axis) && c.terms.iter().any(|t| is_summed(t.0)))
        };
        let place = |(axis, extent): (u32, &Size)| {
            let of_one = uses(*lhs, Axis(axis)) != uses(*rhs, Axis(axis));
            let extent = extent.as_const()?;
            let is_place = of_one && extent != 1;
            (!is_place || slides(Axis(axis))).then_some(is_place.then_some(extent))
        };
        let places: Vec<Option<i64>> = (0..).zip(out).map(place).collect::<Option<_>>()?;
        let rows = out.iter().zip(&places).filter(|(_, place)| place.is_none());
        let mut axes: Vec<Size> = rows.map(|(extent, _)| extent.clone()).collect();
        let outer = axes.len();
        axes.extend(reduce.iter().cloned());
        let places = Places { exprs, operands, places, axes, outer };
        (2..=MOST_PLACES).contains(&places.count()).then_some(places)
    }

    fn count(&self) -> i64 {
        self.places.iter().flatten().fold(1, |n, &extent| n.saturating_mul(extent))
    }

    /// By axis of the contraction, what it is at a place.
    fn at(&self, place: i64) -> Vec<Index> {
        let (mut inner, mut row) = (self.count(), 0..);
        let mut of_results = |extent: &Option<i64>| match extent {
            Some(extent) => {
                inner /= extent;
                Index::constant(place / inner % extent)
            }
            None => Index::axis(row.next().expect("axes can be counted")),
        };
        let results: Vec<Index> = self.places.iter().map(&mut of_results).collect();
        let sum = (self.outer as u32..self.axes.len() as u32).map(Index::axis);
        results.into_iter().chain(sum).collect()
    }

    /// The axis of a row along which the operand that has no places is read.
    fn lane(&self) -> Option<Axis> {
        let has_places = |access: &dlc_kernel::Access| {
            (0..).zip(&self.places).any(|(axis, p)| p.is_some() && access.uses(Axis(axis)))
        };
        let mut loads = self.exprs.loads(self.operands).filter(|(_, access)| !has_places(access));
        let last = loads.next()?.1.coords.last()?.as_axis()?;
        self.at(0)[last.0 as usize].as_axis()
    }

    /// The product that is summed at a place.
    fn product(&self, written: &mut Exprs, place: i64) -> ExprId {
        let axes = self.at(place);
        let mut copy = Substitution::new(self.exprs, &axes);
        let [left, right] = self.operands.map(|operand| copy.copy(written, operand));
        written.add(Expr::Binary(BinaryOp::Mul, left, right))
    }

    /// The row kernel that folds some places, each with what is folded.
    fn row(&self, mut written: Exprs, some: &[(i64, ExprId)], stores: &[Store]) -> Form {
        let mut steps: Vec<Step> =
            some.iter().map(|&(_, value)| Step::Fold(FoldOp::Sum, value)).collect();
        for (step, &(place, _)) in (0..).zip(some) {
            let sum = written.add_typed(Expr::Folded(step), DType::F32);
            let axes = self.at(place);
            let mut after = Substitution::new(self.exprs, &axes);
            after.replace_sum(sum);
            steps.extend(stores.iter().map(|s| Step::StoreRow(after.store(&mut written, s))));
        }
        let (outer, inner) = self.axes.split_at(self.outer);
        let [outer, inner] = [outer, inner].map(|axes| axes.iter().cloned().collect());
        Form::Row { outer, inner, exprs: written, steps }
    }
}
