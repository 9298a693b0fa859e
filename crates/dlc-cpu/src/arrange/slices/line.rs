//! Lines: axes that kernels which follow each other have in common.

use super::{Loops, bytes};
use crate::schedule::domain::extents;
use dlc_kernel::{Access, Axis, BufferId, DType, Form, Kernel, Lookup, Part, Program, Size, Store};
use rustc_hash::FxHashMap;

/// An axis that the kernels of a chain have in common, so far.
#[derive(Clone)]
pub(super) struct Line {
    /// By kernel: which of its axes it is.
    pub axes: Vec<Axis>,
    /// How many points it has.
    pub extent: i64,
    /// By buffer that they write: which dim it goes along, if it is one.
    pub dims: FxHashMap<BufferId, usize>,
}

impl Line {
    /// The axes that a kernel's points may be taken apart by, if it can be part of a chain.
    pub fn all(kernel: &Kernel, around: Loops) -> Vec<Line> {
        let axes = match &kernel.form {
            Form::Map { segments } if segments.len() == 1 => &segments[0].axes,
            Form::Row { outer, .. } => outer,
            Form::Contract { out, .. } => out,
            _ => return Vec::new(),
        };
        let Ok(extents) = extents(axes) else { return Vec::new() };
        if kernel.may_fail() || kernel.form.has_several_sums() {
            return Vec::new();
        }
        let parts = kernel.parts();
        let line = |(axis, extent)| {
            let stores = parts.iter().flat_map(|part| &part.stores);
            let dim = |store: &&Store| {
                let dim = store.access.coords.iter().position(|c| c.as_axis() == Some(axis))?;
                Some((store.buffer, dim))
            };
            Line { axes: vec![axis], extent, dims: stores.filter_map(dim).collect() }
        };
        let axes = (0u32..).map(Axis).zip(extents).skip(around.depth as usize);
        axes.filter(|a| a.1 > 1).map(line).collect()
    }

    /// The axes that a contraction sums over, which a line may end at: its slices are added up. Outside of
    /// loops, threads share out the terms of long sums, and slices would leave them little.
    fn sums(kernel: &Kernel, around: Loops) -> Vec<Line> {
        let Form::Contract { out, reduce, exprs, lhs, .. } = &kernel.form else {
            return Vec::new();
        };
        let Ok(extents) = extents(reduce) else { return Vec::new() };
        if around.depth == 0 || kernel.form.has_several_sums() || exprs.dtype(*lhs) != DType::F32 {
            return Vec::new();
        }
        let axes = (out.len() as u32..).map(Axis).zip(extents);
        let line = |(axis, extent)| Line { axes: vec![axis], extent, dims: FxHashMap::default() };
        axes.map(line).collect()
    }

    /// The lines that go on through the next kernel, which reads some of what is `written`.
    pub fn go_on(
        lines: Vec<Line>,
        written: &[BufferId],
        kernel: &Kernel,
        around: Loops,
    ) -> Vec<Line> {
        let own = [Line::all(kernel, around), Line::sums(kernel, around)].concat();
        let parts = kernel.parts();
        let read: Vec<_> =
            parts.iter().flat_map(Part::loads).filter(|load| written.contains(&load.0)).collect();
        let through = |mut line: Line| {
            let fits = |next: &&Line| {
                let along = |(id, access, lookups): &(BufferId, &Access, &[Lookup])| {
                    let dim = line.dims.get(id).filter(|_| lookups.is_empty());
                    dim.is_some_and(|&dim| access.coords[dim].as_axis() == Some(next.axes[0]))
                };
                next.extent == line.extent && read.iter().all(along)
            };
            let next = own.iter().find(fits)?;
            line.axes.extend(&next.axes);
            line.dims.extend(&next.dims);
            Some(line)
        };
        lines.into_iter().filter_map(through).collect()
    }

    /// The bytes that the kernels read beside `local`, the same ones at every step, and of sums that slices
    /// are added to.
    pub fn shared(&self, program: &Program, kernels: &[&Kernel], local: &[BufferId]) -> i64 {
        let mut found: FxHashMap<(BufferId, Access), i64> = FxHashMap::default();
        let mut sums = 0;
        for (kernel, &axis) in kernels.iter().zip(&self.axes) {
            if let Some(out) = summed(kernel, axis) {
                let points: i64 = out.iter().filter_map(Size::as_const).product();
                sums += 2 * DType::F32.bytes() as i64 * points;
            }
            for part in kernel.parts() {
                let extent = |(at, size): (u32, &Size)| (Axis(at), size.as_const().unwrap_or(1));
                let axes: Vec<(Axis, i64)> = (0..).zip(&part.axes).map(extent).collect();
                let stays =
                    |id: &BufferId, access: &Access| !local.contains(id) && !access.uses(axis);
                for (id, access, _) in part.loads().filter(|load| stays(&load.0, load.1)) {
                    let used = axes.iter().filter(|(axis, _)| access.uses(*axis));
                    let elements = used.fold(1i64, |n, (_, extent)| n.saturating_mul(*extent));
                    let size = program.buffer(id).dtype.bytes() as i64;
                    let read = elements.saturating_mul(size).min(bytes(program, id));
                    found.insert((id, access.clone()), read);
                }
            }
        }
        found.values().sum::<i64>() + sums
    }
}

/// What a kernel computes a sum for each point of, if `axis` is one that it sums over.
pub(super) fn summed(kernel: &Kernel, axis: Axis) -> Option<&[Size]> {
    match &kernel.form {
        Form::Contract { out, .. } if axis.0 as usize >= out.len() => Some(out),
        _ => None,
    }
}
