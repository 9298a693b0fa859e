//! Gradients of attention: products of small factors that make up a plane of rows and columns (scores
//! again, and gradients of weights), what becomes of them point by point, and sums of it over columns.
//!
//! Rows are queries or keys, as the sums ask: gradients of queries are sums over keys, those of keys and
//! values are sums over queries. The plane is computed for each of both.

use super::THREADS;
use super::contract::{Group, Tiling};
use super::plane::{AxisMap, MOST_FEATURES, Plane, Product, TILE, axis_map, is_read_once, lanes};
use crate::Math;
use dlc_kernel::region::Regions;
use dlc_kernel::{BufferId, Expr, ExprId, Guard, Kernel, Program, Store};
use std::fmt;

/// How gradients of attention are computed.
#[derive(Clone, Debug)]
pub struct Gradient<'k> {
    /// The points.
    pub plane: Plane<'k>,
    /// What the plane is made of. The last reads the others, and is read by the sums.
    pub tiles: Vec<Tile<'k>>,
    /// Sums over columns.
    pub sums: Vec<Sum<'k>>,
}

/// One product of the plane.
#[derive(Clone, Debug)]
pub struct Tile<'k> {
    /// How it is computed: rows are the plane's rows.
    pub tiling: Tiling<'k>,
    /// What becomes of its sums, as far as it is read.
    pub values: Vec<ExprId>,
    /// Its loads of the only value of each tile before, if it is the last.
    pub loads: Vec<ExprId>,
}

/// Sums over the columns of a value of the last tile.
#[derive(Clone, Debug)]
pub struct Sum<'k> {
    /// How they are computed: rows are the plane's rows.
    pub tiling: Tiling<'k>,
    /// The value's position in the last tile.
    pub value: usize,
    /// What becomes of them.
    pub stores: &'k [Store],
}

/// A sum, and how it reads the plane.
struct Reader<'p, 'k> {
    product: &'p Product<'k>,
    factor: usize,
    store: &'k Store,
    map: AxisMap,
}

impl<'k> Gradient<'k> {
    /// The gradients that these kernels are, if they are some: first what the plane is made of, then
    /// sums. Nobody else may read what the first write.
    pub fn new(
        program: &Program,
        regions: &Regions,
        kernels: &[&'k Kernel],
        math: Math,
    ) -> Option<Gradient<'k>> {
        let products = kernels.iter().map(|kernel| Product::new(program, kernel));
        let mut tiles = products.collect::<Option<Vec<Product<'k>>>>()?;
        let reads = |product: &Product<'k>, of: &Product<'k>| {
            of.stores.iter().any(|store| product.plain_factor(store.buffer).is_some())
        };
        let first = (1..tiles.len()).find(|&at| reads(&tiles[at], &tiles[at - 1]))?;
        let sums = tiles.split_off(first);
        let last = tiles.last()?;
        let readers = sums.iter().map(|sum| Reader::new(program, last, sum));
        let readers = readers.collect::<Option<Vec<Reader<'_, 'k>>>>()?;
        let maps = tiles.iter().map(|tile| map_of(program, last, tile));
        let maps = maps.collect::<Option<Vec<AxisMap>>>()?;
        let (groups, keys) = groups(&tiles, &maps, &readers)?;
        // A layer's weights are common to all rows: its tiles share more as a product of their own.
        if groups[0].points() < 2 {
            return None;
        }
        let plane = Plane::new(&last.domain, groups, &needs(regions, &readers), math);
        let (groups, lanes) = (&plane.groups, lanes(&plane.groups[2], math));
        let mut used: Vec<&Store> = Vec::new();
        let sums = readers.iter().map(|reader| {
            let tiling = reader.product.sums(groups, &reader.map, reader.factor, math)?;
            let known = used.iter().position(|store| store.buffer == reader.store.buffer);
            let value = known.unwrap_or(used.len());
            if known.is_none() {
                used.push(reader.store);
            }
            Some(Sum { tiling, value, stores: reader.product.stores })
        });
        let sums = sums.collect::<Option<Vec<Sum<'k>>>>()?;
        let features: u32 = sums.iter().map(|sum| sum.tiling.sides[1].tile).sum();
        let all = tiles.iter().zip(&maps).zip(&keys).enumerate();
        let tiles_of = all.map(|(at, ((tile, map), &key))| {
            let tiling = tile.scores(groups, map, key, (math, lanes))?;
            let (values, earlier) = match at + 1 == tiles.len() {
                true => (used.iter().map(|store| store.value).collect(), &tiles[..at]),
                false => (vec![tile.stores[0].value], &tiles[..0]),
            };
            let loads = earlier.iter().map(|of| load(last, of.stores[0].buffer));
            Some(Tile { tiling, values, loads: loads.collect::<Option<_>>()? })
        });
        let tiles = tiles_of.collect::<Option<Vec<Tile<'k>>>>()?;
        let fits = sums.len() == 1 || features <= MOST_FEATURES;
        let mut gradient = Gradient { plane, tiles, sums };
        gradient.spread();
        (fits && !gradient.plane.is_thin()).then_some(gradient)
    }

    /// Has as many threads as keep what each holds in registers.
    fn spread(&mut self) {
        let Gradient { tiles, sums, .. } = self;
        let wide = |sum: &Sum<'_>| sum.tiling.sides[1].tile >= TILE;
        let features: u32 = sums.iter().map(|sum| sum.tiling.sides[1].tile).sum();
        let is_wide = features > TILE && sums.iter().all(wide);
        let tilings = tiles.iter_mut().map(|tile| &mut tile.tiling);
        for tiling in tilings.chain(sums.iter_mut().map(|sum| &mut sum.tiling)) {
            tiling.threads = if is_wide { THREADS } else { tiling.threads };
        }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.tiles[0].tiling.threads
    }
}

impl<'p, 'k> Reader<'p, 'k> {
    fn new(
        program: &Program,
        last: &Product<'k>,
        product: &'p Product<'k>,
    ) -> Option<Reader<'p, 'k>> {
        last.stores.iter().find_map(|store| {
            let (factor, access) = product.plain_factor(store.buffer)?;
            let map = axis_map(program, store.buffer, &store.access, access)?;
            let fits = is_read_once(&product.domain, store.buffer)
                && product.has(&last.domain.extents[..last.border], &map);
            fits.then_some(Reader { product, factor, store, map })
        })
    }
}

/// By axis of the last tile, that of another one, which it reads, or of itself.
fn map_of(program: &Program, last: &Product<'_>, tile: &Product<'_>) -> Option<AxisMap> {
    if std::ptr::eq(last, tile) {
        return Some((0..last.border).map(|axis| (axis, axis)).collect());
    }
    let [store] = tile.stores else { return None };
    let Expr::Load { access, .. } = last.domain.exprs.get(load(last, store.buffer)?) else {
        return None;
    };
    let map = axis_map(program, store.buffer, access, &store.access)?;
    tile.has(&last.domain.extents[..last.border], &map).then_some(map)
}

/// The only load of a buffer.
fn load(product: &Product<'_>, buffer: BufferId) -> Option<ExprId> {
    let mut loads = product.domain.loads.iter().filter(|(_, spot)| spot.buffer == buffer);
    let (&load, _) = loads.next()?;
    loads.next().is_none().then_some(load)
}

/// The axes of batches, rows and columns, and by tile the factor that has columns.
fn groups(
    tiles: &[Product<'_>],
    maps: &[AxisMap],
    readers: &[Reader<'_, '_>],
) -> Option<([Group; 3], Vec<usize>)> {
    let last = tiles.last()?;
    let long = (0..last.border).filter(|&axis| last.domain.extents[axis] > 1);
    let summed = |reader: &Reader<'_, '_>, axis: &usize| {
        reader.map.get(axis).is_some_and(|&own| own >= reader.product.border)
    };
    let (columns, others): (Vec<usize>, Vec<usize>) =
        long.partition(|axis| summed(&readers[0], axis));
    let alike = |reader: &Reader<'_, '_>| {
        columns.iter().all(|axis| summed(reader, axis))
            && !others.iter().any(|axis| summed(reader, axis))
    };
    if columns.is_empty() || !readers.iter().all(alike) {
        return None;
    }
    let key = |(tile, map): (&Product<'_>, &AxisMap)| {
        (0..2).find(|&f| !columns.iter().any(|axis| tile.uses(1 - f, map[axis])))
    };
    let keys = tiles.iter().zip(maps).map(key).collect::<Option<Vec<usize>>>()?;
    let is_shared = |axis: &usize| {
        let by_tile =
            |((tile, map), key): ((&Product<'_>, &AxisMap), &usize)| tile.uses(*key, map[axis]);
        tiles.iter().zip(maps).zip(&keys).any(by_tile)
            || readers.iter().any(|r| r.product.uses(1 - r.factor, r.map[axis]))
    };
    let (batch, rows): (Vec<usize>, Vec<usize>) = others.into_iter().partition(is_shared);
    Some(([batch, rows, columns].map(|axes| Group::new(&last.domain, axes)), keys))
}

/// Conditions without which all that is summed is 0.
fn needs(regions: &Regions, readers: &[Reader<'_, '_>]) -> Vec<Guard> {
    let of = |reader: &Reader<'_, '_>| regions.support(reader.store.buffer, &reader.store.access);
    let mut needs = of(&readers[0]);
    readers[1..].iter().for_each(|reader| {
        let own = of(reader);
        needs.retain(|guard| own.contains(guard));
    });
    needs
}

impl fmt::Display for Gradient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [batch, rows, columns] = self.plane.groups.each_ref().map(Group::points);
        let math = self.tiles[0].tiling.math;
        let skips =
            if self.plane.needs.is_empty() { "" } else { ", without those that masks rule out" };
        writeln!(f, "  plane: {batch} of [{rows}, {columns}], {math}")?;
        writeln!(
            f,
            "    {TILE} rows, {TILE} columns at once of {} threads{skips}",
            self.threads()
        )?;
        for tile in &self.tiles {
            let [row, column] = &tile.tiling.sides;
            let (row, column) = (row.describe("rows"), column.describe("columns"));
            writeln!(f, "    product over {}: {row}, {column}", tile.tiling.sum.points())?;
        }
        for sum in &self.sums {
            let side = &sum.tiling.sides[1];
            writeln!(
                f,
                "    sums with {}: {}, stored {} at once",
                side.group.points(),
                side.describe("features"),
                sum.tiling.result.lanes
            )?;
        }
        Ok(())
    }
}
