//! The gradient of filters: a tile of the results' gradient is the filter of F(3, size), and the
//! products are summed over all tiles.

use super::pattern::{Dim, TAPS};
use super::tiles::{Placed, Points, Tiles, contract, load, map, named};
use super::transform::{both_ways, by_pairs, by_parity};
use crate::arrange::entries::add_temporary;
use crate::arrange::substitute::Substitution;
use dlc_kernel::{Access, BufferId, Expr, Exprs, Form, Index, Kernel, Program, Store};

/// The kernels, in order; the last has the name of the one they replace.
pub(super) fn kernels(
    tiles: &Tiles,
    program: &mut Program,
    kernel: &Kernel,
) -> Option<Vec<Kernel>> {
    let (results, dims) = gradient_dims(tiles)?;
    let (framed, copy): (Placed, _) = tiles.framed(program, kernel);
    let starts = tiles.of.windows().map(|(dim, _)| (dims[dim], 0));
    let lengths = tiles.along.map(|n| n * tiles.size);
    let (whole, padded) = tiles.whole(program, kernel, ("tiled", results), starts, lengths);
    let (channels, filters, count) = (tiles.channels(), tiles.filters(), tiles.points());
    let name = |part: &str| format!("{}_{part}", kernel.name);
    let mut add = |part: &str, last: i64| {
        let axes: Vec<i64> = tiles.extents().into_iter().chain([last]).collect();
        Points::new(program, name(part), count, &axes)
    };
    let (data, gradient) = (add("data", channels), add("gradient", filters));
    let sums = Points::new(program, name("sums"), count, &[channels, filters]);
    let turned = add_temporary(program, name("turned"), [TAPS, TAPS, channels, filters]);
    let own = [
        named(kernel, "data", tiles.transform_data(framed, &data)),
        named(kernel, "gradient", transform_gradient(tiles, whole.0, &dims, &gradient)),
        named(kernel, "products", products(tiles, &data, &gradient, &sums)),
        named(kernel, "turned", transform_sums(tiles, &sums, turned)),
        Kernel { form: store(tiles, turned), ..kernel.clone() },
    ];
    Some(copy.into_iter().chain(padded).chain(own).collect())
}

/// The gradient of the results, and by dim of the data: the dim of the gradient along which the
/// same axis walks, or positions of the same window.
fn gradient_dims(tiles: &Tiles) -> Option<(BufferId, Vec<usize>)> {
    let Expr::Load { buffer, access, .. } = tiles.of.exprs.get(tiles.of.factor) else {
        return None;
    };
    let along = |walk: &Dim| {
        let axis = match walk {
            Dim::Window(window) => window.position,
            Dim::Whole(axis) if *axis == tiles.of.channel => tiles.of.filter,
            Dim::Whole(axis) => *axis,
        };
        access.coords.iter().position(|c| c.as_axis() == Some(axis))
    };
    let dims = tiles.of.dims.iter().map(along).collect::<Option<Vec<usize>>>()?;
    (dims.len() == access.coords.len()).then_some((*buffer, dims))
}

/// The results' gradient at the points. Axes: those of the tiles, then its channel.
fn transform_gradient(tiles: &Tiles, from: BufferId, dims: &[usize], to: &Points) -> Form {
    let mut exprs = Exprs::new();
    let element = |exprs: &mut Exprs, at: [usize; 2]| {
        let walk = tiles.walk(tiles.size, at, [0, 0]);
        let mut coords = walk.coords.clone();
        walk.coords.into_iter().zip(dims).for_each(|(coord, &dim)| coords[dim] = coord);
        load(exprs, from, Access::new(coords))
    };
    let values = both_ways(&mut exprs, &tiles.transform.taps, by_parity, element);
    tiles.by_points(exprs, values, to, tiles.filters())
}

/// One matrix product for each point. Axes: point, channel, filter; those of the tiles.
fn products(tiles: &Tiles, data: &Points, gradient: &Points, sums: &Points) -> Form {
    let extents = tiles.extents();
    let at = |last: u32| {
        let places = 3..3 + extents.len() as u32;
        places.chain([last]).map(Index::axis).collect::<Vec<_>>()
    };
    let point = || Index::axis(0);
    let operands =
        [(data.buffer, data.at(point(), &at(1))), (gradient.buffer, gradient.at(point(), &at(2)))];
    let to = (sums.buffer, sums.at(point(), &[1, 2].map(Index::axis)));
    contract(vec![tiles.points(), tiles.channels(), tiles.filters()], extents, operands, to)
}

/// The gradient of filters with results' channels as neighbours. Axes: channel, filter.
fn transform_sums(tiles: &Tiles, sums: &Points, to: BufferId) -> Form {
    let size = tiles.transform.points();
    let places = [Index::axis(0), Index::axis(1)];
    let mut exprs = Exprs::new();
    let element = |exprs: &mut Exprs, [i, j]: [usize; 2]| {
        load(exprs, sums.buffer, sums.at(Index::constant((i * size + j) as i64), &places))
    };
    let values = both_ways(&mut exprs, &tiles.transform.results, by_pairs, element);
    let taps = (0..TAPS).flat_map(|i| (0..TAPS).map(move |j| [i, j].map(Index::constant)));
    let store = |(taps, value): ([Index; 2], _)| Store {
        buffer: to,
        access: Access::new(taps.into_iter().chain(places.clone())),
        value,
    };
    let stores = taps.zip(values.concat()).map(store).collect();
    map([tiles.channels(), tiles.filters()], exprs, stores)
}

/// What is stored of the sums.
fn store(tiles: &Tiles, turned: BufferId) -> Form {
    let c = tiles.of;
    let turn = tiles.turn();
    let axes = turn.axes(c);
    let mut exprs = Exprs::new();
    let sum = load(&mut exprs, turned, turn.turned());
    let mut copy = Substitution::new(c.exprs, &axes);
    copy.replace_sum(sum);
    let stores = c.stores.iter().map(|store| copy.store(&mut exprs, store)).collect();
    map(turn.extents, exprs, stores)
}
