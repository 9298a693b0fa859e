//! A convolution: data and filters at the points, their products summed over channels, results.

use super::pattern::{Dim, TAPS};
use super::tiles::{Placed, Points, Tiles, contract, load, map, named, no_axes, slot};
use super::transform::{both_ways, by_pairs, by_parity};
use crate::arrange::entries::add_temporary;
use crate::arrange::substitute::Substitution;
use dlc_kernel::{Access, BufferId, Exprs, Form, Index, Kernel, Program, Segment, Size, Store};

/// Some tiles along a window, and how many results each has.
#[derive(Clone, Copy)]
struct Stretch {
    first: i64,
    tiles: i64,
    results: i64,
}

/// The kernels, in order; the last has the name of the one they replace.
pub(super) fn kernels(tiles: &Tiles, program: &mut Program, kernel: &Kernel) -> Vec<Kernel> {
    let (framed, copy): (Placed, _) = tiles.framed(program, kernel);
    let (channels, filters, count) = (tiles.channels(), tiles.filters(), tiles.points());
    let name = |part: &str| format!("{}_{part}", kernel.name);
    let mut add = |part: &str, last: i64| {
        let axes: Vec<i64> = tiles.extents().into_iter().chain([last]).collect();
        Points::new(program, name(part), count, &axes)
    };
    let (data, sums) = (add("data", channels), add("sums", filters));
    let turned = add_temporary(program, name("turned"), [TAPS, TAPS, channels, filters]);
    let weights = Points::new(program, name("weights"), count, &[channels, filters]);
    let own = [
        named(kernel, "data", tiles.transform_data(framed, &data)),
        named(kernel, "turned", turn_weights(tiles, turned)),
        named(kernel, "weights", transform_weights(tiles, turned, &weights)),
        named(kernel, "products", products(tiles, &data, &weights, &sums)),
        Kernel { form: transform_sums(tiles, &sums), ..kernel.clone() },
    ];
    copy.into_iter().chain(own).collect()
}

/// The filters with results' channels as neighbours.
fn turn_weights(tiles: &Tiles, to: BufferId) -> Form {
    let c = tiles.of;
    let turn = tiles.turn();
    let mut exprs = Exprs::new();
    let value = Substitution::new(c.exprs, &turn.axes(c)).copy(&mut exprs, c.factor);
    let stores = vec![Store { buffer: to, access: turn.turned(), value }];
    map(turn.extents, exprs, stores)
}

/// The filters at the points. Axes: channel, filter.
fn transform_weights(tiles: &Tiles, from: BufferId, to: &Points) -> Form {
    let mut exprs = Exprs::new();
    let places = [Index::axis(0), Index::axis(1)];
    let element = |exprs: &mut Exprs, at: [usize; 2]| {
        let taps = at.map(|n| Index::constant(n as i64));
        load(exprs, from, Access::new(taps.into_iter().chain(places.clone())))
    };
    let values = both_ways(&mut exprs, &tiles.transform.taps, by_parity, element);
    map([tiles.channels(), tiles.filters()], exprs, to.stores(values, &places))
}

/// One matrix product for each point. Axes: point, those of the tiles, filter; channel.
fn products(tiles: &Tiles, data: &Points, weights: &Points, sums: &Points) -> Form {
    let extents = tiles.extents();
    let (filter, channel) = (extents.len() as u32 + 1, extents.len() as u32 + 2);
    let at = |last: u32| (1..filter).chain([last]).map(Index::axis).collect::<Vec<_>>();
    let point = || Index::axis(0);
    let of_weights = weights.at(point(), &[channel, filter].map(Index::axis));
    let out = [tiles.points()].into_iter().chain(extents).chain([tiles.filters()]).collect();
    let operands = [(data.buffer, data.at(point(), &at(channel))), (weights.buffer, of_weights)];
    let to = (sums.buffer, sums.at(point(), &at(filter)));
    contract(out, vec![tiles.channels()], operands, to)
}

/// Results, and what is stored of them: whole tiles, then those at the edges that are not.
fn transform_sums(tiles: &Tiles, sums: &Points) -> Form {
    let stretches = tiles.of.windows().map(|(_, window)| {
        let (extent, size) = (tiles.of.extent(window.position), tiles.size);
        let whole = Stretch { first: 0, tiles: extent / size, results: size };
        let rest = Stretch { first: extent / size, tiles: 1, results: extent % size };
        [whole, rest].into_iter().filter(|s| s.tiles > 0 && s.results > 0)
    });
    let [rows, columns] = stretches.map(Iterator::collect::<Vec<_>>);
    let blocks = rows.iter().flat_map(|&row| columns.iter().map(move |&column| [row, column]));
    Form::Map { segments: blocks.map(|block| transform_block(tiles, sums, block)).collect() }
}

/// One segment of [`transform_sums`]. Axes: those of the tiles, then the filter.
fn transform_block(tiles: &Tiles, sums: &Points, block: [Stretch; 2]) -> Segment {
    let c = tiles.of;
    let (filter, size) = (c.dims.len() - 1, tiles.transform.points());
    let place = |dim: usize| match c.window_in(dim) {
        Some(k) => Index::affine([(dim as u32, 1)], block[k].first),
        None => Index::axis(dim as u32),
    };
    let places: Vec<Index> = (0..=filter).map(place).collect();
    let mut exprs = Exprs::new();
    let element = |exprs: &mut Exprs, [i, j]: [usize; 2]| {
        load(exprs, sums.buffer, sums.at(Index::constant((i * size + j) as i64), &places))
    };
    let values = both_ways(&mut exprs, &tiles.transform.results, by_pairs, element);
    let mut stores = Vec::new();
    for (i, row) in values.iter().enumerate().take(block[0].results as usize) {
        for (j, &value) in row.iter().enumerate().take(block[1].results as usize) {
            let axes = axes_of_result(tiles, block, [i as i64, j as i64]);
            let mut copy = Substitution::new(c.exprs, &axes);
            copy.replace_sum(value);
            stores.extend(c.stores.iter().map(|store| copy.store(&mut exprs, store)));
        }
    }
    let extent = |(dim, n): (usize, i64)| c.window_in(dim).map_or(n, |k| block[k].tiles);
    let extents = tiles.extents().into_iter().enumerate().map(extent);
    let axes = extents.chain([tiles.filters()]).map(Size::from).collect();
    Segment { axes, exprs, stores }
}

/// The axes of the convolution at one result of every tile of a block.
fn axes_of_result(tiles: &Tiles, block: [Stretch; 2], result: [i64; 2]) -> Vec<Index> {
    let c = tiles.of;
    let mut axes = no_axes(c);
    for (dim, walk) in c.dims.iter().enumerate() {
        match (walk, c.window_in(dim)) {
            (Dim::Window(window), Some(k)) => {
                let offset = block[k].first * tiles.size + result[k];
                *slot(&mut axes, window.position) =
                    Index::affine([(dim as u32, tiles.size)], offset);
            }
            (Dim::Whole(axis), _) => *slot(&mut axes, *axis) = Index::axis(dim as u32),
            (Dim::Window(_), None) => unreachable!("a window is in its dim"),
        }
    }
    *slot(&mut axes, c.filter) = Index::axis(c.dims.len() as u32 - 1);
    axes
}
