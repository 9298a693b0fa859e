//! Building loops, and their reverse.
//!
//! A [`Scan`] is built in the graph that it will be part of: holes stand for what differs from step
//! to step, operations on them are added like any other, and [`Graph::add_scan`] takes what depends
//! on the holes out into a body. Everything else is a loop invariant by construction.

use crate::op::{Gather, Hole, Op, Scan, Source, SourceClass};
use crate::{Graph, Operands, Role, Shape, ShapeError, Type, Value};
use dlc_kernel::{Access, BinaryOp, Index, Origin, Scalar, Size, UnaryOp};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// A carried value.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// What stands for it in a step.
    pub hole: Value,
    /// Before the first step.
    pub first: Value,
    /// After the step; of the same type.
    pub next: Value,
}

/// A loop whose step is in the graph around it.
#[derive(Clone, Debug)]
pub struct Loop {
    /// How often.
    pub steps: Size,
    /// What is carried.
    pub carries: Vec<Carried>,
    /// Holes, or other values of a step, and the sequences whose elements they stand for.
    pub sequences: Vec<(Value, Value)>,
    /// Holes, and the values that they stand for.
    pub shared: Vec<(Value, Value)>,
    /// A hole that is the number `coef * step + offset`, by which sequences may be read.
    pub index: Option<(Value, i64, Size)>,
    /// What is yielded.
    pub yields: Vec<Value>,
}

impl Graph {
    /// A new hole.
    pub fn hole(&mut self, ty: Type, origin: &Origin) -> Value {
        let number = self.len() as u32;
        self.push(Hole { number, ty }, &[], origin.clone())
    }

    /// Adds the scan of a loop; gives the histories of its carries, then what it yields.
    pub fn add_scan(&mut self, looped: &Loop, origin: &Origin) -> Result<Vec<Value>, ShapeError> {
        let mut taking = Taking::new(self, looped);
        let carries = looped.carries.iter().map(|c| c.next);
        let results: Vec<Value> = carries.chain(looped.yields.iter().copied()).collect();
        for &result in &results {
            taking.take(result, origin);
        }
        let (body, operands, sequences) = taking.finish(&results);
        let (steps, carries) = (looped.steps.clone(), looped.carries.len() as u32);
        let scan = Scan { steps, carries, sequences, body: Arc::new(body) };
        let scan = self.add(scan, &operands, origin.clone())?;
        Ok((0..results.len()).map(|k| self.part(scan, k, origin)).collect())
    }
}

/// What an operand of the scan in the making is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Input {
    Carry(usize),
    /// A sequence, by its value.
    Along(Value),
    Shared(Value),
}

/// A body in the making.
struct Taking<'g> {
    graph: &'g mut Graph,
    looped: &'g Loop,
    /// By value of the graph: whether it differs from step to step.
    varies: Vec<bool>,
    body: Graph,
    image: FxHashMap<Value, Value>,
    /// The body's sources so far; their names are given at the end.
    inputs: Vec<(Input, Value)>,
}

impl<'g> Taking<'g> {
    fn new(graph: &'g mut Graph, looped: &'g Loop) -> Taking<'g> {
        let index = looped.index.iter().map(|i| i.0);
        let bound = looped.sequences.iter().chain(&looped.shared).map(|s| s.0);
        let holes: FxHashSet<Value> =
            looped.carries.iter().map(|c| c.hole).chain(bound).chain(index).collect();
        let mut varies = vec![false; graph.len()];
        for value in graph.values() {
            let of_operands = graph.operands(value).iter().any(|v| varies[v.0 as usize]);
            varies[value.0 as usize] = of_operands || holes.contains(&value);
        }
        let (body, image, inputs) = Default::default();
        let mut taking = Taking { graph, looped, varies, body, image, inputs };
        for (k, carry) in looped.carries.iter().enumerate() {
            let source = taking.input(Input::Carry(k), taking.graph.ty(carry.hole).clone());
            taking.image.insert(carry.hole, source);
        }
        taking
    }

    /// The body's source for an input.
    fn input(&mut self, input: Input, ty: Type) -> Value {
        if let Some((_, source)) = self.inputs.iter().find(|(known, _)| *known == input) {
            return *source;
        }
        let name = format!("input {}", self.inputs.len()).into();
        let default = Scalar::new(ty.dtype, 0.0);
        let source = Source { name, class: SourceClass::Input, ty, default };
        let source = self.body.push(source, &[], None);
        self.inputs.push((input, source));
        source
    }

    /// Copies `root` and what it depends on into the body.
    fn take(&mut self, root: Value, origin: &Origin) {
        let mut open = vec![root];
        while let Some(&value) = open.last() {
            if self.image.contains_key(&value) || self.bind(value, origin) {
                open.pop();
                continue;
            }
            let operands = self.graph.operands(value);
            let missing = operands.iter().filter(|v| !self.image.contains_key(v));
            let before = open.len();
            open.extend(missing);
            if open.len() == before {
                let read: Operands = operands.iter().map(|v| self.image[v]).collect();
                let (op, at) = (self.graph.op(value).clone(), self.graph.origin(value).clone());
                let made = self.body.push(op, &read, at);
                self.image.insert(value, made);
                open.pop();
            }
        }
    }

    /// Finds the input that a value is, if it is one.
    fn bind(&mut self, value: Value, origin: &Origin) -> bool {
        let along = self.looped.sequences.iter().find(|s| s.0 == value).map(|s| s.1);
        let shared = self.looped.shared.iter().find(|s| s.0 == value).map(|s| s.1);
        let input = match (along, shared) {
            (Some(sequence), _) => Input::Along(sequence),
            (_, Some(shared)) => Input::Shared(shared),
            _ if self.is_index(value) => Input::Along(self.index_sequence(origin)),
            _ if self.varies(value) => match self.element(value) {
                Some(sequence) => Input::Along(sequence),
                None => return false,
            },
            _ if self.is_plain(value) => return false,
            _ => Input::Shared(value),
        };
        let source = self.input(input, self.graph.ty(value).clone());
        self.image.insert(value, source);
        true
    }

    /// Whether a value differs from step to step; new ones are sequences, which do not.
    fn varies(&self, value: Value) -> bool {
        self.varies.get(value.0 as usize).copied().unwrap_or(false)
    }

    /// Whether a value is made of constants alone, and free.
    fn is_plain(&self, value: Value) -> bool {
        match self.graph.op(value) {
            Op::Const(_) | Op::Extent(_) | Op::Iota(_) => true,
            Op::View(_) => self.graph.operands(value).iter().all(|&v| self.is_plain(v)),
            _ => false,
        }
    }

    fn is_index(&self, value: Value) -> bool {
        self.looped.index.as_ref().is_some_and(|i| i.0 == value)
    }

    /// The numbers that the index takes.
    fn index_sequence(&mut self, origin: &Origin) -> Value {
        let Some((_, coef, offset)) = self.looped.index.clone() else { unreachable!("it is one") };
        let extent = self.looped.steps.clone();
        let steps = self.graph.push(crate::op::Iota { extent }, &[], origin.clone());
        match (coef, &offset) {
            (1, offset) if *offset == Size::ZERO => steps,
            _ => self.graph.reverse(steps, origin),
        }
    }

    /// The sequence of which a gather by the index reads one element at each step.
    fn element(&mut self, value: Value) -> Option<Value> {
        let Op::Gather(Gather { axis, batch: 0 }) = *self.graph.op(value) else { return None };
        let operands = self.graph.operands(value);
        let (x, (coef, offset)) = (operands[0], self.affine(operands[1])?);
        let shape = &self.graph.ty(x).shape;
        let fits = self.is_inside(coef, &offset, &shape[axis as usize]);
        if self.varies(x) || !fits || !self.graph.ty(operands[1]).shape.is_empty() {
            return None;
        }
        let others = shape.iter().enumerate().filter(|(dim, _)| *dim != axis as usize);
        let axes: Shape =
            [self.looped.steps.clone()].into_iter().chain(others.map(|o| o.1.clone())).collect();
        let coord = |dim: u32| match dim {
            d if d == axis => Index::affine([(0, coef)], offset.clone()),
            d if d < axis => Index::axis(d + 1),
            d => Index::axis(d),
        };
        let access = Access::new((0..shape.len() as u32).map(coord));
        let origin = self.graph.origin(value).clone();
        Some(self.graph.view(x, axes, access, &origin))
    }

    /// Whether `coef * step + offset` is known to lie in `0..extent` at every step.
    fn is_inside(&self, coef: i64, offset: &Size, extent: &Size) -> bool {
        let steps = std::slice::from_ref(&self.looped.steps);
        let all = *extent == self.looped.steps;
        let backwards = coef == -1 && *offset == extent.clone() - Size::ONE;
        all && backwards || Index::affine([(0, coef)], offset.clone()).is_inside(steps, extent)
    }

    /// A scalar as `coef * step + offset`.
    fn affine(&self, value: Value) -> Option<(i64, Size)> {
        if let Some((hole, coef, offset)) = &self.looped.index
            && *hole == value
        {
            return Some((*coef, offset.clone()));
        }
        let operand = |k: usize| self.affine(self.graph.operands(value)[k]);
        match self.graph.op(value) {
            Op::Const(c) => Some((0, Size::from(c.0.value() as i64))),
            Op::Extent(extent) => Some((0, extent.size.clone())),
            Op::Unary(op) if op.0 == UnaryOp::Neg => {
                let (coef, offset) = operand(0)?;
                Some((-coef, Size::ZERO - offset))
            }
            Op::Binary(op) if matches!(op.0, BinaryOp::Add | BinaryOp::Sub) => {
                let (a, b) = (operand(0)?, operand(1)?);
                Some(match op.0 {
                    BinaryOp::Add => (a.0 + b.0, a.1 + b.1),
                    _ => (a.0 - b.0, a.1 - b.1),
                })
            }
            _ => None,
        }
    }

    /// The body with its results, the operands, and how many of them are sequences.
    fn finish(self, results: &[Value]) -> (Graph, Operands, u32) {
        let rank = |input: &Input| match input {
            Input::Carry(_) => 0,
            Input::Along(_) => 1,
            Input::Shared(_) => 2,
        };
        let mut order: Vec<usize> = (0..self.inputs.len()).collect();
        order.sort_by_key(|&k| (rank(&self.inputs[k].0), k));
        let mut body = Graph::new();
        let mut image: Vec<Option<Value>> = vec![None; self.body.len()];
        let (mut operands, mut sequences) = (Operands::new(), 0);
        for (position, &k) in order.iter().enumerate() {
            let (input, source) = self.inputs[k];
            operands.push(match input {
                Input::Carry(k) => self.looped.carries[k].first,
                Input::Along(value) | Input::Shared(value) => value,
            });
            sequences += u32::from(matches!(input, Input::Along(_)));
            let Op::Source(old) = self.body.op(source) else { unreachable!("inputs are sources") };
            let name = position.to_string().into();
            let new = body.push(Source { name, ..old.clone() }, &[], None);
            image[source.0 as usize] = Some(new);
        }
        for value in self.body.values() {
            if image[value.0 as usize].is_some() {
                continue;
            }
            let read = self.body.operands(value);
            let read: Operands =
                read.iter().map(|v| image[v.0 as usize].expect("it comes before")).collect();
            let new = body.copy(&self.body, value, &read);
            image[value.0 as usize] = Some(new);
        }
        for (k, result) in results.iter().enumerate() {
            let value = image[self.image[result].0 as usize].expect("results were taken");
            body.add_result(k.to_string(), value, Role::Output);
        }
        (body, operands, sequences)
    }
}

impl Scan {
    /// What flows back to the operands of the scan `at`, given what flows back to its parts. Those
    /// that are not `wanted` may be left out. What a step computed and did not leave in a part is
    /// computed again.
    pub(crate) fn pull_back(
        &self,
        g: &mut Graph,
        at: Value,
        parts: &[Option<Value>],
        wanted: &dyn Fn(Value) -> bool,
    ) -> Vec<Option<Value>> {
        let (operands, origin) = (g.operands(at), g.origin(at).clone());
        if parts.iter().all(Option::is_none) {
            return vec![None; operands.len()];
        }
        let mut back = Back { g, scan: self, origin: &origin, looped: self.backwards() };
        let holes = back.holes(at, &operands);
        let results = back.g.inline(&self.body, &holes);
        back.read_results(at, &holes, &results);
        let seeds = back.seeds(&results, parts);
        let float = |g: &Graph, v: Value| g.ty(v).dtype.is_float();
        let is_carry = |k: usize| k < self.carries as usize;
        let xs: Vec<usize> = (0..holes.len())
            .filter(|&k| float(back.g, holes[k]) && (is_carry(k) || wanted(operands[k])))
            .collect();
        let pulled =
            crate::pullback(back.g, &seeds, &xs.iter().map(|&k| holes[k]).collect::<Vec<_>>());
        back.close(&operands, parts, xs.into_iter().zip(pulled))
    }

    fn backwards(&self) -> Loop {
        let (carries, sequences, shared, yields) = Default::default();
        Loop { steps: self.steps.clone(), carries, sequences, shared, index: None, yields }
    }
}

/// The reverse of a scan in the making.
struct Back<'a> {
    g: &'a mut Graph,
    scan: &'a Scan,
    origin: &'a Origin,
    looped: Loop,
}

impl Back<'_> {
    /// What the body saw at a step of the scan `at`.
    fn holes(&mut self, at: Value, operands: &[Value]) -> Vec<Value> {
        let (carries, sequences) = (self.scan.carries as usize, self.scan.sequences as usize);
        let mut holes = Vec::with_capacity(operands.len());
        for (k, &operand) in operands.iter().enumerate() {
            let sequence = match k {
                k if k < carries => {
                    let history = self.g.part(at, k, self.origin);
                    let steps = self.scan.steps.clone();
                    Some(self.g.slice(history, 0, Size::ZERO, steps, self.origin))
                }
                k if k < carries + sequences => Some(operand),
                _ => None,
            };
            holes.push(match sequence {
                Some(sequence) => self.along(sequence),
                None => {
                    let hole = self.g.hole(self.g.ty(operand).clone(), self.origin);
                    self.looped.shared.push((hole, operand));
                    hole
                }
            });
        }
        holes
    }

    /// What the scan `at` has left of the results of its steps is read, not computed again.
    fn read_results(&mut self, at: Value, holes: &[Value], results: &[Value]) {
        for (k, &result) in results.iter().enumerate().filter(|(_, v)| !holes.contains(v)) {
            let part = self.g.part(at, k, self.origin);
            let steps = self.scan.steps.clone();
            let all = match k < self.scan.carries as usize {
                true => self.g.slice(part, 0, Size::ONE, steps, self.origin),
                false => part,
            };
            let backwards = self.g.reverse(all, self.origin);
            self.looped.sequences.push((result, backwards));
        }
    }

    /// A hole for the elements of a sequence, the last one first.
    fn along(&mut self, sequence: Value) -> Value {
        let ty = self.g.ty(sequence);
        let one = Type::new(ty.dtype, ty.shape[1..].iter().cloned());
        let hole = self.g.hole(one, self.origin);
        let backwards = self.g.reverse(sequence, self.origin);
        self.looped.sequences.push((hole, backwards));
        hole
    }

    /// What flows back to the results of a step: what later steps have left, and what comes from
    /// outside. Declares the carries.
    fn seeds(&mut self, results: &[Value], parts: &[Option<Value>]) -> Vec<(Value, Value)> {
        let mut seeds = Vec::new();
        for (k, (&result, part)) in results.iter().zip(parts).enumerate() {
            if !self.g.ty(result).dtype.is_float() {
                continue;
            }
            if k >= self.scan.carries as usize {
                let hole = part.map(|part| self.along(part));
                seeds.extend(hole.map(|hole| (result, hole)));
                continue;
            }
            let hole = self.g.hole(self.g.ty(result).clone(), self.origin);
            let first = match part {
                Some(part) => self.g.element(*part, self.scan.steps.clone(), self.origin),
                None => self.g.splat_like(result, 0.0, self.origin),
            };
            self.looped.carries.push(Carried { hole, first, next: hole });
            seeds.push((result, hole));
        }
        seeds
    }

    /// Closes the loop over what has been pulled back to some operands; gives what flows back to
    /// each.
    fn close(
        mut self,
        operands: &[Value],
        parts: &[Option<Value>],
        pulled: impl Iterator<Item = (usize, Option<Value>)>,
    ) -> Vec<Option<Value>> {
        let (carries, mut carry) = (self.scan.carries as usize, 0);
        let mut yielded = Vec::new();
        for (k, pulled) in pulled {
            if k >= carries {
                yielded.extend(pulled.map(|value| (k, value)));
                continue;
            }
            let hole = self.looped.carries[carry].hole;
            let next = pulled.unwrap_or_else(|| self.g.splat_like(hole, 0.0, self.origin));
            self.looped.carries[carry].next = match parts[k] {
                Some(part) => {
                    let steps = self.scan.steps.clone();
                    let earlier = self.g.slice(part, 0, Size::ZERO, steps, self.origin);
                    let outside = self.along(earlier);
                    self.g.binary(BinaryOp::Add, next, outside, self.origin)
                }
                None => next,
            };
            carry += 1;
        }
        self.looped.yields = yielded.iter().map(|y| y.1).collect();
        let made = self.g.add_scan(&self.looped, self.origin);
        let made = made.unwrap_or_else(|e| panic!("the reverse of a scan is ill-typed: {e}"));
        let mut found = vec![None; operands.len()];
        let is_float = |&k: &usize| self.g.ty(operands[k]).dtype.is_float();
        let floats: Vec<usize> = (0..carries).filter(is_float).collect();
        for (k, &history) in floats.into_iter().zip(&made) {
            found[k] = Some(self.g.element(history, self.scan.steps.clone(), self.origin));
        }
        for (&(k, _), &all) in yielded.iter().zip(&made[self.looped.carries.len()..]) {
            let along = k < carries + self.scan.sequences as usize;
            found[k] = Some(match along {
                true => self.g.reverse(all, self.origin),
                false => self.g.sum(all, &[0], self.origin),
            });
        }
        found
    }
}
