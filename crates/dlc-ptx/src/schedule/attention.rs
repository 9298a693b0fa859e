//! Attention: scores of queries and keys, the softmax of each query's scores, and sums of values that
//! it weights, without a buffer for scores or weights.
//!
//! A block has some queries. Block by block of keys it computes a tile of scores, as a contraction
//! does, and from it a tile of weights, which is the rows' factor of the contraction with the values.
//! The largest score so far and the sum of powers so far belong to each query; where a larger score
//! comes, what has been summed up is scaled (Milakov and Gimelshein, 2018; Dao et al., 2022).

use super::contract::{Group, Side, THIN, Tiling, View, threads};
use crate::Math;
use crate::place::{Domain, bound, destination};
use dlc_kernel::place::Check;
use dlc_kernel::{
    Access, BinaryOp, BufferId, Expr, ExprId, FoldOp, Form, Kernel, Program, Step, Store, UnaryOp,
};
use rustc_hash::FxHashMap;
use std::fmt;
use std::ops::Range;

/// How attention is computed.
#[derive(Clone, Debug)]
pub struct Attention<'k> {
    /// How weights come from scores.
    pub softmax: Softmax,
    /// The points of weights, along keys.
    pub weights: View<'k>,
    /// Conditions at those points, without which the softmax is of -inf.
    pub needs: Vec<Check>,
    /// Their axes: those of batches, queries and keys.
    pub groups: [Group; 3],
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
}

/// Queries of a block, and keys that it takes at once.
pub const TILE: u32 = 64;

/// The most features of values: those of a block's queries are held in registers.
const MOST_FEATURES: i64 = 128;

/// By axis of the weights, the axis of a product that goes with it.
type AxisMap = FxHashMap<usize, usize>;

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
        let roots = steps.iter().map(super::row::root);
        let weights = Domain::new(program, (&axes, 0), exprs, roots, []);
        let [score] = scores.stores else { return None };
        let (softmax, weight) = Softmax::new(&weights, outer.len(), steps, score.buffer)?;
        let Expr::Load { access, .. } = exprs.get(softmax.score) else { return None };
        let of_scores = axis_map(program, score.buffer, access, &score.access)?;
        let (factor, access) = values.plain_factor(weight.buffer)?;
        if !is_read_once(&weights, score.buffer) || !is_read_once(&values.domain, weight.buffer) {
            return None;
        }
        let of_values = axis_map(program, weight.buffer, &weight.access, access)?;
        if !scores.has(&weights, &of_scores) || !values.has(&weights, &of_values) {
            return None;
        }
        let long = |axes: Range<usize>| axes.filter(|&a| weights.extents[a] > 1);
        let keys: Vec<usize> = long(outer.len()..axes.len()).collect();
        let key = (0..2).find(|&f| !keys.iter().any(|a| scores.uses(1 - f, of_scores[a])))?;
        let is_shared =
            |a: &usize| scores.uses(key, of_scores[a]) || values.uses(1 - factor, of_values[a]);
        let (batch, queries): (Vec<usize>, Vec<usize>) = long(0..outer.len()).partition(is_shared);
        let groups = [batch, queries, keys].map(|axes| Group::new(&weights, axes));
        let lanes = lanes(&groups[2], math);
        let scores = scores.scores(&groups, &of_scores, key, (math, lanes))?;
        let values = values.sums(&groups, &of_values, factor, math)?;
        let weights = View::new(&weights, groups[2].axes.last().copied(), lanes);
        let thin = groups[1..].iter().any(|group| group.points() < THIN);
        let (score, needs) = (score.value, needs(&weights.domain, softmax.masked));
        (!thin).then_some(Attention { softmax, weights, needs, groups, scores, score, values })
    }

    /// Blocks.
    pub fn blocks(&self) -> u32 {
        self.groups[0].points() as u32 * self.scores.tiles(0)
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.scores.threads
    }
}

/// How many neighbouring scores of a thread are taken at once.
fn lanes(keys: &Group, math: Math) -> usize {
    let even = |n: &i64| keys.extents.last().is_some_and(|extent| extent % n == 0);
    let widest = if math == Math::F32 { 4 } else { 2 };
    [widest, 2].into_iter().find(even).unwrap_or(1) as usize
}

/// A contraction whose axes are known by those of the weights.
struct Product<'k> {
    domain: Domain<'k>,
    /// The number of axes of the result.
    border: usize,
    factors: [ExprId; 2],
    stores: &'k [Store],
}

impl<'k> Product<'k> {
    fn new(program: &Program, kernel: &'k Kernel) -> Option<Product<'k>> {
        let Form::Contract { out, reduce, exprs, lhs, rhs, stores, .. } = &kernel.form else {
            return None;
        };
        let axes = [&out[..], reduce].concat();
        let roots = [*lhs, *rhs].into_iter().chain(stores.iter().map(|s| s.value));
        let destinations = stores.iter().map(destination);
        let domain = Domain::new(program, (&axes, 0), exprs, roots, destinations);
        let product = Product { domain, border: out.len(), factors: [*lhs, *rhs], stores };
        (product.domain.points() > 0 && !kernel.may_fail()).then_some(product)
    }

    /// Whether it has every axis of the weights that is longer than 1, and as long.
    fn has(&self, weights: &Domain<'_>, map: &AxisMap) -> bool {
        let same = |(axis, &n): (usize, &i64)| match map.get(&axis) {
            Some(&own) => self.domain.extents[own] == n,
            None => n == 1,
        };
        weights.extents.iter().enumerate().all(same)
    }

    /// Whether a factor depends on an axis.
    fn uses(&self, factor: usize, axis: usize) -> bool {
        self.domain.uses([self.factors[factor]], axis)
    }

    /// The factor that is a buffer as it is, and how it is read.
    fn plain_factor(&self, buffer: BufferId) -> Option<(usize, &'k Access)> {
        self.factors.iter().enumerate().find_map(|(at, &factor)| {
            match self.domain.exprs.get(factor) {
                Expr::Load { buffer: read, access, .. } if *read == buffer => Some((at, access)),
                _ => None,
            }
        })
    }

    /// The axes among `all` that are longer than 1 and do not go with an axis of the weights.
    fn own(&self, map: &AxisMap, all: Range<usize>) -> Vec<usize> {
        let is_own = |axis: &usize| !map.values().any(|known| known == axis);
        all.filter(|&axis| self.domain.extents[axis] > 1).filter(is_own).collect()
    }

    fn groups(&self, groups: &[Group; 3], map: &AxisMap) -> [Group; 3] {
        let own = |group: &Group| group.axes.iter().map(|axis| map[axis]).collect();
        [0, 1, 2].map(|at| Group::new(&self.domain, own(&groups[at])))
    }

    /// As scores: summed over axes of its own, none of which is left.
    fn scores(
        &self,
        groups: &[Group; 3],
        map: &AxisMap,
        key: usize,
        (math, lanes): (Math, usize),
    ) -> Option<Tiling<'k>> {
        let Product { domain, border, factors, .. } = self;
        let is_summed = |group: &Group| group.axes.iter().any(|axis| map[axis] >= *border);
        if !self.own(map, 0..*border).is_empty() || groups.iter().any(is_summed) {
            return None;
        }
        let [batch, queries, keys] = self.groups(groups, map);
        let sum = Group::new(domain, self.own(map, *border..domain.extents.len()));
        let result = View::new(domain, keys.axes.last().copied(), lanes);
        let side =
            |factor: usize, group| Side::new(domain, factors[factor], group, (&sum, math), TILE);
        let sides = [side(1 - key, queries), side(key, keys)];
        let threads = threads(math, [TILE, TILE]);
        Some(Tiling { math, batch, sum, sides, result, split: 1, threads })
    }

    /// As sums of values over keys, which the weights' factor has by rows.
    fn sums(
        &self,
        groups: &[Group; 3],
        map: &AxisMap,
        weights: usize,
        math: Math,
    ) -> Option<Tiling<'k>> {
        let Product { domain, border, factors, .. } = self;
        let is_summed = |axis: &usize| map[axis] >= *border;
        let [batch, queries, keys] = groups;
        let along = |group: &Group| group.axes.iter().any(is_summed);
        let own = self.own(map, *border..domain.extents.len());
        if along(batch) || along(queries) || !keys.axes.iter().all(is_summed) || !own.is_empty() {
            return None;
        }
        let [batch, queries, sum] = self.groups(groups, map);
        let features = Group::new(domain, self.own(map, 0..*border));
        if !(THIN..=MOST_FEATURES).contains(&features.points()) {
            return None;
        }
        let narrowest = if math == Math::F32 { 64 } else { 32 };
        let fits = |&tile: &i64| tile >= narrowest && tile >= features.points();
        let tile = [32, 64, MOST_FEATURES].into_iter().find(fits)? as u32;
        let result = View::of_result(domain, &features, math);
        let value = Side::new(domain, factors[1 - weights], features, (&sum, math), tile);
        let weights = Side::resident(domain, factors[weights], queries, math, TILE);
        let threads = threads(math, [TILE, TILE]);
        let sides = [weights, value];
        Some(Tiling { math, batch, sum, sides, result, split: 1, threads })
    }
}

/// Whether one load of the domain is of the buffer.
fn is_read_once(domain: &Domain<'_>, buffer: BufferId) -> bool {
    domain.loads.values().filter(|spot| spot.buffer == buffer).count() == 1
}

/// Which axis of `to` goes with each axis of `from`, of two accesses to a buffer that both walk
/// through axis by axis. Dims of 1 do not count.
fn axis_map(program: &Program, buffer: BufferId, from: &Access, to: &Access) -> Option<AxisMap> {
    let mut map = AxisMap::default();
    let shape = &program.buffer(buffer).shape;
    for ((from, to), size) in from.coords.iter().zip(&to.coords).zip(shape) {
        if bound(size) == 1 {
            continue;
        }
        let (from, to) = (from.as_axis()?.0 as usize, to.as_axis()?.0 as usize);
        if map.values().any(|&known| known == to) || map.insert(from, to).is_some() {
            return None;
        }
    }
    Some(map)
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
        let [
            Step::Fold(FoldOp::Max, masked),
            Step::Fold(FoldOp::Sum, power),
            Step::StoreEach(weight),
        ] = steps
        else {
            return None;
        };
        let Expr::Unary(UnaryOp::Exp, centred) = exprs.get(*power) else { return None };
        let Expr::Binary(BinaryOp::Sub, minuend, shift) = exprs.get(*centred) else { return None };
        let (powers, scales): (Vec<ExprId>, Vec<ExprId>) =
            factors(domain, weight.value).into_iter().partition(|factor| factor == power);
        let varies =
            |id: &ExprId| (border..domain.extents.len()).any(|axis| domain.uses([*id], axis));
        let is_score = |id: &ExprId| domain.loads.get(id).is_some_and(|s| s.buffer == scores);
        let score = exprs.reachable([*masked]).into_iter().find(is_score)?;
        let fits = minuend == masked && powers.len() == 1;
        if !fits || varies(shift) || scales.iter().any(varies) {
            return None;
        }
        Some((Softmax { score, masked: *masked, shift: *shift, scales }, weight))
    }
}

/// What is multiplied to give an expression.
fn factors(domain: &Domain<'_>, id: ExprId) -> Vec<ExprId> {
    match domain.exprs.get(id) {
        Expr::Binary(BinaryOp::Mul, x, y) => [factors(domain, *x), factors(domain, *y)].concat(),
        _ => vec![id],
    }
}

/// Conditions without which an expression is -inf.
fn needs(domain: &Domain<'_>, id: ExprId) -> Vec<Check> {
    let is_lowest = |id: ExprId| match domain.exprs.get(id) {
        Expr::Const(scalar) => scalar.value() == f64::NEG_INFINITY,
        _ => false,
    };
    match domain.exprs.get(id) {
        Expr::Load { fill, .. } if fill.value() == f64::NEG_INFINITY => {
            domain.loads[&id].place.checks.to_vec()
        }
        Expr::Select(condition, then, other) if is_lowest(*other) => {
            [guards(domain, *condition), needs(domain, *then)].concat()
        }
        _ => Vec::new(),
    }
}

/// Conditions without which a truth value is false.
fn guards(domain: &Domain<'_>, id: ExprId) -> Vec<Check> {
    match domain.exprs.get(id) {
        Expr::Inside(_) => domain.guards[&id].iter().cloned().collect(),
        Expr::Binary(BinaryOp::And, x, y) => [guards(domain, *x), guards(domain, *y)].concat(),
        _ => Vec::new(),
    }
}

impl fmt::Display for Attention<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attention { scores, values, needs, .. } = self;
        let [batch, queries, keys] = self.groups.each_ref().map(Group::points);
        let [features, results] = [scores.sum.points(), values.sides[1].group.points()];
        writeln!(
            f,
            "  attention: {batch} of [{queries}, {features}] x [{keys}, {features}] x \
             [{keys}, {results}], {}",
            scores.math
        )?;
        let skips = if needs.is_empty() { "" } else { ", without those that masks rule out" };
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
