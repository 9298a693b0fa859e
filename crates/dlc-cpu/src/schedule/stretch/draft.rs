//! Code in the making: the expressions of a kernel become lanes, its loads and stores streams.

use super::{Area, MOST_STATES, Stream, Stretch, Task};
use crate::leaf::lanes::{Compare, Kind, Lanes, Op, Vector, ops};
use crate::leaf::loops::{self, Fold, Loop, MAX_ADDRESSES, NEAR_ADDRESSES};
use crate::schedule::PlacedStore;
use crate::schedule::domain::{AxisSet, Check, Domain, Found, Linear, Place};
use crate::schedule::row::RowFold;
use crate::schedule::window::Checks;
use dlc_kernel::region::fixed_values;
use dlc_kernel::{Axis, BinaryOp, DType, Expr, ExprId, FoldOp, Scalar};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Code in the making.
pub(in crate::schedule) struct Draft<'d, 'k> {
    pub domain: &'d Domain<'k>,
    area: Area<'d>,
    /// What a value depends on that is not the same for all points.
    pub moving: AxisSet,
    row: &'d [RowFold],
    pub lanes: Lanes,
    pub streams: Vec<Stream>,
    addresses: Vec<Stream>,
    reached: Vec<loops::Stream>,
    pub uniforms: Vec<ExprId>,
    /// What is counted in a tile: `Carry(I32, k)` is the integer of an element.
    pub counts: Vec<Linear>,
    pub vectors: FxHashMap<ExprId, Vector>,
    /// The conditions under which loads are inside, if they are not always.
    pub window: Option<Checks>,
    /// By expression, of what is computed where the conditions fail: its value there, if it is
    /// fixed.
    beyond: Option<Vec<Option<f64>>>,
    /// Whether lanes may begin at any point, not only at multiples of four.
    pub anywhere: bool,
}

impl<'d, 'k> Draft<'d, 'k> {
    pub fn new(domain: &'d Domain<'k>, area: Area<'d>, row: &'d [RowFold]) -> Draft<'d, 'k> {
        Draft {
            domain,
            area,
            moving: area.moving(),
            row,
            lanes: Lanes::default(),
            streams: Vec::new(),
            addresses: Vec::new(),
            reached: Vec::new(),
            uniforms: Vec::new(),
            counts: Vec::new(),
            vectors: FxHashMap::default(),
            window: None,
            beyond: None,
            anywhere: false,
        }
    }

    /// Computes where the conditions of loads fail.
    pub fn go_beyond(&mut self) {
        let domain = self.domain;
        let checked = |id: ExprId| {
            domain.places[id.0 as usize].as_ref().is_some_and(|place| !place.checks.is_empty())
        };
        let known = |id: ExprId, expr: &Expr| match expr {
            Expr::Inside(_) => self.varies(id).then_some(0.0),
            Expr::Load { fill, .. } => (self.varies(id) && checked(id)).then(|| fill.value()),
            _ => None,
        };
        self.beyond = Some(fixed_values(domain.exprs, known, |_| false));
    }

    /// The value where the conditions fail, if this is there and it is fixed.
    pub fn fixed(&self, id: ExprId) -> Option<f64> {
        self.beyond.as_ref()?[id.0 as usize]
    }

    /// Whether nothing is stored, and what is folded changes no fold.
    pub fn is_idle(&self, task: Task) -> bool {
        let neutral = |fold: &RowFold| match fold.op {
            FoldOp::Sum => Some(0.0),
            FoldOp::Prod => Some(1.0),
            FoldOp::Max => Some(f64::NEG_INFINITY),
            FoldOp::Min => Some(f64::INFINITY),
            FoldOp::ArgMax | FoldOp::ArgMin => None,
        };
        let of_floats = |f: &RowFold| self.domain.exprs.dtype(f.value) == DType::F32;
        let idles =
            |f: &RowFold| of_floats(f) && neutral(f).is_some() && self.fixed(f.value) == neutral(f);
        let stores = !task.stores.is_empty() || !task.leaves.is_empty();
        !stores && task.folds.iter().all(idles)
    }

    fn varies(&self, id: ExprId) -> bool {
        self.domain.uses[id.0 as usize].meets(self.moving)
    }

    /// Describes the values that a tile stores; gives the streams and what is stored to them.
    pub fn describe_stores(&mut self, stores: &[PlacedStore]) -> Option<Vec<(u16, Vector)>> {
        let values: Vec<ExprId> = stores.iter().map(|s| s.value).collect();
        for id in self.domain.reachable(&values) {
            self.describe(id, values.contains(&id))?;
        }
        stores.iter().map(|store| self.store(store)).collect()
    }

    pub fn store(&mut self, store: &PlacedStore) -> Option<(u16, Vector)> {
        let (buffer, dtype) = (Some(store.buffer), store.dtype);
        let stream = self.stream(Stream { buffer, dtype, place: store.place.clone() })?;
        Some((stream, self.vector(store.value)))
    }

    /// Gives `id` a vector, if it varies along the axis or is itself wanted.
    pub fn describe(&mut self, id: ExprId, wanted: bool) -> Option<()> {
        if self.vectors.contains_key(&id) {
            return Some(());
        }
        if let Some(value) = self.fixed(id) {
            let fixed = Scalar::new(self.domain.exprs.dtype(id), value);
            let vector = ops::constant(&mut self.lanes, fixed);
            self.vectors.insert(id, vector);
        } else if self.varies(id) {
            let vector = self.varying(id)?;
            self.vectors.insert(id, vector);
        } else if wanted {
            self.vector(id);
        }
        Some(())
    }

    /// The vector of an operand.
    pub fn vector(&mut self, id: ExprId) -> Vector {
        if let Some(&vector) = self.vectors.get(&id) {
            return vector;
        }
        let vector = match self.domain.exprs.get(id) {
            Expr::Const(scalar) => ops::constant(&mut self.lanes, *scalar),
            Expr::Extent(size, dtype) => {
                let value = size.as_const().expect("sizes are bound before stretches are found");
                ops::constant(&mut self.lanes, Scalar::new(*dtype, value as f64))
            }
            _ => self.uniform(id),
        };
        self.vectors.insert(id, vector);
        vector
    }

    fn uniform(&mut self, id: ExprId) -> Vector {
        let kind = ops::kind(self.domain.exprs.dtype(id));
        self.uniforms.push(id);
        self.lanes.add(Op::Uniform(kind, self.uniforms.len() as u16 - 1))
    }

    fn varying(&mut self, id: ExprId) -> Option<Vector> {
        let exprs = self.domain.exprs;
        if let Some(linear) = &self.domain.affine[id.0 as usize] {
            let Area::Line(axis) = self.area else { return self.count(linear) };
            let first = self.uniform(id);
            let index = self.lanes.add(Op::Index);
            let step = self.lanes.int(linear.coef(axis) as i32);
            let distance = self.lanes.product(index, step);
            return Some(self.lanes.sum(first, distance));
        }
        match exprs.get(id) {
            Expr::Folded(_) if matches!(self.area, Area::Tile { .. }) => {
                Some(self.lanes.add(Op::Carry(Kind::F32, 0)))
            }
            Expr::Load { buffer, fill, .. } => {
                let place = self.domain.places[id.0 as usize].as_ref().expect("a load has a place");
                let (buffer, dtype) = (Some(*buffer), fill.dtype);
                let differs = |f: &Found| self.domain.uses[f.index.0 as usize].meets(self.moving);
                if place.found.iter().any(|f| differs(f) || !place.checks.is_empty()) {
                    return None;
                }
                if !place.checks.is_empty() {
                    self.enter_window(&place.checks)?;
                }
                let place = Place { checks: Checks::new(), ..place.clone() };
                self.input(Stream { buffer, dtype, place })
            }
            Expr::Inside(_) => {
                let checks = self.domain.guards[id.0 as usize].as_ref().expect("it has checks");
                if let Area::Tile { columns, .. } = self.area {
                    return self.hold(checks, columns.last()?);
                }
                self.enter_window(checks)?;
                Some(self.lanes.truth(true))
            }
            Expr::Random { site, seed, step, element } => {
                if [seed, step].iter().any(|&&id| self.varies(id)) {
                    return None;
                }
                let anywhere = self.anywhere || !self.is_in_blocks(*element)?;
                let at = [*seed, *step, *element].map(|id| self.vector(id));
                Some(ops::uniform(&mut self.lanes, *site, at, anywhere))
            }
            Expr::Unary(op, x) => {
                let operand = self.vector(*x);
                Some(ops::unary(&mut self.lanes, *op, exprs.dtype(*x), operand))
            }
            Expr::Binary(op, x, y) if ops::has_binary(*op, exprs.dtype(*x)) => {
                let [a, b] = [*x, *y].map(|id| self.vector(id));
                let value = ops::binary(&mut self.lanes, *op, exprs.dtype(*x), a, b);
                if *op == BinaryOp::Sub && self.is_largest(*y, *x) {
                    self.lanes.assume_not_positive(value);
                }
                Some(value)
            }
            Expr::Select(c, x, y) => {
                let [c, x, y] = [*c, *x, *y].map(|id| self.vector(id));
                Some(self.lanes.select(c, x, y))
            }
            Expr::Cast(to, x) => {
                let operand = self.vector(*x);
                Some(ops::cast(&mut self.lanes, exprs.dtype(*x), *to, operand))
            }
            _ => None,
        }
    }

    /// An integer that counts up along the only axis of the columns.
    fn count(&mut self, linear: &Linear) -> Option<Vector> {
        let Area::Tile { columns, .. } = self.area else { return None };
        let [axis] = columns.axes[..] else { return None };
        if linear.coef(axis) != 1 {
            return None;
        }
        let known = self.counts.iter().position(|count| count == linear);
        let at = known.unwrap_or_else(|| {
            self.counts.push(linear.clone());
            self.counts.len() - 1
        });
        Some(self.lanes.add(Op::Carry(Kind::I32, at as u16)))
    }

    /// Whether conditions on what is counted in a tile hold, element by element.
    fn hold(&mut self, checks: &[Check], column: Axis) -> Option<Vector> {
        let mut all = self.lanes.truth(true);
        for check in checks {
            // What counts down is counted with the other sign.
            let (index, least, most) = match check.index.coef(column) < 0 {
                true => (Linear::default().plus(&check.index, -1), 1 - check.extent, 0),
                false => (check.index.clone(), 0, check.extent - 1),
            };
            let (low, high) = index.range(&self.domain.extents)?;
            let count = self.count(&index).filter(|_| check.div == 1)?;
            let [first, last] = [least, most].map(|bound| i32::try_from(bound).ok());
            if low < least {
                let first = self.lanes.int(first?);
                let holds = self.lanes.compare(Compare::Le, first, count);
                all = self.lanes.and(all, holds);
            }
            if high > most {
                let last = self.lanes.int(last?);
                let holds = self.lanes.compare(Compare::Le, count, last);
                all = self.lanes.and(all, holds);
            }
        }
        Some(all)
    }

    /// Whether every four lanes hold values `4k` to `4k + 3`, if they begin at a multiple of four;
    /// none if they do not follow each other.
    fn is_in_blocks(&self, id: ExprId) -> Option<bool> {
        let axis = match self.area {
            Area::Line(axis) => axis,
            Area::Tile { columns, .. } => columns.last()?,
        };
        let linear = self.domain.affine[id.0 as usize].as_ref()?;
        let others = || linear.terms.iter().filter(|t| t.0 != axis);
        let in_blocks = || linear.offset % 4 == 0 && others().all(|t| t.1 % 4 == 0);
        (linear.coef(axis) == 1).then(in_blocks)
    }

    /// Notes the conditions of a value, which must be those of all others that have any.
    fn enter_window(&mut self, checks: &[Check]) -> Option<()> {
        let Area::Line(axis) = self.area else { return None };
        let exact = |c: &Check| c.div == 1 || c.index.coef(axis) == 0;
        let known = self.window.get_or_insert_with(|| Checks::from(checks));
        (known[..] == *checks && checks.iter().all(exact)).then_some(())
    }

    /// Whether `bound` is the maximum of `value` over the row, or more.
    fn is_largest(&self, bound: ExprId, value: ExprId) -> bool {
        let exprs = self.domain.exprs;
        let largest = |id: ExprId| {
            let folds = |f: &RowFold| f.op == FoldOp::Max && f.value == value;
            let is = |f: &RowFold| *exprs.get(id) == Expr::Folded(f.step) && folds(f);
            exprs.dtype(id) == DType::F32 && self.row.iter().any(is)
        };
        match exprs.get(bound) {
            Expr::Binary(BinaryOp::Max, x, y) => largest(*x) || largest(*y),
            _ => largest(bound),
        }
    }

    pub fn stream(&mut self, stream: Stream) -> Option<u16> {
        if !self.area.takes(&stream) {
            return None;
        }
        let known = self.streams.iter().position(|s| *s == stream);
        let at = known.unwrap_or_else(|| {
            let reached = self.reach(&stream);
            self.reached.push(reached);
            self.streams.push(stream);
            self.streams.len() - 1
        });
        Some(at as u16)
    }

    /// How a new stream is found: by the address of one that is always equally far away, or by
    /// its own.
    fn reach(&mut self, stream: &Stream) -> loops::Stream {
        let dtype = stream.dtype;
        let mut known = (0u16..).zip(&self.addresses);
        let near = known.find_map(|(address, s)| Some((address, stream.distance(s)?)));
        let (address, offset) = near.unwrap_or_else(|| {
            self.addresses.push(stream.clone());
            (self.addresses.len() as u16 - 1, 0)
        });
        let stride = match self.area {
            Area::Line(axis) => stream.place.linear.coef(axis) as u8,
            Area::Tile { .. } => 1,
        };
        loops::Stream { dtype, address, offset, stride }
    }

    /// The elements of a stream.
    pub fn input(&mut self, stream: Stream) -> Option<Vector> {
        let kind = ops::kind(stream.dtype);
        let stream = self.stream(stream)?;
        Some(self.lanes.add(Op::Input(kind, stream)))
    }

    pub fn fold(&mut self, at: usize, fold: RowFold) -> Option<Fold> {
        let dtype = self.domain.exprs.dtype(fold.value);
        let state = self.lanes.add(Op::Carry(ops::kind(dtype), at as u16));
        let value = self.vector(fold.value);
        ops::can_fold(fold.op, dtype).then(|| {
            let next = ops::merge(&mut self.lanes, fold.op, dtype, state, value);
            Fold { op: fold.op, dtype, next }
        })
    }

    pub fn finish(
        self,
        axis: Axis,
        task: Task,
        stores: Vec<(u16, Vector)>,
        (folds, states): (Vec<Fold>, Vec<u16>),
    ) -> Option<Stretch> {
        let is_far = |s: &loops::Stream| usize::from(s.address) >= NEAR_ADDRESSES;
        let is_staged = |s: &loops::Stream| s.dtype.bytes() == 1 || s.stride > 1;
        let far_staged = self.reached.iter().any(|s| is_far(s) && is_staged(s));
        if self.addresses.len() > MAX_ADDRESSES || folds.len() > MOST_STATES || far_staged {
            return None;
        }
        if !states.is_empty() && self.reached.iter().any(is_far) {
            return None;
        }
        let uniforms = self.uniforms.len() as u16;
        let repeats = task.again && folds.is_empty();
        let mut leaf = Loop {
            lanes: self.lanes,
            uniforms,
            stores,
            folds,
            repeats,
            ..Loop::over(self.reached)
        };
        leaf.repeats &= !leaf.has_random();
        leaf.unroll = unroll(&leaf);
        if !states.is_empty() {
            leaf.fold_columns(states);
        }
        let leaf = Arc::new(leaf);
        let (streams, addresses, uniforms) = (self.streams, self.addresses, self.uniforms);
        Some(Stretch { axis, leaf, streams, addresses, uniforms, window: None, lines: None })
    }
}

/// Elements wait for the fold before them, and each of their operations for the one before it:
/// several at a time hide that. Long code hides what folds wait for.
fn unroll(leaf: &Loop) -> u8 {
    let computed =
        |v: &Vector| !matches!(leaf.lanes.op(*v), Op::Const(..) | Op::Uniform(..) | Op::Carry(..));
    let count = leaf.lanes.reachable(&leaf.roots()).iter().filter(|v| computed(v)).count();
    let wanted = match count {
        ..12 => 4,
        64.. if !leaf.folds.is_empty() => 1,
        _ => 2,
    };
    [4, 2, 1]
        .into_iter()
        .find(|&n| n <= wanted && usize::from(n) * leaf.folds.len() <= MOST_STATES)
        .unwrap_or(1)
}
