//! Winograd's algorithm: a convolution with 3x3 filters through the products of transformed tiles.
//!
//! Results are computed in tiles of 2x2 or 4x4. A tile's data and the filters are transformed to
//! 16 or 36 points ([`transform`]); at every point, one matrix product sums over the channels; the
//! sums are transformed back, and what was stored of a convolution's sums is stored of the results.
//! In place of `9 m^2` multiplications for a tile of `m x m` there are `(m + 2)^2`.
//!
//! A convolution becomes kernels that mean nothing special to what comes after: maps over channels,
//! which must be neighbours in memory, and a contraction.
//!
//! The results differ from direct sums: with factors beyond 1 in the transforms, rounding errors of
//! larger intermediate values count. The tests compute a bound and hold results to it.

mod kernels;
mod pattern;
mod transform;

use super::entries::replace_kernels;
use crate::level::Level;
use crate::lower::facts;
use crate::schedule::Config;
use dlc_kernel::{BufferId, Program};
use kernels::Rewriting;
use pattern::Convolution;
use rustc_hash::FxHashSet;
use transform::Transform;

/// Cycles for an element of a transform's input or result, and for one that is farther away than
/// the caches of a core.
const TRANSFORM: f64 = 0.6;
const FAR: f64 = 2.0;
/// Elements that those caches hold.
const NEAR: f64 = 1e6;
/// Cycles to transform a filter.
const FILTER: f64 = 60.0;
/// Filters' elements that memory gives in a cycle.
const FROM_MEMORY: f64 = 0.75;
/// The share of the peak that products reach.
const EFFICIENCY: f64 = 0.85;
/// Rows of a register tile.
const ROWS: i64 = 6;

/// Replaces convolutions by transforms and products, where that is cheaper.
pub(super) fn winograd(program: &Program, config: Config) -> Program {
    let facts = facts(program);
    replace_kernels(program, |program, at, kernel| {
        let rewritten = Convolution::find(program, &kernel).and_then(|convolution| {
            let kept = is_fixed(&convolution, &facts[at].fixed);
            let candidates = [2, 4].map(|m| Rewriting::new(&convolution, Transform::new(m)));
            let costs = candidates.map(|r| (cycles(&r, kept, config.level), r));
            let best = costs.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
            let cheaper = best.0 < direct_cycles(&convolution, config.level);
            cheaper.then(|| best.1.kernels(program, &kernel))
        });
        rewritten.unwrap_or_else(|| vec![kernel])
    })
}

/// Whether filters depend on nothing but parameters that stay as they are.
fn is_fixed(convolution: &Convolution, fixed: &FxHashSet<BufferId>) -> bool {
    convolution.weight_buffers().iter().all(|id| fixed.contains(id))
}

/// About how many cycles all kernels take.
fn cycles(r: &Rewriting, fixed: bool, level: Level) -> f64 {
    let (points, tiles) = (r.points() as f64, r.all_tiles());
    let filters = (r.channels * r.filters) as f64;
    let products = products(tiles, points * filters, level);
    let transformed = |channels: i64| {
        let elements = points * (tiles * channels) as f64;
        elements * if elements > NEAR { TRANSFORM + FAR } else { TRANSFORM }
    };
    let weights = if fixed { 0.0 } else { FILTER * filters };
    products + transformed(r.channels) + transformed(r.filters) + weights
}

/// About how many cycles the sums take without transforms.
fn direct_cycles(c: &Convolution, level: Level) -> f64 {
    let out: i64 = c.axes.iter().map(|n| n.as_const().unwrap_or(1)).take(c.outs).product();
    let filters = c.extent(c.channel) * c.extent(c.filter);
    products(out / c.extent(c.filter), (9 * filters) as f64, level)
}

/// About how many cycles it takes to multiply so many rows with weights: they are all read once.
fn products(rows: i64, weights: f64, level: Level) -> f64 {
    let rows = (rows + ROWS - 1) / ROWS * ROWS;
    let computed = rows as f64 * weights / (2 * level.lanes()) as f64 / EFFICIENCY;
    computed.max(weights / FROM_MEMORY)
}
