//! A DAG of graph operations as scalar expressions at one point of a kernel's domain.
//!
//! Every value is evaluated *at coordinates*: affine indices over the kernel's axes. Reading a
//! buffer is a load with composed coordinates; reading an operation applies its own rule there, so
//! views cost nothing but index arithmetic.

use super::place::Place;
use crate::reads::Coords;
use dlc_graph::op::{Lowering, Points};
use dlc_graph::{Graph, Operands, Shape, Value};
use dlc_kernel::{
    Access, BinaryOp, DType, Expr, ExprId, Exprs, Guard, Index, Lookup, Scalar, Size, UnaryOp,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Builds the expressions of one kernel (or segment).
pub struct Emitter<'a> {
    graph: &'a Graph,
    /// Values that are in memory.
    buffers: &'a FxHashMap<Value, Place>,
    /// The extents of the kernel's axes.
    axes: Shape,
    /// The result of step `.0`, wherever it is read.
    folded: FxHashMap<Value, u32>,
    memo: FxHashMap<(Value, Coords), ExprId>,
    /// The shapes of the buffers that loads read.
    loaded: FxHashMap<ExprId, Shape>,
    exprs: Exprs,
}

impl<'a> Emitter<'a> {
    /// Nothing yet, over `axes`.
    pub fn new(graph: &'a Graph, buffers: &'a FxHashMap<Value, Place>, axes: Shape) -> Emitter<'a> {
        let (folded, memo, loaded) = Default::default();
        Emitter { graph, buffers, axes, folded, memo, loaded, exprs: Exprs::new() }
    }

    /// Declares `value` to be the result of step `step`.
    pub fn set_folded(&mut self, value: Value, step: u32) {
        self.folded.insert(value, step);
    }

    /// All expressions.
    pub fn finish(self) -> Exprs {
        self.exprs
    }

    /// `value` at coordinates that are inside it.
    pub fn value(&mut self, value: Value, at: &[Index]) -> ExprId {
        let dtype = self.graph.ty(value).dtype;
        if let Some(&step) = self.folded.get(&value) {
            return self.exprs.add_typed(Expr::Folded(step), dtype);
        }
        if let Some(&place) = self.buffers.get(&value) {
            let access = Access::new(at.iter().cloned());
            return self.load(place, &access, Scalar::new(dtype, 0.0), &self.graph.ty(value).shape);
        }
        let key = (value, at.iter().cloned().collect::<Coords>());
        if let Some(&known) = self.memo.get(&key) {
            return known;
        }
        let operands = self.graph.operands(value);
        let made = match self.graph.op(value).rules().lower() {
            Lowering::Each(op) => {
                let made: SmallVec<[ExprId; 3]> =
                    operands.iter().map(|&operand| self.value(operand, at)).collect();
                self.exprs.add(op.element(&made))
            }
            Lowering::Point(rule) => rule(&mut OperandPoints { emitter: self, operands }, at),
            _ => {
                panic!("{value} is evaluated at a point, but it is neither pointwise nor in memory")
            }
        };
        self.memo.insert(key, made);
        made
    }

    /// `value` read by `access`, `fill` outside.
    pub fn value_or(&mut self, value: Value, access: &Access, fill: f64) -> ExprId {
        let ty = self.graph.ty(value);
        let (fill, shape) = (Scalar::new(ty.dtype, fill), ty.shape.clone());
        if let Some(&place) = self.buffers.get(&value) {
            return self.load(place, access, fill, &shape);
        }
        let inside = self.conditions(access, &shape);
        let made = self.value(value, &access.coords);
        inside.into_iter().fold(made, |made, guard| {
            if self.is_outside(made, fill, &guard) {
                return made;
            }
            let condition = self.exprs.add(Expr::Inside(guard));
            let outside = self.exprs.add(Expr::Const(fill));
            self.exprs.add(Expr::Select(condition, made, outside))
        })
    }

    /// What must hold for `access` to be inside a tensor of that shape, beyond what is known.
    fn conditions(&self, access: &Access, shape: &[Size]) -> Vec<Guard> {
        let mut guards: Vec<Guard> = access.guards.to_vec();
        for (index, extent) in access.coords.iter().zip(shape) {
            if !index.is_inside(&self.axes, extent) {
                guards.push(Guard { index: index.clone(), extent: extent.clone() });
            }
        }
        guards.sort();
        guards.dedup();
        guards
    }

    /// Whether `expr` is known to be `fill` wherever `guard` fails, because its loads are outside
    /// there too.
    fn is_outside(&self, expr: ExprId, fill: Scalar, guard: &Guard) -> bool {
        let zero = |dtype| Scalar::new(dtype, 0.0);
        match self.exprs.get(expr) {
            Expr::Const(c) => *c == fill,
            Expr::Load { access, fill: own, .. } => {
                let shape = self.loaded.get(&expr);
                let coords = shape.into_iter().flat_map(|s| access.coords.iter().zip(s));
                let mut guards = access.guards.iter().map(|g| (&g.index, &g.extent)).chain(coords);
                *own == fill && guards.any(|(i, n)| *i == guard.index && *n == guard.extent)
            }
            Expr::Select(c, a, b) => {
                let b = self.is_outside(*b, fill, guard);
                b && (self.is_outside(*a, fill, guard)
                    || self.is_outside(*c, zero(DType::Bool), guard))
            }
            Expr::Unary(UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Tanh | UnaryOp::Erf, x)
            | Expr::Cast(_, x) => {
                fill.value() == 0.0 && self.is_outside(*x, zero(self.exprs.dtype(*x)), guard)
            }
            Expr::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Max | BinaryOp::Min, a, b) => {
                let both = self.is_outside(*a, fill, guard) && self.is_outside(*b, fill, guard);
                fill.value() == 0.0 && both
            }
            _ => false,
        }
    }

    fn load(&mut self, place: Place, access: &Access, fill: Scalar, shape: &[Size]) -> ExprId {
        let (buffer, lookups) = (place.buffer, SmallVec::new());
        let in_memory = place.shape(shape);
        let access = place.access(access, shape, &self.axes).without_doubles(&in_memory);
        let load = self.exprs.add(Expr::Load { buffer, access, lookups, fill });
        self.loaded.entry(load).or_insert_with(|| in_memory.into());
        load
    }

    fn index(&mut self, index: &Index) -> ExprId {
        let mut sum: Option<ExprId> = None;
        for &(axis, coef) in &index.terms {
            let axis = self.exprs.add(Expr::Axis(axis));
            let term = self.times(axis, coef);
            sum = Some(self.plus(sum, term));
        }
        if index.offset != Size::ZERO || sum.is_none() {
            let offset = self.size(&index.offset);
            sum = Some(self.plus(sum, offset));
        }
        let sum = sum.expect("an index has a term or an offset");
        if index.div == 1 {
            return sum;
        }
        let div = self.exprs.constant(DType::I32, index.div as f64);
        self.exprs.add(Expr::Binary(BinaryOp::Div, sum, div))
    }

    fn times(&mut self, x: ExprId, coef: i64) -> ExprId {
        if coef == 1 {
            return x;
        }
        let coef = self.exprs.constant(DType::I32, coef as f64);
        self.exprs.add(Expr::Binary(BinaryOp::Mul, x, coef))
    }

    fn plus(&mut self, sum: Option<ExprId>, term: ExprId) -> ExprId {
        match sum {
            Some(sum) => self.exprs.add(Expr::Binary(BinaryOp::Add, sum, term)),
            None => term,
        }
    }

    fn size(&mut self, size: &Size) -> ExprId {
        match size.as_const() {
            Some(n) => self.exprs.constant(DType::I32, n as f64),
            None => self.exprs.add(Expr::Extent(size.clone(), DType::I32)),
        }
    }
}

/// What the rule of one operation builds with.
struct OperandPoints<'e, 'a> {
    emitter: &'e mut Emitter<'a>,
    operands: Operands,
}

impl Points for OperandPoints<'_, '_> {
    fn exprs(&mut self) -> &mut Exprs {
        &mut self.emitter.exprs
    }

    fn axes(&self) -> &[Size] {
        &self.emitter.axes
    }

    fn shape(&self, k: usize) -> &[Size] {
        &self.emitter.graph.ty(self.operands[k]).shape
    }

    fn operand(&mut self, k: usize, at: &[Index]) -> ExprId {
        self.emitter.value(self.operands[k], at)
    }

    fn operand_or(&mut self, k: usize, access: &Access, fill: f64) -> ExprId {
        self.emitter.value_or(self.operands[k], access, fill)
    }

    fn lookup(&mut self, k: usize, at: &[Index], dim: u32, index: ExprId) -> ExprId {
        let value = self.operands[k];
        let place = *self.emitter.buffers.get(&value).expect("what is looked up is in memory");
        let shape = &self.emitter.graph.ty(value).shape;
        let access = Access::new(at.iter().cloned());
        let mut access = place.access(&access, shape, &self.emitter.axes);
        let buffer = place.buffer;
        access.coords[dim as usize] = Index::constant(0i64);
        let fill = Scalar::new(self.emitter.graph.ty(value).dtype, 0.0);
        let lookups = SmallVec::from_iter([Lookup { dim, index }]);
        self.emitter.exprs.add(Expr::Load { buffer, access, lookups, fill })
    }

    fn index(&mut self, index: &Index) -> ExprId {
        self.emitter.index(index)
    }
}
