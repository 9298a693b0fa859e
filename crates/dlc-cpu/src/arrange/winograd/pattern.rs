//! Which contractions are convolutions that Winograd's algorithm computes.

use super::transform::TAPS;
use dlc_kernel::{
    Axis, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program, Size, Store,
};

/// Channels that fill the vectors of the transforms.
const FEWEST_CHANNELS: i64 = 16;

/// A contraction over 3x3 windows that move by one step, and channels. Channels are neighbours in
/// memory in data and results.
pub(super) struct Convolution<'k> {
    /// Everything it computes.
    pub exprs: &'k Exprs,
    /// Its axes: results, then sums.
    pub axes: Vec<Size>,
    /// How many of them are axes of the results.
    pub outs: usize,
    /// The filters.
    pub weights: ExprId,
    /// What is stored of the sums.
    pub stores: &'k [Store],
    /// The data.
    pub buffer: BufferId,
    /// By dim of the data: what walks along it.
    pub dims: Vec<Dim>,
    /// The axis of the channels that are summed over.
    pub channel: Axis,
    /// The axis of the results' channels.
    pub filter: Axis,
}

/// What walks along a dim of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    /// An axis, from one end to the other.
    Whole(Axis),
    /// A window.
    Window(Window),
}

/// `data[position + tap + start]`, or, if it is flipped, `data[position - tap + start + 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// An axis of the results.
    pub position: Axis,
    /// An axis that is summed over.
    pub tap: Axis,
    /// The smallest coordinate at position 0.
    pub start: i64,
    /// Whether data and taps run against one another.
    pub flipped: bool,
}

impl<'k> Convolution<'k> {
    /// `kernel` as a convolution, if it is one.
    pub fn find(program: &Program, kernel: &'k Kernel) -> Option<Convolution<'k>> {
        let Form::Contract { lhs, rhs, .. } = &kernel.form else { return None };
        [(*lhs, *rhs), (*rhs, *lhs)].into_iter().find_map(|(data, weights)| {
            Convolution::with_data(program, &kernel.form, data, weights)
        })
    }

    fn with_data(
        program: &Program,
        form: &'k Form,
        data: ExprId,
        weights: ExprId,
    ) -> Option<Convolution<'k>> {
        let Form::Contract { out, reduce, exprs, stores, .. } = form else { return None };
        let Expr::Load { buffer, access, lookups, fill } = exprs.get(data) else { return None };
        let plain = lookups.is_empty() && access.guards.is_empty();
        if !plain || fill.dtype != DType::F32 || fill.value() != 0.0 {
            return None;
        }
        let axes = [&out[..], &reduce[..]].concat();
        let shape = &program.buffer(*buffer).shape;
        let dims = access.coords.iter().zip(shape).map(|(c, n)| Dim::new(c, n, &axes, out.len()));
        let dims = dims.collect::<Option<Vec<Dim>>>()?;
        let Some(&Dim::Whole(channel)) = dims.last() else { return None };
        let own = |&axis: &Axis| !access.uses(axis);
        let mut filters = (0..out.len() as u32).map(Axis).filter(own);
        let filter = filters.next().filter(|_| filters.next().is_none())?;
        let convolution = Convolution {
            exprs,
            axes,
            outs: out.len(),
            weights,
            stores,
            buffer: *buffer,
            dims,
            channel,
            filter,
        };
        convolution.is_complete().then_some(convolution)
    }

    /// The two windows, and the dims they are in.
    pub fn windows(&self) -> [(usize, Window); 2] {
        let dims = self.dims.iter().enumerate();
        let mut windows = dims.filter_map(|(dim, walk)| match walk {
            Dim::Window(window) => Some((dim, *window)),
            Dim::Whole(_) => None,
        });
        [(); 2].map(|()| windows.next().expect("a convolution has two windows"))
    }

    /// The number of points of an axis.
    pub fn extent(&self, axis: Axis) -> i64 {
        self.axes[axis.0 as usize].as_const().expect("sizes are bound")
    }

    /// What the filters are computed from.
    pub fn weight_buffers(&self) -> Vec<BufferId> {
        let nodes = self.exprs.reachable([self.weights]).into_iter();
        let loaded = nodes.filter_map(|id| match self.exprs.get(id) {
            Expr::Load { buffer, .. } => Some(*buffer),
            _ => None,
        });
        loaded.collect()
    }

    fn is_complete(&self) -> bool {
        let windows = self.dims.iter().filter(|d| matches!(d, Dim::Window(_))).count();
        let bound = self.axes.iter().all(|n| n.as_const().is_some());
        windows == 2
            && bound
            && self.axes.len() == self.outs + 3
            && (self.channel.0 as usize) >= self.outs
            && [self.channel, self.filter].iter().all(|&a| self.extent(a) >= FEWEST_CHANNELS)
            && self.weights_are_apart()
            && self.stores.iter().all(|s| self.stores_filters_last(s))
    }

    /// Filters depend on taps and channels alone.
    fn weights_are_apart(&self) -> bool {
        let windows = self.windows();
        let known = |axis: Axis| {
            [self.channel, self.filter].contains(&axis) || windows.iter().any(|w| w.1.tap == axis)
        };
        self.exprs.reachable([self.weights]).into_iter().all(|id| match self.exprs.get(id) {
            Expr::Load { access, .. } => (0..self.axes.len() as u32)
                .map(Axis)
                .all(|axis| known(axis) || !access.uses(axis)),
            Expr::Axis(_) | Expr::Inside(_) | Expr::Random { .. } => false,
            _ => true,
        })
    }

    fn stores_filters_last(&self, store: &Store) -> bool {
        store.access.coords.last().and_then(Index::as_axis) == Some(self.filter)
    }
}

impl Dim {
    fn new(coord: &Index, extent: &Size, axes: &[Size], outs: usize) -> Option<Dim> {
        if let Some(axis) = coord.as_axis() {
            return (&axes[axis.0 as usize] == extent).then_some(Dim::Whole(axis));
        }
        let [(position, 1), (tap, step)] = *coord.terms.as_slice() else { return None };
        let is_window = (position.0 as usize) < outs && (tap.0 as usize) >= outs && coord.div == 1;
        let taps = axes[tap.0 as usize].as_const()?;
        let offset = coord.offset.as_const()?;
        let flipped = step == -1;
        if !is_window || taps != TAPS as i64 || !(step == 1 || flipped) {
            return None;
        }
        let start = if flipped { offset - (TAPS as i64 - 1) } else { offset };
        Some(Dim::Window(Window { position, tap, start, flipped }))
    }
}
