//! Winograd's algorithm: 3x3 convolutions and the gradients of their filters, through the products of
//! transformed tiles.
//!
//! Positions are cut into tiles of 2x2 or 4x4. A tile's data and the filters are transformed to 16
//! or 36 points (`transform.rs`); at every point, one matrix product sums over the channels; the sums
//! are transformed back, and what was stored of a convolution's sums is stored of the results. In
//! place of `9 m^2` multiplications for a tile of `m x m` there are `(m + 2)^2`. For the gradient of
//! filters, a tile of the results' gradient takes the place of the filter, and the products are
//! summed over tiles.
//!
//! What replaces a contraction means nothing special to what comes after: maps over channels, which
//! must be neighbours in memory, and contractions.
//!
//! The results differ from direct sums: with factors beyond 1 in the transforms, rounding errors of
//! larger intermediate values count. The tests compute a bound and hold results to it.

mod convolution;
mod gradient;
mod pattern;
mod tiles;
mod transform;

use super::entries::replace_kernels;
use crate::level::Level;
use crate::lower::Fixed;
use crate::schedule::Config;
use dlc_kernel::{BufferId, Kernel, Program};
use pattern::{TAPS, Task, Windowed};
use rustc_hash::FxHashSet;
use tiles::Tiles;
use transform::Transform;

/// Cycles for an element that a transform reads or writes, in the caches of a core and beyond.
const NEAR: f64 = 0.6;
const FAR: f64 = 2.5;
/// Cycles for an element of filters whose channels change places.
const TURN: f64 = 3.0;
/// Elements that the caches of a core hold.
const NEAR_ELEMENTS: f64 = 1e6;
/// Elements that memory gives in a cycle.
const FROM_MEMORY: f64 = 0.5;
/// The share of the peak that products reach.
const EFFICIENCY: f64 = 0.85;
/// Rows of a register tile.
const ROWS: i64 = 6;

/// Sizes of tiles.
pub const SIZES: [i64; 2] = [2, 4];

/// Replaces contractions by transforms and products in tiles of some `sizes`, where that takes less
/// than `limit` times the cycles of the contraction.
pub fn winograd(program: Program, config: Config, sizes: &[i64], limit: f64) -> Program {
    let fixed = program.entries.iter().map(|entry| Fixed::of(&program, entry).buffers);
    let fixed: Vec<FxHashSet<BufferId>> = fixed.collect();
    replace_kernels(program, |program, at, kernel| {
        let rewritten = Windowed::find(program, &kernel).and_then(|windowed| {
            let (cycles, tiles) = cheapest(&windowed, &fixed[at], config.level, sizes)?;
            let cheaper = cycles < limit * direct_cycles(&windowed, config.level);
            match windowed.task {
                _ if !cheaper => None,
                Task::Convolution => Some(convolution::kernels(&tiles, program, &kernel)),
                Task::FilterGradient => gradient::kernels(&tiles, program, &kernel),
            }
        });
        rewritten.unwrap_or_else(|| vec![kernel])
    })
}

/// About how many cycles it takes to compute `kernel` like this, if that is possible.
pub(super) fn estimate(
    program: &Program,
    kernel: &Kernel,
    fixed: &FxHashSet<BufferId>,
    config: Config,
) -> Option<f64> {
    let windowed = Windowed::find(program, kernel).filter(|_| !config.exact_conv)?;
    Some(cheapest(&windowed, fixed, config.level, &SIZES)?.0)
}

/// The cheapest size of tiles, and about how many cycles all kernels take.
fn cheapest<'w, 'k>(
    windowed: &'w Windowed<'k>,
    fixed: &FxHashSet<BufferId>,
    level: Level,
    sizes: &[i64],
) -> Option<(f64, Tiles<'w, 'k>)> {
    let fixed = windowed.factor_buffers().iter().all(|id| fixed.contains(id));
    let candidates = sizes.iter().map(|&size| in_tiles(windowed, size));
    let costs = candidates.map(|tiles| (cycles(&tiles, fixed, level), tiles));
    costs.min_by(|a, b| a.0.total_cmp(&b.0))
}

fn in_tiles<'w, 'k>(windowed: &'w Windowed<'k>, size: i64) -> Tiles<'w, 'k> {
    let (size, taps) = (size as usize, TAPS as usize);
    let transform = match windowed.task {
        Task::Convolution => Transform::new(size, taps),
        Task::FilterGradient => Transform::new(taps, size),
    };
    Tiles::new(windowed, transform, size as i64)
}

/// About how many cycles all kernels take; `fixed` filters are transformed when they change.
fn cycles(tiles: &Tiles, fixed: bool, level: Level) -> f64 {
    let (channels, filters) = (tiles.channels(), tiles.filters());
    let moved = |rows: i64, columns: i64| {
        let elements = (tiles.points() * rows * columns) as f64;
        elements * if elements > NEAR_ELEMENTS { FAR } else { NEAR }
    };
    let count = tiles.count();
    let turned = TURN * (TAPS * TAPS * channels * filters) as f64;
    let weights = if fixed { 0.0 } else { 2.0 * moved(channels, filters) + turned };
    let product = |rows: i64, depth: i64, columns: i64| {
        products(rows, (tiles.points() * depth * columns) as f64, level)
    };
    let products = match tiles.of.task {
        Task::Convolution => product(count, channels, filters),
        Task::FilterGradient => product(channels, count, filters),
    };
    products + moved(count, channels) + moved(count, filters) + weights
}

/// About how many cycles the sums take without transforms.
fn direct_cycles(windowed: &Windowed, level: Level) -> f64 {
    let (channels, filters) = (windowed.extent(windowed.channel), windowed.extent(windowed.filter));
    let positions: i64 = windowed.axes.iter().map(|n| n.as_const().unwrap_or(1)).product::<i64>()
        / (TAPS * TAPS * channels * filters);
    match windowed.task {
        Task::Convolution => products(positions, (TAPS * TAPS * channels * filters) as f64, level),
        Task::FilterGradient => {
            products(TAPS * TAPS * channels, (positions * filters) as f64, level)
        }
    }
}

/// About how many cycles it takes to multiply so many rows with `weights`, which are all read once.
fn products(rows: i64, weights: f64, level: Level) -> f64 {
    let rows = (rows + ROWS - 1) / ROWS * ROWS;
    let computed = rows as f64 * weights / (2 * level.lanes()) as f64 / EFFICIENCY;
    computed.max(weights / FROM_MEMORY)
}
