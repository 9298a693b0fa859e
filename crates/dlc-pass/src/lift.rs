//! The operations of a loop's body for all steps at once: every value that differs from step to step
//! gets the steps as its dim 0.
//!
//! Lowering lifts whole bodies, to give kernels the step as an axis; fission lifts the part of a body
//! that needs no order of steps, and puts it outside the loop.

use crate::class::{Class, class};
use crate::reads::{Mode, Read, reads};
use dlc_graph::op::{
    Concat, Contract, Fused, Gather, Hole, Op, Overwrite, Part, Reduce, Reshape, Scan, ScatterAdd,
    Source, SourceClass, View,
};
use dlc_graph::{Graph, Operands, Shape, Type, Value};
use dlc_kernel::{Access, Axis, Guard, Index, Origin, Scalar, Size};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// A value outside the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifted {
    /// The value.
    pub value: Value,
    /// Whether its dim 0 is the step; else it is the same at every step.
    pub stacked: bool,
}

impl Lifted {
    /// The same at every step.
    pub fn same(value: Value) -> Lifted {
        Lifted { value, stacked: false }
    }

    /// With the steps as dim 0.
    pub fn stacked(value: Value) -> Lifted {
        Lifted { value, stacked: true }
    }
}

/// Lifts operations over a number of steps.
#[derive(Clone, Copy)]
pub struct Lift<'a> {
    /// How many.
    pub steps: &'a Size,
    /// Whether what is the same at every step is computed at every step all the same, unless it is
    /// free.
    pub everything: bool,
}

impl Lift<'_> {
    /// The operation of `value` of `body`, on lifted operands.
    pub fn node(
        self,
        to: &mut Graph,
        (body, value): (&Graph, Value),
        operands: &[Lifted],
    ) -> Lifted {
        let (op, origin) = (body.op(value), body.origin(value));
        let free = matches!(class(body, value), Class::Free | Class::Source);
        let varies = operands.iter().any(|o| o.stacked);
        if !varies && (free || !self.everything) {
            let operands: Operands = operands.iter().map(|o| o.value).collect();
            return Lifted::same(to.copy(body, value, &operands));
        }
        Lifted::stacked(self.stacked_node(to, op, operands, origin))
    }

    /// A lifted value with the steps as dim 0.
    pub fn stack(self, to: &mut Graph, lifted: Lifted, origin: &Origin) -> Value {
        if lifted.stacked {
            return lifted.value;
        }
        let shape = to.ty(lifted.value).shape.clone();
        let access = Access::new((0..shape.len() as u32).map(|dim| Index::axis(dim + 1)));
        let axes = self.shape(&shape);
        to.view(lifted.value, axes, access, origin)
    }

    /// With the steps before.
    fn shape(self, shape: &[Size]) -> Shape {
        std::iter::once(self.steps.clone()).chain(shape.iter().cloned()).collect()
    }

    fn stacked_node(self, to: &mut Graph, op: &Op, operands: &[Lifted], origin: &Origin) -> Value {
        let lifted: Op = match op {
            Op::View(view) if operands[0].stacked => View {
                axes: self.shape(&view.axes),
                access: read(&view.access, operands[0]),
                fill: view.fill,
            }
            .into(),
            Op::Contract(contract) => {
                let [lhs, rhs] = [operands[0], operands[1]];
                let contract = Contract {
                    out: self.shape(&contract.out),
                    reduce: contract.reduce.clone(),
                    lhs: read(&contract.lhs, lhs),
                    rhs: read(&contract.rhs, rhs),
                };
                return to.push(contract, &[lhs.value, rhs.value], origin.clone());
            }
            Op::Gather(gather) => return self.gather(to, gather, operands, origin),
            Op::Fused(fused) => return self.fused(to, fused, operands, origin),
            Op::Scan(scan) => return self.scan(to, scan, operands, origin),
            Op::Part(Part(k)) => return part(to, operands[0].value, *k, origin),
            Op::Reshape(reshape) => Reshape { shape: self.shape(&reshape.shape) }.into(),
            Op::Concat(concat) => Concat { axis: concat.axis + 1 }.into(),
            Op::Reduce(reduce) => {
                Reduce { op: reduce.op, axes: reduce.axes.iter().map(|a| a + 1).collect() }.into()
            }
            Op::ScatterAdd(scatter) => ScatterAdd {
                axis: scatter.axis + 1,
                batch: scatter.batch + 1,
                extent: scatter.extent.clone(),
            }
            .into(),
            Op::Overwrite(overwrite) => {
                let (axis, batch) = (overwrite.axis + 1, overwrite.batch + 1);
                Overwrite { axis, batch, ..overwrite.clone() }.into()
            }
            Op::Unary(_) | Op::Binary(_) | Op::Select(_) | Op::Cast(_) | Op::StopGradient(_) => {
                op.clone()
            }
            _ => unreachable!("`{}` does not differ from step to step", op.rules().text().name),
        };
        let operands: Operands = operands.iter().map(|&o| self.stack(to, o, origin)).collect();
        to.push(lifted, &operands, origin.clone())
    }

    fn gather(
        self,
        to: &mut Graph,
        gather: &Gather,
        operands: &[Lifted],
        origin: &Origin,
    ) -> Value {
        let [x, ids] = [operands[0], operands[1]];
        if x.stacked || gather.batch > 0 {
            let both = [x, ids].map(|o| self.stack(to, o, origin));
            let gather = Gather { axis: gather.axis + 1, batch: gather.batch + 1 };
            return to.push(gather, &both, origin.clone());
        }
        // The steps are dims of the ids, and so where the ids' dims go.
        let ids = self.stack(to, ids, origin);
        let found = to.push(gather.clone(), &[x.value, ids], origin.clone());
        let order = moved_first(to.ty(found).rank(), gather.axis);
        to.transpose(found, &order, origin)
    }

    fn fused(self, to: &mut Graph, fused: &Fused, operands: &[Lifted], origin: &Origin) -> Value {
        let lift = Lift { everything: true, ..self };
        let found = found_by_step(&fused.body);
        let ready = |(k, &operand): (usize, &Lifted)| match found.contains(&k) {
            true => Lifted::stacked(self.stack(to, operand, origin)),
            false => operand,
        };
        let operands: Vec<Lifted> = operands.iter().enumerate().map(ready).collect();
        let body = lift.body(&fused.body, |k| operands[k].stacked);
        let operands: Operands = operands.iter().map(|o| o.value).collect();
        let (body, operands) = take_in_views(to, &body, &operands);
        to.push(Fused { kind: fused.kind, body: Arc::new(body) }, &operands, origin.clone())
    }

    /// A loop in the loop, for all steps of the outer one at once.
    fn scan(self, to: &mut Graph, scan: &Scan, operands: &[Lifted], origin: &Origin) -> Value {
        let carries = scan.carries as usize;
        let along = carries..carries + scan.sequences as usize;
        let mut given = Operands::new();
        for (k, &operand) in operands.iter().enumerate() {
            given.push(match operand.stacked {
                false if k < carries => self.stack(to, operand, origin),
                true if along.contains(&k) => {
                    let order = moved_first(to.ty(operand.value).rank(), 1);
                    to.transpose(operand.value, &order, origin)
                }
                _ => operand.value,
            });
        }
        let lift = Lift { everything: true, ..self };
        let body = lift.body(&scan.body, |k| k < carries || operands[k].stacked);
        to.push(Scan { body: Arc::new(body), ..scan.clone() }, &given, origin.clone())
    }

    /// A body whose inputs are `stacked` or not, and whose results all are.
    fn body(self, body: &Graph, stacked: impl Fn(usize) -> bool) -> Graph {
        let mut to = Graph::new();
        let mut image: Vec<Lifted> = Vec::with_capacity(body.len());
        for value in body.values() {
            let lifted = match body.op(value) {
                Op::Source(source) => {
                    let k = source.position();
                    let own = &source.ty;
                    let own = match stacked(k) {
                        true => Type::new(own.dtype, self.shape(&own.shape)),
                        false => own.clone(),
                    };
                    let source = Source { ty: own, ..source.clone() };
                    Lifted { value: to.push(source, &[], None), stacked: stacked(k) }
                }
                _ => {
                    let read: Vec<Lifted> =
                        body.operands(value).iter().map(|v| image[v.0 as usize]).collect();
                    self.node(&mut to, (body, value), &read)
                }
            };
            image.push(lifted);
        }
        for result in body.results() {
            let origin = body.origin(result.value).clone();
            let value = self.stack(&mut to, image[result.value.0 as usize], &origin);
            to.add_result(result.name.clone(), value, result.role);
        }
        to
    }
}

/// The body with what is free of its operands in it, and the operands then: elements of sequences are
/// read where they lie. What is looked up stays in memory.
fn take_in_views(graph: &Graph, body: &Graph, operands: &[Value]) -> (Graph, Operands) {
    let mut taken = Graph::new();
    let mut given = Operands::new();
    // Sources come first, in the order of what they stand for.
    let looked_up = looked_up(body);
    let chain = |(k, &value): (usize, &Value)| match looked_up.contains(&k) {
        true => vec![value],
        false => free_chain(graph, value),
    };
    let chains: Vec<Vec<Value>> = operands.iter().enumerate().map(chain).collect();
    let mut sources: FxHashMap<Value, Value> = FxHashMap::default();
    for (k, chain) in chains.iter().enumerate() {
        let base = chain[chain.len() - 1];
        let is_made = graph.operands(base).is_empty() && class(graph, base) == Class::Free;
        if looked_up.contains(&k) || !is_made {
            sources.entry(base).or_insert_with(|| {
                let (name, ty) = (given.len().to_string().into(), graph.ty(base).clone());
                given.push(base);
                let default = Scalar::new(ty.dtype, 0.0);
                taken.push(Source { name, class: SourceClass::Input, ty, default }, &[], None)
            });
        }
    }
    let mut read = Vec::with_capacity(operands.len());
    for chain in &chains {
        let (base, views) = chain.split_last().expect("a chain has a base");
        let known = sources.get(base).copied();
        let made = known.unwrap_or_else(|| taken.push(graph.op(*base).clone(), &[], None));
        let mut view = |x, v: &Value| taken.copy(graph, *v, &[x]);
        read.push(views.iter().rev().fold(made, &mut view));
    }
    let results = taken.inline(body, &read);
    for (result, value) in body.results().iter().zip(results) {
        taken.add_result(result.name.clone(), value, result.role);
    }
    (taken, given)
}

/// The positions of the operands of a fused body in which each step finds something of its own: they
/// have the steps already when they are looked up.
fn found_by_step(body: &Graph) -> FxHashSet<usize> {
    let found = |value: Value| {
        let operand = match body.op(value) {
            Op::Overwrite(_) => body.operands(value)[2],
            Op::Gather(gather) if gather.batch > 0 => body.operands(value)[0],
            _ => return None,
        };
        match body.op(operand) {
            Op::Source(source) => Some(source.position()),
            _ => None,
        }
    };
    body.values().filter_map(found).collect()
}

/// The positions of the operands that a fused body looks up.
fn looked_up(body: &Graph) -> FxHashSet<usize> {
    let all = body.values().flat_map(|value| reads(body, value));
    let looked_up = all.filter(|read| read.mode == Mode::Lookup);
    let position = |read: Read| match body.op(read.value) {
        Op::Source(source) => Some(source.position()),
        _ => None,
    };
    looked_up.filter_map(position).collect()
}

/// The views that end in `value`, the last one first, and what they view.
fn free_chain(graph: &Graph, value: Value) -> Vec<Value> {
    let mut chain = vec![value];
    while let Op::View(_) = graph.op(chain[chain.len() - 1]) {
        chain.push(graph.operands(chain[chain.len() - 1])[0]);
    }
    chain
}

/// What stands for a place in memory: as a hole, with the steps before its dims.
pub fn lift_hole(to: &mut Graph, hole: &Hole, steps: &Size, origin: &Origin) -> Value {
    let shape = std::iter::once(steps.clone()).chain(hole.ty.shape.iter().cloned());
    to.hole(Type::new(hole.ty.dtype, shape), origin)
}

/// A part of a lifted operation; what inner steps made has the outer ones second.
fn part(to: &mut Graph, of: Value, k: u32, origin: &Origin) -> Value {
    let part = to.part(of, k as usize, origin);
    if !matches!(to.op(of), Op::Scan(_)) {
        return part;
    }
    let order = moved_first(to.ty(part).rank(), 1);
    to.transpose(part, &order, origin)
}

/// The order of dims in which dim `axis` comes first.
fn moved_first(rank: usize, axis: u32) -> Vec<u32> {
    std::iter::once(axis).chain((0..rank as u32).filter(|&d| d != axis)).collect()
}

/// A read over axes that now follow the step, of an operand that has it or not.
fn read(access: &Access, operand: Lifted) -> Access {
    let later = |index: &Index| index.renumber(&|a| Axis(a.0 + 1));
    let step = operand.stacked.then(|| Index::axis(0));
    let guard = |g: &Guard| Guard { index: later(&g.index), extent: g.extent.clone() };
    Access {
        coords: step.into_iter().chain(access.coords.iter().map(later)).collect(),
        guards: access.guards.iter().map(guard).collect(),
    }
}
