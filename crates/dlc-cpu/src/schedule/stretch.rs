//! Stretches of an axis that a loop leaf computes.
//!
//! A stretch is as long as it likes along one axis and stands still along all others. Everything in
//! it is unit-stride and provably inside, affine in the axis, or the same for all its points:
//! kernels of which any other value is asked keep code of their own.

use super::PlacedStore;
use super::contract::Axes;
use super::domain::{AxisSet, Domain, Place};
use super::row::RowFold;
use crate::leaf::lanes::{Kind, Lanes, Op, Vector, ops};
use crate::leaf::loops::{self, Fold, Loop, MAX_ADDRESSES};
use crate::leaf::wide::Width;
use crate::level::Level;
use dlc_kernel::{Axis, BinaryOp, BufferId, DType, Expr, ExprId, FoldOp, Scalar};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The shortest axis that is worth calls of a leaf.
const SHORTEST: i64 = 16;

/// The farthest that memory is brought near beforehand, in bytes: half of a first-level cache.
const FARTHEST: i64 = 1 << 14;

/// The most registers that fold states may take.
const MOST_STATES: usize = 8;

/// A leaf, and what its argument block is filled with.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Along which its elements are.
    pub axis: Axis,
    /// What is called.
    pub leaf: Arc<Loop>,
    /// By stream of the leaf.
    pub streams: Vec<Stream>,
    /// By address of the leaf: the stream that begins there.
    pub addresses: Vec<Stream>,
    /// By uniform of the leaf: the value at the stretch's first point.
    pub uniforms: Vec<ExprId>,
}

/// Elements in memory along the axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The buffer; if none, the worker's scratch room.
    pub buffer: Option<BufferId>,
    /// The storage type.
    pub dtype: DType,
    /// Where its elements are.
    pub place: Place,
}

/// A value that one stretch leaves in the scratch room for a later one over the same points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The value, an `F32` or `I32`.
    pub id: ExprId,
    /// Where.
    pub place: Place,
}

/// What a stretch computes.
#[derive(Clone, Copy, Default)]
pub struct Task<'t> {
    /// Stores at every point.
    pub stores: &'t [PlacedStore],
    /// Folds, over the points along the axis or those of other axes.
    pub folds: &'t [RowFold],
    /// By fold, if each point has one of its own: where its state is in the scratch room.
    pub states: &'t [Place],
    /// All folds of the row: those of earlier passes are known.
    pub row: &'t [RowFold],
    /// Stored besides.
    pub leaves: &'t [Kept],
    /// Computed and stored before.
    pub finds: &'t [Kept],
}

impl Stretch {
    /// The stretch along `axis` that does `task`, if a leaf can.
    pub fn new(domain: &Domain, axis: Axis, task: Task) -> Option<Stretch> {
        if domain.extents[axis.0 as usize] < SHORTEST {
            return None;
        }
        let mut draft = Draft::new(domain, Area::Line(axis), task.row);
        for kept in task.finds {
            let vector = draft.input(kept.stream(domain))?;
            draft.vectors.insert(kept.id, vector);
            if matches!(domain.exprs.get(kept.id), Expr::Folded(_)) {
                draft.moving = draft.moving.union(AxisSet::FOLDED);
            }
        }
        let values = task.values();
        let found: Vec<ExprId> = task.finds.iter().map(|k| k.id).collect();
        for id in domain.reachable_beside(&values, &found) {
            draft.describe(id, values.contains(&id))?;
        }
        let mut stores = Vec::new();
        for (fold, state) in task.folds.iter().zip(task.states) {
            let dtype = domain.exprs.dtype(fold.value);
            let stream = Stream { buffer: None, dtype, place: state.clone() };
            let state = draft.input(stream.clone())?;
            stores.push((draft.stream(stream)?, draft.merge(*fold, state)?));
        }
        let own = task.folds.iter().skip(task.states.len()).enumerate();
        let folds = own.map(|(k, f)| draft.fold(k, *f)).collect::<Option<Vec<Fold>>>()?;
        for store in task.stores {
            stores.push(draft.store(store)?);
        }
        for kept in task.leaves {
            stores.push((draft.stream(kept.stream(domain))?, draft.vector(kept.id)));
        }
        draft.finish(axis, stores, folds)
    }

    /// Whether some of its streams are in the scratch room.
    pub fn uses_scratch(&self) -> bool {
        self.streams.iter().any(|s| s.buffer.is_none())
    }

    /// Makes it bring near what lies one step further along another axis.
    pub fn look_ahead(&mut self, next: Axis) {
        let distance = |(k, stream): (usize, &Stream)| {
            let bytes = stream.place.linear.coef(next).saturating_mul(stream.dtype.bytes() as i64);
            let wanted = self.leaf.loads(k) && stream.buffer.is_some();
            (wanted && bytes != 0 && bytes.abs() <= FARTHEST).then_some((k as u16, bytes as i32))
        };
        let ahead = self.streams.iter().enumerate().filter_map(distance).collect();
        Arc::make_mut(&mut self.leaf).ahead = ahead;
    }

    /// Makes its stores pass by the caches, if all are of whole words to buffers.
    pub fn stream_results(&mut self) {
        let may = |s: &Stream| s.buffer.is_some() && s.dtype.bytes() == 4;
        let leaf = Arc::make_mut(&mut self.leaf);
        let all = leaf.stores.iter().all(|s| may(&self.streams[usize::from(s.0)]));
        leaf.streaming = all && !leaf.stores.is_empty();
    }
}

impl Kept {
    fn stream(&self, domain: &Domain) -> Stream {
        let dtype = domain.exprs.dtype(self.id);
        Stream { buffer: None, dtype, place: self.place.clone() }
    }
}

/// How many of Cranelift's vectors one of a leaf is worth.
pub fn vectors_at_once(level: Level) -> f64 {
    Width::of(level).map_or(1.0, |width| f64::from(width.lanes()) / 4.0)
}

impl Stream {
    /// Bytes from `other` to this one, if they are the same at every point.
    fn distance(&self, other: &Stream) -> Option<i32> {
        let (own, from) = (&self.place, &other.place);
        let alike = self.buffer == other.buffer
            && own.linear.terms == from.linear.terms
            && own.quotients == from.quotients;
        let elements = own.linear.offset.checked_sub(from.linear.offset).filter(|_| alike)?;
        // Half of what an instruction reaches: unrolled code adds to it.
        let bytes = elements.checked_mul(self.dtype.bytes() as i64)?;
        i32::try_from(bytes).ok().filter(|b| b.unsigned_abs() < 1 << 30)
    }
}

impl Task<'_> {
    fn values(&self) -> Vec<ExprId> {
        let folded = self.folds.iter().map(|f| f.value);
        let stored = self.stores.iter().map(|s| s.value);
        folded.chain(stored).chain(self.leaves.iter().map(|k| k.id)).collect()
    }
}

/// The points that one call of a leaf is for.
#[derive(Clone, Copy)]
pub(super) enum Area<'r> {
    /// Those along an axis.
    Line(Axis),
    /// Those of two sides of a contraction, each with its sum.
    Tile {
        /// The side that is broadcast.
        rows: &'r Axes,
        /// The side that is vectorized.
        columns: &'r Axes,
    },
}

impl Area<'_> {
    /// What a value depends on that is not the same at all points.
    fn moving(self) -> AxisSet {
        match self {
            Area::Line(axis) => AxisSet::of(axis),
            Area::Tile { rows, columns } => {
                let axes = rows.axes.iter().chain(&columns.axes);
                axes.fold(AxisSet::FOLDED, |set, &axis| set.union(AxisSet::of(axis)))
            }
        }
    }

    /// Whether a leaf finds the elements of a stream.
    fn takes(self, Stream { dtype, place, .. }: &Stream) -> bool {
        let walks = match self {
            Area::Line(axis) => place.is_unit_along(axis),
            Area::Tile { columns, .. } => {
                let stands = !columns.axes.iter().any(|&axis| place.uses().contains(axis));
                let unit = || columns.last().is_some_and(|axis| place.is_unit_along(axis));
                let words = matches!(dtype, DType::F32 | DType::I32);
                words && place.quotients.is_empty() && (stands || unit())
            }
        };
        walks && place.is_inside()
    }
}

/// Code in the making.
pub(super) struct Draft<'d, 'k> {
    domain: &'d Domain<'k>,
    area: Area<'d>,
    /// What a value depends on that is not the same for all points.
    moving: AxisSet,
    row: &'d [RowFold],
    pub lanes: Lanes,
    pub streams: Vec<Stream>,
    addresses: Vec<Stream>,
    reached: Vec<loops::Stream>,
    pub uniforms: Vec<ExprId>,
    vectors: FxHashMap<ExprId, Vector>,
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
            vectors: FxHashMap::default(),
        }
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

    fn store(&mut self, store: &PlacedStore) -> Option<(u16, Vector)> {
        let (buffer, dtype) = (Some(store.buffer), store.dtype);
        let stream = self.stream(Stream { buffer, dtype, place: store.place.clone() })?;
        Some((stream, self.vector(store.value)))
    }

    /// Gives `id` a vector, if it varies along the axis or is itself wanted.
    fn describe(&mut self, id: ExprId, wanted: bool) -> Option<()> {
        if self.vectors.contains_key(&id) {
            return Some(());
        }
        if self.varies(id) {
            let vector = self.varying(id)?;
            self.vectors.insert(id, vector);
        } else if wanted {
            self.vector(id);
        }
        Some(())
    }

    /// The vector of an operand.
    fn vector(&mut self, id: ExprId) -> Vector {
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
            let Area::Line(axis) = self.area else { return None };
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
                self.input(Stream { buffer, dtype, place: place.clone() })
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

    fn stream(&mut self, stream: Stream) -> Option<u16> {
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
        loops::Stream { dtype, address, offset }
    }

    /// The elements of a stream.
    fn input(&mut self, stream: Stream) -> Option<Vector> {
        let kind = ops::kind(stream.dtype);
        let stream = self.stream(stream)?;
        Some(self.lanes.add(Op::Input(kind, stream)))
    }

    fn fold(&mut self, at: usize, fold: RowFold) -> Option<Fold> {
        let dtype = self.domain.exprs.dtype(fold.value);
        let state = self.lanes.add(Op::Carry(ops::kind(dtype), at as u16));
        let next = self.merge(fold, state)?;
        Some(Fold { op: fold.op, dtype, next })
    }

    /// The state of a fold after the current element.
    fn merge(&mut self, fold: RowFold, state: Vector) -> Option<Vector> {
        let dtype = self.domain.exprs.dtype(fold.value);
        let value = self.vector(fold.value);
        ops::can_fold(fold.op, dtype)
            .then(|| ops::merge(&mut self.lanes, fold.op, dtype, state, value))
    }

    fn finish(self, axis: Axis, stores: Vec<(u16, Vector)>, folds: Vec<Fold>) -> Option<Stretch> {
        if self.addresses.len() > MAX_ADDRESSES || folds.len() > MOST_STATES {
            return None;
        }
        let uniforms = self.uniforms.len() as u16;
        let mut leaf = Loop {
            lanes: self.lanes,
            streams: self.reached,
            uniforms,
            stores,
            folds,
            unroll: 1,
            ahead: Vec::new(),
            streaming: false,
        };
        leaf.unroll = unroll(&leaf);
        let leaf = Arc::new(leaf);
        let (streams, addresses, uniforms) = (self.streams, self.addresses, self.uniforms);
        Some(Stretch { axis, leaf, streams, addresses, uniforms })
    }
}

/// Elements wait for the fold before them, and each of their operations for the one before it:
/// several at a time hide that.
fn unroll(leaf: &Loop) -> u8 {
    let computed =
        |v: &Vector| !matches!(leaf.lanes.op(*v), Op::Const(..) | Op::Uniform(..) | Op::Carry(..));
    let count = leaf.lanes.reachable(&leaf.roots()).iter().filter(|v| computed(v)).count();
    let wanted = match count {
        ..12 => 4,
        12..64 => 2,
        _ => 1,
    };
    [4, 2, 1]
        .into_iter()
        .find(|&n| n <= wanted && usize::from(n) * leaf.folds.len() <= MOST_STATES)
        .unwrap_or(1)
}
