//! Which contractions Winograd's algorithm computes.
//!
//! In both patterns data is read at `position + tap`, in two of its dims. In a convolution positions
//! are the results' and taps are summed over; in the gradient of its filters it is the other way
//! round. The last dim of data is its channel, and an axis that only the other factor has is the
//! channel of the results or of their gradient.

use dlc_kernel::{
    Axis, BufferId, DType, Expr, ExprId, Exprs, Form, Index, Kernel, Program, Size, Store,
};

/// Taps of the filters.
pub(super) const TAPS: i64 = 3;

/// Channels that fill the vectors of the transforms.
const FEWEST_CHANNELS: i64 = 16;

/// A contraction over 3x3 windows that move by one step, and channels.
pub(super) struct Windowed<'k> {
    /// What it computes.
    pub task: Task,
    /// Everything it computes.
    pub exprs: &'k Exprs,
    /// Its axes: results, then sums.
    pub axes: Vec<Size>,
    /// How many of them are axes of the results.
    pub outs: usize,
    /// The factor that is not the data: filters, or the gradient of the results.
    pub factor: ExprId,
    /// What is stored of the sums.
    pub stores: &'k [Store],
    /// The data.
    pub buffer: BufferId,
    /// By dim of the data: what walks along it.
    pub dims: Vec<Dim>,
    /// The axis of the data's channels.
    pub channel: Axis,
    /// The axis of the other factor's channels.
    pub filter: Axis,
}

/// What is computed from windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Results from filters.
    Convolution,
    /// The gradient of filters from that of results.
    FilterGradient,
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
    /// Where the window is.
    pub position: Axis,
    /// Where in the window.
    pub tap: Axis,
    /// The smallest coordinate at position 0.
    pub start: i64,
    /// Whether data and taps run against one another.
    pub flipped: bool,
}

impl<'k> Windowed<'k> {
    /// `kernel` as one of the patterns, if it is one.
    pub fn find(program: &Program, kernel: &'k Kernel) -> Option<Windowed<'k>> {
        let Form::Contract { lhs, rhs, .. } = &kernel.form else { return None };
        if kernel.form.has_several_sums() {
            return None;
        }
        let operands = [(*lhs, *rhs), (*rhs, *lhs)].into_iter();
        let mut tasks =
            operands.flat_map(|o| [Task::Convolution, Task::FilterGradient].map(|task| (task, o)));
        tasks.find_map(|(task, (data, factor))| {
            Windowed::new(program, &kernel.form, task, data, factor)
        })
    }

    fn new(
        program: &Program,
        form: &'k Form,
        task: Task,
        data: ExprId,
        factor: ExprId,
    ) -> Option<Windowed<'k>> {
        let Form::Contract { out, reduce, exprs, stores, .. } = form else { return None };
        let Expr::Load { buffer, access, lookups, fill } = exprs.get(data) else { return None };
        let plain = lookups.is_empty() && access.guards.is_empty();
        if !plain || fill.dtype != DType::F32 || fill.value() != 0.0 {
            return None;
        }
        let (axes, outs) = ([&out[..], &reduce[..]].concat(), out.len());
        let shape = &program.buffer(*buffer).shape;
        let dims = access.coords.iter().zip(shape);
        let dims = dims.map(|(coord, extent)| Dim::new(coord, extent, (&axes, outs), task));
        let dims = dims.collect::<Option<Vec<Dim>>>()?;
        let Some(&Dim::Whole(channel)) = dims.last() else { return None };
        let own = |&axis: &Axis| !access.uses(axis);
        let mut filters = (0..out.len() as u32).map(Axis).filter(own);
        let filter = filters.next().filter(|_| filters.next().is_none())?;
        let (buffer, stores) = (*buffer, &stores[..]);
        let windowed =
            Windowed { task, exprs, axes, outs, factor, stores, buffer, dims, channel, filter };
        windowed.is_complete().then_some(windowed)
    }

    /// The two windows, and the dims they are in.
    pub fn windows(&self) -> [(usize, Window); 2] {
        let dims = self.dims.iter().enumerate();
        let mut windows = dims.filter_map(|(dim, walk)| match walk {
            Dim::Window(window) => Some((dim, *window)),
            Dim::Whole(_) => None,
        });
        [(); 2].map(|()| windows.next().expect("there are two windows"))
    }

    /// Which window is in a dim of the data.
    pub fn window_in(&self, dim: usize) -> Option<usize> {
        self.windows().iter().position(|w| w.0 == dim)
    }

    /// The number of points of an axis.
    pub fn extent(&self, axis: Axis) -> i64 {
        self.axes[axis.0 as usize].as_const().expect("sizes are bound")
    }

    /// What the other factor is computed from.
    pub fn factor_buffers(&self) -> Vec<BufferId> {
        self.exprs.loads([self.factor]).map(|(buffer, _)| buffer).collect()
    }

    fn is_complete(&self) -> bool {
        let windows = self.dims.iter().filter(|d| matches!(d, Dim::Window(_))).count();
        let bound = self.axes.iter().all(|n| n.as_const().is_some_and(|n| n > 0));
        let many = |axis: &Axis| self.extent(*axis) >= FEWEST_CHANNELS;
        let sums_channels = (self.channel.0 as usize) >= self.outs;
        let fits = match self.task {
            Task::Convolution => sums_channels && self.axes.len() == self.outs + TAPS as usize,
            Task::FilterGradient => !sums_channels && self.outs == 4,
        };
        windows == 2
            && bound
            && fits
            && [self.channel, self.filter].iter().all(many)
            && self.factor_is_apart()
            && self.is_vectorized()
    }

    /// Filters depend on taps and channels alone; gradients on positions and channels.
    fn factor_is_apart(&self) -> bool {
        let windows = self.windows();
        let known = |axis: Axis| match self.task {
            Task::Convolution => {
                [self.channel, self.filter].contains(&axis)
                    || windows.iter().any(|w| w.1.tap == axis)
            }
            Task::FilterGradient => axis == self.filter || (axis.0 as usize) >= self.outs,
        };
        self.exprs.reachable([self.factor]).into_iter().all(|id| match self.exprs.get(id) {
            Expr::Load { access, .. } => {
                let all = (0..self.axes.len() as u32).map(Axis);
                all.into_iter().all(|axis| known(axis) || !access.uses(axis))
            }
            Expr::Axis(_) | Expr::Inside(_) | Expr::Random { .. } => false,
            _ => true,
        })
    }

    /// Whether the channels that are not the data's are neighbours in memory: those of results, or
    /// of their gradient, which then is read as it is.
    fn is_vectorized(&self) -> bool {
        let is_filter = |coord: Option<&Index>| coord.and_then(Index::as_axis) == Some(self.filter);
        match self.task {
            Task::Convolution => self.stores.iter().all(|s| is_filter(s.access.coords.last())),
            Task::FilterGradient => match self.exprs.get(self.factor) {
                Expr::Load { access, lookups, .. } => {
                    let whole = access.guards.is_empty() && lookups.is_empty();
                    let plain = access.coords.iter().all(|c| c.as_axis().is_some());
                    whole && plain && is_filter(access.coords.last())
                }
                _ => false,
            },
        }
    }
}

impl Dim {
    fn new(
        coord: &Index,
        extent: &Size,
        (axes, outs): (&[Size], usize),
        task: Task,
    ) -> Option<Dim> {
        if let Some(axis) = coord.as_axis() {
            return (&axes[axis.0 as usize] == extent).then_some(Dim::Whole(axis));
        }
        let [out, sum] = *coord.terms.as_slice() else { return None };
        let ((position, by), (tap, step)) = match task {
            Task::Convolution => (out, sum),
            Task::FilterGradient => (sum, out),
        };
        let apart = (out.0.0 as usize) < outs && (sum.0.0 as usize) >= outs && coord.div == 1;
        let taps = axes[tap.0 as usize].as_const()?;
        let offset = coord.offset.as_const()?;
        let flipped = step == -1;
        let forward = task == Task::Convolution || !flipped;
        if !apart || taps != TAPS || by != 1 || step.abs() != 1 || !forward {
            return None;
        }
        let start = if flipped { offset - (TAPS - 1) } else { offset };
        Some(Dim::Window(Window { position, tap, start, flipped }))
    }
}
