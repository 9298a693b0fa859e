//! Rows of few points, as pools have them: a map that says each point.
//!
//! What a row folds becomes an expression of its points, and neighbouring rows the lanes of leaves, where
//! they are one or two elements apart in everything that is read.

use super::entries::replace_kernels;
use super::substitute::Substitution;
use super::written_out::at_terms;
use crate::leaf::loops::MAX_STRIDE;
use dlc_kernel::{
    Access, Axis, BinaryOp, DType, Expr, ExprId, Exprs, FoldOp, Form, Index, Kernel, Program,
    Scalar, Segment, Size, Step, merge_op,
};

/// The most points that are written out.
const MOST_POINTS: i64 = 9;

/// The fewest neighbouring rows.
const FEWEST_ROWS: i64 = 4;

/// Writes out rows of few points.
pub(super) fn write_out(program: Program) -> Program {
    replace_kernels(program, |_, _, kernel| vec![written_out(&kernel).unwrap_or(kernel)])
}

/// The map that does what a kernel of rows does.
fn written_out(kernel: &Kernel) -> Option<Kernel> {
    let Form::Row { outer, inner, exprs, steps } = &kernel.form else { return None };
    let extents = inner.iter().map(Size::as_const).collect::<Option<Vec<i64>>>()?;
    let count = extents.iter().try_fold(1i64, |n, &extent| n.checked_mul(extent))?;
    let elements: Vec<ExprId> = steps.iter().map(Step::value).collect();
    if !(1..=MOST_POINTS).contains(&count) || !is_even(outer, exprs, steps) {
        return None;
    }
    let points: Vec<Vec<Index>> = at_terms(outer.len(), &extents).collect();
    let mut at_points: Vec<_> = points.iter().map(|axes| Substitution::new(exprs, axes)).collect();
    let mut written = Exprs::new();
    let mut after = Substitution::new(exprs, &points[0]);
    for (k, step) in steps.iter().enumerate() {
        let Step::Fold(op, _) = *step else { continue };
        let values = at_points.iter_mut().map(|point| point.copy(&mut written, elements[k]));
        let values: Vec<ExprId> = values.collect();
        let result = folded(&mut written, op, &values);
        after.replace_fold(k as u32, result);
    }
    let stores = steps.iter().filter_map(Step::store);
    let stores = stores.map(|store| after.store(&mut written, store)).collect();
    let segment = Segment { axes: outer.iter().cloned().collect(), exprs: written, stores };
    let form = Form::Map { segments: vec![segment] };
    Some(Kernel { name: kernel.name.clone(), origin: kernel.origin.clone(), form })
}

/// Whether rows only fold numbers that they read, and store the results side by side; and whether all that
/// they read lies so, too.
fn is_even(outer: &[Size], exprs: &Exprs, steps: &[Step]) -> bool {
    let lane = || {
        let store = steps.iter().find_map(Step::store)?;
        let &[(lane, 1)] = store.access.coords.last()?.terms.as_slice() else { return None };
        Some(lane).filter(|lane| (lane.0 as usize) < outer.len())
    };
    let Some(lane) = lane() else { return false };
    let rows = outer[lane.0 as usize].as_const().unwrap_or(0);
    let plain = |step: &Step| match step {
        Step::Fold(_, value) => {
            let first = exprs.reachable([*value]);
            let waits = first.iter().any(|&id| matches!(exprs.get(id), Expr::Folded(_)));
            exprs.dtype(*value) == DType::F32 && !waits
        }
        Step::StoreRow(store) => follows(&store.access, lane, 1),
        Step::StoreEach(_) => false,
    };
    let roots = steps.iter().map(Step::value);
    let mut reads = exprs.reachable(roots).into_iter().filter_map(|id| match exprs.get(id) {
        Expr::Load { access, lookups, .. } => Some((access, lookups.is_empty())),
        _ => None,
    });
    let folds = steps.iter().any(|step| matches!(step, Step::Fold(..)));
    let even = reads.all(|(access, plain)| plain && follows(access, lane, MAX_STRIDE.into()));
    folds && rows >= FEWEST_ROWS && even && steps.iter().all(plain)
}

/// Whether an access is always inside, and neighbours along `lane` are at most `most` elements apart.
fn follows(access: &Access, lane: Axis, most: i64) -> bool {
    let Some((last, others)) = access.coords.split_last() else { return access.guards.is_empty() };
    let stands = others.iter().all(|c| !c.uses(lane));
    access.guards.is_empty() && stands && last.div == 1 && (0..=most).contains(&last.coef(lane))
}

/// What the fold of some numbers, of which there are some, comes to.
fn folded(e: &mut Exprs, op: FoldOp, values: &[ExprId]) -> ExprId {
    let merge = merge_op(op.of_value()).expect("what is no position is merged by an operation");
    let number = |e: &mut Exprs, k: usize| e.add(Expr::Const(Scalar::new(DType::I32, k as f64)));
    let (mut state, mut position) = (values[0], number(e, 0));
    for (k, &value) in values.iter().enumerate().skip(1) {
        if op.is_position() {
            let beats = beats(e, op, value, state);
            let own = number(e, k);
            position = e.add(Expr::Select(beats, own, position));
        }
        state = e.add(Expr::Binary(merge, state, value));
    }
    if op.is_position() { position } else { state }
}

/// Whether `x` is better than `best`; NaN is better than any number.
fn beats(e: &mut Exprs, op: FoldOp, x: ExprId, best: ExprId) -> ExprId {
    let (a, b) = if op == FoldOp::ArgMax { (best, x) } else { (x, best) };
    let mut compare = |op, a, b| e.add(Expr::Binary(op, a, b));
    let (less, nan) = (compare(BinaryOp::Lt, a, b), compare(BinaryOp::Ne, x, x));
    let number = compare(BinaryOp::Eq, best, best);
    let first_nan = compare(BinaryOp::And, nan, number);
    compare(BinaryOp::Or, less, first_nan)
}
