//! Contractions that read an operand between its elements, in phases.
//!
//! The input gradient of a convolution in steps of `d` reads at `(p - r + o) / d`, which is outside
//! unless the division is exact: of all taps `r`, a position `p` meets those of one remainder. So
//! positions of each remainder are a contraction of their own, over the taps that they meet; there
//! is no division left. Positions that meet none have empty sums.

use super::entries::replace_kernels;
use super::substitute::Substitution;
use dlc_kernel::{Axis, DType, Expr, Exprs, Form, Index, Kernel, Program, Segment, Size};

/// Cuts contractions that divide coordinates into phases.
pub(super) fn phases(program: Program) -> Program {
    replace_kernels(program, |_, _, kernel| match Division::all(&kernel) {
        Some(divisions) if !divisions.is_empty() => in_phases(&kernel, &divisions),
        _ => vec![kernel],
    })
}

/// A coordinate `(position +- tap + offset) / by`, with or without a tap.
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

impl Division {
    /// The divisions of a contraction; `None` if one of them is of another kind.
    fn all(kernel: &Kernel) -> Option<Vec<Division>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, .. } = &kernel.form else {
            return None;
        };
        let bound = out.iter().chain(reduce).all(|n| n.as_const().is_some());
        let bound = bound && !kernel.form.has_several_sums();
        let mut found: Vec<Division> = Vec::new();
        for &operand in [lhs, rhs] {
            let Expr::Load { access, lookups, fill, .. } = exprs.get(operand) else {
                return None;
            };
            let divided = access.coords.iter().filter(|c| c.div > 1);
            for coord in divided {
                let plain = bound && lookups.is_empty() && fill.value() == 0.0;
                let division = Division::new(coord, out.len()).filter(|_| plain)?;
                let apart = |d: &Division| !d.axes().any(|a| division.axes().any(|b| a == b));
                if !found.iter().all(apart) {
                    return None;
                }
                found.push(division);
            }
        }
        Some(found)
    }

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
    let Form::Contract { out, reduce, .. } = &kernel.form else { unreachable!() };
    let extents = [&out[..], &reduce[..]].concat();
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
        form: of_phase(&kernel.form, phase),
    };
    kernels.map(named).collect()
}

/// What a contraction computes at the points of a phase.
fn of_phase(form: &Form, phase: &Phase) -> Form {
    let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = form else { unreachable!() };
    let all = out.len() + reduce.len();
    let mut axes: Vec<Index> = (0..all as u32).map(Index::axis).collect();
    let mut extents = [&out[..], &reduce[..]].concat();
    for (axis, index, points) in &phase.axes {
        axes[axis.0 as usize] = index.clone();
        extents[axis.0 as usize] = Size::from(*points);
    }
    let (out, reduce) = extents.split_at(out.len());
    let mut copy = Substitution::new(exprs, &axes);
    let mut new = Exprs::new();
    if phase.is_empty {
        let zero = new.constant(DType::F32, 0.0);
        copy.replace_sum(zero);
    }
    let operands = (!phase.is_empty).then(|| [*lhs, *rhs].map(|id| copy.copy(&mut new, id)));
    let stores = stores.iter().map(|store| copy.store(&mut new, store)).collect();
    let out = out.iter().cloned().collect();
    match operands {
        None => Form::Map { segments: vec![Segment { axes: out, exprs: new, stores }] },
        Some(factors) => {
            Form::contract(out, reduce.iter().cloned().collect(), new, factors, stores)
        }
    }
}
