//! The kernels that a convolution becomes.

use super::pattern::{Convolution, Dim, Window};
use super::transform::{TAPS, Transform, both_ways, by_pairs, by_parity};
use crate::arrange::entries::add_temporary;
use crate::arrange::pad::{Frame, copy_kernel};
use crate::arrange::substitute::Substitution;
use dlc_kernel::{
    Access, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program, Scalar, Segment,
    Size, Store,
};
use smallvec::SmallVec;

/// Elements between the channels of two points: neighbouring points of a tile must not fall into
/// one set of a cache.
const GAP: i64 = 16;

/// A convolution in tiles of results.
pub(super) struct Rewriting<'c, 'k> {
    convolution: &'c Convolution<'k>,
    transform: Transform,
    /// Results along a tile.
    results: i64,
    /// Tiles along each window.
    tiles: [i64; 2],
    /// Channels of the data.
    pub channels: i64,
    /// Channels of the results.
    pub filters: i64,
}

/// One of the temporaries between the kernels: `[tiles.., point, channel]`.
#[derive(Clone, Copy)]
struct Points {
    buffer: BufferId,
    /// Axes of the tiles.
    tiles: usize,
}

impl<'c, 'k> Rewriting<'c, 'k> {
    /// In tiles of as many results as `transform` gives.
    pub fn new(convolution: &'c Convolution<'k>, transform: Transform) -> Rewriting<'c, 'k> {
        let results = transform.results.len() as i64;
        let along = |(_, w): (usize, Window)| (convolution.extent(w.position) - 1) / results + 1;
        Rewriting {
            convolution,
            tiles: convolution.windows().map(along),
            channels: convolution.extent(convolution.channel),
            filters: convolution.extent(convolution.filter),
            transform,
            results,
        }
    }

    /// The points of a tile.
    pub fn points(&self) -> i64 {
        (self.transform.points() * self.transform.points()) as i64
    }

    /// All tiles.
    pub fn all_tiles(&self) -> i64 {
        self.tile_extents().iter().product()
    }

    /// What walks through the tiles, outermost first.
    fn tile_extents(&self) -> Vec<i64> {
        let mut along = self.tiles.iter();
        let dims = &self.convolution.dims;
        let extent = |dim: &Dim| match dim {
            Dim::Window(_) => *along.next().expect("there are two windows"),
            Dim::Whole(axis) => self.convolution.extent(*axis),
        };
        dims[..dims.len() - 1].iter().map(extent).collect()
    }

    /// The kernels, in order; the last has the name of the one they replace.
    pub fn kernels(&self, program: &mut Program, kernel: &Kernel) -> Vec<Kernel> {
        let name = |part: &str| format!("{}_{part}", kernel.name);
        let named =
            |part: &str, form| Kernel { name: name(part), origin: kernel.origin.clone(), form };
        let (framed, copy) = self.framed(program, kernel);
        let tiles = self.tile_extents();
        let mut add = |part: &str, channels: i64| {
            let shape = tiles.iter().copied().chain([self.points(), channels + GAP]);
            Points { buffer: add_temporary(program, name(part), shape), tiles: tiles.len() }
        };
        let (data, sums) = (add("data", self.channels), add("sums", self.filters));
        let (channels, filters, taps) = (self.channels, self.filters, TAPS as i64);
        let turned = add_temporary(program, name("turned"), [taps, taps, channels, filters]);
        let shape = [self.points(), channels, filters];
        let weights = add_temporary(program, name("weights"), shape);
        copy.into_iter()
            .chain([
                named("data", self.transform_data(framed, data)),
                named("turned", self.turn_weights(turned)),
                named("weights", self.transform_weights(turned, weights)),
                named("products", self.products(data, weights, sums)),
                Kernel { form: self.transform_sums(sums), ..kernel.clone() },
            ])
            .collect()
    }

    /// Where the data of whole tiles is, with the place of its first element; and the kernel that
    /// brings it there.
    fn framed(
        &self,
        program: &mut Program,
        kernel: &Kernel,
    ) -> ((BufferId, [i64; 2]), Option<Kernel>) {
        let source = self.convolution.buffer;
        let shape: Vec<i64> =
            program.buffer(source).shape.iter().map(|n| n.as_const().expect("bound")).collect();
        let mut frame =
            Frame { starts: shape.iter().map(|_| 0).collect(), extents: shape.iter().copied().collect() };
        for ((dim, window), tiles) in self.convolution.windows().into_iter().zip(self.tiles) {
            frame.starts[dim] = window.start;
            frame.extents[dim] = tiles * self.results + TAPS as i64 - 1;
        }
        let ends = frame.starts.iter().zip(&frame.extents).map(|(start, n)| start + n);
        let leaves = frame.starts.iter().any(|&start| start < 0)
            || ends.zip(&shape).any(|(end, &extent)| end > extent);
        if !leaves {
            return ((source, self.convolution.windows().map(|(_, w)| w.start)), None);
        }
        let name = format!("{}_pad", kernel.name);
        let copy = add_temporary(program, name.clone(), frame.extents.iter().copied());
        let zero = Scalar::new(DType::F32, 0.0);
        let copied = copy_kernel(&kernel.origin, name, (source, copy), &frame, zero);
        ((copy, [0, 0]), Some(copied))
    }

    /// The data of every tile at the points. Axes: those of the tiles, then the channel.
    fn transform_data(&self, (source, starts): (BufferId, [i64; 2]), to: Points) -> Form {
        let windows = self.convolution.windows();
        let mut exprs = Exprs::new();
        let size = self.transform.points();
        let element = |exprs: &mut Exprs, i: usize, j: usize| {
            let coords = (0..=to.tiles as u32).map(|dim| {
                match windows.iter().position(|w| w.0 == dim as usize) {
                    Some(k) => {
                        let offset = starts[k] + [i, j][k] as i64;
                        Index::affine([(dim, self.results)], offset)
                    }
                    None => Index::axis(dim),
                }
            });
            load(exprs, source, Access::new(coords))
        };
        let values = both_ways(&mut exprs, &self.transform.data, size, by_parity, element);
        let stores = values.concat().into_iter().enumerate();
        let stores = stores.map(|(point, value)| to.store(point, value)).collect();
        let axes = self.tile_extents().into_iter().chain([self.channels]);
        map(axes, exprs, stores)
    }

    /// The filters with results' channels as neighbours. Axes: taps, channel, filter.
    fn turn_weights(&self, to: BufferId) -> Form {
        let c = self.convolution;
        let mut axes = vec![Index::constant(0i64); c.axes.len()];
        for (k, (_, window)) in (0u32..).zip(c.windows()) {
            axes[window.tap.0 as usize] = match window.flipped {
                true => Index::affine([(k, -1)], TAPS as i64 - 1),
                false => Index::axis(k),
            };
        }
        axes[c.channel.0 as usize] = Index::axis(2);
        axes[c.filter.0 as usize] = Index::axis(3);
        let mut exprs = Exprs::new();
        let value = Substitution::new(c.exprs, &axes).copy(&mut exprs, c.weights);
        let stores = vec![Store { buffer: to, access: Access::identity(4), value }];
        map([TAPS as i64, TAPS as i64, self.channels, self.filters], exprs, stores)
    }

    /// The filters at the points. Axes: channel, filter.
    fn transform_weights(&self, from: BufferId, to: BufferId) -> Form {
        let mut exprs = Exprs::new();
        let at = |first: &[usize]| {
            let fixed = first.iter().map(|&n| Index::constant(n as i64));
            Access::new(fixed.chain([Index::axis(0), Index::axis(1)]))
        };
        let element = |exprs: &mut Exprs, i: usize, j: usize| load(exprs, from, at(&[i, j]));
        let values = both_ways(&mut exprs, &self.transform.taps, TAPS, by_parity, element);
        let store = |(point, value)| Store { buffer: to, access: at(&[point]), value };
        let stores = values.concat().into_iter().enumerate().map(store).collect();
        map([self.channels, self.filters], exprs, stores)
    }

    /// One matrix product for each point. Axes: point, those of the tiles, filter; channel.
    fn products(&self, data: Points, weights: BufferId, sums: Points) -> Form {
        let (filter, channel) = (data.tiles as u32 + 1, data.tiles as u32 + 2);
        let at = |last: u32| {
            let tiles = (1..=data.tiles as u32).map(Index::axis);
            Access::new(tiles.chain([Index::axis(0), Index::axis(last)]))
        };
        let mut exprs = Exprs::new();
        let lhs = load(&mut exprs, data.buffer, at(channel));
        let of_weights = Access::new([0, channel, filter].map(Index::axis));
        let rhs = load(&mut exprs, weights, of_weights);
        let sum = exprs.add_typed(Expr::Folded(0), DType::F32);
        let out = [self.points()].into_iter().chain(self.tile_extents()).chain([self.filters]);
        Form::Contract {
            out: out.map(Size::from).collect(),
            reduce: [Size::from(self.channels)].into_iter().collect(),
            exprs,
            lhs,
            rhs,
            stores: vec![Store { buffer: sums.buffer, access: at(filter), value: sum }],
        }
    }

    /// Results, and what is stored of them: whole tiles, then those at the edges that are not.
    fn transform_sums(&self, sums: Points) -> Form {
        let windows = self.convolution.windows();
        let extents = windows.map(|(_, w)| self.convolution.extent(w.position));
        // Along a window: the first tile, how many tiles, and results in each.
        let stretches = extents.map(|n| {
            let (whole, rest) = (n / self.results, n % self.results);
            [(0, whole, self.results), (whole, 1, rest)]
        });
        let mut segments = Vec::new();
        for rows in stretches[0] {
            for columns in stretches[1] {
                if [rows, columns].iter().all(|s| s.1 > 0 && s.2 > 0) {
                    segments.push(self.transform_block(sums, [rows, columns]));
                }
            }
        }
        Form::Map { segments }
    }

    /// One segment of [`Rewriting::transform_sums`]. Axes: those of the tiles, then the filter.
    fn transform_block(&self, sums: Points, block: [(i64, i64, i64); 2]) -> Segment {
        let c = self.convolution;
        let windows = c.windows();
        let window_of = |dim: usize| windows.iter().position(|w| w.0 == dim);
        let filter = sums.tiles as u32;
        let mut exprs = Exprs::new();
        let size = self.transform.points();
        let element = |exprs: &mut Exprs, i: usize, j: usize| {
            let tile = (0..filter).map(|dim| match window_of(dim as usize) {
                Some(k) => Index::affine([(dim, 1)], block[k].0),
                None => Index::axis(dim),
            });
            let point = Index::constant((i * size + j) as i64);
            load(exprs, sums.buffer, Access::new(tile.chain([point, Index::axis(filter)])))
        };
        let values = both_ways(&mut exprs, &self.transform.results, size, by_pairs, element);
        let mut stores = Vec::new();
        for i in 0..block[0].2 {
            for j in 0..block[1].2 {
                let mut axes = vec![Index::constant(0i64); c.axes.len()];
                for (dim, walk) in c.dims.iter().enumerate() {
                    match (walk, window_of(dim)) {
                        (Dim::Window(window), Some(k)) => {
                            let offset = block[k].0 * self.results + [i, j][k];
                            axes[window.position.0 as usize] =
                                Index::affine([(dim as u32, self.results)], offset);
                        }
                        (Dim::Whole(axis), _) => axes[axis.0 as usize] = Index::axis(dim as u32),
                        (Dim::Window(_), None) => unreachable!("every window has a place"),
                    }
                }
                axes[c.filter.0 as usize] = Index::axis(filter);
                let mut copy = Substitution::new(c.exprs, &axes);
                copy.replace_sum(values[i as usize][j as usize]);
                for store in c.stores {
                    let value = copy.copy(&mut exprs, store.value);
                    let access = copy.access(&store.access);
                    stores.push(Store { buffer: store.buffer, access, value });
                }
            }
        }
        let extents = self.tile_extents();
        let tiles = extents.iter().enumerate().map(|(dim, &n)| window_of(dim).map_or(n, |k| block[k].1));
        let axes = tiles.chain([self.filters]).map(Size::from).collect();
        Segment { axes, exprs, stores }
    }
}

impl Points {
    fn store(self, point: usize, value: ExprId) -> Store {
        let channel = self.tiles as u32;
        let tile = (0..channel).map(Index::axis);
        let coords = tile.chain([Index::constant(point as i64), Index::axis(channel)]);
        Store { buffer: self.buffer, access: Access::new(coords), value }
    }
}

fn load(exprs: &mut Exprs, buffer: BufferId, access: Access) -> ExprId {
    let fill = Scalar::new(DType::F32, 0.0);
    exprs.add(Expr::Load { buffer, access, lookups: SmallVec::new(), fill })
}

fn map(axes: impl IntoIterator<Item = i64>, exprs: Exprs, stores: Vec<Store>) -> Form {
    let axes = axes.into_iter().map(Size::from).collect();
    Form::Map { segments: vec![Segment { axes, exprs, stores }] }
}
