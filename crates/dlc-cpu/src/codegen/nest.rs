//! Loops over groups of axes: points of the domain, runs along an axis, where a run is inside.

use super::Emitter;
use crate::schedule::contract::Axes;
use crate::schedule::domain::{Check, Linear, Place};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, BufferId};

/// One coordinate (`i64`) for each axis of the domain; 0 for those no loop has set.
pub type Point = Vec<Value>;

/// A stretch of a flat range along which only the coordinate of the last axis changes, or those of
/// the last axes as one.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Where it begins in the flat range.
    pub flat: Value,
    /// Its first coordinate along that.
    pub start: Value,
    /// Exclusive.
    pub end: Value,
}

impl Emitter<'_> {
    /// The point at the origin of `count` axes.
    pub fn origin(&mut self, count: usize) -> Point {
        vec![self.int(0); count]
    }

    /// Sets the coordinates of `axes` to those of position `flat` of their flat range.
    pub fn set_axes(&mut self, point: &mut Point, axes: &Axes, flat: Value) {
        let mut rest = flat;
        for (i, (axis, &extent)) in axes.axes.iter().zip(&axes.extents).enumerate().rev() {
            point[axis.0 as usize] = rest;
            if i > 0 {
                (rest, point[axis.0 as usize]) = self.divide(rest, extent);
            }
        }
    }

    /// Quotient and remainder of `x >= 0` by a constant.
    pub fn divide(&mut self, x: Value, by: i64) -> (Value, Value) {
        if by == 1 {
            return (x, self.int(0));
        }
        let quotient = self.b.ins().udiv_imm_u(x, by);
        let product = self.b.ins().imul_imm_s(quotient, by);
        (quotient, self.b.ins().isub(x, product))
    }

    /// Cuts the part `from..to` of the flat range of `axes`, which are not none, into runs along
    /// the last one; the point stands at the start of each.
    pub fn for_runs(
        &mut self,
        axes: &Axes,
        point: &Point,
        from: Value,
        to: Value,
        body: impl FnOnce(&mut Self, &Point, Run),
    ) {
        self.for_runs_of(axes.last_extent(), axes, point, (from, to), body);
    }

    /// The same in runs of so many positions, along the last axes as if they were one.
    pub fn for_runs_of(
        &mut self,
        extent: i64,
        axes: &Axes,
        point: &Point,
        (from, to): (Value, Value),
        body: impl FnOnce(&mut Self, &Point, Run),
    ) {
        let (head, inside, done) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let flat = self.b.append_block_param(head, I64);
        self.jump(head, &[from]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, flat, to);
        self.branch(more, (inside, &[]), (done, &[]));

        self.b.switch_to_block(inside);
        let mut point = point.clone();
        self.set_axes(&mut point, axes, flat);
        let is_all = extent == axes.points();
        let start = if is_all { flat } else { self.divide(flat, extent).1 };
        let rest = self.b.ins().isub(to, flat);
        let limit = self.b.ins().iadd(start, rest);
        let extent = self.int(extent);
        let end = self.b.ins().smin(limit, extent);
        self.loop_body(|e| body(e, &point, Run { flat, start, end }));
        let length = self.b.ins().isub(end, start);
        let next = self.b.ins().iadd(flat, length);
        self.jump(head, &[next]);
        self.b.switch_to_block(done);
    }

    /// The value of `linear` at `point`, leaving out the axis `without`.
    pub fn linear_at(&mut self, linear: &Linear, point: &Point, without: Option<Axis>) -> Value {
        let mut sum = self.int(linear.offset);
        for &(axis, coef) in linear.terms.iter().filter(|t| Some(t.0) != without) {
            sum = self.add_scaled(sum, point[axis.0 as usize], coef);
        }
        sum
    }

    /// The address of an element of `bytes` bytes at `point`; to be read only inside.
    pub fn address(&mut self, buffer: BufferId, place: &Place, point: &Point, bytes: i64) -> Value {
        let mut element = self.linear_at(&place.linear, point, None);
        for quotient in &place.quotients {
            let numerator = self.linear_at(&quotient.index, point, None);
            let coordinate = self.floor_div(numerator, quotient.div);
            element = self.add_scaled(element, coordinate, quotient.stride);
        }
        let base = self.base(buffer);
        self.add_scaled(base, element, bytes)
    }

    /// `floor(x / by)` for any sign of `x`.
    pub fn floor_div(&mut self, x: Value, by: i64) -> Value {
        if by == 1 {
            return x;
        }
        let sign = self.b.ins().sshr_imm_u(x, 63);
        let below = self.b.ins().band_imm_s(sign, by - 1);
        let shifted = self.b.ins().isub(x, below);
        self.b.ins().sdiv_imm_s(shifted, by)
    }

    /// The part of `run` along `axis` where all `checks` hold; of a division along `axis` itself
    /// only the bounds are looked at.
    pub fn inside<'c>(
        &mut self,
        checks: impl Iterator<Item = &'c Check>,
        point: &Point,
        axis: Axis,
        run: Run,
    ) -> (Value, Value) {
        let (mut low, mut high) = (run.start, run.end);
        for check in checks {
            let rest = self.linear_at(&check.index, point, Some(axis));
            match check.index.coef(axis) {
                0 => {
                    let holds = self.holds(check, rest);
                    high = self.b.ins().select(holds, high, run.start);
                }
                coef => {
                    let (first, end) = self.bounds(check, rest, coef);
                    low = self.b.ins().smax(low, first);
                    high = self.b.ins().smin(high, end);
                }
            }
        }
        let low = self.b.ins().smin(low, run.end);
        (low, self.b.ins().smax(high, low))
    }

    /// Whether a check holds for this numerator.
    fn holds(&mut self, check: &Check, numerator: Value) -> Value {
        let limit = self.int(check.extent * check.div);
        let within = self.b.ins().icmp(IntCC::UnsignedLessThan, numerator, limit);
        if check.div == 1 {
            return within;
        }
        let remainder = self.b.ins().srem_imm_s(numerator, check.div);
        let exact = self.b.ins().icmp_imm_s(IntCC::Equal, remainder, 0);
        self.b.ins().band(within, exact)
    }

    /// The smallest `v` with `0 <= coef * v + rest`, and the end of those below the limit; the
    /// other way round for a negative coefficient.
    fn bounds(&mut self, check: &Check, rest: Value, coef: i64) -> (Value, Value) {
        let above = self.b.ins().iadd_imm_s(rest, -check.extent * check.div);
        let first = self.floor_div(rest, coef.abs());
        let end = self.floor_div(above, coef.abs());
        if coef > 0 {
            return (self.b.ins().ineg(first), self.b.ins().ineg(end));
        }
        (self.b.ins().iadd_imm_s(end, 1), self.b.ins().iadd_imm_s(first, 1))
    }
}
