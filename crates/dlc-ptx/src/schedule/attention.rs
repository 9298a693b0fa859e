//! Attention: scores of queries and keys, the softmax of each query's scores, and sums of values that
//! it weights, without a buffer for scores or weights.
//!
//! A block has some queries. Block by block of keys it computes a tile of scores, as a contraction
//! does, and from it a tile of weights, which is the rows' factor of the contraction with the values.
//! The largest score so far and the sum of powers so far belong to each query; where a larger score
//! comes, what has been summed up is scaled (Milakov and Gimelshein, 2018; Dao et al., 2022).

use super::contract::{Group, Tiling};
use super::plane::{Plane, Product, TILE, axis_map, is_read_once, lanes};
use crate::Math;
use crate::place::{Domain, destination};
use dlc_kernel::region::fixed_values;
use dlc_kernel::{
    BinaryOp, BufferId, Expr, ExprId, FoldOp, Form, Guard, Kernel, Program, Step, Store, UnaryOp,
};
use std::fmt;
use std::ops::Range;

/// How attention is computed.
#[derive(Clone, Debug)]
pub struct Attention<'k> {
    /// How weights come from scores.
    pub softmax: Softmax,
    /// The points of weights: queries are rows, keys are columns.
    pub plane: Plane<'k>,
    /// What is kept of each query, for gradients: stores of the plane's domain, in order.
    pub kept: Vec<&'k Store>,
    /// Scores: queries are rows, keys are columns.
    pub scores: Tiling<'k>,
    /// What becomes of a sum of the scores.
    pub score: ExprId,
    /// Sums of values: queries are rows, features are columns.
    pub values: Tiling<'k>,
}

/// The softmax of a row: `exp(masked - shift)`, times `scales`.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// The load of a score.
    pub score: ExprId,
    /// What the softmax is of; fold 0 is its maximum.
    pub masked: ExprId,
    /// What is subtracted, the same along the row.
    pub shift: ExprId,
    /// Factors that are the same along the row; fold 1 is the sum of powers.
    pub scales: Vec<ExprId>,
    /// Where a weight is not replaced by 0, as dropout does; `None` if nowhere.
    pub keeps: Option<ExprId>,
}

impl<'k> Attention<'k> {
    /// The attention that these kernels are, if they are one: scores, weights, and sums of values.
    /// Nobody else may read what the first two write.
    pub fn new(
        program: &Program,
        [scores, weights, values]: [&'k Kernel; 3],
        math: Math,
    ) -> Option<Attention<'k>> {
        if weights.may_fail() {
            return None;
        }
        let (scores, values) = (Product::new(program, scores)?, Product::new(program, values)?);
        let Form::Row { outer, inner, exprs, steps } = &weights.form else { return None };
        let axes = [&outer[..], inner].concat();
        let roots = steps.iter().map(Step::value);
        let kept: Vec<&Store> = steps.iter().filter_map(stored_once).collect();
        let destinations = kept.iter().map(|store| destination(store));
        let weights = Domain::new(program, (&axes, 0), exprs, roots, destinations);
        let [score] = scores.stores else { return None };
        let (softmax, weight) = Softmax::new(&weights, outer.len(), steps, score.buffer)?;
        let Expr::Load { access, .. } = exprs.get(softmax.score) else { return None };
        let of_scores = axis_map(program, score.buffer, access, &score.access)?;
        let (factor, access) = values.plain_factor(weight.buffer)?;
        if !is_read_once(&weights, score.buffer) || !is_read_once(&values.domain, weight.buffer) {
            return None;
        }
        let of_values = axis_map(program, weight.buffer, &weight.access, access)?;
        if !scores.has(&weights.extents, &of_scores) || !values.has(&weights.extents, &of_values) {
            return None;
        }
        let long = |axes: Range<usize>| axes.filter(|&a| weights.extents[a] > 1);
        let keys: Vec<usize> = long(outer.len()..axes.len()).collect();
        let key = (0..2).find(|&f| !keys.iter().any(|a| scores.uses(1 - f, of_scores[a])))?;
        let is_shared =
            |a: &usize| scores.uses(key, of_scores[a]) || values.uses(1 - factor, of_values[a]);
        let (batch, queries): (Vec<usize>, Vec<usize>) = long(0..outer.len()).partition(is_shared);
        let groups = [batch, queries, keys].map(|axes| Group::new(&weights, axes));
        let (score, lanes) = (score.value, lanes(&groups[2], math));
        let scores = scores.scores(&groups, &of_scores, key, (math, lanes))?;
        let values = values.sums(&groups, &of_values, factor, math)?;
        let needs = needs(&weights, softmax.masked);
        let plane = Plane::new(&weights, groups, &needs, math);
        let attention = Attention { softmax, plane, kept, scores, score, values };
        (!attention.plane.is_thin()).then_some(attention)
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.scores.threads
    }
}

impl Softmax {
    /// The softmax that these steps are, if they are one, of what is made of one score; and the store
    /// of weights. The domain's axes from `border` on are the row's.
    fn new<'s>(
        domain: &Domain<'_>,
        border: usize,
        steps: &'s [Step],
        scores: BufferId,
    ) -> Option<(Softmax, &'s Store)> {
        let exprs = domain.exprs;
        let [Step::Fold(FoldOp::Max, masked), Step::Fold(FoldOp::Sum, power), stores @ ..] = steps
        else {
            return None;
        };
        let mut weights = stores.iter().filter(|step| stored_once(step).is_none());
        let (Some(Step::StoreEach(weight)), None) = (weights.next(), weights.next()) else {
            return None;
        };
        let (value, keeps) = match exprs.get(weight.value) {
            Expr::Select(keeps, value, other) if is_const(exprs.get(*other), 0.0) => {
                (*value, Some(*keeps))
            }
            _ => (weight.value, None),
        };
        let Expr::Unary(UnaryOp::Exp, centred) = exprs.get(*power) else { return None };
        let Expr::Binary(BinaryOp::Sub, minuend, shift) = exprs.get(*centred) else { return None };
        let (powers, scales): (Vec<ExprId>, Vec<ExprId>) =
            factors(domain, value).into_iter().partition(|factor| factor == power);
        let varies =
            |id: &ExprId| (border..domain.extents.len()).any(|axis| domain.uses([*id], axis));
        let is_score = |id: &ExprId| domain.loads.get(id).is_some_and(|s| s.buffer == scores);
        let score = exprs.reachable([*masked]).into_iter().find(is_score)?;
        let is_free = |id: &ExprId| {
            let nodes = exprs.reachable([*id]);
            let folded = |id: &ExprId| matches!(exprs.get(*id), Expr::Folded(_)) || is_score(id);
            !nodes.iter().any(folded)
        };
        let fits = minuend == masked && powers.len() == 1 && keeps.iter().all(is_free);
        if !fits || varies(shift) || scales.iter().any(varies) {
            return None;
        }
        Some((Softmax { score, masked: *masked, shift: *shift, scales, keeps }, weight))
    }
}

/// What is multiplied to give an expression.
fn factors(domain: &Domain<'_>, id: ExprId) -> Vec<ExprId> {
    match domain.exprs.get(id) {
        Expr::Binary(BinaryOp::Mul, x, y) => [factors(domain, *x), factors(domain, *y)].concat(),
        _ => vec![id],
    }
}

/// The store of a step that stores once per row.
fn stored_once(step: &Step) -> Option<&Store> {
    match step {
        Step::StoreRow(store) => Some(store),
        _ => None,
    }
}

fn is_const(expr: &Expr, value: f64) -> bool {
    matches!(expr, Expr::Const(scalar) if scalar.value() == value)
}

/// Conditions without which an expression is -inf.
fn needs(domain: &Domain<'_>, id: ExprId) -> Vec<Guard> {
    let exprs = domain.exprs;
    let nodes = exprs.reachable([id]);
    let guards = nodes.iter().flat_map(|id| match exprs.get(*id) {
        Expr::Inside(guard) => std::slice::from_ref(guard),
        Expr::Load { access, .. } => access.guards.as_slice(),
        _ => &[],
    });
    let is_needed = |guard: &&Guard| {
        let known = |_, expr: &Expr| match expr {
            Expr::Inside(own) => (own == *guard).then_some(0.0),
            Expr::Load { access, fill, .. } => access.guards.contains(guard).then(|| fill.value()),
            _ => None,
        };
        fixed_values(exprs, known, |_| false)[id.0 as usize] == Some(f64::NEG_INFINITY)
    };
    guards.filter(is_needed).cloned().collect()
}

impl fmt::Display for Attention<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attention { scores, values, plane, .. } = self;
        let [batch, queries, keys] = plane.groups.each_ref().map(Group::points);
        let [features, results] = [scores.sum.points(), values.sides[1].group.points()];
        writeln!(
            f,
            "  attention: {batch} of [{queries}, {features}] x [{keys}, {features}] x \
             [{keys}, {results}], {}",
            scores.math
        )?;
        let skips = if plane.needs.is_empty() { "" } else { ", without those that masks rule out" };
        writeln!(
            f,
            "    {TILE} queries, {TILE} keys at once of {} threads{skips}",
            self.threads()
        )?;
        let [query, key] = &scores.sides;
        for (name, side) in [("queries", query), ("keys", key), ("values", &values.sides[1])] {
            writeln!(f, "    {}", side.describe(name))?;
        }
        writeln!(f, "    stored {} at once along values", values.result.lanes)
    }
}
