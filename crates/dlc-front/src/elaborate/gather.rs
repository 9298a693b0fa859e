//! Subscripts that are data: `E[ids[n, t], d]`.

use dlc_graph::Value;
use dlc_graph::op::Gather;
use dlc_kernel::{Index, Size};

use super::pointwise::union;
use super::read::{Coord, axes_of};
use super::value::{Axes, Cell, Val};
use super::{AxisInfo, Elab, Eval};
use crate::source::Span;

impl Elab<'_> {
    /// Reads where at least one coordinate is data. Each such coordinate is one gather; the others'
    /// dims stand under axes of their own meanwhile.
    pub(super) fn gather(&mut self, tensor: Value, coords: Vec<Coord>, span: Span) -> Eval<Val> {
        let depth = self.axes.len();
        let result = self.gather_steps(tensor, coords, span);
        self.axes.truncate(depth);
        result
    }

    fn gather_steps(&mut self, tensor: Value, coords: Vec<Coord>, span: Span) -> Eval<Val> {
        let shape = self.ty(tensor).shape.clone();
        let mut affine: Vec<Index> = Vec::new();
        let mut lookups: Vec<(u32, Value, Axes)> = Vec::new();
        for (coord, extent) in coords.into_iter().zip(shape) {
            match coord {
                Coord::Affine(index) => affine.push(index),
                Coord::Data(ids, axes) => {
                    let raw = self.raw_axis(extent);
                    lookups.push((raw, ids, axes));
                    affine.push(Index::axis(raw));
                }
            }
        }
        let bounds = self.bounds(tensor, &affine);
        if let Some(noted) = self.guards.last_mut() {
            noted.extend(bounds);
        }
        let (mut value, mut coords) = (tensor, affine);
        let mut axes = axes_of(&coords, &[]);
        for (raw, ids, of) in lookups {
            (value, axes) = self.look_up((value, &coords), &axes, raw, (ids, of), span)?;
            coords = axes.iter().map(|&axis| Index::axis(axis)).collect();
        }
        Ok(Val::Cell(Cell::Data { value, axes }))
    }

    /// An axis for a dim that a gather will replace.
    fn raw_axis(&mut self, extent: Size) -> u32 {
        self.axes.push(AxisInfo { name: "".into(), extent });
        self.axes.len() as u32 - 1
    }

    /// Replaces axis `raw` of a read by looking up `ids` in it.
    fn look_up(
        &mut self,
        read: (Value, &[Index]),
        axes: &Axes,
        raw: u32,
        ids: (Value, Axes),
        span: Span,
    ) -> Eval<(Value, Axes)> {
        let (ids, of) = ids;
        let shared: Axes = axes.iter().filter(|a| of.contains(a)).copied().collect();
        let rest: Axes =
            axes.iter().filter(|a| **a != raw && !shared.contains(a)).copied().collect();
        let own: Axes = of.iter().filter(|a| !shared.contains(a)).copied().collect();
        let order: Axes = shared.iter().copied().chain([raw]).chain(rest.iter().copied()).collect();
        let value = self.view_cell(read.0, read.1, &[], &order, 0.0, span)?;
        let ids_order: Axes = shared.iter().chain(&own).copied().collect();
        let ids = self.reorder(ids, &of, &ids_order, span)?;
        let batch = shared.len() as u32;
        let found = self.add(Gather { axis: batch, batch }, &[value, ids], span)?;
        let have: Axes = shared.iter().chain(&own).chain(&rest).copied().collect();
        let sorted = union(&have, &[]);
        Ok((self.reorder(found, &have, &sorted, span)?, sorted))
    }

    /// The same data with its axes in another order.
    fn reorder(&mut self, value: Value, from: &Axes, to: &Axes, span: Span) -> Eval<Value> {
        let coords: Vec<Index> = from.iter().map(|&axis| Index::axis(axis)).collect();
        debug_assert_eq!(axes_of(&coords, &[]).len(), to.len(), "the axes are the same");
        self.view_cell(value, &coords, &[], to, 0.0, span)
    }
}
