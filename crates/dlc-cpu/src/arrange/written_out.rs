//! Contractions whose terms are written out: a map that says each of them.
//!
//! Where no element of an operand meets two of the other, as in a depthwise convolution, a register
//! tile would have nothing to keep. If the terms of a sum are few, a map computes neighbouring sums
//! in vectors: what moves along with them is read by its neighbours, the rest is the same for all. What
//! does not lie as vectors want it is copied (`walk.rs`).

use super::entries::replace_kernels;
use super::substitute::Substitution;
use super::walk::with_copies;
use dlc_kernel::{
    Axis, BinaryOp, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program, Segment, Size,
};

/// The most terms that are written out.
const MOST_TERMS: i64 = 64;

/// Writes out the terms of contractions that use every element once.
pub(super) fn write_out(program: Program) -> Program {
    replace_kernels(program, |program, _, kernel| match written_out(program, &kernel) {
        Some(kernels) => kernels,
        None => vec![kernel],
    })
}

/// The map that does what a contraction does, after the copies that it reads.
fn written_out(program: &mut Program, kernel: &Kernel) -> Option<Vec<Kernel>> {
    let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = &kernel.form else {
        return None;
    };
    let taps: Vec<i64> = reduce.iter().map(Size::as_const).collect::<Option<_>>()?;
    let terms = taps.iter().try_fold(1i64, |n, &extent| n.checked_mul(extent))?;
    let few = (1..=MOST_TERMS).contains(&terms) && !kernel.form.has_several_sums();
    let few = few && exprs.dtype(*lhs) == DType::F32;
    if !few || is_reused(out, exprs, [*lhs, *rhs]) {
        return None;
    }
    let &[(lane, _)] = stores.first()?.access.coords.last()?.terms.as_slice() else { return None };
    let points = out.iter().try_fold(terms, |n, extent| n.checked_mul(extent.as_const()?))?;
    let (written, sum) = sum_of_products(out.len(), &taps, exprs, [*lhs, *rhs]);
    let (mut kernels, mut written) = with_copies(program, kernel, &written, (out, lane), points)?;
    let identity: Vec<Index> = (0..out.len() as u32).map(Index::axis).collect();
    let mut after = Substitution::new(exprs, &identity);
    after.replace_sum(sum);
    let stores = stores.iter().map(|store| after.store(&mut written, store)).collect();
    let segment = Segment { axes: out.iter().cloned().collect(), exprs: written, stores };
    let form = Form::Map { segments: vec![segment] };
    kernels.push(Kernel { name: kernel.name.clone(), origin: kernel.origin.clone(), form });
    Some(kernels)
}

/// Whether elements of both operands are used for several results.
pub(super) fn is_reused(out: &[Size], exprs: &Exprs, operands: [ExprId; 2]) -> bool {
    let [left, right] = operands.map(|operand| {
        let uses = |axis: Axis| exprs.loads([operand]).any(|(_, access)| access.uses(axis));
        (0..out.len() as u32).map(|axis| uses(Axis(axis))).collect::<Vec<bool>>()
    });
    let alone = |own: &[bool], other: &[bool]| {
        let axes = out.iter().zip(own.iter().zip(other));
        axes.into_iter().any(|(n, (&a, &b))| a && !b && n.as_const() != Some(1))
    };
    alone(&left, &right) && alone(&right, &left)
}

/// The sum of all products of two operands over the axes of the results, term by term.
fn sum_of_products(
    outs: usize,
    taps: &[i64],
    exprs: &Exprs,
    operands: [ExprId; 2],
) -> (Exprs, ExprId) {
    let mut written = Exprs::new();
    let mut sum: Option<ExprId> = None;
    for axes in at_terms(outs, taps) {
        let mut of_term = Substitution::new(exprs, &axes);
        let [left, right] = operands.map(|operand| of_term.copy(&mut written, operand));
        let product = written.add(Expr::Binary(BinaryOp::Mul, left, right));
        sum = Some(match sum {
            Some(sum) => written.add(Expr::Binary(BinaryOp::Add, sum, product)),
            None => product,
        });
    }
    (written, sum.expect("there are terms"))
}

/// The axes of a form at each term or point of `extents`, row-major, after `outs` others that stay.
pub(super) fn at_terms(outs: usize, extents: &[i64]) -> impl Iterator<Item = Vec<Index>> + '_ {
    (0..extents.iter().product::<i64>()).map(move |term| {
        let mut axes: Vec<Index> = (0..outs as u32).map(Index::axis).collect();
        let mut inner = 1;
        for &extent in extents.iter().rev() {
            axes.insert(outs, Index::constant(term / inner % extent));
            inner *= extent;
        }
        axes
    })
}
