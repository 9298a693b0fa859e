//! What both patterns share: data in tiles, and temporaries by points.

use super::pattern::{Dim, TAPS, Windowed};
use super::transform::{Transform, both_ways, by_parity};
use crate::arrange::entries::add_temporary;
use crate::arrange::pad::{Frame, copy_kernel};
use dlc_kernel::{
    Access, Axis, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Origin, Program,
    Scalar, Segment, Size, Store,
};
use smallvec::SmallVec;

/// Floats of a cache line.
const LINE: i64 = 16;

/// Positions in tiles.
pub(super) struct Tiles<'w, 'k> {
    /// The contraction.
    pub of: &'w Windowed<'k>,
    /// Its transforms.
    pub transform: Transform,
    /// Positions along a tile.
    pub size: i64,
    /// Tiles along each window.
    pub along: [i64; 2],
}

/// A buffer, and the coordinates of the first position of each window.
pub(super) type Placed = (BufferId, [i64; 2]);

/// A temporary of two dims: the points, and everything else in one.
#[derive(Clone)]
pub(super) struct Points {
    /// The temporary.
    pub buffer: BufferId,
    /// Elements from one place along each axis to the next.
    steps: Vec<i64>,
}

/// A walk through filters.
pub(super) struct Turn {
    /// Of its axes.
    pub extents: [i64; 5],
    /// The two taps.
    pub taps: [Index; 2],
    /// The channel of the data.
    pub channel: Index,
    /// The channel of the results.
    pub filter: Index,
}

impl Turn {
    /// The axes of the contraction as the walk goes along them.
    pub fn axes(&self, of: &Windowed) -> Vec<Index> {
        let mut axes = no_axes(of);
        for (tap, (_, window)) in self.taps.iter().zip(of.windows()) {
            let backwards = || tap.terms.iter().map(|t| (t.0.0, -t.1)).collect::<Vec<_>>();
            *slot(&mut axes, window.tap) = match window.flipped {
                true => Index::affine(backwards(), TAPS - 1),
                false => tap.clone(),
            };
        }
        *slot(&mut axes, of.channel) = self.channel.clone();
        *slot(&mut axes, of.filter) = self.filter.clone();
        axes
    }

    /// The element of `[tap, tap, channel, filter]`.
    pub fn turned(&self) -> Access {
        let channels = [self.channel.clone(), self.filter.clone()];
        Access::new(self.taps.iter().cloned().chain(channels))
    }
}

impl<'w, 'k> Tiles<'w, 'k> {
    /// Tiles of `size` positions.
    pub fn new(of: &'w Windowed<'k>, transform: Transform, size: i64) -> Tiles<'w, 'k> {
        let along = of.windows().map(|(_, w)| (of.extent(w.position) - 1) / size + 1);
        Tiles { of, transform, size, along }
    }

    /// The points of a tile.
    pub fn points(&self) -> i64 {
        (self.transform.points() * self.transform.points()) as i64
    }

    /// How filters that lie as the user sees them are walked through against the ones in between,
    /// whose channels of results are neighbours: `[block, channel, tap, tap, filter of the block]`.
    /// A block's cache lines are all still there when the next tap is wanted.
    pub fn turn(&self) -> Turn {
        let block = if self.filters() % LINE == 0 { LINE } else { self.filters() };
        let taps = [2, 3].map(Index::axis);
        let filter = Index::affine([(0, block), (4, 1)], 0i64);
        let extents = [self.filters() / block, self.channels(), TAPS, TAPS, block];
        Turn { extents, taps, channel: Index::axis(1), filter }
    }

    /// Channels of the data.
    pub fn channels(&self) -> i64 {
        self.of.extent(self.of.channel)
    }

    /// Channels of the other factor.
    pub fn filters(&self) -> i64 {
        self.of.extent(self.of.filter)
    }

    /// How many tiles there are along each dim of the data but the last, the other dims' places
    /// being tiles too.
    pub fn extents(&self) -> Vec<i64> {
        let dims = self.of.dims.iter().enumerate();
        let extent = |(dim, walk): (usize, &Dim)| match walk {
            Dim::Window(_) => self.along[self.of.window_in(dim).expect("a window is in its dim")],
            Dim::Whole(axis) => self.of.extent(*axis),
        };
        let mut all: Vec<i64> = dims.map(extent).collect();
        all.pop();
        all
    }

    /// All tiles.
    pub fn count(&self) -> i64 {
        self.extents().iter().product()
    }

    /// The axes that walk through the data, if a tile of it has `size` elements along a window:
    /// number `dim` along dim `dim`.
    pub fn walk(&self, size: i64, element: [usize; 2], starts: [i64; 2]) -> Access {
        let coord = |dim: usize| match self.of.window_in(dim) {
            Some(k) => Index::affine([(dim as u32, size)], starts[k] + element[k] as i64),
            None => Index::axis(dim as u32),
        };
        Access::new((0..self.of.dims.len()).map(coord))
    }

    /// The data with all tiles whole, and the kernel that copies it if it has to be.
    pub fn framed(&self, program: &mut Program, kernel: &Kernel) -> (Placed, Option<Kernel>) {
        let windows = self.of.windows();
        let starts = windows.map(|(dim, w)| (dim, w.start));
        let length = |tiles: i64| tiles * self.size + TAPS - 1;
        self.whole(program, kernel, ("pad", self.of.buffer), starts, self.along.map(length))
    }

    /// A buffer from `starts` on for `lengths` elements along two dims: itself, if that is inside.
    pub fn whole(
        &self,
        program: &mut Program,
        kernel: &Kernel,
        (part, source): (&str, BufferId),
        starts: [(usize, i64); 2],
        lengths: [i64; 2],
    ) -> (Placed, Option<Kernel>) {
        let shape = &program.buffer(source).shape;
        let shape: Vec<i64> =
            shape.iter().map(|n| n.as_const().expect("sizes are bound")).collect();
        let mut frame = Frame {
            starts: shape.iter().map(|_| 0).collect(),
            extents: shape.iter().copied().collect(),
        };
        for ((dim, start), length) in starts.into_iter().zip(lengths) {
            frame.starts[dim] = start;
            frame.extents[dim] = length;
        }
        let inside =
            |(dim, start): (usize, i64)| start >= 0 && start + frame.extents[dim] <= shape[dim];
        if starts.into_iter().all(inside) {
            return ((source, starts.map(|s| s.1)), None);
        }
        let name = format!("{}_{part}", kernel.name);
        let copy = add_temporary(program, name.clone(), frame.extents.iter().copied());
        let zero = Scalar::new(DType::F32, 0.0);
        let copied = copy_kernel(&kernel.origin, name, (source, copy), &frame, zero);
        ((copy, [0, 0]), Some(copied))
    }

    /// The data of every tile at the points. Axes: those of the tiles, then the channel.
    pub fn transform_data(&self, (source, starts): Placed, to: &Points) -> Form {
        let mut exprs = Exprs::new();
        let element = |exprs: &mut Exprs, at: [usize; 2]| {
            load(exprs, source, self.walk(self.size, at, starts))
        };
        let values = both_ways(&mut exprs, &self.transform.data, by_parity, element);
        self.by_points(exprs, values, to, self.channels())
    }

    /// A map over tiles and channels that stores a value for each point.
    pub fn by_points(
        &self,
        exprs: Exprs,
        values: Vec<Vec<ExprId>>,
        to: &Points,
        channels: i64,
    ) -> Form {
        let axes: Vec<i64> = self.extents().into_iter().chain([channels]).collect();
        let places: Vec<Index> = (0..axes.len() as u32).map(Index::axis).collect();
        map(axes, exprs, to.stores(values, &places))
    }
}

impl Points {
    /// A temporary for `points` points, each with places along `axes`, the last innermost.
    pub fn new(program: &mut Program, name: String, points: i64, axes: &[i64]) -> Points {
        let steps = (1..=axes.len()).map(|k| axes[k..].iter().product()).collect();
        let all: i64 = axes.iter().product();
        // An odd number of cache lines: a tile's points do not fall into one set of a cache.
        let lines = ((all + LINE - 1) / LINE) | 1;
        Points { buffer: add_temporary(program, name, [points, lines * LINE]), steps }
    }

    /// Stores of a value for each point at a place.
    pub fn stores(&self, values: Vec<Vec<ExprId>>, places: &[Index]) -> Vec<Store> {
        let store = |(point, value)| Store {
            buffer: self.buffer,
            access: self.at(Index::constant(point as i64), places),
            value,
        };
        values.concat().into_iter().enumerate().map(store).collect()
    }

    /// The element of a point at a place.
    pub fn at(&self, point: Index, places: &[Index]) -> Access {
        let mut place = Index::constant(0i64);
        for (index, &step) in places.iter().zip(&self.steps) {
            let terms = index.terms.iter().map(|&(axis, coef)| (axis.0, coef * step));
            let known = place.terms.iter().map(|&(axis, coef)| (axis.0, coef));
            let offset = place.offset.clone() + index.offset.clone() * Size::from(step);
            place = Index::affine(known.chain(terms).collect::<Vec<_>>(), offset);
        }
        Access::new([point, place])
    }
}

/// A kernel named for its part in what replaces `kernel`.
pub(super) fn named(kernel: &Kernel, part: &str, form: Form) -> Kernel {
    let origin: Origin = kernel.origin.clone();
    Kernel { name: format!("{}_{part}", kernel.name), origin, form }
}

/// A load that is inside.
pub(super) fn load(exprs: &mut Exprs, buffer: BufferId, access: Access) -> ExprId {
    let fill = Scalar::new(DType::F32, 0.0);
    exprs.add(Expr::Load { buffer, access, lookups: SmallVec::new(), fill })
}

/// A map of one segment.
pub(super) fn map(axes: impl IntoIterator<Item = i64>, exprs: Exprs, stores: Vec<Store>) -> Form {
    let axes = axes.into_iter().map(Size::from).collect();
    Form::Map { segments: vec![Segment { axes, exprs, stores }] }
}

/// A contraction of bare loads whose sums are stored as they are.
pub(super) fn contract(
    out: Vec<i64>,
    reduce: Vec<i64>,
    operands: [(BufferId, Access); 2],
    to: (BufferId, Access),
) -> Form {
    let mut exprs = Exprs::new();
    let [lhs, rhs] = operands.map(|(buffer, access)| load(&mut exprs, buffer, access));
    let value = exprs.add_typed(Expr::Folded(0), DType::F32);
    let sizes = |axes: Vec<i64>| axes.into_iter().map(Size::from).collect();
    let stores = vec![Store { buffer: to.0, access: to.1, value }];
    Form::contract(sizes(out), sizes(reduce), exprs, [lhs, rhs], stores)
}

/// By axis of a contraction: nothing yet.
pub(super) fn no_axes(windowed: &Windowed) -> Vec<Index> {
    vec![Index::constant(0i64); windowed.axes.len()]
}

/// The place of an axis in a list of them.
pub(super) fn slot(axes: &mut [Index], axis: Axis) -> &mut Index {
    &mut axes[axis.0 as usize]
}
