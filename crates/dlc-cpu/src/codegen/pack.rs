//! Packing: an operand's elements, evaluated into panels that a leaf reads.
//!
//! A panel holds, for every step of the depth, the values of neighbouring positions of a side. The
//! inner loop walks a run along one axis; where the operand is just a load, the part of a run that
//! is inside is copied, the rest filled. Neighbours that are all inside are copied by vectors (`pack/even.rs`).

mod even;

use super::contract::Contraction;
use super::nest::{Point, Run};
use super::{Emitter, LANES, NOTRAP};
use crate::schedule::contract::{Axes, BareLoad, PackOrder, Side};
use cranelift_codegen::ir::types::{F32, F32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::Axis;
use dlc_kernel::place::Quotient;

/// Steps of the depth that are packed for all positions of a panel before those that follow.
const BLOCK: i64 = 64;

/// Where packed values go: position `p` of the side at step `k` of the depth is at
/// `base + 4 * ((k - depth.0) * width + p - first)`.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// The address.
    pub base: Value,
    /// The first position of the side.
    pub first: Value,
    /// How many positions.
    pub width: i64,
    /// The steps of the depth that are packed.
    pub depth: (Value, Value),
}

/// Where a run goes: an address, and bytes from one value to the next.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// Where the first value goes.
    pub at: Value,
    /// Bytes.
    pub step: i64,
}

impl Contraction<'_, '_> {
    /// Packs a side; `point` has the batch axes set.
    pub fn pack(&self, e: &mut Emitter, side: &Side, point: &Point, panel: Packing) {
        let Packing { base, first, width, depth } = panel;
        let bare = self.all_neighbours(side);
        match (side.order, bare) {
            (PackOrder::Side, Some(bare)) => self.pack_lines(e, side, bare, point, panel),
            (PackOrder::Side, None) => {
                let end = e.b.ins().iadd_imm_s(first, width);
                e.for_runs(&side.axes, point, first, end, |e, point, run| {
                    let column = offset(e, base, run.flat, first, 4);
                    self.for_depth(e, point, depth, |e, point, k| {
                        let at = offset(e, column, k, depth.0, 4 * width);
                        let to = Target { at, step: 4 };
                        self.pack_run(e, side, point, side.axes.last(), run, to);
                    });
                });
            }
            (PackOrder::Depth, bare) => {
                // The lines of some steps stay near until all positions are in them.
                let axes = &self.schedule.depth;
                let neighbours = bare.map(|bare| axes.even_run(&bare.place.linear));
                let run = neighbours.unwrap_or(axes.last_extent()).clamp(1, BLOCK);
                let block = BLOCK / run * run;
                e.for_each(depth.0, depth.1, block, |e, k| {
                    let end = e.b.ins().iadd_imm_s(k, block);
                    let steps = (k, e.b.ins().smin(end, depth.1));
                    let base = offset(e, base, k, depth.0, 4 * width);
                    let panel = Packing { base, depth: steps, ..panel };
                    match bare {
                        Some(bare) => self.pack_rows(e, side, bare, point, panel),
                        None => self.pack_positions(e, side, point, panel),
                    }
                });
            }
        }
    }

    /// Packs by runs of the depth, one position after the other.
    fn pack_positions(&self, e: &mut Emitter, side: &Side, point: &Point, panel: Packing) {
        let Packing { base, first, width, depth: (from, to) } = panel;
        let (depth, end) = (&self.schedule.depth, e.b.ins().iadd_imm_s(first, width));
        e.for_each(first, end, 1, |e, p| {
            let mut point = point.clone();
            e.set_axes(&mut point, &side.axes, p);
            let column = offset(e, base, p, first, 4);
            e.for_runs(depth, &point, from, to, |e, point, run| {
                let at = offset(e, column, run.flat, from, 4 * width);
                let to = Target { at, step: 4 * width };
                self.pack_run(e, side, point, depth.last(), run, to);
            });
        });
    }

    /// `body` for every step of the depth in `range`; nested loops where the range is whole in all
    /// axes but the first.
    fn for_depth(
        &self,
        e: &mut Emitter,
        point: &Point,
        range: (Value, Value),
        body: impl FnOnce(&mut Emitter, &Point, Value),
    ) {
        let s = self.schedule;
        if s.depth_is_whole() {
            let inner = s.inner_depth();
            let (first, end) = (e.divide(range.0, inner).0, e.divide(range.1, inner).0);
            return nest(e, &s.depth, point, (first, end), None, Box::new(body));
        }
        e.for_each(range.0, range.1, 1, |e, k| {
            let mut point = point.clone();
            e.set_axes(&mut point, &s.depth, k);
            body(e, &point, k);
        });
    }

    /// Packs a run along `axis` to an address and its step.
    fn pack_run(
        &self,
        e: &mut Emitter,
        side: &Side,
        point: &Point,
        axis: Option<Axis>,
        run: Run,
        to: Target,
    ) {
        let axis = axis.expect("runs are along an axis");
        match &side.bare {
            Some(bare) if moves_evenly(bare, axis) => copy_run(e, bare, point, axis, run, to),
            Some(bare) if is_every_nth(bare, axis) => spread_run(e, bare, point, axis, run, to),
            _ => {
                self.for_points(e, &[side.operand], point, (axis, run), &[LANES], |e, ev, step| {
                    let address = e.add_scaled(to.at, step.at, to.step);
                    match step.lanes {
                        1 => {
                            let value = ev.scalar(e, side.operand);
                            e.b.ins().store(NOTRAP, value, address, 0);
                        }
                        _ => {
                            let value = ev.vector(e, side.operand);
                            store_lanes(e, value, address, to.step);
                        }
                    }
                })
            }
        }
    }
}

/// What a loop nest ends in: the point and its position in the flat range.
type Body<'b> = Box<dyn FnOnce(&mut Emitter, &Point, Value) + 'b>;

/// One loop for each of `axes`, the first one over `range`; `outer` is the position so far.
fn nest(
    e: &mut Emitter,
    axes: &Axes,
    point: &Point,
    range: (Value, Value),
    outer: Option<Value>,
    body: Body<'_>,
) {
    let Some((&axis, &extent)) = axes.axes.first().zip(axes.extents.first()) else {
        let position = outer.unwrap_or(range.0);
        return body(e, point, position);
    };
    let inner = Axes { axes: axes.axes[1..].to_vec(), extents: axes.extents[1..].to_vec() };
    e.for_each(range.0, range.1, 1, |e, v| {
        let mut point = point.clone();
        point[axis.0 as usize] = v;
        let position = outer.map_or(v, |outer| e.add_scaled(v, outer, extent));
        let range = (e.int(0), e.int(inner.extents.first().copied().unwrap_or(1)));
        nest(e, &inner, &point, range, Some(position), body);
    });
}

/// Whether a step along `axis` always moves the source by the same distance.
fn moves_evenly(bare: &BareLoad, axis: Axis) -> bool {
    bare.place.quotients.iter().all(|q| q.index.coef(axis) == 0)
        && bare.place.checks.iter().all(|c| c.div == 1 || c.index.coef(axis) == 0)
}

/// Whether the source moves by one coordinate at every n-th step along `axis` and the steps between
/// are outside: the gradient of a strided read.
fn is_every_nth(bare: &BareLoad, axis: Axis) -> bool {
    let on_axis = |q: &&Quotient| q.index.coef(axis) != 0;
    let place = &bare.place;
    place.linear.coef(axis) == 0
        && place.quotients.iter().filter(on_axis).count() == 1
        && place.quotients.iter().filter(on_axis).all(|q| q.index.coef(axis) == 1)
        && place.checks.iter().all(|c| matches!(c.index.coef(axis), 0 | 1))
}

/// Copies what is inside of a run and fills the rest.
fn copy_run(e: &mut Emitter, bare: &BareLoad, point: &Point, axis: Axis, run: Run, to: Target) {
    let from = e.address(bare.buffer, &bare.place, point, 4);
    let from_step = 4 * bare.place.linear.coef(axis);
    if bare.place.checks.is_empty() {
        let count = e.b.ins().isub(run.end, run.start);
        return copy(e, (from, from_step), to, count);
    }
    let (low, high) = e.inside(bare.place.checks.iter(), point, axis, run);
    fill(e, bare, to, (run.start, low));
    let skipped = e.b.ins().isub(low, run.start);
    let from = e.add_scaled(from, skipped, from_step);
    let first = e.add_scaled(to.at, skipped, to.step);
    let count = e.b.ins().isub(high, low);
    copy(e, (from, from_step), Target { at: first, ..to }, count);
    let after = e.add_scaled(first, count, to.step);
    fill(e, bare, Target { at: after, ..to }, (high, run.end));
}

/// Copies `count` floats from an address and step.
fn copy(e: &mut Emitter, from: (Value, i64), to: Target, count: Value) {
    let zero = e.int(0);
    let whole = e.b.ins().band_imm_s(count, -4);
    e.for_each(zero, whole, 4, |e, i| {
        if from.1 == 4 && to.step == 4 {
            return copy_vector(e, from.0, to.at, i);
        }
        let source = e.add_scaled(from.0, i, from.1);
        let target = e.add_scaled(to.at, i, to.step);
        for lane in 0..4 {
            let source = e.b.ins().iadd_imm_s(source, from.1 * lane);
            let target = e.b.ins().iadd_imm_s(target, to.step * lane);
            let value = e.b.ins().load(F32, NOTRAP, source, 0);
            e.b.ins().store(NOTRAP, value, target, 0);
        }
    });
    e.for_each(whole, count, 1, |e, i| {
        let source = e.add_scaled(from.0, i, from.1);
        let target = e.add_scaled(to.at, i, to.step);
        let value = e.b.ins().load(F32, NOTRAP, source, 0);
        e.b.ins().store(NOTRAP, value, target, 0);
    });
}

/// Copies the four floats from position `i` on.
fn copy_vector(e: &mut Emitter, from: Value, to: Value, i: Value) {
    let source = e.add_scaled(from, i, 4);
    let target = e.add_scaled(to, i, 4);
    let vector = e.b.ins().load(F32X4, NOTRAP, source, 0);
    e.b.ins().store(NOTRAP, vector, target, 0);
}

/// Writes the value outside, as often as `range` is long.
fn fill(e: &mut Emitter, bare: &BareLoad, to: Target, range: (Value, Value)) {
    let value = bare.fill.value() as f32;
    let mut first = range.0;
    if to.step == 4 {
        let vector = e.floats(value);
        let count = e.b.ins().isub(range.1, range.0);
        let whole = e.b.ins().band_imm_s(count, -LANES);
        let end = e.b.ins().iadd(range.0, whole);
        e.for_each(range.0, end, LANES, |e, v| {
            let target = offset(e, to.at, v, range.0, 4);
            e.b.ins().store(NOTRAP, vector, target, 0);
        });
        first = end;
    }
    let value = e.float(value);
    e.for_each(first, range.1, 1, |e, v| {
        let target = offset(e, to.at, v, range.0, to.step);
        e.b.ins().store(NOTRAP, value, target, 0);
    });
}

/// Fills a run, then sets every n-th position that divides exactly.
fn spread_run(e: &mut Emitter, bare: &BareLoad, point: &Point, axis: Axis, run: Run, to: Target) {
    fill(e, bare, to, (run.start, run.end));
    let mut quotients = bare.place.quotients.iter();
    let quotient = quotients.find(|q| q.index.coef(axis) != 0).expect("one coordinate is divided");
    let (low, high) = e.inside(bare.place.checks.iter(), point, axis, run);
    let rest = e.linear_at(&quotient.index, point, Some(axis));
    // The first `v >= low` with `v + rest` divisible.
    let numerator = e.b.ins().iadd(low, rest);
    let above = e.b.ins().iadd_imm_s(numerator, quotient.div - 1);
    let coordinate = e.floor_div(above, quotient.div);
    let exact = e.b.ins().imul_imm_s(coordinate, quotient.div);
    let first = e.b.ins().isub(exact, rest);
    e.for_each(first, high, quotient.div, |e, v| {
        let mut point = point.clone();
        point[axis.0 as usize] = v;
        let source = e.address(bare.buffer, &bare.place, &point, 4);
        let value = e.b.ins().load(F32, NOTRAP, source, 0);
        let target = offset(e, to.at, v, run.start, to.step);
        e.b.ins().store(NOTRAP, value, target, 0);
    });
}

/// Writes the lanes of a vector `step` bytes apart.
fn store_lanes(e: &mut Emitter, vector: Value, to: Value, step: i64) {
    if step == 4 {
        e.b.ins().store(NOTRAP, vector, to, 0);
        return;
    }
    for lane in 0..4u8 {
        let value = e.b.ins().extractlane(vector, lane);
        let target = e.b.ins().iadd_imm_s(to, step * i64::from(lane));
        e.b.ins().store(NOTRAP, value, target, 0);
    }
}

/// `base + (i - first) * step`.
pub(super) fn offset(e: &mut Emitter, base: Value, i: Value, first: Value, step: i64) -> Value {
    let distance = e.b.ins().isub(i, first);
    e.add_scaled(base, distance, step)
}
