//! The three linear maps of F(m, r): how `m` results of a filter with `r` taps come from products of
//! transformed data and transformed taps (Lavin and Gray, 2015; the construction is Toom and
//! Cook's).
//!
//! Data of length `m + r - 1` and taps are polynomials; they are evaluated at as many points, the
//! last of which is infinity. With `N_j = prod over l != j of (p_j - p_l)`:
//!
//! - `data` (B^T): row `j` holds the coefficients of `prod over l != j of (x - p_l)`; the last row
//!   those of the product over all points.
//! - `taps` (G): row `j` is `(1, p_j, p_j^2, ..) / N_j`; the last is `(0, .., 0, 1)`.
//! - `results` (A^T): row `i` is `p_j^i`; the last column is 1 in the last row.

use dlc_kernel::{BinaryOp, DType, Expr, ExprId, Exprs, UnaryOp};

/// The points but infinity: opposite ones are neighbours.
const POINTS: [f64; 5] = [0.0, 1.0, -1.0, 2.0, -2.0];

/// A matrix, row by row.
pub type Matrix = Vec<Vec<f64>>;

/// The maps for `results` results at a time.
#[derive(Clone, Debug)]
pub struct Transform {
    /// B^T: from data to its values at the points.
    pub data: Matrix,
    /// G: from taps to their values at the points.
    pub taps: Matrix,
    /// A^T: from products at the points to results.
    pub results: Matrix,
}

impl Transform {
    /// F(`results`, `taps`), with at most six points.
    pub fn new(results: usize, taps: usize) -> Transform {
        let points = &POINTS[..results + taps - 2];
        let others = |j: usize| {
            let kept = points.iter().enumerate().filter(move |(l, _)| *l != j);
            kept.map(|(_, &p)| p).collect::<Vec<f64>>()
        };
        let length = points.len() + 1;
        let rows = (0..points.len()).map(|j| product(&others(j), length));
        let data = rows.chain([product(points, length)]).collect();
        let powers = |p: f64, count: usize| (0..count).map(move |k| p.powi(k as i32));
        let row = |j: usize| {
            let scale: f64 = others(j).iter().map(|l| points[j] - l).product();
            powers(points[j], taps).map(|power| power / scale).collect()
        };
        let at_infinity = |count: usize, at: usize| f64::from(u8::from(at + 1 == count));
        let last = (0..taps).map(|k| at_infinity(taps, k)).collect();
        let evaluated = (0..points.len()).map(row).chain([last]).collect();
        let row = |i: usize| {
            let finite = points.iter().map(|p| p.powi(i as i32));
            finite.chain([at_infinity(results, i)]).collect()
        };
        Transform { data, taps: evaluated, results: (0..results).map(row).collect() }
    }

    /// How many points there are, in one direction.
    pub fn points(&self) -> usize {
        self.data.len()
    }
}

/// The coefficients of `prod (x - p)`, lowest first.
fn product(points: &[f64], length: usize) -> Vec<f64> {
    let mut all = vec![0.0; length];
    all[0] = 1.0;
    for &p in points {
        for k in (0..length).rev() {
            let lower = if k > 0 { all[k - 1] } else { 0.0 };
            all[k] = lower - p * all[k];
        }
    }
    all
}

/// `matrix x grid x matrix^T`, column by column and then row by row; `combine` computes what one
/// row makes of a vector.
pub fn both_ways(
    exprs: &mut Exprs,
    matrix: &Matrix,
    combine: Combine,
    mut element: impl FnMut(&mut Exprs, [usize; 2]) -> ExprId,
) -> Vec<Vec<ExprId>> {
    let size = matrix[0].len();
    let mut half = vec![Vec::with_capacity(size); matrix.len()];
    for j in 0..size {
        let column: Vec<ExprId> = (0..size).map(|i| element(exprs, [i, j])).collect();
        for (row, to) in matrix.iter().zip(&mut half) {
            to.push(combine(exprs, row, &column));
        }
    }
    let across = |row: Vec<ExprId>| matrix.iter().map(|m| combine(exprs, m, &row)).collect();
    half.into_iter().map(across).collect()
}

/// What a row of a matrix makes of a vector.
pub type Combine = fn(&mut Exprs, &[f64], &[ExprId]) -> ExprId;

/// Even and odd positions apart: the rows of opposite points share both sums.
pub fn by_parity(exprs: &mut Exprs, row: &[f64], x: &[ExprId]) -> ExprId {
    let part = |odd: usize| (odd..x.len()).step_by(2).map(|k| (row[k], x[k])).collect::<Vec<_>>();
    let parts = [0, 1].map(|odd| sum(exprs, &part(odd)));
    joined(exprs, parts.into_iter().flatten().collect())
}

/// Positions of opposite points together: rows share their sums and differences.
pub fn by_pairs(exprs: &mut Exprs, row: &[f64], x: &[ExprId]) -> ExprId {
    let mut terms = vec![(row[0], x[0])];
    let last = x.len() - 1;
    for at in (1..last).step_by(2) {
        let op = if row[at] == row[at + 1] { BinaryOp::Add } else { BinaryOp::Sub };
        terms.push((row[at], exprs.add(Expr::Binary(op, x[at], x[at + 1]))));
    }
    terms.push((row[last], x[last]));
    let total = sum(exprs, &terms);
    joined(exprs, total.into_iter().collect())
}

/// A sum up to its sign, which makes the last factor positive; `None` if all factors are 0.
fn sum(exprs: &mut Exprs, terms: &[(f64, ExprId)]) -> Option<(f64, ExprId)> {
    let terms: Vec<_> = terms.iter().filter(|t| t.0 != 0.0).collect();
    let sign = terms.last()?.0.signum();
    let mut total: Option<ExprId> = None;
    for &&(factor, x) in terms.iter().rev() {
        let scaled = match factor.abs() {
            1.0 => x,
            size => {
                let size = exprs.constant(DType::F32, size);
                exprs.add(Expr::Binary(BinaryOp::Mul, x, size))
            }
        };
        total = Some(match total {
            None => scaled,
            Some(so_far) => {
                let op = if factor * sign > 0.0 { BinaryOp::Add } else { BinaryOp::Sub };
                exprs.add(Expr::Binary(op, so_far, scaled))
            }
        });
    }
    Some((sign, total?))
}

/// The sum of one or two sums.
fn joined(exprs: &mut Exprs, mut parts: Vec<(f64, ExprId)>) -> ExprId {
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (sign, first) = parts[0];
    let first = if sign > 0.0 { first } else { exprs.add(Expr::Unary(UnaryOp::Neg, first)) };
    match parts.get(1) {
        None => first,
        Some(&(sign, second)) => {
            let op = if sign > 0.0 { BinaryOp::Add } else { BinaryOp::Sub };
            exprs.add(Expr::Binary(op, first, second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `results x ((taps x g) * (data x d))` is the correlation of `d` and `g`.
    #[test]
    fn the_maps_compute_correlations() {
        let times = |m: &Matrix, x: &[f64]| -> Vec<f64> {
            m.iter().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
        };
        for (results, taps) in [(2, 3), (4, 3), (3, 2), (3, 4)] {
            let t = Transform::new(results, taps);
            let d: Vec<f64> = (0..t.points()).map(|i| (i * i) as f64 * 0.37 - 1.0).collect();
            let g = &[0.5, -1.25, 3.0, 0.75][..taps];
            let products = times(&t.data, &d).into_iter().zip(times(&t.taps, g));
            let products: Vec<f64> = products.map(|(a, b)| a * b).collect();
            for (i, y) in times(&t.results, &products).into_iter().enumerate() {
                let wanted: f64 = (0..taps).map(|k| d[i + k] * g[k]).sum();
                assert!((y - wanted).abs() < 1e-12, "F({results}, {taps})[{i}]: {y}, not {wanted}");
            }
        }
    }
}
