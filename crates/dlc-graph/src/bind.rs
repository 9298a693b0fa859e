//! Giving dims their values.

use crate::op::{
    Contract, Extent, Fused, Hole, Iota, Op, Random, Reshape, Scan, ScatterAdd, Source, View,
};
use crate::rebuild::Rebuild;
use crate::{Graph, Shape, ShapeError, Type};
use dlc_kernel::{Access, Bindings, Guard, Index, Origin, Size};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An operation that has no type under the given values of dims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BindError {
    /// What is wrong.
    pub error: ShapeError,
    /// Where the operation was written.
    pub origin: Origin,
}

impl Graph {
    /// The graph with dims replaced by their values; those without stay. Operations that become
    /// equal become one.
    pub fn bind(&self, bindings: &Bindings) -> Result<Graph, BindError> {
        let mut bound = Rebuild::new(self);
        for value in self.values() {
            let origin = self.origin(value);
            let located = |error| BindError { error, origin: origin.clone() };
            let op = bind_op(self.op(value), bindings).map_err(located)?;
            let operands = bound.operands(self, value);
            let new = bound.graph.add(op, &operands, origin.clone()).map_err(located)?;
            bound.set(value, new);
        }
        Ok(bound.finish(self))
    }

    /// The names of all dims without a value.
    pub fn symbols(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for op in self.distinct_ops() {
            op.map_sizes(&mut |size| {
                if size.as_const().is_none() {
                    size.collect_symbols(&mut names);
                }
                size.clone()
            });
        }
        names
    }
}

fn bind_op(op: &Op, bindings: &Bindings) -> Result<Op, ShapeError> {
    let mut failed = None;
    let bound = op.map_sizes(&mut |size| {
        let bound = size.bind(bindings);
        if bound.as_const().is_none() {
            let mut left = BTreeSet::new();
            bound.collect_symbols(&mut left);
            if left.is_empty() {
                // Every dim has a value, yet a division has none.
                failed = bound.eval(bindings).err().map(|e| (size.clone(), e));
            }
        }
        bound
    });
    match failed {
        Some((size, error)) => {
            Err(ShapeError::new(format!("the size {size} has no value: {error}")))
        }
        None => Ok(bound),
    }
}

impl Op {
    /// The same operation with every size replaced, in the bodies of fused operations too.
    pub fn map_sizes(&self, f: &mut dyn FnMut(&Size) -> Size) -> Op {
        match self {
            Op::Source(s) => {
                let ty = Type { dtype: s.ty.dtype, shape: shape(&s.ty.shape, f) };
                Source { ty, ..s.clone() }.into()
            }
            Op::Extent(e) => Extent { size: f(&e.size), dtype: e.dtype }.into(),
            Op::Iota(i) => Iota { extent: f(&i.extent) }.into(),
            Op::Random(r) => Random { site: r.site, shape: shape(&r.shape, f) }.into(),
            Op::View(v) => {
                View { axes: shape(&v.axes, f), access: access(&v.access, f), fill: v.fill }.into()
            }
            Op::Reshape(r) => Reshape { shape: shape(&r.shape, f) }.into(),
            Op::Contract(c) => Contract {
                out: shape(&c.out, f),
                reduce: shape(&c.reduce, f),
                lhs: access(&c.lhs, f),
                rhs: access(&c.rhs, f),
            }
            .into(),
            Op::ScatterAdd(s) => ScatterAdd { extent: f(&s.extent), ..s.clone() }.into(),
            Op::Fused(fused) => {
                Fused { kind: fused.kind, body: Arc::new(body(&fused.body, f)) }.into()
            }
            Op::Scan(scan) => {
                let (steps, body) = (f(&scan.steps), Arc::new(body(&scan.body, f)));
                Scan { steps, carries: scan.carries, sequences: scan.sequences, body }.into()
            }
            Op::Hole(h) => {
                let ty = Type { dtype: h.ty.dtype, shape: shape(&h.ty.shape, f) };
                Hole { number: h.number, ty }.into()
            }
            Op::Const(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Select(_)
            | Op::Cast(_)
            | Op::StopGradient(_)
            | Op::Concat(_)
            | Op::Reduce(_)
            | Op::Gather(_)
            | Op::Overwrite(_)
            | Op::Grad(_)
            | Op::Part(_) => self.clone(),
        }
    }
}

fn shape(sizes: &[Size], f: &mut dyn FnMut(&Size) -> Size) -> Shape {
    sizes.iter().map(f).collect()
}

fn index(index: &Index, f: &mut dyn FnMut(&Size) -> Size) -> Index {
    Index { offset: f(&index.offset), ..index.clone() }
}

fn access(access: &Access, f: &mut dyn FnMut(&Size) -> Size) -> Access {
    let coords = access.coords.iter().map(|c| index(c, f)).collect();
    let guards = access.guards.iter();
    let guards =
        guards.map(|g| Guard { index: index(&g.index, f), extent: f(&g.extent) }).collect();
    Access { coords, guards }
}

/// The body of a fused operation, rebuilt.
fn body(graph: &Graph, f: &mut dyn FnMut(&Size) -> Size) -> Graph {
    let mut rebuilt = Rebuild::new(graph);
    for value in graph.values() {
        rebuilt.replace(graph, value, graph.op(value).map_sizes(f));
    }
    rebuilt.finish(graph)
}
