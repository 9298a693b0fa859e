//! Everything that is computed at one point of a domain, or at a few neighbours side by side.

use super::lanes::Number;
use super::writer::{Writer, loaded, memory_type, stored};
use super::{integer, philox};
use crate::ir::{
    Address, B32, Builder, CacheHint, Class, Compare, F32, IntOp, LogicOp, Pred, Reg, Space, Value,
};
use crate::place::{Domain, Spot, coef, is_multiple};
use dlc_kernel::lanes::{Vector, ops};
use dlc_kernel::place::{Check, Linear};
use dlc_kernel::{BinaryOp, DType, Expr, ExprId, Scalar, ScatterMode};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

/// A value at each of the neighbours; one if it is the same at all of them.
pub type Side = SmallVec<[Vector; 4]>;

/// Those of the indices found that are one thread's: which are `number` modulo `of`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Below `of`.
    pub number: B32,
    /// A power of two.
    pub of: u32,
}

/// Points under work. What it has computed stays known: it must not outlive the scope it began in.
pub struct Point<'d, 'k> {
    domain: &'d Domain<'k>,
    /// Where the first one is; the others follow along the last axis.
    axes: Vec<Value<B32>>,
    lanes: usize,
    /// Where nothing is loaded, every load gives its fill.
    within: Option<Pred>,
    values: FxHashMap<ExprId, Side>,
    folded: FxHashMap<u32, Side>,
}

impl<'d, 'k> Point<'d, 'k> {
    /// `lanes` points from `axes` on, along the last axis; where there are several, the first
    /// stands at a multiple of their number.
    pub fn new(domain: &'d Domain<'k>, axes: Vec<Value<B32>>, lanes: usize) -> Point<'d, 'k> {
        let (values, folded) = (FxHashMap::default(), FxHashMap::default());
        debug_assert_eq!(axes.len(), domain.extents.len(), "one coordinate for each axis");
        Point { domain, axes, lanes, within: None, values, folded }
    }

    /// The same points, which load only where `pred` holds; elsewhere loads give their fills.
    pub fn within(self, pred: Option<Pred>) -> Point<'d, 'k> {
        Point { within: pred, ..self }
    }

    /// Makes the result of a fold known.
    pub fn fold(&mut self, step: u32, value: Side) {
        self.folded.insert(step, value);
    }

    /// Makes an expression known.
    pub fn know(&mut self, id: ExprId, value: Side) {
        self.values.insert(id, value);
    }

    /// Makes a load known whose value inside is found elsewhere.
    pub fn know_load(&mut self, w: &mut Writer<'_>, load: ExprId, inside: &Side) {
        let Expr::Load { fill, .. } = self.domain.exprs.get(load) else {
            panic!("a load is expected");
        };
        let spot = &self.domain.loads[&load];
        let fill = ops::constant(&mut w.scope.lanes, *fill);
        let count = if spot.is_checked_alike(self.along()) { inside.len() } else { self.lanes };
        let value = (0..count).map(|lane| {
            let value = inside[lane % inside.len()];
            match self.all_hold(w, spot, (lane, true), &[]) {
                None => value,
                Some(holds) => {
                    let holds = w.scope.input(holds.into());
                    w.scope.lanes.select(holds, value, fill)
                }
            }
        });
        let value = value.collect();
        self.know(load, value);
    }

    /// The value of an expression.
    pub fn value(&mut self, w: &mut Writer<'_>, id: ExprId) -> Side {
        for id in self.missing(id) {
            let value = self.compute(w, id);
            self.know(id, value);
        }
        self.values[&id].clone()
    }

    /// What an expression needs and is not known, operands first.
    fn missing(&self, id: ExprId) -> Vec<ExprId> {
        let (mut missing, mut open) = (std::collections::BTreeSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            if !self.values.contains_key(&id) && missing.insert(id) {
                open.extend(self.domain.exprs.get(id).operands());
            }
        }
        missing.into_iter().collect()
    }

    /// Where a load without lookups reads the first of the points, and whether it does; `None` if it
    /// always does.
    pub fn source(&self, w: &mut Writer<'_>, load: ExprId) -> (Address, Option<Pred>) {
        let spot = &self.domain.loads[&load];
        let inside = self.all_hold(w, spot, (0, true), &[]);
        (self.address(w, spot, 0, &[]), inside)
    }

    /// How many points there are.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Makes sure that the value of `id` is in registers.
    pub fn compute_now(&mut self, w: &mut Writer<'_>, id: ExprId) {
        for vector in self.value(w, id) {
            w.scope.number(&mut w.b, vector);
        }
    }

    /// Stores the value of `id` at the domain's store of that position, where `when` holds.
    pub fn store(&mut self, w: &mut Writer<'_>, store: usize, id: ExprId, when: Option<Pred>) {
        let value = self.value(w, id);
        let spot = &self.domain.stores[store];
        let ty = memory_type(w.program.buffer(spot.buffer).dtype);
        let registers: SmallVec<[Reg; 4]> = (0..self.lanes)
            .map(|lane| {
                let number = w.scope.number(&mut w.b, value[lane % value.len()]);
                stored(&mut w.b, number)
            })
            .collect();
        let is_vector = self.lanes > 1 && spot.is_vector(self.along(), self.lanes as i64);
        let together = if is_vector { self.lanes } else { 1 };
        for (part, registers) in registers.chunks(together).enumerate() {
            let to = self.address(w, spot, part * together, &[]);
            let write = |b: &mut Builder| b.store(Space::Global, ty, to, registers);
            match when {
                Some(when) => w.b.guarded(when, true, write),
                None => write(&mut w.b),
            }
        }
    }

    /// Adds the value of `id` to an element that lookups decide, or writes it there, if the element is
    /// in the share; of a single point.
    pub fn update(
        &mut self,
        w: &mut Writer<'_>,
        spot: &Spot,
        (mode, id): (ScatterMode, ExprId),
        share: Option<Share>,
    ) {
        let indices: Vec<Side> = spot.place.found.iter().map(|f| self.value(w, f.index)).collect();
        let found: Vec<Value<B32>> =
            indices.iter().map(|side| w.scope.i32(&mut w.b, side[0])).collect();
        let inside = self.all_hold(w, spot, (0, mode == ScatterMode::Add), &found);
        let inside = inside.expect("a lookup is checked");
        let inside = share.map_or(inside, |share| {
            let owner = w.b.int(IntOp::And, found[0], share.of - 1);
            let own = w.b.set_int(Compare::Eq, owner, share.number);
            w.b.logic(LogicOp::And, inside, own)
        });
        w.if_(inside, |w| {
            let value = self.value(w, id)[0];
            let dtype = w.program.buffer(spot.buffer).dtype;
            let ty = memory_type(dtype);
            let at = self.address(w, spot, 0, &found);
            let new = match mode {
                ScatterMode::Add => {
                    let old = w.b.load(Space::Global, ty, 1, at, CacheHint::None);
                    let old = loaded(&mut w.b, dtype, old[0]);
                    let old = w.scope.input(old);
                    ops::binary(&mut w.scope.lanes, BinaryOp::Add, dtype, old, value)
                }
                ScatterMode::Overwrite => value,
            };
            let new = w.scope.number(&mut w.b, new);
            let new = stored(&mut w.b, new);
            w.b.store(Space::Global, ty, at, &[new]);
        });
    }

    fn along(&self) -> usize {
        self.domain.extents.len().saturating_sub(1)
    }

    fn compute(&mut self, w: &mut Writer<'_>, id: ExprId) -> Side {
        let exprs = self.domain.exprs;
        let lanes = &mut w.scope.lanes;
        match exprs.get(id) {
            Expr::Const(scalar) => smallvec![ops::constant(lanes, *scalar)],
            Expr::Extent(size, dtype) => {
                let value = crate::place::bound(size) as f64;
                smallvec![ops::constant(lanes, Scalar::new(*dtype, value))]
            }
            Expr::Axis(_) => self.axis(w, self.domain.axes[&id]),
            Expr::Inside(_) => self.inside(w, id),
            Expr::Load { fill, .. } => {
                let spot = &self.domain.loads[&id];
                let found = spot.place.found.iter().map(|f| self.values[&f.index].clone());
                self.load(w, spot, found.collect(), *fill)
            }
            Expr::Folded(step) => self.folded[step].clone(),
            Expr::Unary(op, x) => self
                .each(w, &[*x], |w, v| ops::unary(&mut w.scope.lanes, *op, exprs.dtype(*x), v[0])),
            Expr::Binary(op, x, y) => {
                self.each(w, &[*x, *y], |w, v| binary(w, *op, exprs.dtype(*x), v[0], v[1]))
            }
            Expr::Select(mask, x, y) => {
                self.each(w, &[*mask, *x, *y], |w, v| w.scope.lanes.select(v[0], v[1], v[2]))
            }
            Expr::Cast(to, x) => self
                .each(w, &[*x], |w, v| ops::cast(&mut w.scope.lanes, exprs.dtype(*x), *to, v[0])),
            Expr::Random { site, seed, step, element } => {
                self.random(w, *site, [*seed, *step, *element])
            }
        }
    }

    /// Random numbers of a seed, a step and elements; those of one call together.
    fn random(&self, w: &mut Writer<'_>, site: u64, operands: [ExprId; 3]) -> Side {
        let together = matches!(self.lanes, 2 | 4) && self.is_aligned_run(operands[2]);
        let alike = operands[..2].iter().all(|id| self.values[id].len() == 1);
        let numbers = |w: &mut Writer<'_>, v: &[Vector]| {
            let [seed, step, element] = [0, 1, 2].map(|i| w.scope.i32(&mut w.b, v[i]));
            (seed, step, element)
        };
        if together && alike {
            let first = operands.map(|id| self.values[&id][0]);
            let (seed, step, element) = numbers(w, &first);
            let element = (element, self.lanes);
            let all = philox::neighbours(&mut w.b, seed, step, site, element);
            return all.into_iter().map(|value| w.scope.input(value.into())).collect();
        }
        self.each(w, &operands, |w, v| {
            let (seed, step, element) = numbers(w, v);
            let value = philox::uniform(&mut w.b, seed, step, site, element);
            w.scope.input(value.into())
        })
    }

    /// Whether the integer `id` counts up from lane to lane, from a multiple of the lanes' number.
    /// Wrapping changes no remainder, for the number of lanes is a power of two.
    fn is_aligned_run(&self, id: ExprId) -> bool {
        self.domain.linear(id).is_some_and(|value| {
            let along = self.along();
            coef(&value, along) == 1 && is_multiple(&value, self.lanes as i64, along)
        })
    }

    /// Computes lane by lane what depends on the lane.
    fn each(
        &self,
        w: &mut Writer<'_>,
        operands: &[ExprId],
        mut compute: impl FnMut(&mut Writer<'_>, &[Vector]) -> Vector,
    ) -> Side {
        let sides: SmallVec<[&Side; 3]> = operands.iter().map(|id| &self.values[id]).collect();
        let count = sides.iter().map(|s| s.len()).max().unwrap_or(1);
        (0..count)
            .map(|lane| {
                let at: SmallVec<[Vector; 3]> = sides.iter().map(|s| s[lane % s.len()]).collect();
                compute(w, &at)
            })
            .collect()
    }

    /// Where the first point stands along an axis, or the step of a loop around.
    fn coordinate(&self, w: &Writer<'_>, axis: usize) -> Value<B32> {
        let step = |axis| w.step(axis - self.axes.len()).into();
        self.axes.get(axis).copied().unwrap_or_else(|| step(axis))
    }

    fn axis(&self, w: &mut Writer<'_>, axis: usize) -> Side {
        let first = match self.coordinate(w, axis) {
            Value::Literal(at) => w.scope.lanes.int(at as i32),
            at @ Value::Reg(_) => w.scope.input(Number::I32(at)),
        };
        let lanes = if axis == self.along() { self.lanes } else { 1 };
        (0..lanes)
            .map(|lane| {
                let lane = w.scope.lanes.int(lane as i32);
                w.scope.lanes.sum(first, lane)
            })
            .collect()
    }

    fn inside(&self, w: &mut Writer<'_>, id: ExprId) -> Side {
        let Some(check) = &self.domain.guards[&id] else {
            return smallvec![w.scope.lanes.truth(true)];
        };
        let lanes = if coef(&check.index, self.along()) == 0 { 1 } else { self.lanes };
        (0..lanes)
            .map(|lane| {
                let holds = self.check(w, check, lane);
                w.scope.input(holds.into())
            })
            .collect()
    }

    fn load(
        &self,
        w: &mut Writer<'_>,
        spot: &Spot,
        found: SmallVec<[Side; 1]>,
        fill: Scalar,
    ) -> Side {
        let moves = self.lanes > 1
            && (spot.step(self.along()) != Some(0) || !spot.is_checked_alike(self.along()));
        let moves = moves
            && (spot.place.found.is_empty()
                || found.iter().any(|f| f.len() > 1)
                || coef(&spot.place.linear, self.along()) != 0);
        if moves && spot.is_vector(self.along(), self.lanes as i64) {
            return self.load_at(w, spot, 0, self.lanes, &[], fill);
        }
        let lanes = if moves { self.lanes } else { 1 };
        (0..lanes)
            .flat_map(|lane| {
                let at: SmallVec<[Vector; 1]> = found.iter().map(|f| f[lane % f.len()]).collect();
                self.load_at(w, spot, lane, 1, &at, fill)
            })
            .collect()
    }

    /// Loads `count` neighbours from that lane's point on.
    fn load_at(
        &self,
        w: &mut Writer<'_>,
        spot: &Spot,
        lane: usize,
        count: usize,
        found: &[Vector],
        fill: Scalar,
    ) -> Side {
        let dtype = w.program.buffer(spot.buffer).dtype;
        let ty = memory_type(dtype);
        let found: SmallVec<[Value<B32>; 1]> =
            found.iter().map(|&v| w.scope.i32(&mut w.b, v)).collect();
        let inside = self.all_hold(w, spot, (lane, true), &found);
        let overwritten = w.overwritten.contains(&spot.buffer);
        let hint = if overwritten { CacheHint::None } else { CacheHint::ReadOnly };
        let registers = match inside {
            None => {
                let from = self.address(w, spot, lane, &found);
                w.b.load(Space::Global, ty, count, from, hint)
            }
            Some(inside) => {
                let registers: SmallVec<[Reg; 4]> =
                    (0..count).map(|_| fill_register(w, ty.class(), fill)).collect();
                let from = self.address(w, spot, lane, &found);
                w.b.guarded(inside, true, |b| {
                    b.push(crate::ir::Inst::Load {
                        space: Space::Global,
                        ty,
                        dst: registers.clone(),
                        from,
                        hint,
                    });
                });
                registers
            }
        };
        registers
            .into_iter()
            .map(|register| {
                let number = loaded(&mut w.b, dtype, register);
                w.scope.input(number)
            })
            .collect()
    }

    /// Whether the lane's point is inside; `None` if it always is. Indices that are not set the
    /// error record.
    fn all_hold(
        &self,
        w: &mut Writer<'_>,
        spot: &Spot,
        (lane, may_fail): (usize, bool),
        found: &[Value<B32>],
    ) -> Option<Pred> {
        let mut holds: Option<Pred> = self.within;
        let mut and = |w: &mut Writer<'_>, next: Pred| {
            holds = Some(match holds {
                Some(before) => w.b.logic(LogicOp::And, before, next),
                None => next,
            });
            holds
        };
        let mut all = self.within;
        for check in &spot.place.checks {
            let next = self.check(w, check, lane);
            all = and(w, next);
        }
        for (what, (target, &index)) in spot.place.found.iter().zip(found).enumerate() {
            let good = w.b.set_uint(Compare::Lt, index, target.extent as u32);
            if may_fail {
                let bad = w.b.not(good);
                let bad = all.map_or(bad, |inside| w.b.logic(LogicOp::And, inside, bad));
                w.if_(bad, |w| {
                    let index = w.b.mov32(index);
                    w.fail(what as u32, index, target.extent as u32);
                });
            }
            all = and(w, good);
        }
        all
    }

    fn check(&self, w: &mut Writer<'_>, check: &Check, lane: usize) -> Pred {
        let value = self.linear(w, &check.index, lane);
        if check.div == 1 {
            return w.b.set_uint(Compare::Lt, value, check.extent as u32);
        }
        // A multiple of `div` below `div * extent`; negative numbers are large ones.
        let rest = w.b.int(IntOp::RemU, value, check.div as u32);
        let whole = w.b.set_int(Compare::Eq, rest, 0);
        let inside = w.b.set_uint(Compare::Lt, value, (check.div * check.extent) as u32);
        w.b.logic(LogicOp::And, whole, inside)
    }

    /// The address of the lane's element.
    fn address(
        &self,
        w: &mut Writer<'_>,
        spot: &Spot,
        lane: usize,
        found: &[Value<B32>],
    ) -> Address {
        let bytes = memory_type(w.program.buffer(spot.buffer).dtype).bytes();
        let mut offset = self.linear(w, &spot.place.linear, lane);
        for quotient in &spot.place.quotients {
            let value = self.linear(w, &quotient.index, lane);
            let value = w.b.int(IntOp::DivU, value, quotient.div as u32);
            offset = w.b.mad(value, quotient.stride as i32, offset).into();
        }
        for (target, &index) in spot.place.found.iter().zip(found) {
            offset = w.b.mad(index, target.stride as i32, offset).into();
        }
        let base = w.buffer(spot.buffer);
        match offset {
            Value::Literal(at) => Address::global(base, at as i32 * bytes as i32),
            Value::Reg(at) => Address::global(w.b.mad_wide(at, bytes, base), 0),
        }
    }

    /// The value of a linear form at a lane's point.
    pub fn linear(&self, w: &mut Writer<'_>, linear: &Linear, lane: usize) -> Value<B32> {
        let mut constant = linear.offset + coef(linear, self.along()) * lane as i64;
        let mut sum: Option<B32> = None;
        for &(axis, coef) in &linear.terms {
            match (self.coordinate(w, axis.0 as usize), sum) {
                (Value::Literal(at), _) => constant += i64::from(at as i32) * coef,
                (at, Some(so_far)) => sum = Some(w.b.mad(at, coef as i32, so_far)),
                (Value::Reg(at), None) if coef == 1 => sum = Some(at),
                (at, None) => sum = Some(w.b.int(IntOp::Mul, at, coef as i32)),
            }
        }
        match sum {
            None => Value::Literal(constant as u32),
            Some(sum) if constant == 0 => sum.into(),
            Some(sum) => w.b.int(IntOp::Add, sum, constant as i32).into(),
        }
    }
}

/// A register that holds a load's fill.
fn fill_register(w: &mut Writer<'_>, class: Class, fill: Scalar) -> Reg {
    match class {
        Class::F32 => {
            let register: F32 = w.b.mov_f32(fill.value() as f32);
            register.into()
        }
        _ => w.b.mov32(fill.value() as i64 as i32).into(),
    }
}

fn binary(w: &mut Writer<'_>, op: BinaryOp, dtype: DType, x: Vector, y: Vector) -> Vector {
    if ops::has_binary(op, dtype) {
        return ops::binary(&mut w.scope.lanes, op, dtype, x, y);
    }
    let (x, y) = (w.scope.i32(&mut w.b, x), w.scope.i32(&mut w.b, y));
    let value = integer::binary(w, op, x, y);
    let value = if dtype == DType::U8 { w.b.int(IntOp::And, value, 255) } else { value };
    w.scope.input(value.into())
}
