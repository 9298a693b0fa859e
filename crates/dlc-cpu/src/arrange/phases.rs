//! Contractions and sums of rows that read between the elements of a tensor, in phases.
//!
//! The input gradient of a convolution in steps of `d` reads at `(p - r + o) / d`, which is outside
//! unless the division is exact: of all taps `r`, a position `p` meets those of one remainder. So
//! positions of each remainder are a kernel of their own, over the taps that they meet; there
//! is no division left. Positions that meet none have empty sums. The same holds of the way back of a
//! pool, a row for each position, where all that a tap adds is read so.

use super::entries::replace_kernels;
use super::substitute::Substitution;
use dlc_kernel::{
    Axis, BinaryOp, DType, Expr, ExprId, Exprs, FoldOp, Form, Index, Kernel, Program, Segment,
    Size, Step, UnaryOp,
};

/// Cuts kernels that divide coordinates into phases.
pub(super) fn phases(program: Program) -> Program {
    replace_kernels(program, |_, _, kernel| {
        let divisions = Sums::of(&kernel.form).and_then(|sums| sums.divisions());
        match divisions {
            Some(divisions) if !divisions.is_empty() => in_phases(&kernel, &divisions),
            _ => vec![kernel],
        }
    })
}

/// What a kernel sums.
struct Sums<'k> {
    out: &'k [Size],
    reduce: &'k [Size],
    exprs: &'k Exprs,
    /// The factors of the terms of each sum.
    terms: Vec<Vec<ExprId>>,
}

/// A coordinate `(position +- tap + offset) / by`, with or without a tap.
#[derive(PartialEq)]
struct Division {
    position: (Axis, i64),
    tap: Option<(Axis, i64)>,
    offset: i64,
    by: i64,
}

/// The points of one phase along one division.
#[derive(Clone)]
struct Phase {
    /// Old axes over the new ones of the same numbers, and their new extents.
    axes: Vec<(Axis, Index, i64)>,
    /// Whether there are no terms to sum.
    is_empty: bool,
}

impl<'k> Sums<'k> {
    /// The sums of a contraction, or of rows that store nothing else.
    fn of(form: &'k Form) -> Option<Sums<'k>> {
        match form {
            Form::Contract { out, reduce, exprs, lhs, rhs, .. } if !form.has_several_sums() => {
                Some(Sums { out, reduce, exprs, terms: vec![vec![*lhs, *rhs]] })
            }
            Form::Row { outer, inner, exprs, steps } => {
                let term = |step: &Step| match step {
                    Step::Fold(FoldOp::Sum, value) if exprs.dtype(*value) == DType::F32 => {
                        Some(Some(vec![*value]))
                    }
                    Step::StoreRow(_) => Some(None),
                    Step::Fold(..) | Step::StoreEach(_) => None,
                };
                let terms = steps.iter().map(term).collect::<Option<Vec<_>>>()?;
                let terms = terms.into_iter().flatten().collect();
                Some(Sums { out: outer, reduce: inner, exprs, terms })
            }
            _ => None,
        }
    }

    /// The divisions; `None` if one of them is of another kind.
    fn divisions(&self) -> Option<Vec<Division>> {
        let mut found: Vec<Division> = Vec::new();
        for id in self.exprs.reachable(self.terms.iter().flatten().copied()) {
            let Expr::Load { access, lookups, .. } = self.exprs.get(id) else { continue };
            for coord in access.coords.iter().filter(|c| c.div > 1) {
                let division = Division::new(coord, self.out.len())?;
                let apart = |d: &Division| !d.axes().any(|a| division.axes().any(|b| a == b));
                if found.contains(&division) {
                    continue;
                }
                if !lookups.is_empty() || !found.iter().all(apart) {
                    return None;
                }
                found.push(division);
            }
        }
        let bound = self.out.iter().chain(self.reduce).all(|n| n.as_const().is_some());
        let exact = found.iter().all(|division| {
            self.terms.iter().all(|factors| factors.iter().any(|&x| self.vanishes(x, division)))
        });
        (bound && exact).then_some(found)
    }

    /// Whether a value is 0 wherever a division leaves something.
    fn vanishes(&self, value: ExprId, division: &Division) -> bool {
        let vanishes = |&x: &ExprId| self.vanishes(x, division);
        match self.exprs.get(value) {
            Expr::Load { access, fill, .. } => {
                let coords = access.coords.iter().filter(|c| c.div > 1);
                let mut own = coords.filter_map(|c| Division::new(c, self.out.len()));
                fill.value() == 0.0 && own.any(|d| d == *division)
            }
            Expr::Const(number) => number.value() == 0.0,
            Expr::Select(_, a, b) => vanishes(a) && vanishes(b),
            Expr::Binary(BinaryOp::Add | BinaryOp::Sub, a, b) => vanishes(a) && vanishes(b),
            Expr::Binary(BinaryOp::Mul, a, b) => vanishes(a) || vanishes(b),
            Expr::Unary(UnaryOp::Neg, x) | Expr::Cast(_, x) => vanishes(x),
            _ => false,
        }
    }
}

impl Division {
    fn new(coord: &Index, outs: usize) -> Option<Division> {
        let is_out = |t: &(Axis, i64)| (t.0.0 as usize) < outs;
        let unit = coord.terms.iter().all(|t| t.1.abs() == 1);
        let (positions, taps): (Vec<_>, Vec<_>) = coord.terms.iter().copied().partition(is_out);
        let ([position], [] | [_]) = (&positions[..], &taps[..]) else { return None };
        let (offset, by) = (coord.offset.as_const()?, coord.div);
        let division = Division { position: *position, tap: taps.first().copied(), offset, by };
        unit.then_some(division)
    }

    fn axes(&self) -> impl Iterator<Item = Axis> {
        [Some(self.position), self.tap].into_iter().flatten().map(|t| t.0)
    }

    /// The points whose position leaves `remainder`.
    fn phase(&self, extents: &[Size], remainder: i64) -> Phase {
        let part = |(axis, _): (Axis, i64), first: i64| {
            let extent = extents[axis.0 as usize].as_const().expect("sizes are bound");
            let points = (extent - first + self.by - 1) / self.by;
            (axis, Index::affine([(axis.0, self.by)], first), points.max(0))
        };
        let mut axes = vec![part(self.position, remainder)];
        let left = self.position.1 * remainder + self.offset;
        let is_empty = match self.tap {
            None => left.rem_euclid(self.by) != 0,
            Some(tap) => {
                axes.push(part(tap, (-left * tap.1).rem_euclid(self.by)));
                axes[1].2 == 0
            }
        };
        Phase { axes, is_empty }
    }
}

/// One kernel for each combination of remainders.
fn in_phases(kernel: &Kernel, divisions: &[Division]) -> Vec<Kernel> {
    let Sums { out, reduce, .. } = Sums::of(&kernel.form).expect("it has divisions");
    let extents = [out, reduce].concat();
    let mut phases = vec![Phase { axes: Vec::new(), is_empty: false }];
    for division in divisions {
        let along = |phase: &Phase| {
            let parts = (0..division.by).map(|remainder| division.phase(&extents, remainder));
            let joined = parts.map(|part| Phase {
                axes: [&phase.axes[..], &part.axes[..]].concat(),
                is_empty: phase.is_empty || part.is_empty,
            });
            joined.collect::<Vec<Phase>>()
        };
        phases = phases.iter().flat_map(along).collect();
    }
    let has_points = |phase: &Phase| {
        let positions = phase.axes.iter().filter(|a| (a.0.0 as usize) < out.len());
        positions.into_iter().all(|a| a.2 > 0)
    };
    let kernels = phases.iter().filter(|p| has_points(p)).enumerate();
    let named = |(number, phase): (usize, &Phase)| Kernel {
        name: format!("{}_phase{}", kernel.name, number + 1),
        origin: kernel.origin.clone(),
        form: of_phase(kernel, phase),
    };
    kernels.map(named).collect()
}

/// What a kernel computes at the points of a phase.
fn of_phase(kernel: &Kernel, phase: &Phase) -> Form {
    let Sums { out, reduce, exprs, .. } = Sums::of(&kernel.form).expect("it has divisions");
    let all = out.len() + reduce.len();
    let mut axes: Vec<Index> = (0..all as u32).map(Index::axis).collect();
    let mut extents = [out, reduce].concat();
    for (axis, index, points) in &phase.axes {
        axes[axis.0 as usize] = index.clone();
        extents[axis.0 as usize] = Size::from(*points);
    }
    let (out, reduce) = extents.split_at(out.len());
    let (out, reduce) = (out.iter().cloned().collect(), reduce.iter().cloned().collect());
    let (mut copy, mut new) = (Substitution::new(exprs, &axes), Exprs::new());
    if phase.is_empty {
        let zero = new.constant(DType::F32, 0.0);
        copy.replace_folds(zero);
        let stores = kernel.parts().into_iter().flat_map(|part| part.stores);
        let stores = stores.map(|store| copy.store(&mut new, store)).collect();
        return Form::Map { segments: vec![Segment { axes: out, exprs: new, stores }] };
    }
    match &kernel.form {
        Form::Contract { lhs, rhs, stores, .. } => {
            let factors = [*lhs, *rhs].map(|id| copy.copy(&mut new, id));
            let stores = stores.iter().map(|store| copy.store(&mut new, store)).collect();
            Form::contract(out, reduce, new, factors, stores)
        }
        Form::Row { steps, .. } => {
            let mut step = |step: &Step| match step {
                Step::Fold(op, value) => Step::Fold(*op, copy.copy(&mut new, *value)),
                Step::StoreRow(store) => Step::StoreRow(copy.store(&mut new, store)),
                Step::StoreEach(store) => Step::StoreEach(copy.store(&mut new, store)),
            };
            let steps = steps.iter().map(&mut step).collect();
            Form::Row { outer: out, inner: reduce, exprs: new, steps }
        }
        _ => unreachable!("sums are those of contractions and rows"),
    }
}
