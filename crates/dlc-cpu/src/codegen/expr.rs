//! Expressions to values, at one point or at four consecutive points along an axis.
//!
//! An [`Evaluator`] knows the axes' current values and remembers what it has computed. A node that
//! does not depend on the lane axis is *uniform*: one scalar, whatever the lanes. All others are
//! vectors. Scalars are `F32`, `I32` (also for `U8`, zero-extended) or `I8` (for `Bool`, 0 or 1);
//! vectors are `F32X4` or `I32X4`, where a `Bool` is all ones or all zeros.
//!
//! Values are forgotten when the loop they belong to ends: bracket every loop body with
//! [`Evaluator::enter`] and [`Evaluator::leave`], and compute what is invariant before it with
//! [`Evaluator::hoist`].

use super::{Emitter, load, ops, random};
use crate::schedule::domain::{AxisSet, Domain, Linear};
use cranelift_codegen::ir::types::{I8, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use dlc_kernel::{Axis, DType, Expr, ExprId};

/// The lanes of a vector: points along an axis, starting at the axis' current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The axis.
    pub axis: Axis,
    /// How many of the four points exist, 1 to 4. The values of the others are of no consequence,
    /// but reading them must be harmless.
    pub active: u8,
    /// A number that divides the axis' value at lane 0; 1 if none is known.
    pub multiple_of: i64,
}

/// The value of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Val {
    /// The same at all lanes: a scalar.
    Uniform(Value),
    /// One lane for each point.
    Varying(Value),
}

/// Writes the values of a [`Domain`]'s expressions.
pub struct Evaluator<'d> {
    /// What is evaluated.
    pub domain: &'d Domain<'d>,
    axes: Vec<Option<Value>>,
    lanes: Option<Lanes>,
    values: Vec<Option<Val>>,
    splats: Vec<Option<Value>>,
    /// What was computed, in order: the expression, and whether it was its splat.
    log: Vec<Computed>,
    frames: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Computed {
    Value(ExprId),
    Splat(ExprId),
}

impl<'d> Evaluator<'d> {
    /// An evaluator that knows no axis yet.
    pub fn new(domain: &'d Domain<'d>) -> Evaluator<'d> {
        let n = domain.exprs.len();
        Evaluator {
            domain,
            axes: vec![None; domain.extents.len()],
            lanes: None,
            values: vec![None; n],
            splats: vec![None; n],
            log: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Enters a loop body.
    pub fn enter(&mut self) {
        self.frames.push(self.log.len());
    }

    /// Leaves a loop body: forgets everything that was computed since [`Evaluator::enter`].
    pub fn leave(&mut self) {
        let start = self.frames.pop().expect("leave follows enter");
        for computed in self.log.drain(start..) {
            match computed {
                Computed::Value(id) => self.values[id.0 as usize] = None,
                Computed::Splat(id) => self.splats[id.0 as usize] = None,
            }
        }
    }

    /// Sets the current value (`I64`) of an axis; with lanes along it, that of lane 0.
    pub fn set_axis(&mut self, axis: Axis, value: Value) {
        self.axes[axis.0 as usize] = Some(value);
    }

    /// The current value of an axis.
    ///
    /// # Panics
    /// If it was not set.
    pub fn axis(&self, axis: Axis) -> Value {
        self.axes[axis.0 as usize].unwrap_or_else(|| panic!("axis {} has no value", axis.0))
    }

    /// Chooses the lane axis. Only with nothing computed that depends on it.
    pub fn set_lanes(&mut self, lanes: Option<Lanes>) {
        self.lanes = lanes;
    }

    /// The lane axis.
    pub fn lanes(&self) -> Option<Lanes> {
        self.lanes
    }

    /// Whether `set` contains the lane axis.
    pub fn varies(&self, set: AxisSet) -> bool {
        self.lanes.is_some_and(|l| set.contains(l.axis))
    }

    /// Whether the value of `id` differs between lanes.
    pub fn id_varies(&self, id: ExprId) -> bool {
        self.varies(self.domain.uses[id.0 as usize])
    }

    /// Whether the lanes hold the values `4k, 4k + 1, 4k + 2, 4k + 3` of an affine node.
    pub(super) fn is_block(&self, id: ExprId) -> bool {
        let (Some(lanes), Some(linear)) = (self.lanes, &self.domain.affine[id.0 as usize]) else {
            return false;
        };
        let others = linear.terms.iter().filter(|t| t.0 != lanes.axis);
        linear.coef(lanes.axis) == 1
            && lanes.multiple_of % 4 == 0
            && linear.offset % 4 == 0
            && others.into_iter().all(|t| t.1 % 4 == 0)
    }

    /// Gives a node its value, such as a fold's result.
    pub fn define(&mut self, id: ExprId, value: Val) {
        self.values[id.0 as usize] = Some(value);
        self.log.push(Computed::Value(id));
    }

    /// The value of `id`.
    pub fn value(&mut self, e: &mut Emitter, id: ExprId) -> Val {
        if let Some(value) = self.values[id.0 as usize] {
            return value;
        }
        for id in self.missing(&[id]) {
            let value = self.compute(e, id);
            self.define(id, value);
        }
        self.known(id)
    }

    /// The value of a node that does not depend on the lanes.
    ///
    /// # Panics
    /// If it does.
    pub fn scalar(&mut self, e: &mut Emitter, id: ExprId) -> Value {
        match self.value(e, id) {
            Val::Uniform(value) => value,
            Val::Varying(_) => panic!("e{} differs between lanes", id.0),
        }
    }

    /// The value of a node as a vector.
    pub fn vector(&mut self, e: &mut Emitter, id: ExprId) -> Value {
        self.value(e, id);
        self.known_vector(e, id)
    }

    /// Computes everything below `roots` that depends on `known` axes only, so that the loops
    /// entered next do not.
    pub fn hoist(&mut self, e: &mut Emitter, roots: &[ExprId], known: AxisSet) {
        let uses = &self.domain.uses;
        let ready = |id: &ExprId| uses[id.0 as usize].within(known);
        let reachable = self.domain.reachable(roots);
        let invariant: Vec<ExprId> = reachable
            .iter()
            .filter(|id| !ready(id))
            .flat_map(|&id| self.domain.exprs.get(id).operands())
            .chain(roots.iter().copied())
            .filter(|id| ready(id) && !matches!(self.domain.exprs.get(*id), Expr::Const(_)))
            .collect();
        for id in invariant {
            if self.domain.affine[id.0 as usize].is_none() {
                self.value(e, id);
                self.splat_if_lanes(e, id);
            }
        }
    }

    fn splat_if_lanes(&mut self, e: &mut Emitter, id: ExprId) {
        if self.lanes.is_some() {
            self.known_vector(e, id);
        }
    }

    /// A computed value.
    pub(super) fn known(&self, id: ExprId) -> Val {
        self.values[id.0 as usize].expect("operands are computed before users")
    }

    /// A computed value as a vector.
    pub(super) fn known_vector(&mut self, e: &mut Emitter, id: ExprId) -> Value {
        let scalar = match self.known(id) {
            Val::Varying(value) => return value,
            Val::Uniform(value) => value,
        };
        if let Some(splat) = self.splats[id.0 as usize] {
            return splat;
        }
        let splat = splat(e, scalar);
        self.splats[id.0 as usize] = Some(splat);
        self.log.push(Computed::Splat(id));
        splat
    }

    /// What must be computed for `roots`, operands first.
    fn missing(&self, roots: &[ExprId]) -> Vec<ExprId> {
        let mut open = roots.to_vec();
        let mut found = rustc_hash::FxHashSet::default();
        while let Some(id) = open.pop() {
            if self.values[id.0 as usize].is_none() && found.insert(id) {
                let is_affine = self.domain.affine[id.0 as usize].is_some();
                if !is_affine {
                    open.extend(self.domain.exprs.get(id).operands());
                }
            }
        }
        let mut missing: Vec<ExprId> = found.into_iter().collect();
        missing.sort_unstable();
        missing
    }

    fn compute(&mut self, e: &mut Emitter, id: ExprId) -> Val {
        let domain = self.domain;
        if let Some(linear) = &domain.affine[id.0 as usize] {
            return self.affine(e, linear);
        }
        match domain.exprs.get(id) {
            Expr::Load { buffer, fill, .. } => load::load(self, e, id, *buffer, *fill),
            Expr::Inside(_) => load::inside(self, e, id),
            Expr::Random { site, seed, step, element } => {
                random::uniform(self, e, *site, [*seed, *step], *element)
            }
            Expr::Folded(step) => panic!("fold {step} is used before it is computed"),
            _ => ops::operation(self, e, id),
        }
    }

    /// An affine value, as `I32`.
    pub(super) fn affine(&self, e: &mut Emitter, linear: &Linear) -> Val {
        let value = self.linear(e, linear);
        let value = e.b.ins().ireduce(I32, value);
        let Some(lanes) = self.lanes.filter(|l| linear.coef(l.axis) != 0) else {
            return Val::Uniform(value);
        };
        let coef = linear.coef(lanes.axis) as i32;
        let steps = [0, 1, 2, 3].map(|lane: i32| lane.wrapping_mul(coef) as u32);
        let steps = e.lanes(steps, I32X4);
        let first = e.splat(value);
        Val::Varying(e.b.ins().iadd(first, steps))
    }

    /// The value (`I64`) of a linear form at lane 0.
    pub fn linear(&self, e: &mut Emitter, linear: &Linear) -> Value {
        let mut sum = (linear.offset != 0 || linear.terms.is_empty()).then(|| e.int(linear.offset));
        for &(axis, coef) in &linear.terms {
            let value = self.axis(axis);
            sum = Some(match sum {
                None if coef == 1 => value,
                None => e.b.ins().imul_imm_s(value, coef),
                Some(sum) => e.add_scaled(sum, value, coef),
            });
        }
        sum.expect("there is an offset or a term")
    }

    /// The type of a node.
    pub(super) fn dtype(&self, id: ExprId) -> DType {
        self.domain.exprs.dtype(id)
    }
}

/// Four copies of a scalar; a `Bool` becomes a mask.
pub(super) fn splat(e: &mut Emitter, scalar: Value) -> Value {
    if e.b.func.dfg.value_type(scalar) != I8 {
        return e.splat(scalar);
    }
    let mask = e.b.ins().bmask(I32, scalar);
    e.splat(mask)
}
