//! Symbolic reverse mode: replaces every `grad` by the graph of the derivative.
//!
//! The rules are the operations' own ([`Operation::grad`](crate::op::Operation::grad)); here is
//! only the order in which they are applied. Operands are free of `grad` when their users are
//! reached, so gradients of gradients need nothing of their own.

use crate::kept::{drop_unread, yield_expensive};
use crate::op::{Op, Part, Site};
use crate::rebuild::Rebuild;
use crate::{Graph, Value};
use dlc_kernel::{BinaryOp, Origin, Scalar};
use rustc_hash::FxHashMap;

/// The same graph without [`Grad`](crate::op::Grad). All derivatives of one value come from one
/// reverse sweep. Scans yield what of their steps is expensive and read by the reverse. What no
/// result needs is dropped, but for sources.
pub fn differentiate(graph: &Graph) -> Graph {
    let graph = graph.prune();
    if !graph.distinct_ops().any(|op| matches!(op, Op::Grad(_))) {
        return graph;
    }
    match graph.distinct_ops().any(|op| matches!(op, Op::Scan(_))) {
        true => drop_unread(&sweep_all(&yield_expensive(&graph)).prune()),
        false => sweep_all(&graph).prune(),
    }
}

fn sweep_all(graph: &Graph) -> Graph {
    let wanted = wanted_derivatives(graph);
    let mut sweeps = Sweeps { rebuild: Rebuild::new(graph), known: FxHashMap::default() };
    for value in graph.values() {
        match graph.op(value) {
            Op::Grad(_) => {
                let y = graph.operands(value)[0];
                let new = sweeps.derivative(graph, value, &wanted[&y]);
                sweeps.rebuild.set(value, new);
            }
            _ => sweeps.rebuild.copy(graph, value),
        }
    }
    sweeps.rebuild.finish(graph)
}

/// For each differentiated value, all it is differentiated by, ascending.
fn wanted_derivatives(graph: &Graph) -> FxHashMap<Value, Vec<Value>> {
    let mut wanted: FxHashMap<Value, Vec<Value>> = FxHashMap::default();
    for value in graph.values() {
        if let Op::Grad(_) = graph.op(value) {
            let operands = graph.operands(value);
            wanted.entry(operands[0]).or_default().push(operands[1]);
        }
    }
    for xs in wanted.values_mut() {
        xs.sort();
        xs.dedup();
    }
    wanted
}

/// The graph in the making, and the derivatives found so far, by the old `y` and `x`.
struct Sweeps {
    rebuild: Rebuild,
    known: FxHashMap<(Value, Value), Option<Value>>,
}

impl Sweeps {
    /// The new value of the old `grad`; the first for a `y` also finds those by the other `xs`.
    fn derivative(&mut self, old: &Graph, grad: Value, xs: &[Value]) -> Value {
        let (y, x) = (old.operands(grad)[0], old.operands(grad)[1]);
        if !self.known.contains_key(&(y, x)) {
            self.sweep(y, xs, old.origin(grad));
        }
        let found = self.known.get(&(y, x)).copied().flatten();
        let x = self.rebuild.at(x);
        found.unwrap_or_else(|| self.rebuild.graph.splat_like(x, 0.0, old.origin(grad)))
    }

    fn sweep(&mut self, y: Value, xs: &[Value], origin: &Origin) {
        // What is younger than `y` is nothing that `y` depends on, and may not be rebuilt yet.
        let older: Vec<Value> = xs.iter().copied().filter(|&x| x <= y).collect();
        let new: Vec<Value> = older.iter().map(|&x| self.rebuild.at(x)).collect();
        let (y_new, g) = (self.rebuild.at(y), &mut self.rebuild.graph);
        let one = g.constant(Scalar::new(g.ty(y_new).dtype, 1.0), origin);
        let found = pullback(g, &[(y_new, one)], &new);
        self.known.extend(older.into_iter().map(|x| (y, x)).zip(found));
    }
}

/// What flows back to each of `xs` when cotangents flow back to some values, by pairs; `None` where
/// none of them depends on it. An `x` may be any value; what flows back to an older `x` passes
/// through it.
pub fn pullback(g: &mut Graph, seeds: &[(Value, Value)], xs: &[Value]) -> Vec<Option<Value>> {
    let count = seeds.iter().map(|(y, _)| y.0 as usize + 1).max().unwrap_or(0);
    let path = on_path(g, count, xs);
    let mut cotangents = Cotangents { of: vec![None; count], of_parts: FxHashMap::default() };
    for &(y, cotangent) in seeds {
        cotangents.add(g, y, cotangent);
    }
    for at in (0..count).rev().filter(|&at| path[at] == Path::Through) {
        let value = Value(at as u32);
        let found = cotangents.of_operands(g, value, &|v| path[v.0 as usize] != Path::Off);
        for (operand, found) in g.operands(value).into_iter().zip(found) {
            if let (Some(term), true) = (found, path[operand.0 as usize] != Path::Off) {
                debug_assert_eq!(g.ty(term), g.ty(operand), "a cotangent has its value's type");
                cotangents.add(g, operand, term);
            }
        }
    }
    xs.iter().map(|x| cotangents.of.get(x.0 as usize).copied().flatten()).collect()
}

/// What has flowed back so far.
struct Cotangents {
    of: Vec<Option<Value>>,
    /// To the parts of scans.
    of_parts: FxHashMap<Value, Vec<Option<Value>>>,
}

impl Cotangents {
    fn add(&mut self, g: &mut Graph, to: Value, term: Value) {
        let slot = &mut self.of[to.0 as usize];
        *slot = Some(sum(g, *slot, term, to));
    }

    /// What flows on to the operands of `value`: nothing, where nothing has come.
    fn of_operands(
        &mut self,
        g: &mut Graph,
        value: Value,
        wanted: &dyn Fn(Value) -> bool,
    ) -> Vec<Option<Value>> {
        let (operands, origin) = (g.operands(value), g.origin(value).clone());
        let cotangent = self.of[value.0 as usize];
        match (g.op(value).clone(), cotangent) {
            (Op::Scan(scan), whole) => {
                let mut parts = self.of_parts.remove(&value).unwrap_or_default();
                parts.resize(scan.body.results().len(), None);
                if let Some(whole) = whole {
                    parts[0] = Some(sum(g, parts[0], whole, value));
                }
                scan.pull_back(g, value, &parts, wanted)
            }
            (Op::Part(Part(k)), Some(cotangent)) if matches!(g.op(operands[0]), Op::Scan(_)) => {
                let parts = self.of_parts.entry(operands[0]).or_default();
                parts.resize(parts.len().max(k as usize + 1), None);
                parts[k as usize] = Some(sum(g, parts[k as usize], cotangent, value));
                vec![None]
            }
            (op, Some(cotangent)) => {
                let site = Site { operands: &operands, result: value, cotangent, origin: &origin };
                let found = op.rules().grad(g, &site);
                assert_eq!(found.len(), operands.len(), "a gradient rule speaks of every operand");
                found
            }
            (_, None) => vec![None; operands.len()],
        }
    }
}

/// `known + term`, for what flows back to `value`.
fn sum(g: &mut Graph, known: Option<Value>, term: Value, value: Value) -> Value {
    let origin = g.origin(value).clone();
    known.map_or(term, |known| g.binary(BinaryOp::Add, known, term, &origin))
}

/// Whether cotangents are of use at a value.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// No `x` is here or before.
    Off,
    /// It is an `x`, and none is before.
    End,
    /// It depends on an `x`.
    Through,
}

fn on_path(g: &Graph, count: usize, xs: &[Value]) -> Vec<Path> {
    let mut path = vec![Path::Off; count];
    for x in xs.iter().filter(|x| (x.0 as usize) < count) {
        path[x.0 as usize] = Path::End;
    }
    let first = xs.iter().map(|x| x.0 as usize).min().unwrap_or(count);
    for at in first..count {
        let operands = g.operands(Value(at as u32));
        if operands.iter().any(|o| path[o.0 as usize] != Path::Off) {
            path[at] = Path::Through;
        }
    }
    path
}
