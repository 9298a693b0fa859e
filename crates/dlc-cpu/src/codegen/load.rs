//! Memory: loads that are total, stores, and the conditions between them.
//!
//! A scalar load whose conditions fail reads from [`crate::abi::Context::nowhere`] and gives its fill. A
//! vector load is one instruction where the lanes are neighbours in memory and all inside, which is
//! decided at compile time or, for windows that may leave the buffer, by one branch for each
//! vector; anything else reads lane by lane.

use super::expr::{Evaluator, Lanes, Val, splat};
use super::{Emitter, NOTRAP};
use crate::abi::ErrorKind;
use crate::schedule::domain::{Check, Place};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8, I8X16, I16X8, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use dlc_kernel::{BufferId, DType, ExprId, Scalar};

/// Bytes of a vector.
pub(super) const VECTOR: i64 = 16;

/// The type of a vector of such values in memory, and four bytes of it, if all are that one.
pub(super) fn pattern(value: Scalar) -> (Type, u32) {
    match (value.dtype, value.dtype.bytes()) {
        (DType::F32, _) => (I32X4, (value.value() as f32).to_bits()),
        (_, 1) => (I8X16, value.value() as i32 as u8 as u32 * 0x0101_0101),
        _ => (I32X4, value.value() as i32 as u32),
    }
}

impl Emitter<'_> {
    /// Stores a value at the `count` neighbours from an address on.
    pub fn fill(&mut self, first: Value, count: Value, value: Scalar) {
        let bytes = value.dtype.bytes() as i64;
        let end = self.add_scaled(first, count, bytes);
        let size = self.b.ins().isub(end, first);
        let rest = self.b.ins().band_imm_u(size, VECTOR - 1);
        let whole = self.b.ins().isub(end, rest);
        let (ty, bits) = pattern(value);
        self.for_each(first, whole, VECTOR, |e, at| {
            let values = e.lanes([bits; 4], ty);
            e.b.ins().store(NOTRAP, values, at, 0);
        });
        self.for_each(whole, end, bytes, |e, at| {
            let value =
                e.b.ins().iconst(ty.lane_type(), i64::from(bits) & ((1 << (8 * bytes)) - 1));
            e.b.ins().store(NOTRAP, value, at, 0);
        });
    }
}

/// The value of the load `id`.
pub(super) fn load(
    ev: &Evaluator,
    e: &mut Emitter,
    id: ExprId,
    buffer: BufferId,
    fill: Scalar,
) -> Val {
    let domain = ev.domain;
    let place = domain.places[id.0 as usize].as_ref().expect("a load has a place");
    let from = Source { base: e.base(buffer), place, fill };
    match ev.lanes().filter(|_| ev.id_varies(id)) {
        None => Val::Uniform(from.load_lane(ev, e, None, 0)),
        Some(lanes) => Val::Varying(from.load_lanes(ev, e, lanes)),
    }
}

/// The value of the `Inside` node `id`.
pub(super) fn inside(ev: &Evaluator, e: &mut Emitter, id: ExprId) -> Val {
    let domain = ev.domain;
    let checks = domain.guards[id.0 as usize].as_ref().expect("an `Inside` has its checks");
    let at = |ev: &Evaluator, e: &mut Emitter, lane| {
        all_hold(ev, e, checks, lane).unwrap_or_else(|| e.b.ins().iconst(I8, 1))
    };
    let Some(lanes) = ev.lanes().filter(|_| ev.id_varies(id)) else {
        return Val::Uniform(at(ev, e, None));
    };
    let holds = (0..lanes.active).map(|lane| at(ev, e, Some((lanes, lane)))).collect::<Vec<_>>();
    Val::Varying(gather(e, &holds))
}

/// A lane of a vector; `None` is the point itself.
type Lane = Option<(Lanes, u8)>;

struct Source<'a> {
    base: Value,
    place: &'a Place,
    fill: Scalar,
}

impl Source<'_> {
    fn load_lanes(&self, ev: &Evaluator, e: &mut Emitter, lanes: Lanes) -> Value {
        if self.place.found.iter().any(|f| ev.id_varies(f.index)) {
            return self.load_each(ev, e, lanes);
        }
        if self.place.is_unit_along(lanes.axis) {
            return self.load_neighbours(ev, e, lanes);
        }
        let free = self.place.checks.iter().all(|c| c.index.coef(lanes.axis) == 0);
        if self.is_affine_along(lanes) && free && lanes.active == 4 && self.fill.dtype.bytes() == 4
        {
            match self.place.linear.coef(lanes.axis) {
                2 => return self.load_every_second(ev, e),
                -1 => return self.load_reversed(ev, e),
                _ => {}
            }
        }
        self.load_each(ev, e, lanes)
    }

    fn is_affine_along(&self, lanes: Lanes) -> bool {
        self.place.quotients.iter().all(|q| q.index.coef(lanes.axis) == 0)
    }

    /// Lanes that are neighbours in memory.
    fn load_neighbours(&self, ev: &Evaluator, e: &mut Emitter, lanes: Lanes) -> Value {
        let along = |c: &&Check| c.index.coef(lanes.axis) != 0;
        let first: Vec<&Check> = self.place.checks.iter().filter(along).collect();
        if first.is_empty() {
            return self.load_run(ev, e, 0);
        }
        let mut all = None;
        for check in first {
            for lane in [0, lanes.active - 1] {
                let holds = holds(ev, e, check, Some((lanes, lane)));
                all = and(e, all, holds);
            }
        }
        let all = all.expect("there is a check");
        let vector = e.choose(
            all,
            |e| vec![self.load_run(ev, e, 0)],
            |e| vec![self.load_each(ev, e, lanes)],
        );
        vector[0]
    }

    /// Four neighbours from `shift` elements after lane 0 on, given the checks along the lanes.
    fn load_run(&self, ev: &Evaluator, e: &mut Emitter, shift: i64) -> Value {
        let lanes = ev.lanes().expect("a vector has lanes");
        let (offset, inside) = self.offset(ev, e, None, &|c| c.index.coef(lanes.axis) == 0);
        let bytes = self.fill.dtype.bytes() as i64;
        let address = e.add_scaled(self.base, offset, bytes);
        let address =
            if shift == 0 { address } else { e.b.ins().iadd_imm_s(address, shift * bytes) };
        let Some(inside) = inside else { return load_vector(e, self.fill.dtype, address) };
        let nowhere = e.nowhere();
        let address = e.b.ins().select(inside, address, nowhere);
        let loaded = load_vector(e, self.fill.dtype, address);
        let fill = constant(e, self.fill);
        let fill = splat(e, fill);
        e.b.ins().select(inside, loaded, fill)
    }

    /// Lanes 2 elements apart: of two overlapping runs, neither of which reads beyond lane 3.
    fn load_every_second(&self, ev: &Evaluator, e: &mut Emitter) -> Value {
        let (low, high) = (self.load_run(ev, e, 0), self.load_run(ev, e, 3));
        shuffle(e, low, high, [0, 2, 5, 7])
    }

    /// Lanes in descending order.
    fn load_reversed(&self, ev: &Evaluator, e: &mut Emitter) -> Value {
        let run = self.load_run(ev, e, -3);
        shuffle(e, run, run, [3, 2, 1, 0])
    }

    /// One lane after the other.
    fn load_each(&self, ev: &Evaluator, e: &mut Emitter, lanes: Lanes) -> Value {
        let lane = |lane| self.load_lane(ev, e, Some(lanes), lane);
        let values: Vec<Value> = (0..lanes.active).map(lane).collect();
        gather(e, &values)
    }

    fn load_lane(&self, ev: &Evaluator, e: &mut Emitter, lanes: Option<Lanes>, lane: u8) -> Value {
        let lane = lanes.map(|lanes| (lanes, lane));
        let (offset, inside) = self.offset(ev, e, lane, &|_| true);
        let address = e.add_scaled(self.base, offset, self.fill.dtype.bytes() as i64);
        let Some(inside) = inside else { return load_scalar(e, self.fill.dtype, address) };
        let nowhere = e.nowhere();
        let address = e.b.ins().select(inside, address, nowhere);
        let loaded = load_scalar(e, self.fill.dtype, address);
        let fill = constant(e, self.fill);
        e.b.ins().select(inside, loaded, fill)
    }

    /// The offset in elements, and the conjunction of the checks that `select` picks.
    fn offset(
        &self,
        ev: &Evaluator,
        e: &mut Emitter,
        lane: Lane,
        select: &dyn Fn(&Check) -> bool,
    ) -> (Value, Option<Value>) {
        let checks: Vec<Check> = self.place.checks.iter().filter(|c| select(c)).cloned().collect();
        let inside = all_hold(ev, e, &checks, lane);
        place_offset(ev, e, self.place, lane, inside)
    }
}

/// The offset of a place at a lane, and `inside` with the conditions of its lookups. A lookup that
/// leaves its dim at a point that is inside otherwise fails the run.
pub(super) fn place_offset(
    ev: &Evaluator,
    e: &mut Emitter,
    place: &Place,
    lane: Lane,
    inside: Option<Value>,
) -> (Value, Option<Value>) {
    let fail = |e: &mut Emitter, index: Value, within: Value, extent: i64| {
        let beyond = e.b.ins().bxor_imm_u(within, 1);
        let beyond = inside.map_or(beyond, |inside| e.b.ins().band(inside, beyond));
        e.fail_if(beyond, ErrorKind::Index, index, extent);
    };
    place_offset_or(ev, e, place, lane, (inside, fail))
}

/// [`place_offset`] that leaves what happens to an index outside (the index, whether it is inside, the
/// dim's extent) to `fail`.
pub(super) fn place_offset_or(
    ev: &Evaluator,
    e: &mut Emitter,
    place: &Place,
    lane: Lane,
    (inside, fail): (Option<Value>, impl Fn(&mut Emitter, Value, Value, i64)),
) -> (Value, Option<Value>) {
    let mut offset = lane_linear(ev, e, &place.linear, lane);
    for quotient in &place.quotients {
        let index = lane_linear(ev, e, &quotient.index, lane);
        let index = e.b.ins().udiv_imm_u(index, quotient.div);
        offset = e.add_scaled(offset, index, quotient.stride);
    }
    let mut all = inside;
    for found in &place.found {
        let index = lane_value(ev, e, found.index, lane);
        let index = e.b.ins().sextend(I64, index);
        let within = e.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, index, found.extent);
        fail(e, index, within, found.extent);
        offset = e.add_scaled(offset, index, found.stride);
        all = and(e, all, within);
    }
    (offset, all)
}

/// Whether all checks hold at a lane; `None` if there is none.
pub(super) fn all_hold(
    ev: &Evaluator,
    e: &mut Emitter,
    checks: &[Check],
    lane: Lane,
) -> Option<Value> {
    checks.iter().fold(None, |all, check| {
        let holds = holds(ev, e, check, lane);
        and(e, all, holds)
    })
}

fn holds(ev: &Evaluator, e: &mut Emitter, check: &Check, lane: Lane) -> Value {
    let index = lane_linear(ev, e, &check.index, lane);
    let end = check.extent.saturating_mul(check.div);
    let end = e.int(end);
    let below = e.b.ins().icmp(IntCC::UnsignedLessThan, index, end);
    if check.div == 1 {
        return below;
    }
    let rest = e.b.ins().urem_imm_u(index, check.div);
    let exact = e.b.ins().icmp_imm_s(IntCC::Equal, rest, 0);
    e.b.ins().band(below, exact)
}

fn and(e: &mut Emitter, all: Option<Value>, one: Value) -> Option<Value> {
    Some(all.map_or(one, |all| e.b.ins().band(all, one)))
}

/// A linear form at a lane.
fn lane_linear(
    ev: &Evaluator,
    e: &mut Emitter,
    linear: &crate::schedule::domain::Linear,
    lane: Lane,
) -> Value {
    let value = ev.linear(e, linear);
    let shift = lane.map_or(0, |(lanes, lane)| linear.coef(lanes.axis) * i64::from(lane));
    if shift == 0 { value } else { e.b.ins().iadd_imm_s(value, shift) }
}

/// A computed node's value at a lane, as a scalar.
pub(super) fn lane_value(ev: &Evaluator, e: &mut Emitter, id: ExprId, lane: Lane) -> Value {
    match ev.known(id) {
        Val::Uniform(value) => value,
        Val::Varying(vector) => {
            let (_, lane) = lane.expect("a varying value is read lane by lane");
            extract(e, ev.dtype(id), vector, lane)
        }
    }
}

/// Stores the value of `id` at `place`, which is always inside.
pub fn store(ev: &mut Evaluator, e: &mut Emitter, buffer: BufferId, place: &Place, id: ExprId) {
    let dtype = ev.dtype(id);
    let base = e.base(buffer);
    ev.value(e, id);
    let bytes = dtype.bytes() as i64;
    let lanes = ev.lanes().filter(|lanes| place.uses().contains(lanes.axis));
    let offset = ev.linear(e, &place.linear);
    let address = e.add_scaled(base, offset, bytes);
    let Some(lanes) = lanes else {
        let value = lane_value(ev, e, id, ev.lanes().map(|lanes| (lanes, 0)));
        return store_scalar(e, dtype, value, address);
    };
    let step = place.linear.coef(lanes.axis) * bytes;
    if lanes.active == 4 && step == bytes {
        let vector = ev.known_vector(e, id);
        return store_vector(e, dtype, vector, address);
    }
    for lane in 0..lanes.active {
        let value = lane_value(ev, e, id, Some((lanes, lane)));
        let address = e.b.ins().iadd_imm_s(address, step * i64::from(lane));
        store_scalar(e, dtype, value, address);
    }
}

/// A typed constant as a scalar.
pub(super) fn constant(e: &mut Emitter, scalar: Scalar) -> Value {
    let value = scalar.value();
    match scalar.dtype {
        DType::F32 => e.b.ins().f32const(value as f32),
        DType::Bool => e.b.ins().iconst(I8, i64::from(value != 0.0)),
        _ => e.b.ins().iconst(I32, value as i64 & 0xffff_ffff),
    }
}

/// One element as a scalar.
pub fn load_scalar(e: &mut Emitter, dtype: DType, address: Value) -> Value {
    match dtype {
        DType::F32 => e.b.ins().load(F32, NOTRAP, address, 0),
        DType::U8 => e.b.ins().uload8(I32, NOTRAP, address, 0),
        DType::Bool => e.b.ins().load(I8, NOTRAP, address, 0),
        _ => e.b.ins().load(I32, NOTRAP, address, 0),
    }
}

/// Writes a scalar.
pub fn store_scalar(e: &mut Emitter, dtype: DType, value: Value, address: Value) {
    match dtype {
        DType::U8 => e.b.ins().istore8(NOTRAP, value, address, 0),
        _ => e.b.ins().store(NOTRAP, value, address, 0),
    };
}

/// Four neighbouring elements as a vector.
pub fn load_vector(e: &mut Emitter, dtype: DType, address: Value) -> Value {
    match dtype {
        DType::F32 => e.b.ins().load(F32X4, NOTRAP, address, 0),
        DType::I32 => e.b.ins().load(I32X4, NOTRAP, address, 0),
        _ => {
            let bytes = e.b.ins().load(I32, NOTRAP, address, 0);
            let bytes = e.b.ins().scalar_to_vector(I32X4, bytes);
            let bytes = e.cast_bits(bytes, I8X16);
            let words = e.b.ins().uwiden_low(bytes);
            let words = e.b.ins().uwiden_low(words);
            if dtype == DType::U8 {
                return words;
            }
            let zero = e.ints(0);
            e.b.ins().icmp(IntCC::NotEqual, words, zero)
        }
    }
}

/// Writes four neighbours.
pub fn store_vector(e: &mut Emitter, dtype: DType, vector: Value, address: Value) {
    if dtype.bytes() == 4 {
        e.b.ins().store(NOTRAP, vector, address, 0);
        return;
    }
    let mut words = vector;
    if dtype == DType::Bool {
        let one = e.ints(1);
        words = e.b.ins().band(vector, one);
    }
    let halves = e.b.ins().snarrow(words, words);
    debug_assert_eq!(e.b.func.dfg.value_type(halves), I16X8);
    let bytes = e.b.ins().unarrow(halves, halves);
    let bytes = e.cast_bits(bytes, I32X4);
    let bytes = e.b.ins().extractlane(bytes, 0);
    e.b.ins().store(NOTRAP, bytes, address, 0);
}

/// A lane as a scalar of the type's scalar form.
pub(super) fn extract(e: &mut Emitter, dtype: DType, vector: Value, lane: u8) -> Value {
    let value = e.b.ins().extractlane(vector, lane);
    if dtype != DType::Bool {
        return value;
    }
    e.b.ins().icmp_imm_s(IntCC::NotEqual, value, 0)
}

/// A vector from scalars; lanes without one are 0.
pub(super) fn gather(e: &mut Emitter, scalars: &[Value]) -> Value {
    let mut scalars = scalars.to_vec();
    let mut ty: Type = e.b.func.dfg.value_type(scalars[0]);
    if ty == I8 {
        scalars.iter_mut().for_each(|s| *s = e.b.ins().bmask(I32, *s));
        ty = I32;
    }
    let ty = if ty == F32 { F32X4 } else { I32X4 };
    let mut vector = e.b.ins().scalar_to_vector(ty, scalars[0]);
    for (lane, &scalar) in scalars.iter().enumerate().skip(1) {
        vector = e.b.ins().insertlane(vector, scalar, lane as u8);
    }
    vector
}

/// Lanes `picks` (0 to 3 of `a`, 4 to 7 of `b`) of two vectors of 32-bit lanes.
pub fn shuffle(e: &mut Emitter, a: Value, b: Value, picks: [u8; 4]) -> Value {
    let ty = e.b.func.dfg.value_type(a);
    let (a, b) = (e.cast_bits(a, I8X16), e.cast_bits(b, I8X16));
    let mask: Vec<u8> = picks.iter().flat_map(|p| (0..4).map(move |byte| 4 * p + byte)).collect();
    let mask = e.b.func.dfg.immediates.push(mask.into());
    let shuffled = e.b.ins().shuffle(a, b, mask);
    e.cast_bits(shuffled, ty)
}
